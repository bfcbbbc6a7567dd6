"""The baseline script at work: flat out, fed directly; or at a rate, behind Mosquitto."""

import json
import statistics
import struct
import subprocess
import sys
import time

from gateway.bench import workload
from gateway.bench.feed import Feed
from gateway.bench.rig import Mosquitto, Process, latency_ms, load, memory_mb, mosquitto_path, stamps

SUBSCRIBED_S = 1.0               # by then it has subscribed
SCRIPT = "paho + orjson + dict script"


def script_flat_out(wire, count) -> dict:
    """cpu_us an event and rate of the script on `count` events."""
    feed = Feed(wire)
    done = subprocess.run([sys.executable, "-m", "gateway.bench.script", str(feed.port)], capture_output=True, text=True, check=True, timeout=300)
    feed.join(10)
    report = json.loads(done.stdout)
    if report["events"] != count:
        raise AssertionError(f"the script saw {report['events']} of {count} events")
    return {"cpu_us": report["cpu_s"] / count * 1e6, "rate": count / report["wall_s"]}


def first_publish_s(quick) -> float:
    """Seconds from exec to the script's first publication, one event having waited for it; median."""
    event = workload.packet(b"sensors/s1/dev-001/env", b'{"device":"dev-001","temp":35.5}')
    times = []
    for _ in range(2 if quick else 7):
        feed, began = Feed(event, linger_s=0.3), time.monotonic()
        subprocess.run([sys.executable, "-m", "gateway.bench.script", str(feed.port)], capture_output=True, check=True, timeout=60)
        feed.join(10)
        times.append(feed.answered - began)
    return statistics.median(times)


def script_at_rate(folder, rate, seconds) -> dict | None:
    """The script behind Mosquitto at a rate: p50_ms and p99_ms from device to subscriber, published bytes and cpu_us an event, memory_mb.

    None without Mosquitto.
    """
    if mosquitto_path() is None:
        return None
    folder = folder / "baseline"
    folder.mkdir()
    with Mosquitto(folder) as mosquitto, Process(folder, "script", [sys.executable, "-m", "gateway.bench.script", str(mosquitto.port)]) as script:
        time.sleep(SUBSCRIBED_S)
        port = str(mosquitto.port)
        with load(folder, mosquitto.port, rate=rate, seconds=seconds, qos=1, extra=("--stamps", "stamps", "--sink-port", port, "--sink-topic", "up/f",
                                                                                   "--capture", "capture")) as generator:
            generator.wait(seconds + 60)
        memory = memory_mb(script.pid)
        script.stop()
        report = script.last_json()
        made = stamps(folder / "stamps")
        late = latency_ms(made, _captured(folder / "capture"))
        return {"p50_ms": late[0], "p99_ms": late[1], "bytes": report["published_bytes"] / report["events"], "memory_mb": memory,
                "cpu_us": report["cpu_s"] / report["events"] * 1e6}


def _captured(path):
    """seq -> CLOCK_MONOTONIC ns, from the load generator's capture."""
    data, at, receipts = path.read_bytes(), 0, {}
    while at < len(data):
        now, size = struct.unpack_from("<QI", data, at)
        receipts[json.loads(data[at + 12:at + 12 + size])["seq"]] = now
        at += 12 + size
    return receipts
