"""The process of the rules, seen from the daemon: a place (see edge/host/resident.py) whose instances live in a worker that may die at any moment.

A Remote has what its instance would need to live again: how it was made, its last image, and the batches since, which it shares with its stage's
memento. When the worker dies it is started anew, and an instance comes back when it is next asked for something: made, image put in, batches played
again. That is exact, because a rule is a function of what it was given. The call in which the worker died, or did not answer in time, counts as a
trap of its rule; the others notice nothing.
"""

import time
import weakref

import msgpack

from edge.columns.schema import Schema
from edge.errors import RuleError
from edge.host._inputs import Inputs
from edge.host._result import Answers
from edge.host.engine import Unloadable
from edge.host.plan import PLAN_AT, Plan, Wrong
from edge.stage import MEMENTO_CALLS_MAX, MEMENTO_ROWS_MAX
from gateway.isolation import _channel as c
from gateway.isolation.child import Child
from gateway.isolation.sandbox import Unconfined

STARTS_S = 0.1, 1.0, 5.0             # pauses between tries to start a worker
TRIES_MAX = 3                        # of a request in which the worker dies before it begins
SLACK_NS = 10 * 10**9                # of wall time beyond a call's own; systemd waits for 30 s
CPU_SLACK_NS = 500 * 10**6           # of the worker's CPU time: what is around a call
TEXT_BYTES_MAX = 64 << 10
GLOBAL_BYTES = 17
CODES = ("refused", "trap", "limit", "bad output")           # of edge.errors.RuleError, that a worker may say


class Died(Exception):
    """The worker is gone. begun: in code of a module; why: for people."""

    def __init__(self, why, begun):
        super().__init__(why)
        self.begun = begun


class Workshop:
    """restarts: how often the worker died; last: why, the last time. on_death: fn(why). start: fn() -> Child; first: one that was started before.
    Raises gateway.isolation.sandbox.Unconfined where there can be none."""

    def __init__(self, start=Child, first=None):
        self.restarts, self.last = 0, ""
        self.on_death = lambda why: None
        self._start = start
        self._number = 0
        self._gone = [[], []]                # numbers of instances and codes that nobody has any more
        self._codes = weakref.WeakValueDictionary()
        self._child = (first or start()).ready()

    @property
    def generation(self) -> int:
        """Instances and codes of another one are gone."""
        return self.restarts

    @property
    def landlock(self) -> int:
        """The version that confines the worker, 0 for none."""
        return self._child.landlock

    @property
    def cpu_ns(self) -> int:
        """CPU time of the worker."""
        return self._child.channel.cpu_ns

    @property
    def memory_bytes(self) -> int | None:
        """Of the worker, resident, without what it shares with the daemon; None where that cannot be seen."""
        return self._child.memory_bytes

    # --- a place

    def load(self, path, code, again) -> "Code":
        """Machine code in the worker, whose file has a name that is its own. again: fn() -> the same, for another worker. Raises Unloadable."""
        known = self._codes.get(path)
        if known is None:
            known = self._codes[path] = Code(self, code, again)
        return known

    def instance(self, name, module, code, limits) -> "Remote":
        return Remote(self, name, module, code, limits)

    # --- requests

    def number(self) -> int:
        self._number = self._number % 0xFFFFFFFF + 1
        return self._number

    def forget(self, number, code=False):
        """Somebody let go of an instance, or of code; at any moment, so the worker hears of it with the next request."""
        self._gone[code].append(number)

    def ask(self, kind, number, parts=(), *, a=0, cpu_ns=-1, wall_ns=SLACK_NS):
        """The channel, with the answer: DONE, REFUSED or UNLOADABLE. Raises Died, and the next worker is there already."""
        if any(self._gone):
            gone, self._gone = self._gone, [[], []]
            self._checked(self._child.channel.ask(c.DROP, 0, [msgpack.packb(gone)], wall_ns=SLACK_NS))
        return self._checked(self._child.channel.ask(kind, number, parts, a=a, cpu_ns=cpu_ns, wall_ns=wall_ns))

    def process(self, number, inputs, batch, area, *, cpu_ns, wall_ns):
        """Likewise for a batch; None when the area is too small for it."""
        kind = self._child.channel.process(number, inputs, batch, *area, cpu_ns=cpu_ns, wall_ns=wall_ns)
        return self._checked(kind) if kind else None

    def _checked(self, kind):
        channel = self._child.channel
        if kind in (c.DONE, c.REFUSED, c.UNLOADABLE):
            return channel
        begun = channel.begun
        why = self._child.end("it did not answer in time" if kind == c.OVERDUE else "it answered nonsense" if kind != c.GONE else "")
        self.replace(why)
        raise Died(why, begun)

    def replace(self, why):
        """Another worker. Raises Unconfined when none comes up: the gateway ends then, and is started anew from its last checkpoint."""
        self.restarts += 1
        self.last = why
        self._gone = [[], []]
        self.on_death(why)
        for pause_s in STARTS_S:
            try:
                self._child = self._start().ready()
                return
            except Unconfined:
                time.sleep(pause_s)
        self._child = self._start().ready()

    def distrust(self, why):
        """The worker said what an honest one does not: it is let go of."""
        self._child.end("")
        self.replace(why)

    def close(self):
        self._child.end("")


class Code:
    """Machine code in the worker, of whichever generation."""

    def __init__(self, shop, code, again):
        self._shop, self._again = shop, again
        self._load(code)

    def number(self) -> int:
        """It is in the present worker then. Raises Died, Unloadable, and what again() raises."""
        if self._generation != self._shop.generation:
            self._load(self._again())
        return self._number

    def _load(self, code):
        for attempt in range(TRIES_MAX):
            self._number, self._generation = self._shop.number(), self._shop.generation
            try:
                channel = self._shop.ask(c.LOAD, self._number, [code])
                break
            except Died:
                if attempt == TRIES_MAX - 1:
                    raise
        if channel.kind == c.UNLOADABLE:
            raise Unloadable(channel.payload(TEXT_BYTES_MAX).decode("utf-8", "replace"))

    def __del__(self):
        if getattr(self, "_generation", None) == self._shop.generation:
            self._shop.forget(self._number, code=True)


class Remote:
    """An instance in the worker: as edge.host.resident.Resident, to a Rule."""

    def __init__(self, shop, name, module, code, limits):
        self.name, self.module, self.limits = name, module, limits
        self.plan = self.output = self.late = None
        self.dead, self.run_ns = False, 0
        self._shop, self._code = shop, code
        self._generation = None
        self._arguments = self._schema = self._inputs = self._answers = None
        self._begin_state(None)
        self._do(lambda: None)

    # --- once

    def open(self, arguments) -> Plan:
        self._arguments = arguments
        self._do(lambda: self._open(arguments))
        return self.plan

    def bind(self, schema) -> Schema:
        binding = self.plan.bind(schema, self.name, self.module.manifest.version)
        self._do(lambda: self._bind(schema))
        self._schema, self.output = schema, binding.output
        self.late = Schema(f"{self.name}.late", schema.fields, schema.version, schema.key, schema.time)
        self._answers = Answers(self.plan, binding, self.late, self.limits.output_bytes)
        self._inputs = Inputs(binding.sources, len(schema.fields))
        return self.output

    # --- a batch

    def process(self, batch):
        """The rule's Result. Raises RuleError, and it is dead then."""
        if self.dead:
            raise self.error("it has trapped and must be made anew")
        if batch.schema is not self._schema and batch.schema != self._schema:
            raise AssertionError(f"rule {self.name} is bound to another schema")
        if self._rows > MEMENTO_ROWS_MAX or len(self._since) > MEMENTO_CALLS_MAX:
            self.snapshot()
        result = self._do(lambda: self._process(batch))
        self._since.append(batch)
        self._rows += len(batch)
        return result

    # --- its state

    def snapshot(self):
        """(memory without the area, globals), bytes."""
        image = self._do(self._snapshot)
        self._begin_state(lambda: self._restore(*image))
        return image

    def restore(self, memory, mutable):
        self._do(lambda: self._restore(memory, mutable))
        self._begin_state(lambda: self._restore(memory, mutable))

    def saved(self) -> bytes:
        return self._do(lambda: self._asked(c.SAVED, rows=self.memory_bytes() // 1024).payload(self.limits.memory_bytes))

    def take_over(self, saved, from_state):
        def take():
            self._asked(c.TAKE_OVER, [saved], a=from_state, rows=self.memory_bytes() // 1024)

        self._do(take)
        self._begin_state(take)

    def memory_bytes(self) -> int:
        return self._memory_bytes

    def _begin_state(self, put_in):
        """What comes back in another worker: put_in(), then the batches from here on."""
        self._put_in, self._since, self._rows = put_in, [], 0

    # --- in the worker that there is

    def _do(self, step):
        """step(), in a worker that has the instance. Raises RuleError; if the worker dies of it, this one is dead."""
        for _ in range(TRIES_MAX):
            try:
                if self._generation != self._shop.generation:
                    self._live_again()
                return step()
            except Wrong as wrong:
                self.dead = True
                self._shop.distrust(f"it answered nonsense: {wrong}")
                raise self.error(f"the process of the rules answered nonsense: {wrong}", "bad output") from None
            except Unloadable as error:
                raise self.error(f"its machine code does not load any more: {error}") from None
            except Died as died:
                why = f"the process of the rules ended in a call: {died}"
                if died.begun:
                    break
        self.dead = True
        raise self.error(why, "trap")

    def _live_again(self):
        """Made, opened, bound, and in the state that it had. What it takes is not the rule's time."""
        run_ns = self.run_ns
        code = self._code.number()
        self._number, self._area, self._seen_ns, self._memory_bytes = self._shop.number(), (0, 0), 0, 0
        manifest, generation = self.module.manifest, self._shop.generation
        about = [self.module.digest, self.module.memory_pages, list(self.module.globals), sorted(self.module.exports), manifest.version, manifest.state]
        limits = self.limits
        self._asked(c.MAKE, [msgpack.packb([self.name, code, about, [limits.time_ns, limits.memory_bytes, limits.output_bytes, limits.table_elements]])])
        if self._arguments is not None and self.plan is not None:
            self._open(self._arguments)
        if self._schema is not None:
            self._bind(self._schema)
        if self._put_in is not None:
            self._put_in()
        for batch in self._since:
            self._process(batch)
        if self._generation is not None:
            self.run_ns = run_ns
        self._generation = generation

    def _open(self, arguments):
        plan = Plan.read(memoryview(self._asked(c.OPEN, [msgpack.packb(arguments)]).payload(self.limits.memory_bytes)), PLAN_AT)
        if plan.error:
            raise self.error(plan.error)
        self.plan = plan

    def _bind(self, schema):
        self._asked(c.BIND, [msgpack.packb(schema.to_dict())])

    def _process(self, batch):
        limits = self._allowed(len(batch))
        channel = self._shop.process(self._number, self._inputs, batch, self._area, **limits)
        if channel is None:
            self._asked(c.RESERVE, a=self._inputs.size(batch))
            channel = self._shop.process(self._number, self._inputs, batch, self._area, **limits)
            if channel is None:
                raise Wrong("it gave less room than was asked for")
        self._heed(c.PROCESS, channel)
        return channel.read(self._answers, batch)

    def _snapshot(self):
        channel = self._asked(c.SNAPSHOT)
        size = channel.a
        image = channel.payload(self.limits.memory_bytes + 12 + GLOBAL_BYTES * len(self.module.globals))
        if size > len(image):
            raise Wrong(f"an image of {size} bytes in {len(image)}")
        return image[:size], image[size:]

    def _restore(self, memory, mutable):
        self._asked(c.RESTORE, [memory, mutable], a=len(memory))

    def _asked(self, kind, parts=(), *, a=0, rows=0):
        channel = self._shop.ask(kind, self._number, parts, a=a, **(self._allowed(rows) if kind in c.RUNNING else {}))
        self._heed(kind, channel)
        return channel

    def _allowed(self, rows) -> dict:
        """How long a call for so many rows may take before its worker is ended: several calls' own time, because an area may be asked for too."""
        budget = 3 * (self.limits.time_ns if rows <= 1024 else self.limits.time_ns // 1024 * rows)
        return {"cpu_ns": budget + CPU_SLACK_NS, "wall_ns": 4 * budget + SLACK_NS}

    def _heed(self, kind, channel):
        """What an answer says beside its payload, as far as it can be. Raises RuleError for a refusal."""
        spent = channel.run_ns - self._seen_ns
        self._seen_ns = channel.run_ns
        self.run_ns += min(max(spent, 0), channel.took_ns)
        self._memory_bytes = min(channel.memory_bytes, self.limits.memory_bytes)
        area, size = channel.area
        self._area = (area, size) if area % 8 == 0 and area + size <= 1 << 32 else (0, 0)
        if channel.kind == c.REFUSED:
            self.dead = self.dead or channel.dead or kind in c.RUNNING
            raise self.error(*_refusal(channel.payload(TEXT_BYTES_MAX)), whole=True)
        if channel.kind != c.DONE:
            raise Wrong(f"an answer of kind {channel.kind}")

    # --- what goes wrong

    def error(self, what, code="refused", backtrace=None, whole=False):
        text = what if whole else f"rule {self.name}: {what}"
        return RuleError(text, code=code, rule=self.name, digest=self.module.digest, backtrace=backtrace)

    def __del__(self):
        if getattr(self, "_generation", None) == self._shop.generation:
            self._shop.forget(self._number)


def _refusal(payload):
    """(text, code, backtrace) as the worker says them. Raises Wrong."""
    try:
        said = msgpack.unpackb(payload)
        text, code, backtrace = said["text"], said["code"], said["backtrace"]
        frames = None if backtrace is None else [" ".join(str(frame).split()) for frame in backtrace]
        return " ".join(str(text).split()), code if code in CODES else "trap", frames
    except (ValueError, TypeError, KeyError, msgpack.UnpackException, msgpack.ExtraData) as error:
        raise Wrong(f"a refusal that is none: {error}") from None
