"""A rule: a module with parameters, bound to an input stream, and what it has done so far."""

import hashlib
from pathlib import Path

from edge.errors import RuleError
from edge.host.limits import Limits
from edge.host.module import Module
from edge.host.plan import FILTER

STRIKES_MAX = 3
STRIKES_WINDOW_NS = 600 * 10**9          # of receive time


class Rule:
    """Raises ConfigError for its parameters, RuleError for its module or what it reads, DiskError from the cache.

    name: also the output stream's; late rows go to NAME.late. module: a checked Module, or the path of a .wasm file. cache: edge.host.compile.Cache,
    or anything whose load(module) gives its code, and whose place makes instances of it.
    params: as configured. schema: of the input stream. limits: edge.host.limits.Limits.

    After a RuleError from process() call reset(), and load_image() with the last image. Three traps in ten minutes of receive time
    set `quarantined`; who feeds the rule passes it by from then on. `strikes` (receive times of traps) and `quarantined` are restored by their owner.
    """

    def __init__(self, name, module, params, schema, *, cache, limits=None):
        self.name = name
        self.module = module if isinstance(module, Module) else read_module(module, name)
        self.digest = self.module.digest
        manifest = self.module.manifest
        self.drops = manifest.drops
        self.params = params
        self.arguments = manifest.arguments(params, name)
        self.limits = (limits or Limits()).lowered(manifest.limits)
        self.input_schema = schema
        self._place, self._code = cache.place, cache.load(self.module)
        self._instance = None
        self.begin_counting()
        self.strikes = []
        self.quarantined = False
        self.reset()
        self.is_filter = self._instance.plan.mode == FILTER
        self.output_schema = self._instance.output
        self.late_schema = self._instance.late
        self.identity = self._identity()

    def _identity(self) -> str:
        """Differs between rules whose saved states are not for each other: module, parameters, and what is read from which stream."""
        read = [(f.name, f.kind) for f in self.input_schema.fields], self.input_schema.key, self.input_schema.time
        return hashlib.sha256(repr((self.digest, sorted(self.arguments.items()), read)).encode()).hexdigest()

    def begin_counting(self):
        """Counters speak of what comes from here on."""
        self._run_ns = -self._instance.run_ns if self._instance is not None else 0
        self.calls = self.rows_in = self.rows_out = self.rows_late = self.rows_ignored = self.traps = 0

    def process(self, batch):
        """The edge.host._result.Result for a batch of the input stream, or a tick. Raises RuleError; the instance is dead then."""
        try:
            result = self._instance.process(batch)
        except RuleError:
            self.traps += 1
            self.strike(batch.received_ns)
            raise
        self.calls += 1
        self.rows_in += len(batch)
        self.rows_out += result.out_count
        self.rows_late += result.late_count
        self.rows_ignored += result.ignored
        return result

    def strike(self, received_ns):
        """Note a trap at this receive time: made now, or known from the journal. May set quarantined."""
        self.strikes = [at for at in self.strikes if abs(received_ns - at) < STRIKES_WINDOW_NS][1 - STRIKES_MAX:] + [received_ns]
        self.quarantined = self.quarantined or len(self.strikes) >= STRIKES_MAX

    def reset(self):
        """A new instance, in the state of the beginning. Raises RuleError, and the old one stays."""
        self._put_in(self._fresh())

    def _fresh(self):
        instance = self._place.instance(self.name, self.module, self._code, self.limits)
        instance.open(self.arguments)
        instance.bind(self.input_schema)
        return instance

    def _put_in(self, instance):
        if self._instance is not None:
            self._run_ns += self._instance.run_ns
        self._instance = instance

    def another(self, *, schema=None, limits=None) -> "Rule":
        """The same module with the same parameters, in the state of the beginning. Raises RuleError."""
        return Rule(self.name, self.module, self.params, schema or self.input_schema, cache=Loaded(self._place, self._code), limits=limits or self.limits)

    def image(self):
        """The state: (memory, globals), two bytes objects. Valid between calls, not after a trap."""
        return self._instance.snapshot()

    def load_image(self, image):
        """Go to a state that image() gave, of a rule of the same identity. Raises RuleError."""
        memory, mutable = image
        self._instance.restore(memory, mutable)

    def saved(self) -> bytes | None:
        """The state in the module's own form, for take_over() of another rule; None: the module has no tg_save. Raises RuleError, and this rule goes on.

        A copy is asked, so that this rule is byte for byte as it was, whatever tg_save does.
        """
        if "tg_save" not in self.module.exports:
            return None
        copy = self._fresh()
        copy.restore(*self.image())
        return copy.saved()

    def take_over(self, saved: bytes, from_state: int):
        """Begin anew with what saved() gave of another version, whose manifest says state `from_state`. Raises RuleError, and all is as it was."""
        instance = self._fresh()
        instance.take_over(saved, from_state)
        self._put_in(instance)

    @property
    def run_ns(self) -> int:
        """Time spent in the module, nanoseconds."""
        return self._run_ns + self._instance.run_ns

    @property
    def memory_bytes(self) -> int:
        """Size of its linear memory now."""
        return self._instance.memory_bytes()


class Loaded:
    """Code that is there, in the place of a cache."""

    def __init__(self, place, code):
        self.place, self._code = place, code

    def load(self, module):
        return self._code


def read_module(path, name) -> Module:
    """The module in a file. Raises RuleError."""
    try:
        return Module(Path(path).read_bytes(), f"rule {name}: {path}")
    except OSError as error:
        raise RuleError(f"rule {name}: {path}: {error.strerror}", rule=name) from None
