"""Hostile modules beside good rules, in a process of its own, whose survival is the first result.

    python hostile_run.py --seed 1 --count 2000 [--first 0] [--child-every 20]

Two pipelines get the same events: one has the hostile module as a further rule on the stream, the other has not. What the good rules put out is compared
batch by batch, bytes by bytes. Prints one JSON object: what became of the modules, the worst overrun of a time limit (CPU time), the good
rules' batch times with and without, memory before and after. Exit status 1 where a promise is broken. --copies 3 has three such pairs: a batch's time is then the
middle one of the three, so that what else the machine does is not taken for the module's doing.

Every module passes the checks, the compiler's child included, that production has; but for speed only bombs and every --child-every-th module get a
child of their own, the others are compiled in this process by the same settings.
"""

import ctypes
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from campaign import main  # first: it finds the other folders
import hostile_modules
import rule_module as m
import wasmtime

from edge._watermark import Watermarks
from edge.codec.batches import encode_columns
from edge.columns.schema import Schema
from edge.errors import ConfigError, RuleError
from edge.host.code import check
from edge.host.compile import Cache
from edge.host.engine import engine, new_engine
from edge.host.limits import Limits
from edge.host.rule import Rule
from edge.mqtt._intake import Intake, Topics
from edge.stage import Stage, Stream
from edge.storage.memory import Memory
from edge.succession import partial_schema
from gateway.config.reader import parse
from gateway.core import Core

S = 10**9
BATCHES = 5                              # of events a module is given: three traps put it into quarantine
ROWS = 200
BUDGET_NS = 2_000_000
OVERRUN_NS_MAX = 50_000_000
STRETCH, STRETCHES_MIN = 200, 5          # batches over which a p99 is taken; how many of them say something
GROWTH_BYTES_MAX = 16 << 20
READINGS = 100                           # of the memory, in a run
GIVEN = {"field": "t", "value": 50.0, "id": "n", "length": "3s", "change": 1.0}      # parameters that the ready-made rules need
CONFIG = """
[gateway]
data = "data"
[listener]
[upstream]
host = "nowhere"
[streams.s]
topics = ["s"]
key = "id"
time = "at"
[streams.s.fields]
id = "str"
t = "f64"
n = "i64"
ok = "bool"
at = { type = "time", format = "ns" }
[rules.high]
input = "s"
module = "threshold"
params = { field = "t", value = 50.0, hysteresis = 1.0 }
[rules.mean]
input = "s"
module = "window"
params = { length = "3s", fields = ["t", "n"], functions = ["count", "mean", "stddev", "last"] }
[rules.means]
input = "mean"
module = "deadband"
params = { field = "t_mean", change = 0.5 }
[lanes.all]
streams = ["high", "mean", "means"]
quota = "4MiB"
[journal]
quota = "8MiB"
dead_letters = "4MiB"
"""


class Nursery(Cache):
    """Compiles in this process, by the gateway's settings, unless told to take a child."""

    child = False
    kept = None, None                        # the last module's bytes, and what they were compiled to

    def load(self, module):
        if module.wasm != self.kept[0]:
            self.kept = module.wasm, self._compiled(module)
        return self.kept[1]

    def _compiled(self, module):
        if self.child:
            return super().load(module)
        try:
            code = wasmtime.Module(new_engine(), module.wasm).serialize()
            check(module.wasm)
        except (wasmtime.WasmtimeError, ValueError) as error:
            raise RuleError(f"it is not a module for rules: {error}", rule=module.name) from None
        return wasmtime.Module.deserialize(engine(), code)


class Line:
    """A pipeline with the good rules, and what they put out."""

    def __init__(self, modules):
        self.disk = Memory()
        self.core = Core(parse(CONFIG), self.disk, modules, lambda *a, **k: None)
        self.core.log.warning = self.core.log.error = self.core.log
        self.core.recover()
        self.pipeline, self.source = self.core.pipeline, self.core.pipeline.inputs[0]
        self.intake, self.put_out, self.traps, self.took_ns = Intake(Topics()), [], [], 0
        self.pipeline.on_trap = lambda stage, error: self.traps.append(error)
        for outbox in self.pipeline.outboxes:
            outbox.append = lambda stream, batch, payload: self.put_out.append((stream.name, batch.first_sequence, payload or encode_columns(batch)))
        self.good_ns = 0                         # CPU time of the good rules' calls
        for stage in self.pipeline.stages:
            stage.process = self._timed(stage.process)

    def _timed(self, process):
        def timed(batch):
            began = time.thread_time_ns()
            try:
                return process(batch)
            finally:
                self.good_ns += time.thread_time_ns() - began

        return timed

    def turn(self, events, now_ns) -> float:
        """CPU seconds of the rules' part."""
        for payload in events:
            assert self.intake.add(b"s", payload)
        stored = self.pipeline.store(self.intake, now_ns)
        self.pipeline.sync()
        self.intake.clear()
        before = self.good_ns
        began = time.thread_time()
        self.pipeline.run(stored)
        self.pipeline.tick(now_ns)
        took = time.thread_time() - began
        self.took_ns = self.good_ns - before             # the good rules' part of it
        return took

    def attach(self, rule):
        output, late, partial = (Stream(60_000 + i, schema, Watermarks) for i, schema in enumerate(
            (rule.output_schema, rule.late_schema, partial_schema(rule))))
        stage = Stage(rule, self.source, output, late, partial)
        output.outboxes = late.outboxes = [Taker()]
        self.pipeline.lay_out([stage, *self.pipeline.stages])        # before the good ones: what it does comes first
        return stage

    def detach(self, stage):
        self.pipeline.lay_out([other for other in self.pipeline.stages if other is not stage])


class Taker:
    """An outbox that takes what the hostile module puts out."""

    def append(self, stream, batch, payload):
        pass


class Run:
    """One run: `results` in the end. copies: pairs of pipelines."""

    def __init__(self, folder, seed, copies=1):
        self.nursery = Nursery(f"{folder}/compiled")
        self.pairs = [(Line(f"{folder}/modules"), Line(f"{folder}/modules")) for _ in range(copies)]         # with the module, and without
        self.lines = [line for pair in self.pairs for line in pair]
        self.times = [], []                      # of the good rules, for each batch: beside the module, and without
        self.events = random.Random(seed)
        self.now_ns, self.sent = 1_700_000_000 * S, 0
        self.fates, self.broken = Counter(), []
        self.overrun_ns = 0

    def module(self, label, wasm, child):
        """Let a module do its worst. What runs past its time is tried again: only one that does so twice is slow, not the machine."""
        if self._let_loose(label, wasm, child) > OVERRUN_NS_MAX:
            again = self._let_loose(label, wasm, child)
            if again > OVERRUN_NS_MAX:
                self.broken.append(f"{label}: stopped {again / 1e6:.0f} ms after its time")

    def _let_loose(self, label, wasm, child) -> int:
        """Nanoseconds of CPU time that it was stopped too late."""
        self.nursery.child = child or label.startswith("bomb")
        beside = [line for line, _ in self.pairs]
        try:
            module = m.checked(wasm)
            params = {p.name: GIVEN[p.name] for p in module.manifest.parameters if p.required and p.name in GIVEN}
            rules = [Rule("probe", module, params, line.source.schema, cache=self.nursery, limits=Limits(time_ns=BUDGET_NS)) for line in beside]
            Schema.from_dict(rules[0].output_schema.to_dict())
        except (RuleError, ConfigError) as error:
            self.fates[f"refused: {getattr(error, 'code', 'parameters')}"] += 1
            return 0
        stages = [line.attach(rule) for line, rule in zip(beside, rules)]
        for line in beside:
            line.traps.clear()
        overrun_ns = max(self._batch(label) for _ in range(BATCHES))
        for line, stage in zip(beside, stages):
            line.detach(stage)
        self.overrun_ns = max(self.overrun_ns, overrun_ns)
        self.fates["quarantined" if rules[0].quarantined else "trapped" if beside[0].traps else "ran"] += 1
        return overrun_ns

    def checkpoint(self):
        """The logs on the disks in memory stay small."""
        for line in self.lines:
            line.core.checkpoint()

    def held_bytes(self):
        """What the disks in memory hold: dead letters fill their quota."""
        return sum(len(file.data) for line in self.lines for file in line.disk.files.values())

    def _batch(self, label):
        payloads = [self._event() for _ in range(ROWS)]
        self.now_ns += S
        overrun_ns = max(self._turns(pair, payloads, label) for pair in self.pairs)
        for times, lines in zip(self.times, zip(*self.pairs)):
            times.append(statistics.median(line.took_ns for line in lines))
        return overrun_ns

    def _turns(self, pair, payloads, label):
        """One turn of both; nanoseconds by which the module was stopped too late."""
        beside, without = pair
        traps = len(beside.traps)
        lines = pair if self.sent // ROWS % 2 else pair[::-1]            # who comes second finds the caches warm
        took_by = {line: line.turn(payloads, self.now_ns) for line in lines}
        if beside.put_out != without.put_out:
            self.broken.append(f"{label}: what the other rules put out changed")
        beside.put_out.clear()
        without.put_out.clear()
        late = any(error.code == "limit" for error in beside.traps[traps:])
        return int((took_by[beside] - took_by[without]) * 1e9) - BUDGET_NS if late else 0

    def _event(self):
        self.sent += 1
        return json.dumps({"id": f"d{self.sent % 7}", "t": round(self.events.uniform(0, 100), 2), "n": self.sent, "ok": self.sent % 2 == 0,
                           "at": self.now_ns + self.sent % 1000}).encode()


def p99_ratio(with_it, without):
    """p99 of the good rules' times beside hostile modules by that without: the median over stretches of STRETCH batches, so that what else the machine does in one
    stretch does not count; None for less than STRETCHES_MIN of them."""
    stretches = [[statistics.quantiles(times[at:at + STRETCH], n=100)[98] for times in (with_it, without)] for at in range(0, len(without) - STRETCH + 1, STRETCH)]
    return statistics.median(beside / quiet for beside, quiet in stretches) if len(stretches) >= STRETCHES_MIN else None


def run(seed, first, count, child_every, emulated=False, p99_ratio_max=0.0, copies=1):
    """The results, and what was broken. emulated: memory grows by what an emulator has translated, and is not judged. p99_ratio_max: above 0, the p99 of the other rules'
    time for a batch is judged, where there were modules enough; a machine with other work has none that means something. copies: pairs of pipelines."""
    with tempfile.TemporaryDirectory(prefix="tidegate-hostile-") as folder:
        it, held = Run(folder, seed, copies), []
        for i in range(first, first + count):
            label, wasm = hostile_modules.module(seed, i)
            it.module(label, wasm, i % child_every == 0)
            if i % 50 == 0:
                it.checkpoint()
            if i - first >= min(200, count // 2) and (i - first) % max(1, count // READINGS) == 0:       # buffers have their size by then
                held.append(settled_bytes() - it.held_bytes())
        held.append(settled_bytes() - it.held_bytes())
        some = max(1, len(held) // 5)
        growth = min(held[-some:]) - min(held[:some])            # the least of some: the allocator gives back when it likes
        if growth > GROWTH_BYTES_MAX and not emulated:
            it.broken.append(f"memory grew by {growth} bytes")
        beside, quiet = (statistics.quantiles(times, n=100)[98] for times in it.times) if len(it.times[0]) > 10 else (1, 1)
        ratio = p99_ratio(*it.times)
        if p99_ratio_max and ratio is not None and ratio > p99_ratio_max:
            it.broken.append(f"the other rules' p99 for a batch was {ratio:.2f} times what it is without hostile modules, {p99_ratio_max} at most")
        for fate, least in (("quarantined", 0.03), ("ran", 0.1), ("refused: refused", 0.05)):
            if count >= 200 and it.fates[fate] < least * count:
                it.broken.append(f"only {it.fates[fate]} of {count} modules {fate}: this run tried too little")
        return {"fates": dict(it.fates), "overrun_ms": round(it.overrun_ns / 1e6, 1),
                "p99_of_others_us": round(beside / 1e3, 1), "p99_without_us": round(quiet / 1e3, 1), "p99_ratio": ratio and round(ratio, 3),
                "growth_mb": round(growth / 1e6, 2), "binaryen": bool(hostile_modules.BINARYEN)}, it.broken


def settled_bytes():
    """Resident memory, after what is free was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    sys.exit(main(run, __doc__, 2000, child_every=50, emulated=False, p99_ratio_max=0.0, copies=1))
