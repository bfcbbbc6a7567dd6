"""Warm-up: a new version of a rule is given what the journal holds of the last while, in slices between the gateway's turns.

It runs in a flow of its own: copies of the rules above it and the rule, with watermarks that begin anew, and no outboxes; so nothing of it leaves.

    look back over the horizon -> play the journal from there -> level with its head -> finish(): the watermarks become the live ones

What the live watermarks have closed and the warm-up's have not, finish() closes in the new rule, and what that puts out is suppressed too: it went
out before. What is open stays open, and is complete if all its rows came within the horizon.
"""

import msgpack

from edge.codec.batches import decode_columns
from edge.errors import DiskError
from edge.flow import Flow
from edge.stage import Stage, Stream
from edge.storage.records import BATCH, CLOCK, TICK, between

LOOK_RECORDS = 64                    # at a time, backwards
NEAR_RECORDS = 16
READ_BYTES = 1 << 20


class Warmup(Flow):
    """rule: in the state of the beginning; source: the live stream that it reads; schemas: number -> Schema of all that the journal may name.

    `level`: it has seen all that the live rules have. `short`: the journal does not go back over the whole horizon. `missing`: events and records
    after that which are damaged, or were evicted before their turn came.
    `traps`, `trouble`: calls of the rule that failed, and why the last did.
    """

    def __init__(self, pipeline, rule, source, schemas, horizon_ns):
        """Raises RuleError when a copy of a rule above cannot be made."""
        self._live, self._source = pipeline, source
        self._log = pipeline.journal.log
        self._schemas = schemas
        self._horizon_ns = horizon_ns
        self._above = above(pipeline, source)
        origin = self._above[0].input if self._above else source
        first = scratch(origin)
        self._copies = {origin: first}           # live stream -> its copy here
        stages = []
        for live in self._above:
            copy = Stage(live.rule.another(), self._copies[live.input], *(scratch(s) for s in live.made))
            copy.enabled = live.enabled and not live.rule.quarantined
            self._copies |= zip(live.made, copy.made)
            stages.append(copy)
        here = self._copies[source]
        self.stage = Stage(rule, here, *(Stream(0, schema, source.new_watermarks) for schema in (rule.output_schema, rule.late_schema, rule.output_schema)))
        super().__init__([first], [*stages, self.stage])
        self._begun = False
        self._start = self._log.head             # while it looks back: the records from here on have been seen
        self._stepped_ns = 0                     # of clock steps in them
        self._position = None                    # of the next record to play
        self._records = []
        self.missing = self.traps = 0
        self.short = False
        self.trouble = ""

    @property
    def fits(self) -> bool:
        """What it copied is still what runs above the rule."""
        return (above(self._live, self._source) == self._above and all(live.schema == copy.schema for live, copy in self._copies.items())
                and all(live.rule.identity == copy.rule.identity and (live.enabled and not live.rule.quarantined) == copy.enabled
                        for live, copy in zip(self._above, self.stages)))

    @property
    def level(self) -> bool:
        return self._position is not None and self._position >= self._live.journal.head

    @property
    def near(self) -> bool:
        """So little is left that it should not wait for another turn, which would bring more; and it can be read: what the disk refuses is not in the journal yet."""
        return self._position is not None and not self._live.journal.waiting and self._live.journal.head - self._position <= NEAR_RECORDS

    @property
    def progress(self) -> float:
        """From 0 to 1; the looking back counts for nothing."""
        if self._position is None:
            return 0.0
        span = self._live.journal.head - self._start
        return 1.0 if span <= 0 else round((self._position - self._start) / span, 3)

    def step(self):
        """Go on by a little: one look back, or one record. Raises DiskError when the disk does not let it read."""
        if self._position is None:
            self._look_back()
        elif not self.level:
            self._play_next()

    def finish(self):
        """Level at last: the watermarks become those of the live streams."""
        copies = {copy: live for live, copy in self._copies.items()}
        for stage in self.stages:
            live = copies[stage.input]
            if live.stages:                      # else no rule has read it yet, and those here are the best there are
                for tick in stage.input.watermarks.follow(stage.input.schema, live.watermarks, self._live.received_ns):
                    tick.first_sequence = stage.input.next_sequence
                    self._apply(stage, tick)

    # --- the place to begin

    def _look_back(self):
        """A few records further back, until they span the horizon by the receive clock, whose steps do not count."""
        stop, start = self._start, max(self._log.tail, self._start - LOOK_RECORDS)
        at_ns, before, after = None, 0, 0
        for record in between(self._log, start, stop):
            if record.kind == CLOCK:
                delta = msgpack.unpackb(record.payload)[0]
                before, after = (before + delta, after) if at_ns is None else (before, after + delta)
            elif at_ns is None:
                at_ns = self._received_ns(record)
        self._start = start
        far = at_ns is not None and self._live.received_ns - at_ns - after - self._stepped_ns >= self._horizon_ns
        if far or start <= self._log.tail:
            self._position = self._start
            self.short = not far and start > 0
        self._stepped_ns += before + after

    def _received_ns(self, record):
        """None when the record does not tell."""
        if record.kind == TICK:
            return record.first
        if record.kind == BATCH and record.stream in self._schemas:
            try:
                return decode_columns(record.payload, self._schemas[record.stream]).received_ns
            except DiskError:
                pass
        return None

    # --- playing

    def _play_next(self):
        if not self._records:
            self._records = self._log.read(self._position, READ_BYTES)[::-1]
            if not self._records:                # all that is left cannot be read
                self._pass_over(self._log.head)
                return
        record = self._records.pop()
        self._pass_over(record.position)
        self._position = record.position + 1
        if record.kind == BATCH and self._schemas.get(record.stream) is not None and not self._begun:
            stream = self._inputs_by_name.get(self._schemas[record.stream].stream)
            if stream is not None:
                stream.next_sequence, self._begun = record.first, True
        try:
            self.missing += self.replay(record, self._schemas)
        except DiskError:
            self.missing += record.count

    def _pass_over(self, position):
        """Records before this position are evicted, or damaged; numbers that were left out count as such."""
        self.missing += max(0, position - self._position)
        self._position = max(self._position, position)

    def _trapped(self, stage, number, batch, error):
        if stage is self.stage:
            self.traps += 1
            self.trouble = str(error)


def scratch(stream) -> Stream:
    """A stream with the same meaning, and nothing done yet."""
    return Stream(stream.number, stream.schema, stream.new_watermarks)


def above(flow, stream) -> list:
    """The stages that a stream comes from, each after what feeds it."""
    found = []
    while (maker := next((stage for stage in flow.stages if stream in stage.made), None)) is not None:
        found.insert(0, maker)
        stream = maker.input
    return found
