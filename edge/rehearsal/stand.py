"""A test stand: a gateway of one stream and one rule in virtual time, on a disk in memory.

Decoder, journal, watermarks, stage, outbox and checkpoints are those of `tidegate run`. The clock begins at 1970 and goes on only by what is asked of
it. A tick comes at each whole second on the way, as in the daemon, and at the moment that advance() leads to.

Weeks have many seconds, so a second instance of the rule, the scout, is shown a silence first: where a longer one puts out nothing no
shorter one does, and the ticks between are left out. That holds for a rule that acts on what its watermark has reached, as rules/ABI.md asks;
`every_tick` turns it off.
"""

import msgpack

from edge._watermark import Watermarks
from edge.checkpoint import CheckpointStore
from edge.codec.batches import decode_columns
from edge.columns._batch import Batch
from edge.decoding._decode import Decoder, Router
from edge.errors import ConfigError, RuleError
from edge.host.rule import Rule
from edge.mqtt._intake import Intake, Topics
from edge.outbox import Outbox
from edge.pipeline import Pipeline
from edge.recovery import capture, restore
from edge.rehearsal.spelling import moment
from edge.stage import Stage, Stream
from edge.storage.log import Log
from edge.storage.memory import Memory
from edge.storage.records import BATCH, DEAD, between, read_letter
from edge.succession import partial_schema

S = 10**9
FORGET_NS = 24 * 3600 * S                # as in the gateway
CLOCK_MAX = 1 << 62                      # the year 2116: the clock goes no further
TICKS_MAX = 500_000                      # calls for ticks, the scout's too
NO_QUOTA = 1 << 40


class Stand:
    """rule: as it runs. now_ns: the receive clock. ignored: rows that the rule could not use, so far.

    Raises RuleError and ConfigError as edge.host.rule.Rule does.
    """

    def __init__(self, module, contract, params, cache, *, lateness_ns=0, idle_ns=30 * S, skew_ns=60 * S, limits=None, every_tick=False):
        name = module.manifest.name
        if contract.name in (name, f"{name}.late"):
            raise ConfigError(f"the stream and the rule are both called {name}; name the stream otherwise")
        self._make_rule = lambda: Rule(name, module, params, contract.schema, cache=cache, limits=limits)
        self._make_watermarks = lambda: Watermarks(lateness_ns, idle_ns, skew_ns, FORGET_NS)
        self._contract, self._every_tick = contract, every_tick
        self._decoder = Decoder(contract)
        self._intake = Intake(Topics())
        self._disk, self._logs = Memory(), []
        self.now_ns = self._ticked = self._ticks = 0
        self._read = self._buried = 0        # positions in outbox and dead letters that taken() has come to
        self._start()
        self._scout = self._make_rule()

    def _start(self):
        self.rule = self._make_rule()
        schemas = (self._contract.schema, self.rule.output_schema, self.rule.late_schema, partial_schema(self.rule))
        self._input, output, late, partial = (Stream(i, schema, self._make_watermarks) for i, schema in enumerate(schemas, 1))
        self._outbox = Outbox("samples", self._log("outbox"), evict=False)
        output.outboxes = late.outboxes = [self._outbox]
        self._words = {output.number: ("OUT", output.schema), late.number: ("LATE", late.schema)}
        self._stage = Stage(self.rule, self._input, output, late, partial)
        self._checkpoints = CheckpointStore(self._disk, "checkpoints")
        self._logs.append(self._checkpoints.log)
        self.pipeline = Pipeline(epoch=1, router=Router([self._contract]), decoders=[self._decoder], inputs=[self._input], stages=[self._stage],
                                 outboxes=[self._outbox], journal=self._log("journal"), dead=self._log("dead"))

    def _log(self, directory):
        log = Log(self._disk, directory, quota_bytes_max=NO_QUOTA)
        self._logs.append(log)
        return log

    @property
    def ignored(self) -> int:
        return self._stage.ignored

    # --- what may happen

    def put(self, payloads, at_ns=None):
        """Events come in one batch, received at at_ns, or when the latest of them happened, or now if that is later. Raises ConfigError when
        at_ns has passed."""
        self._fill(payloads)
        if at_ns is None:
            at_ns = max([self.now_ns, *(t for t in self._event_times() if t <= CLOCK_MAX)])
        self._go_on(at_ns)
        stored = self.pipeline.store(self._intake, at_ns)
        self._intake.clear()
        self.pipeline.sync()
        self.pipeline.run(stored)

    def advance(self, to_ns):
        """Nothing comes until to_ns, and a tick then. Raises ConfigError when that has passed."""
        self._go_on(to_ns)
        self._tick(to_ns)

    def force(self, key, to_ns):
        """The watermark of one key goes on to to_ns, if it is not there already; the clock and the other keys stay. key: its bytes, b"" where
        the stream has none. Raises ConfigError for a key that is not known."""
        kept = self._input.watermarks
        found = kept.watermark(key)
        if found is None:
            raise ConfigError(f"no event of {f'key {key.decode()!r}' if key else 'the stream'} has come, or it is forgotten; it has no watermark")
        if found >= to_ns:
            return
        alone = Watermarks(0, 0, 0, FORGET_NS)               # the key as if it had been silent for just long enough
        alone.load(msgpack.packb([kept.merged_ns, [(key, to_ns - 1, self.now_ns - 1, found)]]))
        batch = alone.tick(self._contract.schema, self.now_ns)
        if self._contract.key:
            batch.watermark_ns = kept.merged_ns
        kept.load(msgpack.packb([kept.merged_ns, [(*row[:3], to_ns if row[0] == key else row[3]) for row in self._keys()]]))
        self._input.watermarks = _Once(batch, kept.merged_ns)
        self.pipeline.tick(self.now_ns)
        self._input.watermarks = kept

    def restart(self):
        """Checkpoint, and a new pipeline with a new instance of the rule that goes on from it. Raises RuleError when its state did not come along."""
        self._checkpoints.save(*capture(self.pipeline, {}))
        for log in self._logs:
            log.close()
        self._logs = []
        self._start()
        recovered, _ = restore(self.pipeline, self._checkpoints.load())
        if recovered.fresh or recovered.lost:
            raise RuleError("the rule's state did not survive the restart", rule=self.rule.name)

    def taken(self) -> list:
        """What came out since the last call: ("OUT" | "LATE", row, its fields), ("DEAD" | "TRAP", why, None), in the order of the engine."""
        found = []
        for record in between(self._outbox.log, self._read):
            self._read = record.position + 1
            if record.kind == BATCH:
                word, schema = self._words[record.stream]
                found += [(word, row, schema.fields) for row in decode_columns(record.payload, schema).rows()]
        for record in between(self.pipeline.dead.log, self._buried):
            self._buried = record.position + 1
            if record.kind == DEAD:
                letter = read_letter(record.payload)
                found.append(("TRAP" if "rule" in letter else "DEAD", letter["reason"].removeprefix(f"rule {self.rule.name}: "), None))
        return found

    # --- events

    def _fill(self, payloads):
        for payload in payloads:
            if not self._intake.add(self._contract.name.encode(), payload):
                raise ConfigError("the batch is larger than what a gateway takes in one turn")

    def _event_times(self):
        self.pipeline.router.route(self._intake)
        batch = Batch(self._contract.schema, len(self._intake))
        self._decoder.decode(self._intake, 0, batch, [])
        return batch.times() if self._contract.time else []

    # --- the clock

    def _go_on(self, to_ns):
        """Set the clock, with the ticks before that moment."""
        if to_ns < self.now_ns:
            raise ConfigError(f"the clock stands at {moment(self.now_ns)}, and does not go back to {moment(to_ns)}")
        if to_ns > CLOCK_MAX:
            raise ConfigError(f"{moment(to_ns)} is too far; the clock goes up to {moment(CLOCK_MAX)}")
        last = (to_ns - 1) // S * S
        while self._ticked < last:
            self._tick(self._next_tick(last))
        self.now_ns = to_ns

    def _tick(self, at_ns):
        self._count()
        self.now_ns = self._ticked = at_ns
        self.pipeline.tick(at_ns)

    def _count(self):
        self._ticks += 1
        if self._ticks > TICKS_MAX:
            raise ConfigError(f"more than {TICKS_MAX:,} ticks; let less time pass in one case")

    def _next_tick(self, last):
        """The next second at which the rule says something, or `last`; the ticks before it are of no account."""
        first = (self._ticked // S + 1) * S
        if self._every_tick:
            return first
        forgets = [-(-(received + FORGET_NS + 1) // S) * S for _, _, received, _ in self._keys()]
        last = min([last, *(at for at in forgets if at >= first)])       # two keys forgotten at once would change the order of those that stay
        if last == first or self.rule.quarantined:
            return last
        state = self._input.watermarks.dump(), self.rule.image()
        if not self._speaks(last, *state):
            return last
        quiet, step = self._ticked // S * S, S
        while quiet + step < last and not self._speaks(quiet + step, *state):
            quiet, step = quiet + step, 2 * step
        speaks = min(quiet + step, last)
        while speaks - quiet > S:
            middle = (quiet + speaks) // 2 // S * S
            if self._speaks(middle, *state):
                speaks = middle
            else:
                quiet = middle
        return speaks

    def _speaks(self, at_ns, watermarks, image) -> bool:
        """Whether silence until then makes the rule put out something, or trap."""
        self._count()
        scratch = self._make_watermarks()
        scratch.load(watermarks)
        batch = scratch.tick(self._contract.schema, at_ns)
        if batch is None:
            return False
        batch.first_sequence = self._input.next_sequence
        if self._scout.memory_bytes > self.rule.memory_bytes:
            self._scout.reset()                                          # memory grows and does not shrink
        self._scout.load_image(image)
        try:
            result = self._scout.process(batch)
        except RuleError:
            self._scout.reset()
            return True
        return bool(result.out_count or result.late_count or result.ignored)

    def _keys(self):
        """(name, latest event time, last receive time, watermark) of each key."""
        return [(bytes(name), *rest) for name, *rest in msgpack.unpackb(self._input.watermarks.dump())[1]]


class _Once:
    """Stands in for a stream's Watermarks in one tick."""

    def __init__(self, batch, merged_ns):
        self._batch, self.merged_ns = batch, merged_ns

    def tick(self, schema, received_ns):
        return self._batch
