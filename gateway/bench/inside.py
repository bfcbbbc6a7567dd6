"""Figures of the gateway's code alone, in this process: no sockets, no other process, the journal synced on the real disk."""

import json
import statistics
import time

import zstandard

from edge.codec.batches import decode_message, encode_batch
from edge.columns._batch import Batch
from edge.decoding._decode import Decoder, Router
from edge.mqtt._intake import Intake, Topics
from gateway.bench import workload
from gateway.bench.baseline import SCRIPT, script_flat_out
from gateway.bench.engine import DOORS, Engine
from gateway.bench.figure import Figure

BATCH_ROWS = 1000
FILTERS = 100
WARM = 30_000                        # events before the measured ones: buffers have their size then


def engine(folder, quick):
    """CPU, journal and outbox of an event on its whole way, beside the script on the same bytes."""
    count = 20_000 if quick else 400_000
    wires = _wires(count)
    text = workload.STREAM + workload.RULES + DOORS
    runs = [_played(folder / f"engine-{i}", text, wires) for i in range(1 if quick else 5)]
    cost = sorted(runs, key=lambda run: run.cpu_us)[len(runs) // 2]
    script_count = count if quick else 150_000
    script_us = script_flat_out(workload.packets(script_count), script_count)["cpu_us"]
    ratio = script_us / cost.cpu_us
    return [
        Figure("CPU per event, engine alone", cost.cpu_us, "us", 1.0, baseline=SCRIPT, ratio=1 / ratio,
               note=f"{cost.events:,} events in {cost.turns} turns, median of {len(runs)} runs"),
        Figure("CPU of the script, times the engine's", ratio, "x", 25, more=True, note=f"the script: {script_us:.4g} us an event, not durable"),
        Figure("journal on disk, saturated", cost.journal, "bytes/event", 16, baseline="JSON payload", ratio=cost.journal / _payload_bytes()),
        Figure("outbox on disk, saturated", cost.outbox, "bytes/event", note="a tenth of the events and the windows"),
        Figure("threshold rule, in its module", cost.rules["hot"], "ns/event"),
        Figure("window rule, in its module", cost.rules["seconds"], "ns/event"),
    ]


def _wires(count):
    """Packets that warm up, and those that are measured."""
    return workload.packets(WARM), workload.packets(count, first=WARM)


def _played(folder, text, wires):
    """What the last of these costs in an engine that has seen the others."""
    run = Engine(folder, text)
    costs = [run.play(wire) for wire in wires]
    run.close()
    return costs[-1]


def _payload_bytes():
    sizes = [len(payload) for _, payload, _ in workload.events(1000)]
    return sum(sizes) / len(sizes)


def filters(folder, quick):
    """Engine CPU with a hundred filters on a stream beside one."""
    wires = _wires(20_000 if quick else 200_000)
    cost = {}
    for i in range(1 if quick else 3):
        for name, n, step in (("one", 1, 0.001), ("rare", FILTERS, 0.001), ("busy", FILTERS, 0.01)):
            cost.setdefault(name, []).append(_played(folder / f"filters-{name}-{i}", _filters(n, step), wires).cpu_us)
    one, rare, busy = (statistics.median(cost[name]) for name in ("one", "rare", "busy"))
    return [
        Figure(f"{FILTERS} filters on one stream, times one filter", rare / one, "x", 2, baseline="one filter", ratio=rare / one,
               note=f"{rare:.3g} us beside {one:.3g} us an event; alarms: each passes 0.1 % of the events at most, into a lane"),
        Figure(f"{FILTERS} filters that put out half as many rows", busy / one, "x", baseline="one filter", ratio=busy / one,
               note=f"{busy:.3g} us an event; each passes 1 % at most, so a row leaves for every second event"),
    ]


def _filters(n, step):
    """n thresholds, `step` apart up to the highest temperature there is."""
    rules = "".join(f'[rules.f{i}]\ninput = "env"\nmodule = "threshold"\nparams = {{ field = "temp", op = ">", value = {40 - step * (FILTERS - i):.3f} }}\n'
                    for i in range(n))
    names = ", ".join(f'"f{i}"' for i in range(n))
    return workload.STREAM + rules + f'[listener]\nport = 0\n[upstream]\nhost = "127.0.0.1"\n[lanes.alerts]\nstreams = [{names}]\n'


def batches(folder, quick):
    """All events in messages of a thousand, without loss; and what decoding and encoding take."""
    events, decode_ns = decoded(folder, 5_000 if quick else 100_000)
    size = encode_ns = unpack_ns = json_bytes = zstd_bytes = 0
    compressor = zstandard.ZstdCompressor(level=3)
    for batch, lines in events:
        began = time.perf_counter_ns()
        message = encode_batch(batch, gateway="bench", epoch=1)
        encoded = time.perf_counter_ns()
        back = decode_message(message).batch
        unpack_ns += time.perf_counter_ns() - encoded
        encode_ns += encoded - began
        size += len(message)
        json_bytes += len(lines)
        zstd_bytes += len(compressor.compress(lines))
        _same(batch, back, lines)
    n = sum(len(batch) for batch, _ in events)
    return [
        Figure("all events upstream, batches of 1,000", size / n, "bytes/event", 8, baseline="the same as JSON lines, zstd -3", ratio=size / zstd_bytes,
               note=f"8 fields, decoded and compared; JSON {json_bytes / n:.1f}, with zstd -3 {zstd_bytes / n:.1f}"),
        Figure("JSON decode", decode_ns, "ns/event", note="payload to typed columns"),
        Figure("batch encode", encode_ns / n, "ns/event", note="for upstream"),
        Figure("batch decode", unpack_ns / n, "ns/event"),
    ]


def decoded(folder, count):
    """[(Batch, its payloads as lines)] of a thousand rows each; ns an event that decoding took."""
    run = Engine(folder / "batches", workload.STREAM + DOORS.replace('"hot"', '"env"').replace('"seconds"', '"env"'))
    contracts = run.pipeline.router.contracts
    run.close()
    decoder, router, intake = Decoder(contracts[0]), Router(contracts), Intake(Topics())
    sent = list(workload.events(count))
    done, took = [], 0
    for start in range(0, count, BATCH_ROWS):
        part = sent[start:start + BATCH_ROWS]
        for topic, payload, _ in part:
            intake.add(topic, payload)
        router.route(intake)
        batch, dead = Batch(contracts[0].schema, BATCH_ROWS), []
        began = time.perf_counter_ns()
        decoder.decode(intake, 0, batch, dead)
        took += time.perf_counter_ns() - began
        batch.first_sequence, batch.received_ns = start, time.time_ns()
        intake.clear()
        done.append((batch, b"\n".join(payload for _, payload, _ in part) + b"\n"))
    return done, took / count


def _same(batch, back, lines):
    """Raises AssertionError unless the receiver has what was sent, by comparison with what Python's json reads."""
    if back.rows() != batch.rows():
        raise AssertionError("a batch came back changed")
    for row, line in zip(back.rows(), lines.splitlines()):
        event = json.loads(line)
        event["ts"] *= 1_000_000
        if row != event:
            raise AssertionError(f"a row came back changed: {row} of {event}")
