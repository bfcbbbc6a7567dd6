"""What an operator sees at 1,000 events a second: how soon an alert is upstream, and what all of it costs on the uplink and on disk."""

import os
import time

from edge.errors import TidegateError
from gateway.bench import workload
from gateway.bench.baseline import SCRIPT, script_at_rate
from gateway.bench.figure import Figure
from gateway.bench.rates import LISTENER
from gateway.bench.rig import Gateway, Sink, cpu_s, latency_ms, load, stamps

RATE = 1000
RULES = """
[rules.alarm]
input = "hot"
module = "project"
params = { keep = ["temp", "seq"] }
"""
LANES = """
[upstream]
host = "127.0.0.1"
port = %d
[lanes.alerts]
streams = ["alarm"]
age = "0s"
priority = 0
[lanes.telemetry]
streams = ["seconds"]
age = "%ds"
"""
IDLE_S = 4.0                         # by then the windows of silent devices are closed
DRAIN_S = 30.0


def alerts(folder, quick):
    """Alerts at once, windows batched, in one run; QoS 1 from devices and to upstream, each event synced before anything leaves."""
    seconds, age_s = (3, 1) if quick else (30, 10)
    run = _run(folder, seconds, age_s)
    script = script_at_rate(folder, RATE, 2 if quick else 15)
    sync_ms = _sync_ms(folder)

    def ratio(name):
        return {} if script is None else {"baseline": f"{SCRIPT}, not durable, behind Mosquitto", "ratio": run[name] / script[name]}

    return [
        Figure("alert latency at 1,000/s, p50", run["p50_ms"], "ms", 1, **ratio("p50_ms"), note=f"{run['alerts']:,} alerts; one fdatasync here: {sync_ms:.2g} ms"),
        Figure("alert latency at 1,000/s, p99", run["p99_ms"], "ms", 5, **ratio("p99_ms")),
        Figure("upstream payload in the same run", run["bytes"], "bytes/event", 3, **ratio("bytes"),
               note=f"alerts {run['alert_bytes']:.3g} bytes a row, {run['windows']:,} windows batched for {age_s} s: {run['window_bytes']:.3g} bytes a row"),
        Figure("CPU per event at 1,000/s, whole gateway", run["cpu_us"], "us", **ratio("cpu_us"), note="an fdatasync and a wake-up almost every event"),
        Figure("journal on disk at 1,000/s", run["journal"], "bytes/event", note="a record every few events"),
    ]


def _run(folder, seconds, age_s):
    with Sink(folder, "alarm") as sink:
        text = LISTENER + workload.STREAM + workload.RULES + RULES + LANES % (sink.port, age_s)
        with Gateway(folder / "alerts", text) as gateway:
            before, cpu = gateway.ask("status"), cpu_s(gateway.pid)
            with load(folder, gateway.port, rate=RATE, seconds=seconds, qos=1, extra=("--stamps", "stamps")) as generator:
                generator.wait(seconds + 60)
                sent = generator.last_json()
            used = cpu_s(gateway.pid) - cpu
            after = gateway.ask("status")
            _drain(gateway)
        sink.stop()
        report = sink.last_json()
        received = sink.receipts()
    if not sent["complete"] or len(received) != sent["over_30"] or report["missing"] or report["duplicates"]:
        raise TidegateError(f"{sent['over_30']} alerts were due and {len(received)} arrived: {report}")
    p50, p99, count = latency_ms(stamps(folder / "stamps"), received)
    sizes = {lane: sum(n for topic, n in report["bytes"].items() if f"/{lane}/" in topic) for lane in ("alerts", "telemetry")}
    return {"p50_ms": p50, "p99_ms": p99, "alerts": count, "windows": report["rows"]["seconds"], "bytes": sum(sizes.values()) / sent["sent"],
            "alert_bytes": sizes["alerts"] / count, "window_bytes": sizes["telemetry"] / report["rows"]["seconds"],
            "cpu_us": used / sent["sent"] * 1e6, "journal": (after["journal"]["bytes"] - before["journal"]["bytes"]) / sent["sent"]}


def _drain(gateway):
    """Until all windows are closed and upstream has all."""
    time.sleep(IDLE_S)
    until = time.monotonic() + DRAIN_S
    while any(lane["rows_waiting"] for lane in gateway.ask("status")["lanes"].values()):
        if time.monotonic() > until:
            raise TidegateError("upstream did not get everything")
        time.sleep(0.1)


def _sync_ms(folder, count=200):
    """Median of an append and fdatasync on this disk."""
    times = []
    fd = os.open(folder / "synced", os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(fd, 0, 1 << 20)
        os.fsync(fd)
        for i in range(count):
            began = time.perf_counter()
            os.pwrite(fd, b"x" * 256, i * 256)
            os.fdatasync(fd)
            times.append(time.perf_counter() - began)
    finally:
        os.close(fd)
    return sorted(times)[count // 2] * 1e3
