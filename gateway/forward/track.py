"""Track: one reader's way through the outbox, from records to groups of rows to messages.

Invariant: every position of the track's ranges is ahead of the reader, or in `open`, or acknowledged.
Memory: at most rows_max rows gather per stream, GATHER times that in all; then the oldest group goes early.
"""

from collections import OrderedDict, deque
from contextlib import suppress
from time import perf_counter

from edge.codec.batches import decode_columns
from edge.errors import DiskError
from edge.storage.records import BATCH, GAP, SCHEMA, events_of
from gateway.clock import RETIMED, UNSYNCHRONISED

READ_BYTES = 64 << 10
GATHER = 4
BLUR_NS = 1_000_000_000          # rows without an event time of their own share a received time this exact
EVICTED, DAMAGED, UNSENDABLE = "evicted", "damaged", "unsendable"        # why a gap's rows will never come


class Group:
    """Rows of one stream that go together, and the gaps in front of them. Its records are acknowledged when the last of its messages is."""

    __slots__ = ("track", "stream", "schema", "batch", "gaps", "lines", "positions", "counts", "since", "first", "rows", "at", "dead", "buried", "pending")

    def __init__(self, track, record, schema, batch, dead, now):
        self.track = track
        self.stream = record.stream
        self.schema = schema
        self.batch = batch           # None once all of it is in flight, and where gaps are all there is
        self.dead = dead             # (first sequence, count, reason) of rows that no message can carry; told when the group is closed
        self.gaps = [(first, count, DAMAGED) for first, count, _ in dead]            # (first sequence, count, why), not in a message yet
        if record.kind == GAP:
            self.gaps.append((record.first, record.count, EVICTED))
        self.lines = None            # rows already in JSON, last first
        self.positions = [record.position]
        self.counts = [0 if batch is None else len(batch)]   # rows by position
        self.since = now
        self.first = record.first
        self.rows = 0 if batch is None else len(batch)
        self.at = 0                  # rows before this one are in messages, or dead
        self.buried = 0              # of its rows, before `at`
        self.pending = 0             # messages in flight

    @property
    def sent(self):
        """All of it is in messages."""
        return (self.batch is None or self.at == self.rows) and not self.gaps

    def bury(self, reason):
        """The row before `at` fits no message."""
        sequence = self.first + self.at - 1
        self.dead.append((sequence, 1, reason))
        self.buried += 1
        first, count, _ = self.gaps.pop() if self.gaps and sum(self.gaps[-1][:2]) == sequence else (sequence, 0, "")
        self.gaps.append((first, count + 1, UNSENDABLE))

    def fits(self, batch):
        """True when the batch's rows continue this group's."""
        own = self.batch
        return (batch.schema is self.schema and batch.first_sequence == own.first_sequence + self.rows and batch.clock == own.clock
                and (self.schema.time is not None or abs(batch.received_ns - own.received_ns) <= BLUR_NS))

    def cut(self, n):
        """The n rows from `at` on, as a batch."""
        if self.at == 0 and n == self.rows:
            return self.batch
        part = type(self.batch)(self.schema, n)
        part.extend(self.batch, self.at, self.at + n)
        part.first_sequence = self.batch.first_sequence + self.at
        part.received_ns = self.batch.received_ns
        part.clock = self.batch.clock
        return part


class Track:
    """Reads the ranges [start, stop) of a log in order; a last stop of None means "as it grows".

    dead(stream, first_sequence, count, reason) hears of records that cannot be read; closed(stream, rows, evicted) of rows
    acknowledged, `evicted` of which the log has dropped meanwhile.
    set_since(position): by how much the clock was set since, and whether rows of before have the right time then; if so they say that they are re-timed. cleared(): what stands before this position may leave.
    """

    def __init__(self, ranges, log, meanings, packer, policy, dead, closed, set_since, cleared):
        self._ranges = deque(ranges)
        self._log = log
        self._meanings = meanings
        self._packer = packer
        self._rows_max = policy.rows_max
        self._age_s = policy.age_ms / 1000
        self._dead = dead
        self._closed, self._set_since, self._cleared = closed, set_since, cleared
        self._records = deque()      # read, not yet decoded
        self._groups = {}            # stream -> Group that gathers, oldest first
        self._gathered = 0           # rows in _groups
        self._ready = deque()        # groups to send now
        self._begin(self._ranges[0][0] if self._ranges else 0)
        self.open = OrderedDict()    # positions decoded and not acknowledged, ascending
        self.unfinished = False      # the last next() ran out of time, not of rows

    def next(self, now, until, spare_s=0.0):
        """The next message that is due, or None. Stops at perf_counter() == until; what gathers in this call is encoded in it if spare_s are left."""
        self.unfinished = False
        while True:
            while self._ready:
                group = self._ready[0]
                message = self._packer.pack(group)
                if message is not None:
                    if message.group is not None:
                        group.pending += 1
                    if group.sent:
                        self._sent_whole()
                    return message
                self._sent_whole()
            if perf_counter() > until:
                self.unfinished = True
                return None
            record = self._record()
            if record is not None:
                self._take(record, now)
            elif not self._release_due(now):
                return None
            if self._ready and perf_counter() > until - spare_s:
                self.unfinished = True
                return None

    def due_at(self):
        """When the oldest gathering group must go, reactor seconds; None without one."""
        for group in self._groups.values():
            return group.since + self._age_s
        return None

    @property
    def floor(self):
        """All positions of the track below this one are acknowledged; None when all are, to the track's end."""
        for position in self.open:
            return position
        return self.next_position if self._ranges else None

    @property
    def drained(self):
        """Everything read, sent and acknowledged; never true of a track that grows."""
        return not self._ranges and not self.open

    def pending(self):
        """The unacknowledged ranges, ascending."""
        ranges = []
        for position in self.open:
            if ranges and ranges[-1][1] == position:
                ranges[-1][1] = position + 1
            else:
                ranges.append([position, position + 1])
        for i, (start, stop) in enumerate(self._ranges):
            start = self.next_position if i == 0 else start
            if ranges and ranges[-1][1] == start:
                ranges[-1][1] = stop
            elif stop is None or start < stop:
                ranges.append([start, stop])
        return ranges

    def acknowledged(self, group):
        """One of the group's messages has arrived."""
        group.pending -= 1
        self._close(group)

    # --- from the log

    def _record(self):
        if not self._records and not self._refill():
            return None
        record = self._records.popleft()
        if record.position > self.next_position:
            self._skipped(self.next_position, record.position)
        self.next_position = record.position + 1
        return record

    # --- what is damaged in it: then the next record of a stream tells what the stream lacks

    def _begin(self, position):
        """A range begins here."""
        self._read_at = self.next_position = position
        self._ends, self._doubtful = None, set()
        if lost := [end for start, end in self._log.recovery.lost if start < position]:
            self._ends = self._ends_of(0, position)
            self._doubtful = self._ends.keys() - self._ends_of(max(lost), position).keys()

    def _skipped(self, start, stop):
        """There are no records at these positions: they went, were never given out, or cannot be read."""
        if start < self._log.tail:
            start, self._ends, self._doubtful = self._log.tail, None, set()
        if any(first < stop and end > start for first, end in self._log.recovery.lost):
            if self._ends is None:
                self._ends = self._ends_of(0, start)
            self._doubtful = set(self._ends)

    def _ends_of(self, start, stop) -> dict:
        """Stream's name -> sequence after its last event in these positions."""
        ends = {}
        with suppress(DiskError):
            for _, stream, first, count in events_of(self._log, [[start, stop]], dropped=True):
                if (schema := self._meanings.at(stop, stream)) is not None:
                    ends[schema.stream] = max(ends.get(schema.stream, 0), first + count)
        return ends

    def _lacking(self, record, schema) -> list:
        """(first sequence, count, reason) of the stream's rows in front of this record, if what is damaged may have been them."""
        if self._ends is None:
            return []
        end = self._ends.get(schema.stream, record.first)
        self._ends[schema.stream] = max(end, record.first + record.count)
        if schema.stream not in self._doubtful:
            return []
        self._doubtful.remove(schema.stream)
        return [(end, record.first - end, "damaged in the outbox")] if end < record.first else []

    def _refill(self):
        """Read on. False when there is nothing: the log's head, what may not leave yet, or the end of the last range."""
        while self._ranges:
            stop = self._ranges[0][1]
            end = self._log.head if stop is None else min(stop, self._log.head)
            free = min(end, self._cleared())
            if self._read_at < free:
                for record in self._log.read(self._read_at, READ_BYTES):
                    if record.position >= free:
                        break
                    self._records.append(record)
                if self._records:
                    self._read_at = self._records[-1].position + 1
                    return True
            if stop is None or free < end:
                return False
            self._ranges.popleft()           # the rest of the range was evicted, or is read
            if self._ranges:
                self._begin(self._ranges[0][0])
        return False

    def _take(self, record, now):
        try:
            if record.kind == SCHEMA:
                self._meanings.learn(record)
            elif record.kind in (BATCH, GAP):
                self._gather(record, now)
        except DiskError as e:
            self._dead(record.stream, record.first, record.count, str(e))

    def _gather(self, record, now):
        schema = self._meanings.at(record.position, record.stream)
        if schema is None:
            raise DiskError(f"outbox record {record.position}: nothing says what stream {record.stream} is")
        dead, batch = self._lacking(record, schema), None
        try:
            batch = self._batch(record, schema)
        except DiskError as error:
            dead.append((record.first, record.count, str(error)))
        self.open[record.position] = None
        group = self._groups.get(record.stream)
        full = self._packer.rows_full(record.stream)
        if group is not None and (batch is None or dead or group.rows + len(batch) > full or not group.fits(batch)):
            self._release(group)
            group = None
        if batch is None:
            self._ready.append(Group(self, record, schema, None, dead, now))
            return
        if group is None:
            group = self._groups[record.stream] = Group(self, record, schema, batch, dead, now)
        else:
            group.batch.extend(batch)
            group.rows += len(batch)
            group.positions.append(record.position)
            group.counts.append(len(batch))
        self._gathered += len(batch)
        if group.rows >= full:
            self._release(group)
        elif self._gathered > GATHER * self._rows_max:
            self._release(next(iter(self._groups.values())))

    def _batch(self, record, schema):
        """A record's rows, with what is known of their time now; None for a gap."""
        if record.kind == GAP:
            return None
        batch = decode_columns(record.payload, schema)
        if batch.clock == UNSYNCHRONISED:
            delta_ns, known = self._set_since(record.position)
            batch.received_ns += delta_ns
            batch.clock = RETIMED if delta_ns and known else UNSYNCHRONISED
        return batch

    # --- groups

    def _release(self, group):
        del self._groups[group.stream]
        self._gathered -= group.rows
        self._ready.append(group)

    def _release_due(self, now):
        """Let the oldest group go if it waited long enough, or if nothing can join it."""
        for group in self._groups.values():
            if now >= group.since + self._age_s or not self._ranges:
                self._release(group)
                return True
            return False
        return False

    def _sent_whole(self):
        group = self._ready.popleft()
        group.batch = group.lines = None
        self._close(group)

    def _close(self, group):
        if group.batch is None and not group.gaps and group.pending == 0 and group.positions:
            tail, evicted = self._log.tail, 0
            for position, count in zip(group.positions, group.counts):
                del self.open[position]
                if position < tail:
                    evicted += count         # while it was under way: announced, but the receiver has it
            group.positions = None
            self._closed(group.stream, group.at - group.buried, evicted)
            for rows in group.dead:
                self._dead(group.stream, *rows)
