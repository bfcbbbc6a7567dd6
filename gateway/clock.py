"""The receive clock: the wall clock, made steady.

A board without a battery boots in the past and is set later, by hours or decades. The receive clock runs on the kernel's boot clock from
the wall time at start, so it never jumps by itself; a step of the wall clock is found by `step()` and becomes an event of its own, which
the pipeline journals. While the wall clock is known to be wrong, receive times are marked unsynchronised.
"""

import time

STEP_NS = 500_000_000                       # smaller differences are drift of the two readings
EARLIEST_NS = 1_735_689_600 * 10**9         # 2025-01-01: a wall clock before it was never set

TRUSTED, UNSYNCHRONISED, RETIMED = 0, 1, 2


class Clock:
    """floor_ns: a time that is known to have passed (the last one this gateway stored); an earlier wall clock is not believed.

    wall_ns and boot_ns are the two clocks, for tests.
    """

    def __init__(self, floor_ns=0, *, wall_ns=time.time_ns, boot_ns=lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME)):
        self._wall_ns = wall_ns
        self._boot_ns = boot_ns
        self._floor_ns = max(floor_ns, EARLIEST_NS)
        self._offset_ns = max(wall_ns(), floor_ns) - boot_ns()
        self.steps, self.last_step_ns = 0, 0

    def now_ns(self) -> int:
        """Nanoseconds since 1970, steady between steps."""
        return self._boot_ns() + self._offset_ns

    @property
    def quality(self) -> int:
        """TRUSTED, or UNSYNCHRONISED while the wall clock stands before what is known to have passed, or was set and step() did not follow it yet."""
        wall = self._wall_ns()
        return TRUSTED if wall >= self._floor_ns and abs(wall - self.now_ns()) < STEP_NS else UNSYNCHRONISED

    def step(self) -> int:
        """Follow the wall clock if it was set: the nanoseconds that it moved, 0 if it was not (or is not to be believed)."""
        wall = self._wall_ns()
        delta = wall - self.now_ns()
        if abs(delta) < STEP_NS or wall < self._floor_ns:
            return 0
        self._offset_ns += delta
        self.steps, self.last_step_ns = self.steps + 1, delta
        return delta
