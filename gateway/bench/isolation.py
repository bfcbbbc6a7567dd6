"""What the process boundary around rules costs: the same calls on the same batches, in this process and in the worker, in turns; and its memory."""

import gc
import statistics
import time

from edge._watermark import Watermarks
from edge.columns._batch import Batch
from edge.host.compile import Cache
from edge.host.rule import Rule
from edge.shadow import part
from gateway.bench import workload
from gateway.bench.figure import Figure
from gateway.bench.footprint import TEN_RULES
from gateway.bench.inside import decoded
from gateway.bench.rates import LISTENER
from gateway.bench.rig import Gateway
from gateway.isolation.sandbox import Unconfined
from gateway.isolation.workshop import Workshop
from tidegate_rules import path

NS_MAX, MB_MAX = 100, 15             # what is demanded of an event and rule, and of memory
SIZES = 16, 64, 256, 1024, 4096      # rows of a batch
RULES = {"threshold": {"field": "temp", "op": ">", "value": 30.0}, "window": {"length": "1s", "fields": ["temp"], "functions": ["count", "mean", "min", "max"]}}


def isolation(folder, quick):
    """The boundary, in time by batch size and in memory."""
    try:
        workshop = Workshop()
    except Unconfined as error:
        return [Figure("process boundary", None, "ns/event", NS_MAX, note=str(error))]
    events, _ = decoded(folder, 5_000 if quick else 50_000)
    whole = Batch(events[0][0].schema)
    for batch, _ in events:
        whole.extend(batch, 0, len(batch))
    figures = []
    for name, params in RULES.items():
        rules = [Rule("bench", path(name), params, whole.schema, cache=Cache(folder / f"cache-{i}", place)) for i, place in enumerate((None, workshop))]
        for rows in SIZES:
            (here, cpu), (there, cpu_there) = _calls(rules, whole, rows, workshop, 3 if quick else 15)
            figures.append(Figure(f"process boundary, {name}, batches of {rows:,}", there - here, "ns/event", NS_MAX, baseline="isolation none", ratio=there / here,
                                  note=f"{there * rows / 1000:.3g} us a call beside {here * rows / 1000:.3g}; of CPU {cpu_there * rows / 1000:.3g} beside {cpu * rows / 1000:.3g}"))
    workshop.close()
    return figures + _memory(folder, quick)


def _calls(rules, whole, rows, workshop, rounds):
    """(wall, CPU of both processes) nanoseconds an event, for each rule: the medians of rounds."""
    batches = [part(whole, start, start + rows) for start in range(0, min(len(whole), 200 * rows) - rows + 1, rows)]
    marks = Watermarks()
    for batch in batches:
        batch.received_ns = time.time_ns()
        marks.observe(batch)
    took = [[] for _ in rules]
    for _ in range(rounds):
        for rule, times in zip(rules, took):
            rule.reset()
            gc.disable()
            began, cpu = time.perf_counter_ns(), time.thread_time_ns() + workshop.cpu_ns
            for batch in batches:
                rule.process(batch)
            times.append((time.perf_counter_ns() - began, time.thread_time_ns() + workshop.cpu_ns - cpu))
            gc.enable()
    return [[statistics.median(kind) / (rows * len(batches)) for kind in zip(*times)] for times in took]


def _memory(folder, quick):
    """Of the gateway and its worker, ten rules: what they have for themselves, without the files that processes share."""
    found = {}
    for mode in ("none", "process"):
        table = workload.GATEWAY.replace('"none"', f'"{mode}"')
        with Gateway(folder / f"memory-{mode}", LISTENER + workload.STREAM + TEN_RULES, gateway=table) as gateway:
            time.sleep(1 if quick else 5)
            status = gateway.ask("status")
            found[mode] = _own_bytes(gateway.pid) / 1e6, status["isolation"].get("memory_mb", 0)
    alone, (daemon, worker) = found["none"][0], found["process"]
    return [Figure("process boundary, memory", daemon + worker - alone, "MB", MB_MAX, baseline="isolation none", ratio=(daemon + worker) / alone,
                   note=f"10 rules: the gateway {daemon:.1f} and its worker {worker:.1f} beside {alone:.1f}, without files that are mapped")]


def _own_bytes(pid):
    with open(f"/proc/{pid}/status") as f:
        return 1024 * sum(int(line.split()[1]) for line in f if line.startswith(("RssAnon:", "RssShmem:")))
