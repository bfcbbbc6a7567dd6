"""Figures of the gateway's code alone, in this process: no sockets, no other process, the journal synced on the real disk."""

import json
import statistics
import time

import zstandard

from edge._batch import Batch
from edge._decode import Decoder, Router
from edge._intake import Intake, Topics
from edge.codec import decode_message, encode_batch
from gateway.bench import workload
from gateway.bench.baseline import SCRIPT, script_flat_out
from gateway.bench.engine import DOORS, Engine
from gateway.bench.figure import Figure

BATCH_ROWS = 1000
FILTERS = 100


def engine(folder, quick):
    """CPU, journal and outbox of an event on its whole way, beside the script on the same bytes."""
    wire, count = _wire(20_000 if quick else 400_000)
    text = workload.STREAM + workload.RULES + DOORS
    runs = [_played(folder / f"engine-{i}", text, wire) for i in range(1 if quick else 5)]
    run = sorted(runs, key=lambda r: r["cpu_us"])[len(runs) // 2]
    script_wire, script_count = (wire, count) if quick else _wire(150_000)
    script = script_flat_out(script_wire, script_count)["cpu_us"]
    ratio = script / run["cpu_us"]
    return [
        Figure("CPU per event, engine alone", run["cpu_us"], "us", 1.0, baseline=SCRIPT, ratio=1 / ratio,
               note=f"{count:,} events, {run['turns']} turns, median of {len(runs)} runs"),
        Figure("CPU of the script, times the engine's", ratio, "x", 25, more=True, baseline=SCRIPT, note=f"the script: {script:.4g} us an event, not durable"),
        Figure("journal on disk, saturated", run["journal"], "bytes/event", 16, baseline="JSON payload", ratio=run["journal"] / _payload_bytes()),
        Figure("outbox on disk, saturated", run["outbox"], "bytes/event", note="a tenth of the events and the windows"),
        Figure("threshold rule, in its module", run["rules"]["hot"], "ns/event"),
        Figure("window rule, in its module", run["rules"]["seconds"], "ns/event"),
    ]


def _wire(count):
    return workload.packets(count), count


def _played(folder, text, wire):
    run = Engine(folder, text)
    run.play(wire)
    report = {"cpu_us": run.cpu_s / run.events * 1e6, "turns": run.turns, "journal": run.journal_bytes / run.events, "outbox": run.outbox_bytes / run.events,
              "rules": {stage.name: stage.rule.run_ns / run.events for stage in run.pipeline.stages}}
    run.close()
    return report


def _payload_bytes():
    sizes = [len(payload) for _, payload, _ in workload.events(1000)]
    return sum(sizes) / len(sizes)


def filters(folder, quick):
    """Engine CPU with a hundred filters on a stream beside one."""
    wire, count = _wire(20_000 if quick else 200_000)
    cost = {}
    for i in range(1 if quick else 3):
        for n in (1, FILTERS):
            cost.setdefault(n, []).append(_played(folder / f"filters-{n}-{i}", _filters(n), wire)["cpu_us"])
    one, many = statistics.median(cost[1]), statistics.median(cost[FILTERS])
    return [Figure(f"{FILTERS} filters on one stream, times one filter", many / one, "x", 2, baseline="one filter", ratio=many / one,
                   note=f"{many:.3g} us beside {one:.3g} us an event; each passes 1 % of the events at most, into a lane")]


def _filters(n):
    rules = "".join(f'[rules.f{i}]\ninput = "env"\nmodule = "threshold"\nparams = {{ field = "temp", op = ">", value = {39.9 + i * 0.001:.3f} }}\n'
                    for i in range(n))
    names = ", ".join(f'"f{i}"' for i in range(n))
    return workload.STREAM + rules + f'[listener]\nport = 0\n[upstream]\nhost = "127.0.0.1"\n[lanes.alerts]\nstreams = [{names}]\n'


def batches(folder, quick):
    """All events in messages of a thousand, without loss; and what decoding and encoding take."""
    events, decode_ns = _decoded(folder, 5_000 if quick else 100_000)
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


def _decoded(folder, count):
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
