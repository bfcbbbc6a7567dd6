"""Fates of dead letters: retried or dropped. They stand in the dead log behind the letters, which stay as they are.

A retry puts an event on its way again: decoded by today's contract, journaled as a new event of its stream, received now. It happens once or not at all,
whatever is cut off:

    1. dead log: "retrying", with what the journal is going to hold (stream, first sequence, rows, CRC of the columns); synced
    2. journal: the batch; synced
    3. dead log: "retried"; synced before the next checkpoint

A start that finds 1 without 3 looks whether the journal has that very batch, and notes "retried" or "undone" before anything else is written there.
The ledger: the event leaves its stream's dead letters and is stored instead, so `in` stays what the devices have sent.
"""

from contextlib import suppress

import msgpack

from edge.codec.batches import encode_columns
from edge.columns._batch import Batch
from edge.errors import DiskError
from edge.mqtt._intake import Intake, Topics
from edge.storage._crc32c import crc32c
from edge.storage.records import BATCH, FATE, between

RETRYING, RETRIED, UNDONE, DROPPED = "retrying", "retried", "undone", "dropped"
FATES = (RETRYING, RETRIED, UNDONE, DROPPED)
TOPIC_BYTES_MAX = 65536
ARENA_BYTES = 1 << 17                # one event at a time: a dead letter's payload and topic


def fate(record) -> dict:
    """What a FATE record says: {"do", "letters", ...}. Raises DiskError."""
    try:
        data = msgpack.unpackb(record.payload)
        sound = data["do"] in FATES and all(isinstance(n, int) for n in data["letters"])
        if sound and data["do"] == RETRYING:
            sound = all(isinstance(data[name], int) for name in ("stream", "first", "count", "crc", "journal")) and \
                all(isinstance(name, str) and isinstance(n, int) for name, n in data["from"])
    except (ValueError, KeyError, TypeError, msgpack.UnpackException):
        sound = False
    if not sound:
        raise DiskError(f"what became of dead letters (position {record.position}) cannot be decoded")
    return data


def learn(known, data):
    """Take over what a record says into `known`: letter -> (state, record's position or data)."""
    for number in data["letters"]:
        if data["do"] == UNDONE:
            known.pop(number, None)
        else:
            known[number] = data["do"]


def drop(pipeline, letters, at_ns, who):
    """Note that letters are dropped. Raises DiskError; whether it is noted shows at the next look."""
    _note(pipeline, {"do": DROPPED, "letters": letters, "at": at_ns, "who": who})
    pipeline.dead.sync()


def retry(pipeline, letters, received_ns, clock, who):
    """Put events on their way again. letters: [(number, stream whose dead letter it is or "", topic, payload, whether it was retried before)].

    Returns (stored, retried, refused): as Pipeline.store does, the letters' numbers, and [(number, why)] of those that are left as they are. Run `stored`
    after sync(), which also concludes. Raises DiskError: then nothing was retried.
    """
    intake = Intake(Topics(16, TOPIC_BYTES_MAX), 1, ARENA_BYTES)
    batches, refused = {}, []
    for number, name, topic, payload, again in letters:
        try:
            position, why = _decode(pipeline, intake, topic, payload, batches, received_ns, clock)
        except MemoryError:
            position, why = None, "no memory"
        if position is None:
            refused.append((number, why))
        else:
            batches[position][1].append((number, name, again))
    made = [(pipeline.inputs[position], batch, taken) for position, (batch, taken) in sorted(batches.items()) if taken]
    stored = [(stream, batch, _number(stream, batch)) for stream, batch, _ in made]
    intents = [_intent(pipeline, *s, taken, received_ns, who) for s, (_, _, taken) in zip(stored, made)]
    try:
        for intent in intents:
            _note(pipeline, intent)
        pipeline.dead.sync()
    except DiskError:
        for (stream, batch, _), intent in zip(stored, intents):
            stream.next_sequence -= len(batch)
            _note(pipeline, {"do": UNDONE, "letters": intent["letters"]})
        raise
    for (stream, batch, payload), intent in zip(stored, intents):
        pipeline.journal.append(BATCH, stream.number, batch.first_sequence, len(batch), payload)
        if stream.repeats is not None:
            stream.repeats.note(batch)       # as a replay does
        pipeline.changes += 1
        stream.waiting += len(batch)
        stream.arrived += len(batch)
        _take_back(pipeline, intent)
        pipeline.retrying.append(intent["letters"])
    return stored, [number for intent in intents for number in intent["letters"]], refused


def conclude(pipeline):
    """The journal has what was retried: note it. Raises DiskError; it is noted all the same, and durable after the next sync."""
    retrying, pipeline.retrying = pipeline.retrying, []
    for letters in retrying:
        _note(pipeline, {"do": RETRIED, "letters": letters})
    pipeline.dead.sync()


def settle(pipeline, since) -> list:
    """At a start, before the journal is written to: what became of retries that were cut off. since: a position of the dead log. Returns the intents,
    from there on, that were carried out."""
    open_intents, done = {}, []
    for record in between(pipeline.dead.log, since):
        if record.kind != FATE:
            continue
        try:
            data = fate(record)
        except DiskError:
            continue                     # `tidegate buffer verify` says it
        if data["do"] == RETRYING:
            open_intents[tuple(data["letters"])] = data
        elif data["do"] in (RETRIED, UNDONE) and (intent := open_intents.pop(tuple(data["letters"]), None)) and data["do"] == RETRIED:
            done.append(intent)
    for letters, intent in open_intents.items():
        there = _is_journaled(pipeline.journal.log, intent)
        done += [intent] * there
        _note(pipeline, {"do": RETRIED if there else UNDONE, "letters": list(letters)})
    if open_intents:
        with suppress(DiskError):        # it waits in the writer; and a batch that comes meanwhile has another CRC
            pipeline.dead.sync()
    return done


def recount(pipeline, done):
    """At a start: the journal's replay counts what was retried as new; it is not."""
    for intent in done:
        _take_back(pipeline, intent)


# --- parts


def _decode(pipeline, intake, topic, payload, batches, received_ns, clock):
    """(position of the input stream, "") and a row more in its batch; (None, why) when today's contracts refuse it."""
    intake.clear()
    intake.topics.clear()
    if not intake.add(topic, payload):
        return None, "it is too large"
    if pipeline.router.route(intake):
        return None, "no stream takes this topic"
    for position, decoder in enumerate(pipeline.decoders):
        batch, rejected = batches.get(position, (None,))[0], []
        if batch is None:
            batch = Batch(pipeline.inputs[position].schema, 16)
            batch.received_ns, batch.clock = received_ns, clock
        rows = decoder.decode(intake, position, batch, rejected)
        if rejected:
            return None, rejected[0][1]
        if rows:
            batches.setdefault(position, (batch, []))
            return position, ""
    return None, "no stream takes this topic"


def _number(stream, batch) -> bytes:
    stream.number_rows(batch)
    return encode_columns(batch)


def _intent(pipeline, stream, batch, payload, taken, at_ns, who):
    names = {}
    for _, name, again in taken:
        if not again:
            names[name] = names.get(name, 0) + 1
    return {"do": RETRYING, "letters": [number for number, _, _ in taken], "from": sorted(names.items()), "stream": stream.number, "first": batch.first_sequence,
            "count": len(batch), "crc": crc32c(payload), "journal": pipeline.journal.head, "at": at_ns, "who": who}


def _note(pipeline, data):
    pipeline.dead.append(FATE, 0, 0, 0, msgpack.packb(data))
    pipeline.buried = True


def _take_back(pipeline, intent):
    """The ledger: these were dead letters, and are no more. Each step is balanced by itself, also where an account began after the letters."""
    for name, n in intent["from"]:
        stream = next((s for s in pipeline.inputs if s.name == name), None)
        if stream is None:
            pipeline.unrouted -= min(n, pipeline.unrouted)
        else:
            n = min(n, stream.rejected)
            stream.rejected -= n
            stream.arrived -= n


def _is_journaled(journal, intent) -> bool:
    if intent["journal"] < journal.tail:
        return True                      # the quota takes only what a checkpoint has covered
    return any(r.kind == BATCH and (r.stream, r.first, r.count) == (intent["stream"], intent["first"], intent["count"]) and crc32c(r.payload) == intent["crc"]
               for r in between(journal, intent["journal"]))
