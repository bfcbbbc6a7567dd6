"""The gateway inside this process: wire bytes from memory through `Daemon.turn`, journal synced on the real disk, no sockets.

So what it costs is parsing, decoding, journaling, rules and outbox, and nothing else.
"""

import contextlib
import io
import resource
from dataclasses import dataclass

from edge.errors import RuleError
from edge.mqtt._mqtt import Flow
from gateway.bench.workload import GATEWAY
from gateway.config import reader as config
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


@dataclass
class Cost:
    """Of one play(), an event: CPU microseconds, bytes on disk of journal and outboxes, nanoseconds in each rule's module."""

    events: int
    turns: int
    cpu_us: float
    journal: float
    outbox: float
    rules: dict


class Engine:
    """A daemon without doors on a configuration text."""

    def __init__(self, folder, text, gateway=GATEWAY):
        folder.mkdir(parents=True)
        path = folder / "tidegate.toml"
        path.write_text(gateway + text)
        self._said = io.StringIO()
        with contextlib.redirect_stderr(self._said):
            self.daemon = Daemon(config.load(str(path)))     # its doors stay shut: it is not started
        self.pipeline = self.daemon.pipeline
        if self.daemon.core.refused:
            raise RuleError(self._said.getvalue())

    def play(self, wire, bytes_max=READS * READ_BYTES) -> Cost:
        """Take in all packets, at most bytes_max a turn; then a checkpoint."""
        before, cpu = self._sizes(), _cpu_s()
        events, turns = self._take(wire, bytes_max)
        self.daemon.core.checkpoint()
        cpu = _cpu_s() - cpu
        journal, outbox, *rules = ((now - then) / events for now, then in zip(self._sizes(), before))
        return Cost(events, turns, cpu / events * 1e6, journal, outbox, dict(zip((stage.name for stage in self.pipeline.stages), rules)))

    def _take(self, wire, bytes_max):
        view, at, count, turns = memoryview(wire), 0, 0, 0
        flow = Flow(server=True)
        flow.open = True
        while at < len(wire):
            _, used, events, fault = flow.feed(view[at:at + bytes_max], self.daemon.intake)
            if fault or not used:
                raise AssertionError(f"the workload's packet at byte {at} is none: fault {fault}")
            at += used
            count += events
            turns += 1
            self.daemon.turn(0)
        return count, turns

    def _sizes(self):
        pipeline = self.pipeline
        return [pipeline.journal.log.size_bytes, sum(outbox.log.size_bytes for outbox in pipeline.outboxes), *(s.rule.run_ns for s in pipeline.stages)]

    def close(self):
        self.daemon.close()


def _cpu_s():
    """Of this process, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
