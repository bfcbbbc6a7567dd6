"""Processes under measurement: a gateway on a configuration, the load generator, the baseline script; their CPU and memory from /proc."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from array import array
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
    """A child process with its output in files; stop(), or the end of a with block, ends it."""

    def __init__(self, folder, name, command):
        self.name = name
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        self.started = time.monotonic()
        self._process = subprocess.Popen(command, cwd=folder, stdout=self.out.open("wb"), stderr=self.err.open("wb"))
        self.pid = self._process.pid

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()

    @property
    def running(self):
        return self._process.poll() is None

    def wait(self, timeout_s):
        return self._process.wait(timeout_s)

    def wait_for(self, ready):
        """Until ready() is true. Raises TidegateError, with what it said, when the process ends or START_S have passed."""
        until = time.monotonic() + START_S
        while not ready():
            if not self.running or time.monotonic() > until:
                raise TidegateError(f"the {self.name} did not start: {self.err.read_text()[-2000:]}")
            time.sleep(0.005)

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

    def __init__(self, folder, text, name="gateway", gateway=GATEWAY):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tidegate.toml").write_text(gateway + text)
        super().__init__(folder, name, [sys.executable, "-m", "gateway.cli", "run", "-c", "tidegate.toml"])
        self.data = str(folder / "data")
        self.wait_for(lambda: self.ask("status", quiet=True))
        refused = {name: rule["state"] for name, rule in self.ask("status")["rules"].items() if rule["state"] != "active"}
        if refused:
            raise TidegateError(f"rules do not run: {refused}")

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


class Sink(Process):
    """gateway.bench.sink: the upstream end, on .port; stamps the rows of a stream."""

    def __init__(self, folder, stream):
        self._folder = folder / "sink"
        self._folder.mkdir()
        super().__init__(self._folder, "sink", [sys.executable, "-m", "gateway.bench.sink", ".", stream])
        self.wait_for((self._folder / "port").exists)
        self.port = int((self._folder / "port").read_text())

    def receipts(self) -> dict:
        """seq -> CLOCK_MONOTONIC ns of its first receipt. After stop()."""
        pairs = array("q", (self._folder / "receipts").read_bytes())
        return dict(zip(reversed(pairs[::2]), reversed(pairs[1::2])))


class Mosquitto(Process):
    """A broker on a free port, with its usual bound on what it keeps for a slow subscriber: who is too slow, loses."""

    def __init__(self, folder):
        self.port = free_port()
        (folder / "mosquitto.conf").write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nlog_type error\nset_tcp_nodelay true\n")
        super().__init__(folder, "mosquitto", [mosquitto_path(), "-c", "mosquitto.conf"])
        self.wait_for(self._answers)

    def _answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def mosquitto_path():
    """mosquitto's program, or None."""
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def load(folder, port, *, rate, seconds, qos=0, connections=4, window=2000, extra=()):
    """The load generator as a process; its report is the last line it prints."""
    return Process(folder, "load", [sys.executable, "-m", "firmware_sim.cli", "load", "--port", str(port), "--rate", str(rate), "--seconds", str(seconds),
                                    "--qos", str(qos), "--connections", str(connections), "--window", str(window), *extra])


def stamps(path) -> dict:
    """seq -> CLOCK_MONOTONIC ns at which the load generator made the event."""
    first, count, *made = array("Q", path.read_bytes())
    return dict(zip(range(first, first + count), made))


def latency_ms(made, received) -> tuple[float, float, int]:
    """(p50, p99, how many) of the time from the one to the other, by seq."""
    times = sorted(received[seq] - made[seq] for seq in received if seq in made)
    if not times:
        raise TidegateError("nothing arrived upstream")
    return times[len(times) // 2] / 1e6, times[min(len(times) - 1, len(times) * 99 // 100)] / 1e6, len(times)


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
