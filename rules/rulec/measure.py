"""What a rule costs: time an event, memory, size, compile time. Time is that of a call as the gateway makes it: the columns copied in, the module, its
answer checked and copied out; the whole and the module's part by one clock, the gateway's own for rules (Rule.run_ns), and their medians.

Events are generated: devices report in turn, ten milliseconds apart, for as long as it takes; a field's values are those that the samples show, or else
numbers that wander. Parameters, stream and time settings are those of a case.
"""

import json
import random
import tempfile
import time
from pathlib import Path

from edge._watermark import Watermarks
from edge.columns._batch import Batch
from edge.decoding._decode import Decoder, Router
from edge.errors import ConfigError, RuleError
from edge.host.compile import Cache
from edge.host.rule import Rule
from edge.mqtt._intake import Intake, Topics
from edge.rehearsal import trial
from edge.rehearsal.samples import Head

ROWS = 1024
DEVICES = 100
APART_NS = 10_000_000
START_NS = 1_700_000_000 * 10**9
WARM_UP = 30                             # calls that are not counted
SEED = 1


def measure(subject, case_name, seconds) -> dict:
    """subject: rulec.subject.Subject. seconds: of measuring, for each size of batch. Plain data; times in nanoseconds. Raises ConfigError, RuleError."""
    module = subject.module
    head = _head(subject, case_name)
    contract = trial.contract_of(head, module.manifest)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
        cache = Cache(directory)
        began = time.perf_counter_ns()
        cache.load(module)
        compile_ns = time.perf_counter_ns() - began
        code_bytes = sum(path.stat().st_size for path in Path(directory).glob("*.cwasm"))
        source = Source(contract, head, _seen(subject.samples, contract, head))
        rules = [Rule(module.manifest.name, module, head.params, contract.schema, cache=cache) for _ in range(2)]
        batch, single = _time(rules[0], source, ROWS, seconds), _time(rules[1], source, 1, seconds / 4)
        rule = rules[0]
        return {"rule": module.manifest.name, "version": module.manifest.version, "digest": module.digest, "params": head.params,
                "batch": batch | {"rows": ROWS}, "single": single | {"rows": 1},
                "outcome": {"in": rule.rows_in, "out": rule.rows_out, "late": rule.rows_late, "ignored": rule.rows_ignored},
                "memory_bytes": rule.memory_bytes, "module_bytes": len(module.content), "code_bytes": code_bytes, "compile_ns": compile_ns}


def _head(subject, case_name):
    """Of a case; of no case where there are no samples."""
    cases = [c for c in subject.samples.cases if not c.refused] if subject.samples else []
    if case_name is not None:
        cases = [c for c in cases if c.name == case_name]
        if not cases:
            raise ConfigError(f"{subject.module.name}: there is no case {case_name!r} that runs")
    return cases[0].head if cases else Head()


def _seen(samples, contract, head) -> dict:
    """field -> values that events of the samples show, decoded by the contract."""
    payloads = [p for case in (samples.cases if samples else []) if case.head.fields is head.fields
                for group in case.groups for p in _payloads(group)]
    intake, batch = Intake(Topics()), Batch(contract.schema)
    for payload in payloads[:4096]:
        intake.add(head.stream.encode(), payload)
    Router([contract]).route(intake)
    Decoder(contract).decode(intake, 0, batch, [])
    return {field.name: batch.column(field.name) for field in contract.schema.fields}


def _payloads(group):
    return [(step.value[1] if step.word == "IN" else step.value).encode() for step in group.steps if step.word in ("IN", "AND")]


class Source:
    """Batches of generated events, each later than the one before; the same for the same samples."""

    def __init__(self, contract, head, seen):
        self._schema, self._seen = contract.schema, seen
        self._make_watermarks = lambda: Watermarks(head.lateness_ns, head.idle_ns, head.skew_ns)
        self.begin()

    def begin(self):
        """Anew, for another rule."""
        self._random, self._count, self._now_ns = random.Random(SEED), 0, START_NS
        self._watermarks = self._make_watermarks()

    def batch(self, rows):
        """With its watermarks."""
        batch = Batch.from_rows(self._schema, [self._row() for _ in range(rows)], first_sequence=self._count - rows, received_ns=self._now_ns)
        self._watermarks.observe(batch)
        return batch

    def _row(self):
        self._now_ns += APART_NS
        self._count += 1
        return {field.name: self._value(field) for field in self._schema.fields}

    def _value(self, field):
        if field.name == self._schema.time:
            return self._now_ns
        if field.name == self._schema.key:
            return f"device-{self._count % DEVICES}"
        if seen := self._seen[field.name]:
            return seen[self._random.randrange(len(seen))]
        if field.kind == "f64":
            return self._random.gauss(20, 5)
        return {"i64": self._count, "time": self._now_ns, "bool": self._count % 2 == 0, "str": f"text {self._count % 10}"}[field.kind]


def _time(rule, source, rows, seconds) -> dict:
    """Nanoseconds an event, of each call."""
    source.begin()
    for _ in range(WARM_UP):
        rule.process(source.batch(rows))
    spent, inside, until = [], [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(spent) < 10:
        batch = source.batch(rows)
        module_ns, began = rule.run_ns, time.perf_counter_ns()
        try:
            result = rule.process(batch)
            if result.out_count:
                result.out(batch)
        except RuleError as error:
            raise RuleError(f"{error}: it stops the measuring at event {batch.first_sequence:,}", rule=rule.name) from None
        spent.append((time.perf_counter_ns() - began) / rows)
        inside.append((rule.run_ns - module_ns) / rows)
    spent.sort()
    inside.sort()
    return {"calls": len(spent), "p50_ns": spent[len(spent) // 2], "p99_ns": spent[min(len(spent) - 1, len(spent) * 99 // 100)], "module_ns": inside[len(inside) // 2]}


def lines(found) -> list[str]:
    """For people."""
    batch, single, outcome = found["batch"], found["single"], found["outcome"]
    params = ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in found["params"].items()) or "no parameters"
    share = {name: f"{100 * outcome[name] / max(outcome['in'], 1):.3g} %" for name in ("out", "late", "ignored")}
    return [
        f"{found['rule']} {found['version']} with {params}",
        f"time         {batch['p50_ns']:,.1f} ns an event (p50 of {batch['calls']:,} batches of {batch['rows']:,} rows), {batch['p99_ns']:,.1f} ns (p99); "
        f"{batch['module_ns']:,.1f} ns of it in the module",
        f"one event    {single['p50_ns']:,.0f} ns (p50 of {single['calls']:,} batches of one row), {single['p99_ns']:,.0f} ns (p99)",
        f"rows         {outcome['in']:,} in; out {share['out']}, late {share['late']}, ignored {share['ignored']} of them",
        f"memory       {found['memory_bytes']:,} bytes in the end",
        f"module       {found['module_bytes']:,} bytes; machine code {found['code_bytes']:,} bytes",
        f"compile      {found['compile_ns'] / 1e6:,.0f} ms, in a process of its own",
    ]
