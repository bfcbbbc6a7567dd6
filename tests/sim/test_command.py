"""The commands as processes: kill -9, Mosquitto, the load generator."""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firmware_sim.index import ACKED, TruthIndex

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "firmware-sim")}
COMMAND = [sys.executable, "-m", "firmware_sim.cli"]


def _run(*arguments, expect=0):
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert done.returncode == expect, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def mosquitto(tmp_path):
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "m.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n")
    process = subprocess.Popen([program, "-c", tmp_path / "m.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.02)
    yield port
    process.terminate()
    process.wait()


@pytest.mark.parametrize("after_s", [0.35, 0.6])
def test_truth_is_right_under_kill_9(broker, tmp_path, after_s):
    one, path = broker(), tmp_path / "t"
    process = subprocess.Popen([*COMMAND, "run", "w1", "--port", str(one.port), "--truth", path, "--speed", "max", "--json"],
                               env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not one.published and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while one.open_connections and time.monotonic() < until:
        time.sleep(0.02)
    truth, got = TruthIndex(path), set()
    for publish in one.published:
        body = json.loads(publish.payload)
        n = truth.find(body["device"], body["seq"])
        assert n >= 0, "sent, but not in the truth"
        got.add(n)
    assert truth.summary is None and len(got) > 100
    assert {n for n, flags in enumerate(truth.flags) if flags & ACKED} <= got


@pytest.mark.parametrize("name", ["demo", "storm", "skew"])
def test_real_broker_hands_on_what_the_truth_says(mosquitto, tmp_path, name):
    truth = tmp_path / "t"
    with _Subscriber(mosquitto) as subscriber:
        summary = _run("run", name, "--port", mosquitto, "--truth", truth, "--seconds", 12, "--speed", "4", "--json")
        assert summary["sent"] == summary["acknowledged"] > 500
        rows = subscriber.rows(summary["sent"] - summary["malformed"])
    received = tmp_path / "r"
    received.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = _run("verify", "--truth", truth, "--received", received, "--allow-copies", "--json")
    assert report["ok"] and report["expected"] == summary["sent"] - summary["malformed"]
    gone = rows[0]["device"], rows[0]["seq"]
    received.write_text("".join(json.dumps(row) + "\n" for row in rows if (row["device"], row["seq"]) != gone))
    assert _run("verify", "--truth", truth, "--received", received, "--allow-copies", "--json", expect=1)["missing"] == 1


class _Subscriber:
    """Reads all topics at QoS 0 and decodes what is sound."""

    def __init__(self, port):
        import msgpack
        import paho.mqtt.client as paho
        self._msgpack, self._rows, self._ready = msgpack, [], False
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_message = self._message
        self._client.on_subscribe = self._subscribed
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("#", 0)

    def __enter__(self):
        self._client.loop_start()
        until = time.monotonic() + 60
        while not self._ready and time.monotonic() < until:
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self._client.loop_stop()
        self._client.disconnect()

    def rows(self, least):
        """What came, once there are so many different ones."""
        until = time.monotonic() + 60
        while len({(r["device"], r["seq"]) for r in list(self._rows)}) < least and time.monotonic() < until:
            time.sleep(0.1)
        return list(self._rows)

    def _subscribed(self, *_):
        self._ready = True

    def _message(self, client, userdata, message):
        try:
            if message.topic.endswith("/machine"):
                row = self._msgpack.unpackb(message.payload)
            else:
                row = json.loads(message.payload)
            if "meta" in row:
                row = {**row["meta"], **row["energy"]}
        except (ValueError, TypeError, self._msgpack.UnpackException):
            return
        if isinstance(row, dict) and not any(isinstance(v, dict) for v in row.values()):
            self._rows.append(row)


@pytest.mark.parametrize("qos", [0, 1])
def test_load_sends_whole_packets_of_the_workload(broker, tmp_path, qos):
    one, stamps = broker(), tmp_path / "s"
    report = _run("load", "--port", one.port, "--rate", 5000, "--seconds", 0.4, "--qos", qos, "--connections", 3, "--devices", 7, "--stamps", stamps)
    until = time.monotonic() + 60
    while len(one.published) < 2000 and time.monotonic() < until:
        time.sleep(0.02)
    rows = [json.loads(p.payload) for p in one.published]
    assert sorted(r["seq"] for r in rows) == list(range(10_000_000, 10_002_000))
    assert report["sent"] == 2000 and report["acknowledged"] == (2000 if qos else 0) and report["complete"]
    assert report["over_30"] == sum(r["temp"] > 30 for r in rows) and 120 < report["over_30"] < 280
    assert all(p.topic == f"sensors/s1/{r['device']}/env" and p.qos == qos for p, r in zip(one.published, rows))
    assert {len(p.payload) for p in one.published} == {115} and len({r["device"] for r in rows}) == 7
    assert abs(rows[0]["ts"] - time.time() * 1000) < 60_000
    first, n, *times = struct.unpack("<2002Q", stamps.read_bytes())
    assert (first, n) == (10_000_000, 2000) and times == sorted(times)


def test_load_is_limited_by_the_window(broker):
    one = broker(ack=False)
    report = _run("load", "--port", one.port, "--seconds", 0.3, "--qos", 1, "--connections", 2, "--window", 50, "--drain-s", 0.1, expect=1)
    assert report["sent"] == 100 and report["stalls"] and not report["complete"]


def test_load_tells_of_a_lost_connection(broker):
    report = _run("load", "--port", broker(cut_after=10).port, "--seconds", 0.3, "--rate", 1000, "--qos", 1, "--connections", 1, expect=1)
    assert report["lost_connections"] == 1 and not report["complete"]


def test_load_measures_acknowledgements_and_counts_the_sink(mosquitto, tmp_path):
    capture = tmp_path / "c"
    report = _run("load", "--port", mosquitto, "--rate", 2000, "--seconds", 0.5, "--qos", 1, "--latency", "--sink-port", mosquitto,
                  "--sink-topic", "sensors/#", "--capture", capture)
    assert report["complete"] and report["sink"] == {"messages": 1000, "bytes": 115_000}
    assert 0 < report["ack_ms"]["p50"] <= report["ack_ms"]["p99"] <= report["ack_ms"]["max"]
    data = capture.read_bytes()
    at, size = struct.unpack("<QI", data[:12])
    assert size == 115 and len(data) == 127 * 1000 and json.loads(data[12:127])["seq"] >= 10_000_000 and at < time.monotonic_ns()
