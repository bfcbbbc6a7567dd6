"""Footprint: memory with ten rules, and the time from exec to the first event."""

import socket
import statistics
import sys
import time

from edge.errors import TidegateError
from gateway.bench import workload
from gateway.bench.baseline import SCRIPT, first_publish_s, script_at_rate
from gateway.bench.figure import Figure
from gateway.bench.rates import LANES, LISTENER
from gateway.bench.rig import START_S, Gateway, Process, Sink, free_port, load, memory_mb

RATE = 1000
TEN_RULES = workload.RULES + """
[rules.dry]
input = "env"
module = "threshold"
params = { field = "hum", op = "<", value = 30.0, hysteresis = 2.0 }
[rules.low]
input = "env"
module = "threshold"
params = { field = "bat", op = "<", value = 3.3 }
[rules.once]
input = "env"
module = "dedup"
params = { id = "seq", mode = "sequence" }
[rules.changed]
input = "env"
module = "deadband"
params = { field = "temp", change = 1.0, every = "1m" }
[rules.slope]
input = "env"
module = "rate"
params = { field = "temp", limit = 5.0 }
[rules.silent]
input = "env"
module = "missing"
params = { after = "1m" }
[rules.tenths]
input = "env"
module = "sample"
params = { interval = "1s" }
[rules.minutes]
input = "env"
module = "window"
params = { length = "1m", hop = "10s", fields = ["temp", "hum", "pres"], functions = ["count", "mean", "stddev"], decimals = 2 }
"""


def memory(folder, quick):
    """Resident memory with ten rules of seven kinds."""
    with Sink(folder, "hot") as sink, Gateway(folder / "memory", LISTENER + LANES.format(port=sink.port) + workload.STREAM + TEN_RULES) as gateway:
        calm = _resident(folder, gateway, RATE, 3 if quick else 20)
        full = _resident(folder, gateway, 0, 2 if quick else 15)
    script = script_at_rate(folder, RATE, 2 if quick else 5)
    baseline = {} if script is None else {"baseline": f"{SCRIPT} at 1,000/s", "ratio": calm["memory_mb"] / script["memory_mb"]}
    return [
        Figure("memory, 10 rules, 1,000 events/s", calm["memory_mb"], "MB", 40, **baseline),
        Figure("memory, 10 rules, saturated", full["memory_mb"], "MB", 64, note=f"the most at {full['rate']:,} events/s"),
    ]


def _resident(folder, gateway, rate, seconds):
    """The most resident memory while a load runs, and its rate."""
    most, until = 0.0, time.monotonic() + seconds + 60
    with load(folder, gateway.port, rate=rate, seconds=seconds, qos=1, window=4000) as generator:
        while generator.running:
            most = max(most, memory_mb(gateway.pid))
            if time.monotonic() > until:
                raise TidegateError("the load generator does not end")
            time.sleep(0.05)
        report = generator.last_json()
    if not report["complete"]:
        raise TidegateError(f"not all was acknowledged: {report}")
    return {"memory_mb": most, "rate": report["rate"]}


def start(folder, quick):
    """From exec to the first alert upstream; a device retries all the while, the modules' machine code is in the cache."""
    port, times = free_port(), []
    with Sink(folder, "hot") as sink:
        text = f"[listener]\nport = {port}\n" + LANES.format(port=sink.port) + workload.STREAM + workload.RULES
        with Gateway(folder / "start", text):
            pass                                 # compiles
        for i in range(2 if quick else 7):
            with Process(folder / "start", "gateway", [sys.executable, "-m", "gateway.cli", "run", "-c", "tidegate.toml"]) as gateway:
                times.append((gateway.started, _knock(gateway, port, seq=i)))
                time.sleep(0.5)                  # upstream
        sink.stop()
        received = sink.receipts()
    acked = [at - began for began, at in times]
    upstream = [received[i] / 1e9 - began for i, (began, _) in enumerate(times)]
    baseline = first_publish_s(quick)
    return [
        Figure("exec to first event acknowledged", statistics.median(acked), "s", 0.4, note=f"median of {len(acked)}, worst {max(acked):.3g} s; it is in the synced journal"),
        Figure("exec to first alert upstream", statistics.median(upstream), "s", 0.4, baseline=SCRIPT, ratio=statistics.median(upstream) / baseline,
               note=f"worst {max(upstream):.3g} s"),
    ]


def _knock(gateway, port, seq):
    """Connect until somebody answers, publish a hot event at QoS 1; monotonic seconds at its PUBACK."""
    now_ms = time.time_ns() // 1_000_000
    payload = f'{{"device":"dev-001","ts":{now_ms},"temp":35.5,"hum":40.1,"seq":{seq},"site":"s1","pres":1013.2,"bat":3.7}}'.encode()
    name, topic = b"knock", b"sensors/s1/dev-001/env"
    connect = b"\x10" + bytes([12 + len(name)]) + b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2, "big") + name
    body = len(topic).to_bytes(2, "big") + topic + b"\x00\x01" + payload
    publish = b"\x32" + bytes([len(body) & 127 | 128, len(body) >> 7]) + body
    until = time.monotonic() + START_S
    while time.monotonic() < until and gateway.running:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as device:
                device.sendall(connect + publish)
                answer = b""
                while len(answer) < 8:               # CONNACK, PUBACK
                    data = device.recv(64)
                    if not data:
                        raise TidegateError(f"the gateway closed the connection after {answer!r}")
                    answer += data
                return time.monotonic()
        except ConnectionRefusedError:
            time.sleep(0.002)
    raise TidegateError(f"the gateway did not start: {gateway.err.read_text()[-2000:]}")
