"""Processes under measurement: a gateway on a configuration, the load generator, the baseline script; their CPU and memory from /proc."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from edge.errors import TidegateError
from gateway import control
from gateway.bench.workload import GATEWAY

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
START_S = 60.0


def cpu_s(pid) -> float:
    """User and system CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def memory_mb(pid, key="VmRSS") -> float:
    """Resident memory (or VmHWM, its peak) in 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


class Process:
    """A child process with its output in files; stop() ends it."""

    def __init__(self, folder, name, command):
        self.name = name
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        self.started = time.monotonic()
        self._process = subprocess.Popen(command, cwd=folder, stdout=self.out.open("wb"), stderr=self.err.open("wb"))
        self.pid = self._process.pid

    @property
    def running(self):
        return self._process.poll() is None

    def wait(self, timeout_s):
        return self._process.wait(timeout_s)

    def stop(self, number=signal.SIGTERM, timeout_s=30):
        """End it and return its exit status."""
        if self.running:
            self._process.send_signal(number)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self._process.returncode

    def last_json(self):
        """The last line that it printed, as JSON."""
        lines = self.out.read_text().strip().splitlines()
        if not lines:
            raise TidegateError(f"{self.name} printed nothing: {self.err.read_text()[-2000:]}")
        return json.loads(lines[-1])


class Gateway(Process):
    """`tidegate run` on a configuration text, ready when it answers."""

    def __init__(self, folder, text, name="gateway"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tidegate.toml").write_text(GATEWAY + text)
        super().__init__(folder, name, [sys.executable, "-m", "gateway.cli", "run", "-c", "tidegate.toml"])
        self.data = str(folder / "data")
        until = time.monotonic() + START_S
        while self.ask("status", quiet=True) is None:
            if not self.running or time.monotonic() > until:
                raise TidegateError(f"the gateway did not start: {self.err.read_text()[-2000:]}")
            time.sleep(0.005)
        self.ready_s = time.monotonic() - self.started

    def ask(self, what, quiet=False):
        try:
            return control.ask(self.data, what)
        except TidegateError:
            if quiet:
                return None
            raise

    @property
    def port(self):
        return self.ask("status")["listener"]["port"]


def load(folder, port, *, rate, seconds, qos=0, connections=4, window=2000, extra=()):
    """The load generator as a process; its report is the last line it prints."""
    return Process(folder, "load", [sys.executable, "-m", "firmware_sim.cli", "load", "--port", str(port), "--rate", str(rate), "--seconds", str(seconds),
                                    "--qos", str(qos), "--connections", str(connections), "--window", str(window), *extra])


def settle(read, seconds=0.5, timeout_s=30.0):
    """Wait until a number no longer changes; the number."""
    until, last = time.monotonic() + timeout_s, read()
    while time.monotonic() < until:
        time.sleep(seconds)
        now = read()
        if now == last:
            return now
        last = now
    return last
