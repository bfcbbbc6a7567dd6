"""`tidegate run` with its rules in a process of their own: what is killed there costs nothing, and the gateway itself holds no Wasmtime."""

import os
import signal
from pathlib import Path

import pytest
from count_world import HEAD, LISTENER, STREAM, UPSTREAM, CountSite, Device

from gateway.isolation.sandbox import Unconfined
from gateway.isolation.workshop import Workshop

CONFIG = HEAD.replace('"none"', '"process"') + LISTENER + UPSTREAM + STREAM + """
[rules.once]
input = "env"
module = "dedup"
params = { id = "seq" }
[rules.few]
input = "once"
module = "threshold"
params = { field = "temp", op = ">", value = 24.5 }
[lanes.main]
streams = ["once", "few"]
age = "100ms"
"""


@pytest.fixture
def site(tmp_path):
    try:
        Workshop().close()
    except Unconfined as error:
        pytest.skip(f"this kernel does not confine a process: {error}")
    site = CountSite(tmp_path, CONFIG)
    yield site
    site.close()


def worker(site):
    pid = site.processes["gateway"].pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_killed_workers_cost_no_event(site):
    site.start_receiver()
    site.start_gateway()
    device = Device(site.port)
    for kill in range(3):
        device.publish(300)
        os.kill(worker(site), signal.SIGKILL)
        device.publish(300)
        device.settle()
        site.wait_for(lambda kill=kill: site.ask("status")["isolation"]["restarts"] > kill, "the worker to be there again")
    numbers = [("dev-1", number) for number in range(device.published)]
    site.expect(numbers, "once")
    site.expect([(name, number) for name, number in numbers if number % 10 > 4], "few")
    status = site.ask("status")
    assert status["isolation"]["mode"] == "process" and status["isolation"]["memory_mb"] > 1 and "SIGKILL" in status["isolation"]["last_restart"]
    assert "tidegate_worker_restarts_total 3" in site.ask("metrics")
    assert "_libwasmtime" not in Path(f"/proc/{site.processes['gateway'].pid}/maps").read_text()
    gone = worker(site)
    site.restart()
    assert not Path(f"/proc/{gone}").exists() and site.log().count("the process of the rules ended") == 3
    pid = worker(site)
    site.kill()
    site.wait_for(lambda: not alive(pid), "the worker to end with its gateway")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
