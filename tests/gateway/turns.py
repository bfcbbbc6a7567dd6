"""A daemon without doors, in virtual time: its turns over a World of tests/edge."""

from types import SimpleNamespace

from pipeline_world import plain

from edge.share import Share
from gateway.config.units import Durability
from gateway.daemon import Daemon
from gateway.gathering import Gathering


class Sky:
    """The reactor of a simulated daemon: time passes until something comes."""

    def __init__(self, arrivals):
        self.now, self.arrivals = 0.0, list(arrivals)        # (at, number, QoS), ascending

    def monotonic(self):
        return self.now

    def turn(self, timeout_s):
        self.now += timeout_s
        if self.arrivals and self.arrivals[0][0] <= self.now:
            self.now = max(self.now - timeout_s, self.arrivals[0][0])
        while self.arrivals and self.arrivals[0][0] <= self.now:
            at, number, qos = self.arrivals.pop(0)
            assert self.intake.add(*plain(number), number & 0xFFFF, qos)
            self.taken.append((at, number, qos))


class Turns(Daemon):
    """A daemon without doors: what its one source acknowledges, and when."""

    def __init__(self, world, durability, arrivals):
        self.core, self.pipeline, self.intake = world.core, world.pipeline, world.intake
        self.reactor = Sky(arrivals)
        self.reactor.intake, self.reactor.taken = self.intake, []
        self.pipeline.share = Share(1.0)
        self._gathering, self._wait_s, self._granted_s = Gathering(Durability.parse(durability).seconds), 1.0, 0.0
        self.clock = SimpleNamespace(now_ns=lambda: world.now_ns + int(self.reactor.now * 1e9), quality=0)
        self.parts, self.log, self.blocked = SimpleNamespace(sources=[self]), world.lines, ""
        self._stored, self._checkpoint_due, self.blocks, self.last_block, self._retry_at = [], False, 0, "", 0.0
        self._checkpointed = None
        self._machine = SimpleNamespace(sleep=self.slept)
        self.acknowledged, self.stored_at, self.breaths = set(), {}, []

    def slept(self, seconds):
        self.reactor.now += seconds
        self.breaths.append(seconds)

    def acknowledge(self):
        for at, number, qos in self.reactor.taken:
            self.stored_at[number] = at, self.reactor.now
            if qos:
                self.acknowledged.add(number)
        self.reactor.taken.clear()
