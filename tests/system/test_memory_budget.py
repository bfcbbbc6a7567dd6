"""The daemon's memory budget on a board of 512 MB, at load: ten rules, devices that send as fast as they are acknowledged, upstream away and back, requests, a rule that is pushed.

Under a control group with the budget as its limit where this user may make one (then the kernel would kill what is beyond it), and watched in any case.
"""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from gateway.bench import footprint, rig, workload
from gateway.bench.rates import LANES, LISTENER
from gateway.manage import remote
from tidegate_rules import path

# docs/operations.md, Memory: the daemon, and all of it while a module is examined by its children.
DAEMON_BYTES, BUDGET_BYTES = 72_000_000, 160_000_000
GROUPS = (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"))      # versions 2 and 1


@pytest.fixture
def fence():
    """A control group with the budget as its limit, or None where this user may make none."""
    group = next(filter(None, (made(Path(root) / f"tidegate-{os.getpid()}", limit) for root, limit in GROUPS)), None)
    yield group
    until = time.monotonic() + 60
    while group is not None and group.exists():
        try:
            group.rmdir()
        except OSError:                  # what ran in it is not reaped yet
            assert time.monotonic() < until, f"{group} stays"
            time.sleep(0.05)


def made(group, limit):
    """The control group, if there can be one of this name with a limit."""
    try:
        group.mkdir()
        try:
            if not (group / limit).is_file():        # no controller for memory, or no control groups at all
                raise OSError(limit)
            (group / limit).write_text(str(BUDGET_BYTES))
        except OSError:
            group.rmdir()
            return None
        return group
    except OSError:
        return None


class Fenced(rig.Gateway):
    """The gateway, inside a control group from its first instruction."""

    def __init__(self, folder, text, group):
        folder.mkdir()
        (folder / "tidegate.toml").write_text(workload.GATEWAY + text)
        enter = "" if group is None else f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')\n"
        program = f"import sys\n{enter}from gateway.cli import main\nsys.exit(main(['run', '-c', 'tidegate.toml']))"
        rig.Process.__init__(self, folder, "gateway", [sys.executable, "-c", program])
        self.data = str(folder / "data")
        self.wait_for(lambda: self.ask("status", quiet=True))


class Watch(threading.Thread):
    """The most resident memory of a process (`own`), and of it and its children together (`all`, what they share counted once), bytes."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.own, self.all, self.ended = pid, 0, 0, threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.02):
            self.own, self.all = max(self.own, resident(self.pid)), max(self.all, sum(map(share, (self.pid, *children(self.pid)))))

    def stop(self):
        self.ended.set()
        self.join()


def resident(pid):
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def share(pid):
    """Resident, and of what n processes map the n-th part (Pss of proc_pid_smaps(5))."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            return next((int(line.split()[1]) << 10 for line in f if line.startswith("Pss:")), 0)
    except OSError:
        return 0


def children(pid):
    """All processes below one."""
    try:
        found = [int(child) for task in os.listdir(f"/proc/{pid}/task") for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    except OSError:
        return []
    return found + [below for child in found for below in children(child)]


def push(gateway, name):
    """Upload a module that is not there yet, and wait until it runs."""
    with remote.connect(gateway.data) as there:
        digest = there.push(path("threshold").read_bytes() + b"\0\x06\x04note" + name.encode()[:1])     # a custom section: another digest
        job = there.ask({"do": "rule.push", "digest": digest, "rule": name, "input": "env", "force": True,
                         "params": {"field": "temp", "op": ">", "value": 39.0}})
        until = time.monotonic() + 60
        while (state := there.ask({"do": "job", "id": job["job"]}))["state"] not in ("done", "failed", "refused"):
            assert time.monotonic() < until, state
            time.sleep(0.05)
        for request in ("rule.ls", "rule.stats", "rule.audit"):
            there.ask({"do": request})
    return state


def test_the_daemon_at_load_stays_within_its_budget(tmp_path, fence):
    port = rig.free_port()
    text = LISTENER + LANES.format(port=port) + workload.STREAM + footprint.TEN_RULES
    with Fenced(tmp_path / "site", text, fence) as gateway:
        watch = Watch(gateway.pid)
        with rig.load(tmp_path, gateway.port, rate=0, seconds=2, qos=1, window=4000) as generator:
            pushed = push(gateway, "eleven")
            for what in ("status", "ledger", "metrics"):
                gateway.ask(what)
            generator.wait(120)
            sent = generator.last_json()
        receiver = [sys.executable, "-m", "gateway.cli", "receive", "--port", str(port), "--out", "received", "--json"]
        with rig.Process(tmp_path, "receiver", receiver):                    # and upstream is back: the backlog is read and sent
            gateway.wait_for(lambda: not sum(lane["rows_waiting"] for lane in gateway.ask("status")["lanes"].values()))
        watch.stop()
        print(f"daemon {watch.own / 1e6:.1f} MB, with children {watch.all / 1e6:.1f} MB, {sent['rate']:,} events/s, control group {fence}")
        assert pushed["state"] == "done", pushed
        assert sent["complete"] and gateway.running
        assert gateway.ask("ledger")["balanced"]
    assert watch.own <= DAEMON_BYTES and watch.all <= BUDGET_BYTES
