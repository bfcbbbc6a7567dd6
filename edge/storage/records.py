"""Kinds of records in journal, outboxes and dead letters, and their payloads.

kind   in        stream, first, count         payload
SCHEMA any       number, 0, 0                 MessagePack of Schema.to_dict(): what the number means from here on
BATCH  journal,  number, first sequence, rows columns (docs/format/batch.md)
       outbox
TICK   journal   0, received_ns, 0            empty: the receive clock stood at received_ns
CLOCK  journal   0, 0, 0                      MessagePack [delta_ns]: the receive clock was set; with a second element true: it went on while nobody looked
SKIP   journal   0, call, 0                   MessagePack [rule name, its identity]: this call trapped, replay skips it; with a third element "share":
                                              it found no CPU and no room to wait
REPEAT journal   number, n, 0               empty: n events came that the stream had taken before
DEAD   dead      number, journal position, n  MessagePack of the dead letter: see letter()
FATE   dead      0, 0, 0                      MessagePack of what became of letters before it: see edge/fates.py
GAP    outbox    number, first sequence, n    these rows never come: evicted (MessagePack: they stood before this position), or numbers left out (empty);
                                              [position]: it stands for a gap that was evicted itself
"""

import msgpack

SCHEMA, BATCH, TICK, CLOCK, SKIP, DEAD, GAP, FATE, REPEAT = 1, 2, 3, 4, 5, 6, 7, 8, 9
JUMP = 1 << 30                       # of sequences, where what comes may not be what was sent; fits a record's count

LETTER_BYTES_MAX = 64 << 10          # of a dead event's payload; what is longer is cut, and its size kept


def letter(reason, received_ns, *, topic=None, payload=None, rule=None, module=None, backtrace=None, columns=None, withheld=None) -> bytes:
    """A dead letter's payload: reason and receive time always, and what there is of the rest.

    An event has topic and payload, or withheld, the size of a payload that a mask keeps out; a rule's input has rule, module, backtrace and columns (a whole batch, as in the journal).
    """
    data = {"reason": reason, "received_ns": received_ns}
    if payload is not None and len(payload) > LETTER_BYTES_MAX:
        data["size"] = len(payload)
        payload = payload[:LETTER_BYTES_MAX]
    for name, value in (("topic", topic), ("payload", payload), ("rule", rule), ("module", module), ("backtrace", backtrace), ("columns", columns), ("withheld", withheld)):
        if value is not None:
            data[name] = value
    return msgpack.packb(data)


def read_letter(payload) -> dict:
    """The dead letter of a record. Raises ValueError (msgpack's) when it is none."""
    return msgpack.unpackb(payload)


def between(log, start, stop=None):
    """A log's records of positions start to stop (None: its head), one by one; what cannot be read is passed over. Raises DiskError."""
    while start < (log.head if stop is None else stop) and (found := log.read(start)):
        for record in found:
            if stop is not None and record.position >= stop:
                return
            yield record
        start = found[-1].position + 1


def events_of(log, ranges, dropped=False) -> list:
    """(kind, stream, first, count) of a log's events in ranges of positions, an end of None its head: those in files, neighbours merged, and those that wait to be written.
    dropped: those that may leave, too. Raises DiskError."""
    durable = log.durable
    filed = [[start, durable if end is None else min(end, durable)] for start, end in ranges if start < durable]
    waiting = [(r.kind, r.stream, r.first, r.count) for start, end in ranges for r in between(log, max(start, durable), end) if r.kind in (BATCH, GAP)]
    return log.events(filed, dropped=dropped) + waiting
