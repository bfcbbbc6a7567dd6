"""An outbox: one lane's log of results that wait to go upstream, with its accounts.

It is appended to by the pipeline and read back by the lane, which moves a cursor. It is not synced batch by batch: the journal is,
and an outbox is cut back to the last checkpoint and written again by replay after a crash.

While nobody reads, small batches gather in memory and are written as large ones, which take a twentieth of the bytes: until the next checkpoint, or
GATHER_ROWS, or GATHER_BYTES. All streams' are written together, so that what the log has is always all up to some moment.

What stands here may leave once its cause is durable in the journal, and not before: else a power cut would make something else of the same sequence numbers.
The owner says so with take_fresh(), after a sync of the journal; `cleared` is how far that is.
"""

import msgpack

from edge.codec._payload import memory_of
from edge.codec.batches import encode_columns
from edge.codec.intervals import Intervals
from edge.ledger import Account
from edge.storage.records import BATCH, GAP, JUMP, between, events_of
from edge.storage.writer import Writer

STEPS_MAX = 32                       # of the clock that are kept; beyond, the two oldest count as one
GATHER_ROWS = 4096                   # of all streams
GATHER_BYTES = 256 << 10             # of memory that rows and their strings take
SMALL_ROWS = 256                     # a batch of more is written as it is
BLUR_NS = 10**9                      # rows without an event time of their own share a received time this exact, as in a message


class Outbox:
    """One lane's results. `log` is its Log; `streams` the streams that feed it; evict: its oldest rows may go;
    make_room(outbox, payload) is called before each record, where it shares its room with others."""

    def __init__(self, name, log, *, evict, make_room=None):
        self.name = name
        self.log = log
        self.writer = Writer(log)
        self.evict = evict
        self._make_room = make_room
        self.gathers = lambda: False     # whether nobody reads: what is appended may wait for company
        self._gathered = {}          # stream number -> Batch of rows that are not in the log yet
        self._rows = self._bytes = 0     # in _gathered
        self._fresh = 0              # rows appended since take_fresh()
        self.cleared = log.head      # what stands before it may leave
        self.appended = {}           # stream number -> rows appended
        self.evicted = {}            # stream number -> rows evicted before they were acknowledged
        self._told_before = 0        # what went of before this position is in `evicted`
        self._evicted_to = {}        # stream number -> sequence after the last row in `evicted`: a stream's rows go in order
        self.names = {}              # stream number -> name
        self._steps = []             # [position, delta_ns, since]: what stands before it was stored before the clock was set by so much, from since on in the same run
        self.since = 0               # where this run began: its clock knows nothing of the time that the gateway was off before

    def append(self, stream, batch, payload=None):
        """A batch's rows; payload: encoded, if they are. Returns them encoded, if they had to be: what gathers need not."""
        if len(batch) > SMALL_ROWS or not self.gathers():
            payload = payload or encode_columns(batch)
            self.put(stream.number, stream.name, batch.first_sequence, len(batch), payload)
            return payload
        if self._rows + len(batch) > GATHER_ROWS or self._bytes > GATHER_BYTES or not self._joins(stream, batch):
            self.write()
        self._gather(stream.number, batch)
        self._count(stream.number, stream.name, len(batch))
        return payload

    def put(self, number, name, first, count, payload):
        """Rows of the stream `name` under this number, from sequence `first` on."""
        self.write()
        self._append(number, first, count, payload)
        self._count(number, name, count)

    def leave_out(self, number, first, count):
        """These sequences of a stream will never come."""
        self.write()
        self.writer.append(GAP, number, first, count, b"")

    def _append(self, number, first, count, payload):
        if self._make_room is not None and not self.writer.waiting:
            self._make_room(self, payload)
        self.writer.append(BATCH, number, first, count, payload)

    def _count(self, number, name, count):
        self.names[number] = name
        self.appended[number] = self.appended.get(number, 0) + count
        self._fresh += count

    def _joins(self, stream, batch):
        """Whether the rows go on where those that wait end, so that one record can hold both."""
        own = self._gathered.get(stream.number)
        return own is None or (batch.first_sequence == own.first_sequence + len(own) and batch.clock == own.clock and batch.schema is own.schema
                               and (own.schema.time is not None or abs(batch.received_ns - own.received_ns) <= BLUR_NS))

    def _gather(self, number, batch):
        own = self._gathered.get(number)
        if own is None:
            own = self._gathered[number] = type(batch)(batch.schema, SMALL_ROWS)
            own.first_sequence, own.received_ns, own.clock = batch.first_sequence, batch.received_ns, batch.clock
        before = memory_of(own)
        own.extend(batch, 0, len(batch))
        self._rows += len(batch)
        self._bytes += memory_of(own) - before

    def write(self):
        """Put into the log what has gathered; before the log's head is taken for where the rows end."""
        gathered, self._gathered, self._rows, self._bytes = self._gathered, {}, 0, 0
        for number, batch in gathered.items():
            self._append(number, batch.first_sequence, len(batch), encode_columns(batch))
        if not self._fresh:
            self.cleared = self.writer.head

    def flush(self):
        """Get into the log what its disk refused. Raises DiskError. A segment that begins meanwhile does so with a preamble: what waited stands further on
        than its writer foresaw, and so does a step of the clock behind it."""
        told = self.writer.head
        try:
            self.writer.flush()
        finally:
            if self._steps and self._steps[-1][0] == told:
                self._steps[-1][0] = self.writer.head

    def adopt(self, name, record, end) -> int:
        """Account for a record of the stream `name` that was found without a checkpoint, and for the rows that are missing in front of it. end: the sequence
        after the stream's records before it, None: it is the first. Returns that sequence after it."""
        end = record.first if end is None else end
        rows = max(0, record.first - end) % JUMP + (record.count if record.kind == BATCH else 0)
        self.names[record.stream] = name
        self.appended[record.stream] = self.appended.get(record.stream, 0) + rows
        return max(end, record.first + record.count)

    def lacks_from(self, end, stream):
        """Rows of the stream from `end` to its next sequence are gone; None: nobody knows of any."""
        if end is not None and end < stream.next_sequence:
            self.names[stream.number] = stream.name
            for count in (self.appended, self.evicted):
                count[stream.number] = count.get(stream.number, 0) + (stream.next_sequence - end) % JUMP
            self.leave_out(stream.number, end, stream.next_sequence - end)

    def on_evict(self, kind, stream, first, count) -> int:
        """The log's quota is about to push rows out, or a gap: it goes upstream (again). The payload is the position that the rows stood before.
        Returns the rows that this loses."""
        rows = count if kind == BATCH else 0
        self._told_before = max(self._told_before, self.log.evicts_before)
        if rows:
            self.evicted[stream] = self.evicted.get(stream, 0) + rows
            self._evicted_to[stream] = max(self._evicted_to.get(stream, 0), first + count)
        self.writer.append(GAP, stream, first, count, msgpack.packb(self._told_before if kind == BATCH else [self._told_before]))
        return rows

    def arrived(self, stream, rows):
        """Rows were acknowledged that had been evicted while they were under way."""
        self.evicted[stream] = max(0, self.evicted.get(stream, 0) - rows)

    def cut_back(self, state, sequences, lane=None):
        """Go back to a state(): forget the records since, but for the gaps of rows that stood there then and are gone. sequences: of the next row,
        by stream number. lane: its Lane's state of then; what upstream has taken since and is gone is put right in it. Raises DiskError."""
        head = state["head"]
        gaps = [gap for gap in _gaps(between(self.log, head)) if gap[4] <= self.log.tail]        # those of a segment that is there yet may not be all, and its rows are there
        gaps = sorted({(kind, stream, first, min(count, sequences.get(stream, 0) - first), min(head, position))
                       for kind, stream, first, count, position in (*gaps, *self.log.notices.events) if position > state.get("told_before", 0)})
        gaps = [gap for gap in gaps if gap[3] > 0]       # what came after that state is to come again, at other positions
        self.log.notices.keep(gaps, head)
        lost = self.log.recovery.lost                    # but what stood behind that head comes again; a head that was durable and is gone does not
        lost[:] = [(first, min(end, head)) for first, end in lost if first < head] + [(self.log.head, head)] * (self.log.head < head)
        self.log.truncate(head)
        self.cleared = head
        self.load(state)
        counted, known = dict(self._evicted_to), {}
        self.log.evicts_before = max(self.log.evicts_before, self._told_before)
        for kind, stream, first, count, position in gaps:
            self.log.drop_before(position)
            self.log.evicts_before = max(self.log.evicts_before, position)
            seen = known.setdefault(stream, Intervals())
            for start, end in seen.lacks(first, first + count):
                known_to = min(max(counted.get(stream, 0), start), end)
                for lost, start, end in ((GAP, start, known_to), (BATCH, known_to, end)):
                    if start < end:
                        self.on_evict(lost, stream, start, end - start)
                        seen.add(start, end)
        if lane is not None and (known or lane["ranges"][0][0] < self.log.tail):
            self._reckon(lane)

    def _reckon(self, lane):
        """Rows went since that state. What no gap names upstream had taken, and its Lane's state does not know it; what both count is no loss."""
        self.log.drop_before(min(lane["ranges"][0][0], self.log.head))
        if self.log.recovery.lacks_before(self.log.head):
            return                       # then they may be lost
        waiting = {}
        for kind, stream, _, count in events_of(self.log, lane["ranges"]):           # also of what is to be written again, as its file could not be synced
            waiting[stream] = waiting.get(stream, 0) + count * (kind == BATCH)
        for number, appended in self.appended.items():
            gone = appended - lane["rows_acked"].get(number, 0) - lane["rows_dead"].get(number, 0) - waiting.get(number, 0)
            taken = gone - self.evicted.get(number, 0)
            if taken > 0:
                lane["rows_acked"][number] = lane["rows_acked"].get(number, 0) + taken
            elif taken < 0:
                self.evicted[number] = max(0, gone)
        lane["rows_waiting"] = sum(waiting.values())

    def clock_set(self, delta_ns):
        """The receive clock was set; what comes from now on has its time by the new one."""
        self.write()
        self._steps.append([self.writer.head, delta_ns, self.since])
        if len(self._steps) > STEPS_MAX:
            (_, first, _), (at, second, since) = self._steps[:2]
            self._steps[:2] = [[at, first + second, since]]

    def begin(self):
        """What comes from now on comes in this run."""
        self.write()
        self.since = self.writer.head

    def set_since(self, position) -> tuple[int, bool]:
        """By how many nanoseconds the receive clock was set since the record of this position was stored, in the run in which it was set first; and whether that
        makes its time right: not if that was a later run than the record's, for nobody knows how long the gateway was off in between."""
        steps = [(delta_ns, since) for at, delta_ns, since in self._steps if position < at]
        return sum(delta_ns for delta_ns, since in steps if since == steps[0][1]), not steps or steps[0][1] <= position

    def take_fresh(self) -> int:
        """Rows appended since the last call. All that is here may leave from now on."""
        self.cleared = self.writer.head
        fresh, self._fresh = self._fresh, 0
        return fresh

    @property
    def blocked(self) -> str:
        """Why no more may be appended, or ""."""
        if self.writer.waiting:
            return f"outbox {self.name}: the disk refuses {self.writer.waiting} records"
        if not self.evict and self.log.full:
            return f"outbox {self.name} is at its quota and may not evict (lanes.{self.name}.full)"
        return ""

    def accounts(self, acknowledged, dead):
        """Accounts by stream, over all numbers that it had. acknowledged, dead: stream number -> rows that upstream has taken, and that could not be sent."""
        rows = {}
        for number, appended in self.appended.items():
            name = f"{self.name}/{self.names.get(number, number)}"
            row = rows.setdefault(name, Account("lane", name, 0, dict.fromkeys(("acknowledged", "dead_lettered", "evicted", "pending"), 0)))
            row.into += appended
            out = {"acknowledged": acknowledged.get(number, 0), "dead_lettered": dead.get(number, 0)}       # may be of rows of before it had this number
            out["evicted"] = min(self.evicted.get(number, 0), max(0, appended - sum(out.values())))         # some were acknowledged before they went
            out["pending"] = appended - sum(out.values())
            row.out = {fate: count + out[fate] for fate, count in row.out.items()}
        return list(rows.values())

    def numbers_waiting(self, acknowledged, dead) -> set:
        """Stream numbers with rows that may still be here; arguments as those of accounts()."""
        return {n for n, rows in self.appended.items() if rows > acknowledged.get(n, 0) + dead.get(n, 0)}

    def state(self) -> dict:
        return {"head": self.log.head, "appended": self.appended, "evicted": self.evicted, "names": self.names, "steps": [list(step) for step in self._steps],
                "since": self.since, "told_before": self._told_before, "evicted_to": self._evicted_to}

    def load(self, state):
        self.appended, self.evicted, self.names = dict(state["appended"]), dict(state["evicted"]), dict(state["names"])
        self._told_before, self._evicted_to = state.get("told_before", 0), dict(state.get("evicted_to", {}))
        self._steps, self.since = [[*step, 0][:3] for step in state.get("steps", [])], state.get("since", 0)


def _gaps(records) -> list:
    """(kind of what went, stream, first, count, position that it stood before) of those records that say what an eviction let go."""
    gaps = [(r, msgpack.unpackb(r.payload)) for r in records if r.kind == GAP and r.payload]
    return [(GAP, r.stream, r.first, r.count, position[0]) if isinstance(position, list) else (BATCH, r.stream, r.first, r.count, position) for r, position in gaps]
