"""The machine that a gateway runs on: its files, its clocks, its event loop. A simulated one takes its place in tests/world."""

import time

from edge.disk import Disk
from gateway.isolation import place as isolation_of
from gateway.logs import Log
from gateway.reactor import Reactor


class Machine:
    """disk: edge.disk.Disk. reactor: sockets, timers and the monotonic clock."""

    def __init__(self):
        self.disk, self.reactor = Disk(), Reactor()

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

    def place(self, isolation, log):
        """Where rules run, see gateway/isolation.py."""
        return isolation_of(isolation, log)

    def log(self, format) -> Log:
        return Log(format)
