"""A whole gateway without sockets and clock: raw events in, what the receiver has in the end out, over a disk in memory that loses and refuses."""

import json
import os
import tempfile

import pytest
from memory_disk import MemoryDisk
from msgspec.structs import replace
from settings import ENV, GATEWAY, GONE, ONCE, TUMBLE

from edge.codec.batches import BATCH, ROW
from edge.codec.receiver import Receiver
from edge.deployment import Deployment
from edge.errors import DiskError
from edge.ledger import accounts, check
from edge.mqtt._intake import Intake, Topics
from edge.storage.records import CLOCK, DEAD, TICK, read_letter
import gateway.core
from edge.storage.log import Log
from gateway.config.reader import parse
from gateway.core import Core

gateway.core.SEGMENT_BYTES = Log.__init__.__kwdefaults__["segment_bytes_max"] = 1 << 20          # files that are quickly copied
S = 10**9
START = 1_700_000_000 * S
DATA = "data"

CONFIG = GATEWAY + ENV + """
temp = { type = "f64", required = false }
[streams.plain]
topics = ["plain/#"]
[streams.plain.fields]
n = "i64"
"""

RULES = CONFIG + ONCE + TUMBLE + """
[rules.hop]
input = "once"
module = "window"
params = { length = "10s", hop = "3s", fields = ["temp"], functions = ["sum", "max", "first"] }
""" + GONE + """
[rules.band]
input = "once"
module = "deadband"
params = { field = "temp", change = 0.7, every = "20s" }
[rules.slope]
input = "band"
module = "rate"
params = { field = "temp" }
[rules.slopes]
input = "slope"
module = "window"
params = { length = "15s", fields = ["temp_rate"], functions = ["count", "mean"] }
[lanes.alerts]
streams = ["gone", "slope", "slope.late", "plain"]
age = "0s"
priority = 0
[lanes.telemetry]
streams = ["env", "once", "tumble", "tumble.late", "hop", "band", "slopes"]
age = "0s"
"""


class Lines:
    """Stands in for gateway.logs.Log: keeps what was said."""

    def __init__(self):
        self.lines = []

    def __call__(self, part, message, level="info", **details):
        self.lines.append((part, message))

    warning = error = __call__


@pytest.fixture(scope="session")
def modules():
    if given := os.environ.get("TIDEGATE_MODULES"):          # a cache that outlives the session
        yield given
        return
    with tempfile.TemporaryDirectory() as directory:
        yield directory


def env(device, seq, at_ms, temp):
    return f"env/{device}".encode(), json.dumps({"device": device, "seq": seq, "ts": at_ms, "temp": temp}).encode()


def plain(n):
    return b"plain/a", json.dumps({"n": n}).encode()


class World:
    """A gateway over `disk`, its devices (put) and its upstream (drain). The upstream outlives crashes.

    place: where its rules run. rows: (stream, sequence) -> the row as the receiver first had it, in the newest epoch; a sequence that comes again must say the same.
    """

    place = None

    def __init__(self, modules, config=RULES, disk=None):
        self.modules, self.config = modules, config
        self.disk = disk or MemoryDisk()
        self.receiver, self.rows, self.epoch, self.gaps = Receiver(), {}, None, []
        self.now_ns = START
        self.upstream_s = 1.0            # the lanes' clock, which nobody sets
        self.lines = Lines()

    def start(self):
        """The gateway starts on the disk as it is."""
        self.intake, self._stored = Intake(Topics()), []
        self.core = Core(parse(self.config) if isinstance(self.config, str) else self.config, self.disk, self.modules, self.lines, self.place)
        self.pipeline = self.core.pipeline
        try:
            self.recovered = self.core.recover()
        except DiskError:
            self.core.close()
            raise
        for _, lane in self.core.lanes:
            lane.upstream = self
            lane.connected()
        return self

    def pump(self):
        pass

    def crash(self, survival=0.5):
        """The power goes, and what was not synced with it, in any part; then the next start."""
        self.disk = self.disk.after_cut(survival)
        return self.start()

    def close(self):
        self.core.close()

    # --- a turn of the daemon

    def put(self, *events, flags=0):
        """Devices send; False while the disk refuses: commit() tries again. flags: of the packets, RawEvent.flags."""
        assert not self.intake
        for topic, payload in events:
            assert self.intake.add(topic, payload, flags=flags)
        self._stored = self.pipeline.store(self.intake, self.now_ns)
        return self.commit()

    def commit(self):
        try:
            self.pipeline.sync()
        except DiskError:
            return False
        self.intake.clear()
        stored, self._stored = self._stored, []
        self.pipeline.run(stored)
        self.forward()
        return True

    def forward(self):
        if self.pipeline.unsure:
            self.pipeline.sync()
        for outbox, lane in self.core.lanes:
            lane.wake(outbox.take_fresh())

    def tick(self, seconds=0.0):
        self.now_ns += int(seconds * S)
        self.pipeline.tick(self.now_ns)
        self.forward()

    def clock_set(self, seconds):
        self.now_ns += int(seconds * S)
        self.pipeline.clock_set(int(seconds * S))

    def checkpoint(self):
        self.core.checkpoint()

    # --- what runs

    def deploy(self, rule, *, params=None, policy="auto", horizon_ns=1 << 62, **changes):
        """A version of a rule that runs, or of a new one when `input` and `digest` are given, at once."""
        now = self.core.deployments.get(rule)
        then = Deployment(rule, params=params or {}, **changes) if now is None else replace(now, params=params or now.params, **changes)
        return self.carry_out(self.core.deploy(then, policy=policy, horizon_ns=horizon_ns, who="test"))

    def carry_out(self, swap):
        while swap.state in ("waiting", "warming"):
            self.core.advance(0)
        self.forward()
        return swap

    # --- upstream

    def drain(self, acknowledge=lambda: True, most=1 << 30):
        """The lanes send and the receiver takes; some messages are not acknowledged."""
        sent = 0
        self.upstream_s += 1.0
        while sent < most:
            before = sent
            for _, lane in self.core.lanes:
                while sent < most and (message := self._next(lane)) is not None:
                    sent += 1
                    self.receive(message.topic, message.payload)
                    if acknowledge():
                        lane.acknowledged(message)
            if sent == before:
                return sent
        return sent

    def _next(self, lane):
        self.upstream_s = max(self.upstream_s, lane.pace.rests_until)
        return lane.next(self.upstream_s, float("inf"))

    def reconnect(self):
        for _, lane in self.core.lanes:
            lane.disconnected()
            lane.connected()

    def receive(self, topic, payload):
        delivery = self.receiver.feed(topic, payload)
        message = delivery.message
        self.gaps += [(delivery.stream, first, count) for first, count, _ in delivery.gaps]
        if delivery.kind in (BATCH, ROW):
            if self.epoch != message.epoch:
                self.epoch, self.rows = message.epoch, {}
            for i, row in enumerate(message.batch.rows()):
                known = self.rows.setdefault((message.stream, message.first + i), repr(row))
                assert known == repr(row), (message.stream, message.first + i, known, repr(row))
        return delivery

    # --- questions

    @property
    def ledger(self):
        return accounts(self.pipeline, {outbox.name: lane for outbox, lane in self.core.lanes})

    def assert_balanced(self):
        problems = check(self.ledger)
        assert not problems, problems

    def account(self, name):
        return next(a for a in self.ledger if a.name == name)

    def stream(self, name):
        return next(s for s in self.pipeline.streams if s.name == name)

    def stage(self, name):
        return next(s for s in self.pipeline.stages if s.name == name)

    def of(self, stream):
        """The receiver's rows of a stream, by sequence."""
        return {sequence: row for (name, sequence), row in self.rows.items() if name == stream}

    def missing(self):
        """stream -> ranges that the receiver lacks and nobody announced."""
        return {(r["stream"], r["epoch"]): r["missing"] for r in self.receiver.report() if r["missing"]}

    def announced(self):
        return {r["stream"]: r["announced"] for r in self.receiver.report() if r["announced"]}

    def letters(self):
        return [read_letter(r.payload) for r in records(self.pipeline.dead.log) if r.kind == DEAD]

    def journaled(self, kind):
        return [r for r in records(self.pipeline.journal.log) if r.kind == kind]


def records(log):
    found, position = [], log.tail
    while batch := log.read(position, 1 << 20):
        found += batch
        position = batch[-1].position + 1
    return found


class Script:
    """Steps in virtual time, and which of them stand in the journal: a device sends again what was not, and time passes again."""

    def __init__(self, steps):
        self.steps = steps               # (received_ns, what, argument)
        self.done = 0
        self._sure = 0                   # steps before this one are durable
        self._stored = {"env": 0, "plain": 0}     # rows of each input stream, by the steps done

    def play(self, world, on_step=lambda: None):
        while self.done < len(self.steps):
            self._step(world, *self.steps[self.done])
            self._finished(world, self.done + 1)
            on_step()

    def _step(self, world, received_ns, what, argument):
        world.now_ns = received_ns
        if what == "put":
            world.put(*argument)
        elif what == "tick":
            world.tick()
        elif what == "clock":
            world.pipeline.clock_set(argument)
        elif what == "checkpoint":
            world.checkpoint()
        elif what == "drain":
            world.drain(most=argument)
        elif what == "swap":
            argument(world)

    def _finished(self, world, done):
        log = world.pipeline.journal.log
        self.done = done
        if log.durable == log.head:
            self._sure = done
        self._stored = {name: world.stream(name).next_sequence for name in self._stored}

    def resume(self, world):
        """After a crash: do again what of the steps from `_sure` to the interrupted one is not in the journal."""
        first, last = self._sure, min(self.done, len(self.steps) - 1)
        durable = first
        ticks, clocks = {r.first for r in world.journaled(TICK)}, len(world.journaled(CLOCK))
        for i in range(first, last + 1):
            received_ns, what, argument = self.steps[i]
            if (what == "tick" and received_ns in ticks) or (what == "swap" and i < last) or \
               (what == "clock" and clocks >= sum(w == "clock" for _, w, _ in self.steps[:i + 1])):
                durable = i + 1
        for i in range(durable, last + 1):
            received_ns, what, argument = self.steps[i]
            if what == "put":
                assert i == last, "a batch before the last one was acknowledged, and is durable"
                world.now_ns = received_ns
                argument = [e for e in argument if not self._arrived(world, e)]
                if argument:
                    world.put(*argument)
            elif what in ("tick", "clock", "swap"):
                self._step(world, received_ns, what, argument)
        self._finished(world, last + 1)

    def _arrived(self, world, event):
        name = event[0].partition(b"/")[0].decode()
        return name in self._stored and world.stream(name).next_sequence > self._stored[name]
