"""What an operator asks a running gateway: status, ledger, metrics, systemd's notifications, the log."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from count_world import HEAD, LANE, LISTENER, PLAIN, STREAM, UPSTREAM, Device
from site_world import free_port

RULE = """
[rules.hot]
input = "env"
module = "threshold"
params = { field = "temp", op = ">", value = 25.0 }
"""
METRICS = """
[metrics]
port = $METRICS
"""


def tidegate(folder, *arguments):
    return subprocess.run([sys.executable, "-m", "gateway.cli", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_status_ledger_and_metrics_tell_the_same(site, devices):
    world = site(HEAD + LISTENER + UPSTREAM + STREAM + RULE + METRICS + LANE, METRICS=free_port())
    world.start_receiver()
    assert tidegate(world.folder, "check").returncode == 0
    world.start_gateway()
    device = Device(world.port)
    devices.append(device)
    device.publish(500)
    device.publish(3, b'{"seq": "not a number"}')
    device.settle()
    world.expect([("dev-1", n) for n in range(500)])

    status = tidegate(world.folder, "status", "--json")
    assert status.returncode == 0, status.stderr
    status = json.loads(status.stdout)
    assert status["streams"]["env"]["events"] == 503 and status["streams"]["env"]["dead_letters"] == 3
    assert status["rules"]["hot"]["in"] == 500 and status["rules"]["hot"]["out"] == 200
    assert tidegate(world.folder, "status").returncode == 0
    ledger = tidegate(world.folder, "ledger", "--check", "--json")
    assert ledger.returncode == 0 and json.loads(ledger.stdout)["balanced"]

    content_type, text = get(world.words["METRICS"], "/metrics")
    assert content_type.startswith("text/plain; version=0.0.4")
    samples, names = {}, []
    for family in text_string_to_metric_families(text):
        names.append(family.name)
        assert family.type != "unknown" and family.documentation, family
        for sample in family.samples:
            assert samples.setdefault((sample.name, *sorted(sample.labels.items())), sample.value) == sample.value
    assert len(names) == len(set(names))
    assert samples["tidegate_events_total", ("stream", "env")] == 503
    assert samples["tidegate_dead_letters_total", ("stream", "env")] == 3
    assert samples["tidegate_rule_rows_total", ("fate", "selected"), ("rule", "hot")] == 200
    assert samples["tidegate_lane_rows_acked_total", ("lane", "main")] == 500
    assert samples["tidegate_ledger_difference", ("kind", "rule"), ("name", "hot")] == 0
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(world.words["METRICS"], "/")
    with socket.create_connection(("127.0.0.1", world.words["METRICS"])) as slow:      # sends no request: it must not hold up the end
        slow.send(b"GET /met")
        assert world.stop("gateway") == 0


def test_a_gateway_that_does_not_run_is_told_in_one_line(site):
    world = site()
    for command in ("status", "ledger"):
        done = tidegate(world.folder, command)
        assert done.returncode == 2 and "no gateway answers" in done.stderr and len(done.stderr.splitlines()) == 1


def test_systemd_hears_ready_watchdog_and_stopping_and_the_log_is_json(site):
    world = site(PLAIN)
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(world.folder / "notify"))
    manager.settimeout(20)
    environment = {**os.environ, "NOTIFY_SOCKET": str(world.folder / "notify"), "WATCHDOG_USEC": "400000"}
    environment.pop("WATCHDOG_PID", None)
    with (world.folder / "gateway.err").open("wb") as err:
        world.processes["gateway"] = subprocess.Popen([sys.executable, "-m", "gateway.cli", "run", "--log-format", "json"], cwd=world.folder,
                                                      stderr=err, env=environment)
    assert manager.recv(4096).decode().splitlines()[0] == "READY=1"
    assert world.ask("status"), "READY came before the gateway answers"
    assert [manager.recv(4096) for _ in range(4)] == [b"WATCHDOG=1"] * 4
    assert world.stop("gateway") == 0
    heard = manager.recv(4096)
    while heard == b"WATCHDOG=1":
        heard = manager.recv(4096)
    assert heard.startswith(b"STOPPING=1")
    lines = [json.loads(line) for line in world.log().splitlines()]
    assert lines and all({"time", "level", "part", "message"} <= set(line) for line in lines)
    manager.close()
