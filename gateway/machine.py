"""The machine that a gateway runs on: its files, its clocks, its event loop. A simulated one takes its place in tests/world."""

import time

from edge.storage.disk import Disk
from gateway.isolation import choice as isolation
from gateway.logs import Log
from gateway.reactor import Reactor


class Machine:
    """disk: edge.storage.disk.Disk. reactor: sockets, timers and the monotonic clock. worker: of gateway.isolation.choice.begin()."""

    def __init__(self, worker=None):
        self.disk, self.reactor, self._worker = Disk(), Reactor(), worker

    def wall_ns(self) -> int:
        """What the wall clock says, nanoseconds since 1970."""
        return time.time_ns()

    def boot_ns(self) -> int:
        """Nanoseconds since the machine booted, those in which it slept too."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wall_s(self) -> float:
        return self.wall_ns() / 1e9

    def sleep(self, seconds):
        time.sleep(seconds)

    def place(self, asked, log):
        """Where rules run, see gateway/isolation/choice.py."""
        worker, self._worker = self._worker, None
        return isolation.place(asked, log, worker)

    def log(self, format) -> Log:
        return Log(format)
