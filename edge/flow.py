"""Streams and stages at work: a batch given to a stream goes through all that reads it, and on to the outboxes.

It is a function of what it is given: the same batches, ticks and clock steps in the same order give the same state and outputs. The pipeline
feeds it from the journal; a warm-up (edge/warmup.py) feeds a second one from the same journal.
"""

import msgpack

from edge._watermark import FORGOTTEN
from edge.codec.batches import decode_columns
from edge.columns._batch import Batch
from edge.deferral import Deferral
from edge.errors import RuleError
from edge.storage.records import BATCH, CLOCK, JUMP, REPEAT, SKIP, TICK

TRAP, SHARE = "trap", "share"


class Flow(Deferral):
    """inputs: Streams; stages in an order in which every stage comes after those that feed it; own: Streams of what the gateway itself says."""

    def __init__(self, inputs, stages, own=()):
        super().__init__()
        self.inputs = inputs
        self.own = list(own)
        self.received_ns = 0         # of the last event or tick
        self.changes = 0             # batches and effects so far: unchanged, there is nothing new to checkpoint
        self._skips = {}             # (rule's name, its identity, call) -> TRAP or SHARE: why it was not made, or not to the end
        self._replaying = False
        self._inputs_by_name = {stream.name: stream for stream in (*inputs, *own)}
        self.lay_out(stages)

    def lay_out(self, stages):
        """Let these stages be at work, and no others."""
        self.stages = stages
        self._streams = [*self.inputs, *(s for stage in stages for s in stage.made), *self.own]
        for stream in self._streams:
            stream.stages = [stage for stage in stages if stage.input is stream]

    @property
    def streams(self):
        """Input streams, then those that each stage makes, then the gateway's own."""
        return self._streams

    def _flow(self, stream, batch, payload=None):
        if stream.tap is not None:
            stream.tap(batch)
        if stream.outboxes:
            self.changes += 1
            for outbox in stream.outboxes:
                payload = outbox.append(stream, batch, payload) or payload
        if stream.stages:
            stream.watermarks.observe(batch)
            for stage in stream.stages:
                self._apply(stage, batch)

    def _call(self, stage, number, batch):
        """Make a stage's call of this number, or do with it what the journal says."""
        fate = self._skips.get((stage.name, stage.rule.identity, number)) if self._skips else None
        if fate is not None:
            stage.skip(batch, strike=fate != SHARE)
            return
        result = None
        if stage.rule.quarantined or not stage.enabled:
            stage.pass_by(batch)
            if not stage.rule.quarantined:
                self._let_go(stage, number, batch)
        else:
            try:
                result = stage.process(batch)
            except RuleError as error:
                self._trapped(stage, number, batch, error)
            if self.share is not None:
                self.share.charge(stage, stage.meter.last_ns)
        if result is not None and result.out_count:
            self._emit(stage.output, result.out_count, result.out, batch)
        if result is not None and result.late_count:
            self._emit(stage.late, result.late_count, result.late, batch)
        if stage.shadow is not None:
            self._show(stage.shadow, batch, result)

    def _let_go(self, stage, number, batch):
        """A disabled rule would never hear of keys that are forgotten meanwhile: what it has of them goes out on its partial stream."""
        gone = [(key, at_ns) for key, at_ns in batch.watermarks() if at_ns == FORGOTTEN]
        if not gone and not (batch.schema.key is None and batch.watermark_ns == FORGOTTEN):
            return
        tick = Batch(batch.schema)
        tick.first_sequence, tick.received_ns, tick.watermark_ns = batch.first_sequence, batch.received_ns, batch.watermark_ns
        tick.set_watermarks(gone)
        try:
            result = stage.process(tick)
        except RuleError as error:
            self._trapped(stage, number, tick, error)
            return
        if result.out_count:
            self._emit(stage.partial, result.out_count, result.out, tick)

    def _show(self, shadow, batch, result):
        """Let a shadow have the call too, if there is CPU for it."""
        shadow.observe(batch, result, self.share is None or self.share.spare)
        if self.share is not None:
            self.share.charge(shadow, shadow.spent_ns)

    def _emit(self, stream, count, rows, batch):
        """`rows(batch)` gives the rows that go out; they are made only if somebody takes them."""
        if not stream.consumed:
            stream.next_sequence += count
            return
        made = rows(batch)
        stream.number_rows(made)
        self._flow(stream, made)

    def _trapped(self, stage, number, batch, error):
        """A rule trapped on its call of this number; it is in the state before it."""

    def _skipped(self, stage, number, batch, error):
        """A call found no CPU and no room to wait."""

    # --- replay

    def learn_skips(self, records):
        """Calls that trapped when they were first made, from the journal's SKIP records."""
        self._skips = {}
        for record in records:
            if record.kind == SKIP:
                name, identity, *fate = msgpack.unpackb(record.payload)
                self._skips[name, identity, record.first] = fate[0] if fate else TRAP

    def replay_deferred(self):
        """What waited for CPU at the checkpoint, before the records that came after it."""
        self._replaying = True
        try:
            self.catch_up()
        finally:
            self._replaying = False

    def replay(self, record, schemas) -> int:
        """Play one journal record again; outputs go to the outboxes as before. schemas: stream number -> Schema as it was journaled.

        Returns the events that are missing before it (the journal was damaged).
        """
        self._replaying = True
        try:
            if record.kind == TICK:
                self.received_ns = max(self.received_ns, record.first)
                self._tick(record.first)
            elif record.kind == CLOCK:
                self._clock_set(*msgpack.unpackb(record.payload))
            elif record.kind in (BATCH, REPEAT) and record.stream in schemas:
                stream = self._inputs_by_name.get(schemas[record.stream].stream)
                if stream is not None and record.kind == BATCH:
                    return self._replay_batch(stream, decode_columns(record.payload, schemas[record.stream]))
                if stream is not None:
                    stream.arrived += record.first
                    stream.repeated += record.first
            return 0
        finally:
            self._replaying = False

    def _clock_set(self, delta_ns, away=False):
        self.received_ns += delta_ns if self.received_ns else 0
        self._shift(delta_ns)

    def _replay_batch(self, stream, batch):
        missing = max(0, batch.first_sequence - stream.next_sequence)
        if missing:
            self._announce_gap(stream, missing)
        self.received_ns = max(self.received_ns, batch.received_ns)
        stream.damaged += missing
        stream.arrived += missing + len(batch)
        stream.next_sequence = batch.first_sequence + len(batch)
        if batch.schema != stream.schema:            # the contract changed since: carry the rows over by field name
            clock = batch.clock
            batch = Batch.from_rows(stream.schema, conform(batch, stream.schema), first_sequence=batch.first_sequence, received_ns=batch.received_ns)
            batch.clock = clock
        if stream.repeats is not None:
            stream.repeats.note(batch)
        self._flow(stream, batch)
        return missing

    def jump(self, streams):
        """Leave out JUMP sequence numbers of streams: what comes next may not be what was sent under these. Announced as a gap."""
        for stream in streams:
            self._announce_gap(stream, JUMP)
            stream.next_sequence += JUMP
            stream.since += JUMP
            for stage in stream.stages:
                stage.since += JUMP

    def leave_out_unsent(self, streams):
        """Announce what nobody took while these streams had no outboxes."""
        for stream in streams:
            if stream.unsent:
                for outbox in stream.outboxes:
                    outbox.leave_out(stream.number, stream.sent, stream.unsent)
            stream.sent = None if stream.outboxes else stream.sent

    def below(self, streams):
        """Streams, and all that rules make of them."""
        found = list(streams)
        for stream in found:
            found += [s for stage in stream.stages for s in stage.answers if s not in found]
        return found

    def _announce_gap(self, stream, count):
        for outbox in stream.outboxes:
            outbox.leave_out(stream.number, stream.next_sequence, count)


def conform(batch, schema):
    """A batch's rows with the fields of another schema: by name where the kind is the same, null otherwise."""
    kinds = {f.name: f.kind for f in batch.schema.fields}
    kept = [f.name for f in schema.fields if kinds.get(f.name) == f.kind]
    return [{name: row[name] for name in kept} for row in batch.rows()]
