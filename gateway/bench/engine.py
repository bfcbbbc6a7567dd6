"""The gateway inside this process: wire bytes from memory through `Daemon.turn`, journal synced on the real disk, no sockets.

So what it costs is parsing, decoding, journaling, rules and outbox, and nothing else.
"""

import contextlib
import io
import resource
import time

from edge._mqtt import Flow
from edge.errors import RuleError
from gateway import config
from gateway.bench.workload import GATEWAY
from gateway.daemon import Daemon

READ_BYTES = 256 << 10               # what the listener takes of a device at once
READS = 4                            # devices that are read in a turn

DOORS = """
[listener]
port = 0
[upstream]
host = "127.0.0.1"
[lanes.alerts]
streams = ["hot"]
age = "0s"
[lanes.telemetry]
streams = ["seconds"]
"""


class Engine:
    """A daemon without doors on a configuration text. After play(): events, cpu_s, wall_s and turns of it."""

    def __init__(self, folder, text):
        folder.mkdir(parents=True)
        path = folder / "tidegate.toml"
        path.write_text(GATEWAY + text)
        self._said = io.StringIO()
        with contextlib.redirect_stderr(self._said):
            self.daemon = Daemon(config.load(str(path)))     # its doors stay shut: it is not started
        self.pipeline = self.daemon.pipeline
        if self.daemon.parts.refused:
            raise RuleError(self._said.getvalue())
        self.events = self.turns = 0
        self.cpu_s = self.wall_s = 0.0

    def play(self, wire, bytes_max=READS * READ_BYTES):
        """Take in all packets, at most bytes_max a turn."""
        view, at = memoryview(wire), 0
        flow = Flow(server=True)
        flow.open = True
        began, cpu = time.perf_counter(), _cpu_s()
        while at < len(wire):
            _, used, events, fault = flow.feed(view[at:at + bytes_max], self.daemon.intake)
            if fault or not used:
                raise AssertionError(f"the workload's packet at {at} is none: {fault}")
            at += used
            self.events += events
            self.turns += 1
            self.daemon.turn(0)
        self.daemon.parts.checkpoint()
        self.cpu_s += _cpu_s() - cpu
        self.wall_s += time.perf_counter() - began

    @property
    def journal_bytes(self) -> int:
        return self.pipeline.journal.log.size_bytes

    @property
    def outbox_bytes(self) -> int:
        return sum(outbox.log.size_bytes for outbox in self.pipeline.outboxes)

    def close(self):
        self.daemon.close()


def _cpu_s():
    """Of this process, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
