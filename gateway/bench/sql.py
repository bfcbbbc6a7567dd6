"""What a rule in SQL costs beside the one in C that does the same, on workload W1."""

import importlib

from edge._watermark import Watermarks
from edge.host.compile import Cache
from edge.host.module import Module
from edge.host.rule import Rule
from gateway.bench.figure import Figure
from gateway.bench.inside import decoded
from tidegate_rules import path

TIMES_MAX = 1.5
PAIRS = [
    ("SQL filter", "SELECT * FROM env WHERE temp > :limit", {"limit": 30.0}, "threshold", {"field": "temp", "op": ">", "value": 30.0}),
    ("SQL tumbling average",
     "SELECT device, window_start, window_end, avg(temp) AS temp_mean FROM env GROUP BY device, TUMBLE(ts, INTERVAL '1' SECOND)", {},
     "window", {"length": "1s", "fields": ["temp"], "functions": ["mean"]}),
]


def sql(folder, quick):
    """Time in the module, an event."""
    try:
        compile_sql = importlib.import_module("rulec.sql").compile        # the author's tools: the gateway itself does without
    except ImportError as error:
        return [Figure(f"{name}, times the rule in C", None, "x", TIMES_MAX, note=f"{error}: pip install tidegate[tools]") for name, *_ in PAIRS]
    events, _ = decoded(folder, 5_000 if quick else 100_000)
    batches, marks = [batch for batch, _ in events], Watermarks()
    for batch in batches:
        marks.observe(batch)
    figures = []
    for name, text, given, ready, params in PAIRS:
        parameters = [{"name": p, "type": "f64", "summary": ""} for p in given]
        module = Module(compile_sql(text, schema=batches[0].schema, name="sql", parameters=parameters))
        rules = [Rule("bench", m, p, batches[0].schema, cache=Cache(folder / "cache")) for m, p in ((module, given), (path(ready), params))]
        ours, theirs = _cost(rules, batches, 1 if quick else 7)
        figures.append(Figure(f"{name}, times the rule in C", ours / theirs, "x", TIMES_MAX, baseline=ready, ratio=ours / theirs,
                              note=f"{ours:.3g} ns an event beside {theirs:.3g}; module of {len(module.content) >> 10} KiB, "
                                   f"state {rules[0].memory_bytes >> 10} KiB"))
    return figures


def _cost(rules, batches, runs):
    """Nanoseconds an event in each rule's module: the least of runs that take turns, because other work only adds."""
    costs = [[] for _ in rules]
    for _ in range(runs):
        for rule, cost in zip(rules, costs):
            rule.reset()
            before = rule.run_ns
            for batch in batches:
                rule.process(batch)
            cost.append((rule.run_ns - before) / sum(map(len, batches)))
    return [min(cost) for cost in costs]
