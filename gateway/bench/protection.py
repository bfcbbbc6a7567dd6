"""What protection costs: encryption at rest, permission checks, masks. In this process, as inside.py."""

import statistics
import time

from edge.columns._batch import Batch
from edge.decoding._decode import Decoder, Router
from edge.decoding.contract import Contract
from edge.mqtt._intake import Intake, Topics
from edge.mqtt._mqtt import Flow
from edge.mqtt._permission import Permission
from gateway.bench import workload
from gateway.bench.engine import DOORS, READ_BYTES, Engine
from gateway.bench.figure import Figure

PATTERNS = 8


def protection(folder, quick):
    """Encryption beside none, a permission check for each PUBLISH, a hashed field."""
    return [*_encryption(folder, quick), _permission(quick), _mask(folder, quick)]


def _encryption(folder, quick):
    count = 20_000 if quick else 200_000
    wires = workload.packets(count // 10), workload.packets(count, first=count // 10)
    few = workload.packets(400 if quick else 4000)
    text = workload.STREAM + workload.RULES + DOORS
    key = folder / "key"
    key.write_text("5a" * 32)
    cost = {}
    for i in range(1 if quick else 5):
        for name, gateway in (("plain", workload.GATEWAY), ("sealed", f'{workload.GATEWAY}encryption_key_file = "{key}"\n')):
            run = Engine(folder / f"protection-{name}-{i}", text, gateway)
            run.play(wires[0])
            cost.setdefault(name, []).append(run.play(wires[1]))
            cost.setdefault(f"{name}, few", []).append(run.play(few, bytes_max=1024))
            run.close()
    us = {name: statistics.median(c.cpu_us for c in costs) for name, costs in cost.items()}
    size = {name: statistics.median(c.journal for c in costs) for name, costs in cost.items()}
    return [
        Figure("CPU per event, encrypted", us["sealed"], "us", baseline="not encrypted", ratio=us["sealed"] / us["plain"], note="saturated: records of thousands of events"),
        Figure("CPU per event, encrypted, small records", us["sealed, few"], "us", baseline="not encrypted", ratio=us["sealed, few"] / us["plain, few"],
               note=f"records of some {1024 // 140} events, each synced"),
        Figure("journal on disk, encrypted, small records", size["sealed, few"], "bytes/event", baseline="not encrypted", ratio=size["sealed, few"] / size["plain, few"],
               note="40 bytes a record"),
    ]


def _permission(quick):
    wire = workload.packets(20_000 if quick else 200_000)
    rounds = []
    for _ in range(3 if quick else 9):
        open_ns, events = _parsed(wire, None)
        checked_ns, _ = _parsed(wire, Permission([*(b"other/%d/#" % i for i in range(PATTERNS - 1)), b"sensors/#"]))
        rounds.append((checked_ns - open_ns) / events)
    return Figure("permission check of a PUBLISH", statistics.median(rounds), "ns/event", note=f"{PATTERNS} filters, the last one matches, topics of many devices on one connection")


def _parsed(wire, permission):
    """Nanoseconds to parse all packets, and how many there were."""
    flow, intake, view, at, count = Flow(server=True), Intake(Topics()), memoryview(wire), 0, 0
    flow.open, flow.permission = True, permission
    began = time.thread_time_ns()
    while at < len(wire):
        _, used, events, _ = flow.feed(view[at:at + READ_BYTES], intake)
        at += used
        count += events
        intake.clear()
        if intake.topics.nearly_full:
            intake.topics.clear()
    took = time.thread_time_ns() - began
    if flow.denied:
        raise AssertionError("the workload's topics are allowed")
    return took, count


def _mask(folder, quick):
    run = Engine(folder / "masks", workload.STREAM + DOORS.replace('"hot"', '"env"').replace('"seconds"', '"env"'))
    plain = run.pipeline.router.contracts[0]
    run.close()
    fields = list(plain.fields)
    masked = Contract(plain.name, plain.topics, fields, key=plain.key, time=plain.time, mask_key=bytes(32))
    i = next(i for i, f in enumerate(fields) if f.name == plain.key)
    hashed = type(fields[i])(fields[i].name, "str", fields[i].source, mask="hash")
    masked.fields = (*fields[:i], hashed, *fields[i + 1:])
    sent = list(workload.events(2_000 if quick else 10_000))
    cost = {contract: statistics.median(_decoded(contract, sent) for _ in range(3 if quick else 9)) for contract in (plain, masked)}
    return Figure("hash of a masked field", cost[masked] - cost[plain], "ns/event", note=f"JSON decode {cost[plain]:.0f} ns without, {cost[masked]:.0f} ns with")


def _decoded(contract, sent):
    """Nanoseconds an event."""
    decoder, router, intake, batch = Decoder(contract), Router([contract]), Intake(Topics()), Batch(contract.schema, len(sent))
    for topic, payload, _ in sent:
        intake.add(topic, payload)
    router.route(intake)
    began = time.thread_time_ns()
    n = decoder.decode(intake, 0, batch, [])
    return (time.thread_time_ns() - began) / n
