"""The way of an event, from raw bytes to the lanes' outboxes. `Pipeline.store` and `Pipeline.run` are the whole of it.

    raw events -> route -> decode -> journal -> (sync: now they may be acknowledged) -> rules -> outboxes

No sockets, threads or clock reads: bytes and times come in, logs are given. Everything that a rule's state depends on stands in the
journal (batches, ticks, clock steps, skipped calls), so playing the journal again gives the same state and the same outputs.
"""

from contextlib import suppress

import msgpack

from edge.codec.batches import decode_columns, encode_columns
from edge.columns._batch import Batch
from edge.errors import DiskError
from edge.fates import conclude
from edge.flow import SHARE, Flow
from edge.storage.records import BATCH, CLOCK, DEAD, REPEAT, SCHEMA, SKIP, TICK, letter
from edge.storage.writer import Writer


class Pipeline(Flow):
    """inputs: Streams with a decoder each; stages in an order in which every stage comes after those that feed it."""

    def __init__(self, *, epoch, router, decoders, inputs, stages, outboxes, journal, dead, own=(), on_trap=None):
        super().__init__(inputs, stages, own)
        self.epoch = epoch
        self.router = router
        self.outboxes = outboxes
        self.journal = Writer(journal)
        self.dead = Writer(dead)
        self.unrouted = 0
        self.on_trap = on_trap or (lambda stage, error: None)
        self.decoders = decoders
        self.buried = False
        self.absent = {"streams": {}, "outboxes": {}, "lanes": {}}   # name -> state of what is there no more, see recovery.py
        self.unsure = False          # outputs stand in the outboxes whose cause is not durable: sync() before they leave
        self.owed = []               # see pay()
        self.retrying = []           # numbers of dead letters whose events are in the journal, and it is not yet noted: see fates.py

    # --- the way of an event

    def store(self, intake, received_ns, clock=0):
        """Decode and journal a turn's raw events. Returns (stream, batch, payload) for run(), once sync() has made them durable.

        What breaks its contract goes to the dead letters; what a device sent again, by its contract's id or sequence, is counted and dropped.
        """
        stored = []
        self.received_ns = received_ns
        self._bury_unrouted(intake, self.router.route(intake), received_ns)
        for position, (stream, decoder) in enumerate(zip(self.inputs, self.decoders)):
            rejected = []
            batch = Batch(stream.schema, min(256, len(intake)))
            batch.received_ns, batch.clock = received_ns, clock
            stream.arrived += decoder.decode(intake, position, batch, rejected) + len(rejected)
            self._bury(stream, intake, rejected, received_ns, decoder.masked)
            if stream.repeats is not None:
                batch = self._sifted(stream, batch, intake.resent_rows(position, rejected))
            if len(batch):
                stream.number_rows(batch)
                payload = encode_columns(batch)
                if not batch.plain:          # an event that was rejected left a string behind: the order of keys is what a replay will see
                    batch = decode_columns(payload, stream.schema)
                self.journal.append(BATCH, stream.number, batch.first_sequence, len(batch), payload)
                self.changes += 1
                stream.waiting += len(batch)
                stored.append((stream, batch, payload))
        return stored

    def _sifted(self, stream, batch, resent):
        """The batch without what a device sent again. That it came is journaled: what is acknowledged is counted."""
        fresh = stream.repeats.sift(batch, resent)
        repeats = len(batch) - len(fresh)
        if repeats:
            stream.repeated += repeats
            self.changes += 1
            self.journal.append(REPEAT, stream.number, repeats, 0, b"")
        return fresh

    def sync(self):
        """Group commit: after it, all that store() took may be acknowledged. Raises DiskError; call again to try again."""
        if self.buried:                 # first: a durable SKIP says that there is a letter
            self.dead.sync()
            self.buried = False
        self.journal.sync()
        if self.retrying:
            conclude(self)
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
            outbox.flush()

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

    def say(self, stream, batch):
        """Rows of one of the gateway's own streams. Journaled, so that a replay says the same."""
        stream.number_rows(batch)
        stream.arrived += len(batch)
        self.received_ns = batch.received_ns
        payload = encode_columns(batch)
        self.journal.append(BATCH, stream.number, batch.first_sequence, len(batch), payload)
        self._flow(stream, batch, payload)
        self.unsure = True

    def clock_set(self, delta_ns, away=False):
        """The receive clock was stepped by delta_ns. away: it went on by itself, but nobody looked; so that no device is silent for that time."""
        self.journal.append(CLOCK, 0, 0, 0, msgpack.packb([delta_ns, away] if away else [delta_ns]))
        self.journal.part()          # a tick that a power cut leaves without its step would be everybody's silence
        with suppress(DiskError):    # then it is made durable with what waits, and before it
            self.sync()
        self._clock_set(delta_ns, away)
        self.unsure |= bool(self.deferred)

    def _clock_set(self, delta_ns, away=False):
        super()._clock_set(delta_ns)
        for outbox in () if away else self.outboxes:
            outbox.clock_set(delta_ns)

    # --- what changes

    def preamble(self):
        """SCHEMA records of all streams: each segment of journal and outbox begins with them, and so stands alone."""
        return [self._meaning(stream) for stream in self._streams]

    def announce(self, stream):
        """Say what a stream's number means, before the first record that bears it."""
        for writer in (self.journal, self.dead, *(outbox.writer for outbox in stream.outboxes)):
            kind, number, payload = self._meaning(stream)
            writer.append(kind, number, 0, 0, payload)

    def pay(self):
        """Put into the outboxes what the last checkpoint says they will have: `owed`, [outbox names, number, stream name, first sequence, rows,
        payload] each. A restart from that checkpoint does the same, so these rows are there if the checkpoint is, and only then."""
        owed, self.owed = self.owed, []
        for names, *rows in owed:
            for outbox in self.outboxes:
                if outbox.name in names:
                    outbox.put(*rows)
                    self.changes += 1

    def _meaning(self, stream):
        return SCHEMA, stream.number, msgpack.packb(stream.schema.to_dict())

    # --- what goes wrong

    def _trapped(self, stage, number, batch, error):
        if self._replaying:          # and not when first made: what it put out then does not come again
            self.jump(self.below(stage.answers))
        self._skipped(stage, number, batch, error)

    def _skipped(self, stage, number, batch, error):
        self.on_trap(stage, error)
        self.buried = True
        self.dead.append(DEAD, stage.input.number, self.journal.head, len(batch),
                         letter(str(error), batch.received_ns, rule=stage.name, module=stage.rule.digest,
                                backtrace=getattr(error, "backtrace", None), columns=encode_columns(batch)))
        fate = [SHARE] if error.code == SHARE else []
        self.journal.append(SKIP, 0, number, 0, msgpack.packb([stage.name, stage.rule.identity, *fate]))
        self.unsure = True

    def _bury(self, stream, intake, rejected, received_ns, masked):
        stream.rejected += len(rejected)
        for index, reason in rejected:
            self._bury_event(stream.number, intake[index], reason, received_ns, masked)

    def _bury_unrouted(self, intake, indices, received_ns):
        self.unrouted += len(indices)
        for index in indices:
            self._bury_event(0, intake[index], "no stream takes this topic", received_ns)

    def _bury_event(self, number, event, reason, received_ns, masked=False):
        """masked: what the event says, in its payload or topic, is kept nowhere."""
        topic, payload, _, _ = event
        self.buried = True
        what = {"withheld": len(payload)} if masked else {"topic": topic.decode("utf-8", "replace"), "payload": payload}
        self.dead.append(DEAD, number, self.journal.head, 1, letter(reason, received_ns, **what))
