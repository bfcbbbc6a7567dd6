"""The way of an event, from raw bytes to the lanes' outboxes. `Pipeline.store` and `Pipeline.run` are the whole of it.

    raw events -> route -> decode -> journal -> (sync: now they may be acknowledged) -> rules -> outboxes

No sockets, threads or clock reads: bytes and times come in, logs are given. Everything that a rule's state depends on stands in the
journal (batches, ticks, clock steps, skipped calls), so playing the journal again gives the same state and the same outputs.
"""

import msgpack

from edge._batch import Batch
from edge.codec import decode_columns, encode_columns
from edge.deferral import Deferral
from edge.errors import RuleError
from edge.records import BATCH, CLOCK, DEAD, GAP, SCHEMA, SKIP, TICK, letter
from edge.writer import Writer

TRAP, SHARE = "trap", "share"
JUMP = 1 << 30                       # of sequences, where what comes may not be what was sent; fits a record's count


class Pipeline(Deferral):
    """inputs: Streams with a decoder each; stages in an order in which every stage comes after those that feed it."""

    def __init__(self, *, epoch, router, decoders, inputs, stages, outboxes, journal, dead, on_trap=None):
        super().__init__()
        self.epoch = epoch
        self.router = router
        self.inputs = inputs
        self.stages = stages
        self.outboxes = outboxes
        self.journal = Writer(journal)
        self.dead = Writer(dead)
        self.unrouted = 0
        self.on_trap = on_trap or (lambda stage, error: None)
        self.received_ns = 0         # of the last event or tick
        self._decoders = decoders
        self._inputs_by_name = {stream.name: stream for stream in inputs}
        self._streams = [*inputs, *(s for stage in stages for s in (stage.output, stage.late))]
        self._skips = {}             # (rule's name, its identity, call) -> TRAP or SHARE: why it was not made, or not to the end
        self._replaying = False
        self._buried = False
        self.changes = 0             # batches and effects so far: unchanged, there is nothing new to checkpoint
        self.absent = {"streams": {}, "outboxes": {}, "lanes": {}}   # name -> state of what the configuration has no more, see recovery.py
        self.unsure = False          # outputs stand in the outboxes whose cause is not durable: sync() before they leave

    @property
    def streams(self):
        """Input streams, then each stage's output and late stream."""
        return self._streams

    # --- the way of an event

    def store(self, intake, received_ns, clock=0):
        """Decode and journal a turn's raw events. Returns (stream, batch, payload) for run(), once sync() has made them durable.

        What breaks its contract goes to the dead letters.
        """
        stored = []
        self.received_ns = received_ns
        self._bury_unrouted(intake, self.router.route(intake), received_ns)
        for position, (stream, decoder) in enumerate(zip(self.inputs, self._decoders)):
            rejected = []
            batch = Batch(stream.schema, min(256, len(intake)))
            batch.received_ns, batch.clock = received_ns, clock
            stream.arrived += decoder.decode(intake, position, batch, rejected) + len(rejected)
            self._bury(stream, intake, rejected, received_ns)
            if len(batch):
                stream.number_rows(batch)
                payload = encode_columns(batch)
                self.journal.append(BATCH, stream.number, batch.first_sequence, len(batch), payload)
                self.changes += 1
                stream.waiting += len(batch)
                stored.append((stream, batch, payload))
        return stored

    def sync(self):
        """Group commit: after it, all that store() took may be acknowledged. Raises DiskError; call again to try again."""
        if self._buried:                 # first: a durable SKIP says that there is a letter
            self.dead.sync()
            self._buried = False
        self.journal.sync()
        self.unsure = False

    @property
    def blocked(self) -> str:
        """Why no more may be taken in, or ""; meanwhile call flush(), and write a checkpoint: it lets the journal's oldest go."""
        if self.journal.log.full:
            return "the journal is at its quota and waits for a checkpoint (journal.quota)"
        return next(filter(None, (outbox.blocked for outbox in self.outboxes)), "")

    def flush(self):
        """Get into the outboxes what their disk refused. Raises DiskError."""
        for outbox in self.outboxes:
            outbox.writer.flush()

    def run(self, stored):
        """Rules and outboxes, for what store() returned."""
        for stream, batch, payload in stored:
            stream.waiting -= len(batch)
            self._flow(stream, batch, payload)

    def tick(self, received_ns):
        """Time goes on without events: windows of silent keys close. Journaled, so that a replay sees it too."""
        self.received_ns = received_ns
        changes = self.changes
        if self._tick(received_ns):
            self.journal.append(TICK, 0, received_ns, 0, b"")
        self.unsure |= self.changes != changes or bool(self.deferred)

    def clock_set(self, delta_ns):
        """The receive clock was stepped by delta_ns."""
        self.journal.append(CLOCK, 0, 0, 0, msgpack.packb([delta_ns]))
        self._shift(delta_ns)
        self.unsure |= bool(self.deferred)

    # --- streams and stages

    def _flow(self, stream, batch, payload=None):
        if stream.outboxes:
            payload = payload or encode_columns(batch)
            self.changes += 1
            for outbox in stream.outboxes:
                outbox.append(stream, batch, payload)
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
        if stage.rule.quarantined:
            stage.pass_by(batch)
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

    # --- what goes wrong

    def _trapped(self, stage, number, batch, error):
        if self._replaying:          # and not when first made: what it put out then does not come again
            self.jump(self.below((stage.output, stage.late)))
        self._skipped(stage, number, batch, error)

    def _skipped(self, stage, number, batch, error):
        """A call is not made, or not again by a replay: its rows go to the dead letters."""
        self.on_trap(stage, error)
        self._buried = True
        self.dead.append(DEAD, stage.input.number, self.journal.head, len(batch),
                         letter(str(error), batch.received_ns, rule=stage.name, module=stage.rule.digest,
                                backtrace=getattr(error, "backtrace", None), columns=encode_columns(batch)))
        fate = [SHARE] if error.code == SHARE else []
        self.journal.append(SKIP, 0, number, 0, msgpack.packb([stage.name, stage.rule.identity, *fate]))
        self.unsure = True

    def _bury(self, stream, intake, rejected, received_ns):
        stream.rejected += len(rejected)
        for index, reason in rejected:
            self._bury_event(stream.number, intake[index], reason, received_ns)

    def _bury_unrouted(self, intake, indices, received_ns):
        self.unrouted += len(indices)
        for index in indices:
            self._bury_event(0, intake[index], "no stream takes this topic", received_ns)

    def _bury_event(self, number, event, reason, received_ns):
        topic, payload, _, _ = event
        self._buried = True
        self.dead.append(DEAD, number, self.journal.head, 1, letter(reason, received_ns, topic=topic.decode("utf-8", "replace"), payload=payload))

    # --- replay

    def learn_skips(self, records):
        """Calls that trapped when they were first made, from the journal's SKIP records."""
        self._skips = {}
        for name, identity, number, *fate in ((*msgpack.unpackb(r.payload)[:2], r.first, *msgpack.unpackb(r.payload)[2:]) for r in records if r.kind == SKIP):
            self._skips[name, identity, number] = fate[0] if fate else TRAP

    def replay_deferred(self):
        """What waited for CPU at the checkpoint, before the records that came after it."""
        self._replaying = True
        try:
            self.settle()
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
                delta_ns = msgpack.unpackb(record.payload)[0]
                self.received_ns += delta_ns
                self._shift(delta_ns)
            elif record.kind == BATCH and record.stream in schemas:
                stream = self._inputs_by_name.get(schemas[record.stream].stream)
                if stream is not None:
                    return self._replay_batch(stream, decode_columns(record.payload, schemas[record.stream]))
            return 0
        finally:
            self._replaying = False

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

    def below(self, streams):
        """Streams, and all that rules make of them."""
        found = list(streams)
        for stream in found:
            found += [s for stage in stream.stages for s in (stage.output, stage.late) if s not in found]
        return found

    def _announce_gap(self, stream, count):
        for outbox in stream.outboxes:
            outbox.writer.append(GAP, stream.number, stream.next_sequence, count, b"")

    def preamble(self):
        """SCHEMA records of all streams: each segment of journal and outbox begins with them, and so stands alone."""
        return [(SCHEMA, s.number, msgpack.packb(s.schema.to_dict())) for s in self._streams]


def conform(batch, schema):
    """A batch's rows with the fields of another schema: by name where the kind is the same, null otherwise."""
    kinds = {f.name: f.kind for f in batch.schema.fields}
    kept = [f.name for f in schema.fields if kinds.get(f.name) == f.kind]
    return [{name: row[name] for name in kept} for row in batch.rows()]
