"""A whole site by one seed: devices, the real gateway (gateway.daemon.Daemon) on a simulated machine, an upstream broker; and all that goes wrong.

    world = World(seed, modules); world.start(); world.run(60); world.cut_power(); ...; world.settle(); problems = oracle.problems(world)
"""

import gc
import re
import shutil
import tempfile

import rule_module as m
from broker import Broker
from device import Device
from machinery import START_NS, Cut, S, SimDisk, SimMachine, Universe
from msgspec.structs import replace
from settings import ENV, GONE, TUMBLE

from edge.errors import ConfigError, DiskError, RuleError
from edge.ledger import accounts, check
from edge.share import Share
from edge.storage.records import between
from gateway import core
from gateway import daemon as daemon_module
from gateway.config.reader import parse
from gateway.daemon import Daemon

core.SEGMENT_BYTES = 16 << 10            # so that segments roll and go
COLLECT_EVERY = 8

CONFIG = """
[gateway]
name = "g1"
data = "$DATA"
checkpoint = "5s"
rules_cpu = "100%"
[listener]
[upstream]
host = "cloud"
keepalive = "15s"
""" + ENV + """
temp = "f64"
[rules.once]
input = "env"
module = "dedup"
params = { id = "seq", count = 5000, max_ids = 100000 }
""" + TUMBLE + """
[rules.hop]
input = "once"
module = "window"
params = { length = "10s", hop = "5s", fields = ["temp"], functions = ["sum", "max", "first"] }
""" + GONE + """
[rules.hot]
input = "once"
module = "threshold"
params = { field = "temp", op = ">", value = 30.0 }
[rules.bad]
input = "env"
module = "$BAD"
[lanes.alerts]
streams = ["gone", "hot", "bad"]
age = "0s"
priority = 0
[lanes.telemetry]
streams = ["env", "once", "tumble", "tumble.late", "hop", "hop.late"]
age = "500ms"
"""

# Traps on a batch that has a temperature above 45 in its first row, and lets all rows pass otherwise.
BAD = """(local $rows i32) (local $r i32) (local.set $rows (i32.load (local.get $batch)))
  (if (i32.eqz (local.get $rows)) (then (return (i32.const 0))))
  (if (f64.gt (f64.load (i32.load offset=4 (i32.load offset=48 (local.get $batch)))) (f64.const 45)) (then unreachable))
  (memory.fill (i32.const 0x600) (i32.const 255) (i32.const 512))
  (i32.store (i32.const 0x400) (i32.const 0x600))
  (i32.const 0x400)"""



class Uncollected:
    """In the place of the module gc, for the daemon. When garbage goes is a function of the seed: with every COLLECT_EVERY-th start."""

    collect = freeze = staticmethod(lambda: None)


class SimShare(Share):
    """A call of any rule takes world.call_ns of CPU."""

    def __init__(self, world):
        super().__init__(1.0)
        self._world = world

    def charge(self, account, ns):
        super().charge(account, self._world.call_ns)


class World:
    """folder: a real directory for compiled modules and the local socket; kept between worlds, it saves the compiler's time."""

    def __init__(self, seed, folder, config=CONFIG):
        self.universe = universe = Universe(f"{seed}")
        universe.true_ns = lambda: START_NS + universe.now_ns + self.skipped_ns
        self.random, self.skipped_ns, self.wall_error_ns = universe.random, 0, 0
        self.folder, self.config = folder, parse(unhurried(config.replace("$DATA", f"{folder}/data").replace("$BAD", bad(folder))))
        self.disk, self.broker = SimDisk(seed=self.random.randrange(1 << 30)), Broker(universe)
        self.broker.clock_is_right = lambda: self._right_ns is not None and universe.now_ns - self._right_ns > 1.5 * S      # what was packed before is gone by then
        self._right_ns = None            # since when the gateway's clock is
        self.broker.unknown_before = lambda: self.unknown_before
        self.unknown_before = 0          # sequence in env: a start that found the clock right does not know how wrong the one before it was
        self.truth, self.devices, self.daemon, self.machine = [], [], None, None
        self.cuts = self.starts = self.kills = self.swaps = self.turns = 0
        daemon_module.gc = Uncollected   # the world's rows are no part of a daemon's heap
        gc.disable()
        self.problems, self.said = [], []
        self.may_jump = {"hot", "bad"}    # streams of rules that are changed, or trap
        self.call_ns = 20_000
        self.let_go = {}                 # position -> Record, of the journal: what a full disk made it let go
        self.look_every, self._looked_ns = 20, 0

    def wall_ns(self):
        return self.universe.true_ns() + self.wall_error_ns

    # --- the gateway

    def start(self):
        """The machine boots. A power cut may come at any operation of it; a process that gives up is started again, as systemd does."""
        while self.daemon is None:
            self.starts += 1
            if self.starts > 100 and self.starts > 10 * (self.cuts + self.kills + 10):
                raise AssertionError("it does not start")
            self.machine = SimMachine(self.universe, self.disk, self.broker.dial, self.wall_ns)
            try:
                daemon = Daemon(self.config, self.machine)
                daemon.pipeline.share = SimShare(self)
                self._keep(daemon.pipeline.journal.log)
                daemon.start()
                self.daemon = daemon
                if self._right_ns is None:
                    self.unknown_before = daemon.pipeline.inputs[0].next_sequence
            except Cut:
                self._power_gone()
            except (ConfigError, DiskError) as error:
                self.said.append(f"start: {error}")
                self._end()
                self.disk.kill()
                self.skip(1)
        return self

    def _keep(self, log):
        """What the journal lets go stays known here. It was durable long before, so no power cut makes it something else."""
        def give_way(old=log.give_way):
            if n := log._evictable():
                self.let_go.update((record.position, record) for record in between(log, log.tail, log._segments[n - 1].end))
            return old()

        log.give_way = give_way

    def journal(self):
        """All records that the journal has had, but for those that a power cut took before they were durable."""
        log = self.daemon.core.pipeline.journal.log
        yield from (record for position, record in sorted(self.let_go.items()) if position < log.tail)
        yield from between(log, log.tail)

    def _power_gone(self, survival=None):
        self.cuts += 1
        self._end()
        before = self.disk
        self.disk = before.after_cut(self.random.choice((0.0, 0.5, 1.0)) if survival is None else survival)
        self.disk.faults, self.disk.full, self.disk.room = before.faults, before.full, before.room

    def lose_power(self, seconds, unset=False):
        """The power goes now, for so long. unset: the wall clock begins in 1970 then."""
        self._power_gone()
        self.skip(seconds)
        if unset:
            self.wall_error_ns = -self.universe.true_ns() + 10 * S
        self.start()

    def kill(self):
        """SIGKILL, and the next start."""
        self.kills += 1
        self.disk.kill()
        self._end()
        self.start()

    def _end(self):
        """Nothing of the process goes on; its sockets close."""
        self.said += self.machine.said.getvalue().splitlines()[-30:]
        del self.said[:-200]
        self.daemon, reactor = None, self.machine.reactor
        self.turns += reactor.turns
        if reactor.door is not None:
            reactor.door.close()
        for link in list(self.universe.links.values()):
            link.near.close()
            if self.random.random() < 0.7:
                link.drain()             # what the kernel had may still arrive
            link.close()
        reactor.close()
        if self.starts % COLLECT_EVERY == 0:
            gc.collect()
            gc.freeze()                  # what the receiver has stays

    def stop(self):
        """SIGTERM."""
        try:
            self.daemon.close()
        except Cut:
            self._power_gone()
            return
        self._end()
        self.disk.kill()

    def cut_power(self, operations=40):
        """The power goes within the next operations of the disk."""
        self.disk.cut_at = self.disk.operations + self.random.randrange(operations)

    def refusing(self, until_ns, code, share):
        """For SimDisk.faults: writes and syncs fail with errno `code`, a share of them, until then."""
        return lambda name: code if self.universe.now_ns < until_ns and name in ("pwrite", "fdatasync", "create", "truncate") and self.random.random() < share else None

    def fill(self, until_ns, code):
        """The disk is full until then, and says `code`. What becomes free is the gateway's for a turn; then others have it."""
        self.disk.full = lambda: code if self.universe.now_ns < until_ns else None

    def run(self, seconds):
        """So much time goes by."""
        until_ns = self.universe.now_ns + int(seconds * S)
        while self.universe.now_ns < until_ns:
            if self.disk.full():
                self.disk.room = self.disk.used()
            try:
                self.daemon.turn(min(1.0, (until_ns - self.universe.now_ns) / S))
            except Cut:
                self._power_gone()
                self.start()
            if self.daemon is None or abs(self.daemon.clock.now_ns() - self.universe.true_ns()) >= S:
                self._right_ns = None
            elif self._right_ns is None:
                self._right_ns = self.universe.now_ns
            if self.universe.now_ns - self._looked_ns > self.look_every * S:
                self.look()

    def look(self):
        """The ledger balances at every look."""
        self._looked_ns = self.universe.now_ns
        rows = self.ledger()
        self.problems += [f"ledger: {line}" for line in check(rows)] + [f"ledger: {a.name} has {a.out}" for a in rows if min(a.out.values(), default=0) < 0]

    def ledger(self):
        core = self.daemon.core
        return accounts(core.pipeline, {outbox.name: lane for outbox, lane in core.lanes})

    def skip(self, seconds):
        """Time in which nothing happens: the machine slept."""
        self.universe.now_ns += int(seconds * S)

    # --- devices

    def add_device(self, name, qos=1, **options):
        self.devices.append(Device(self.universe, name, qos, self._knock, self.truth, **options))
        return self.devices[-1]

    def _knock(self, device):
        reactor = self.machine.reactor
        if self.daemon is None or reactor.closed or reactor.door is None:
            return None
        link = self.universe.link(device, self.random.choice((0.001, 0.01, 0.2)))
        reactor.door.knock(link)
        return link

    def cut_devices(self, share=0.3):
        for device in self.devices:
            if device._link is not None and self.random.random() < share:
                device._link.hang() if self.random.random() < 0.2 else device._link.close()

    # --- rules

    def swap(self):
        """Change what runs, or ask for it: a parameter, a rollback, off and on."""
        core, rule = self.daemon.core, "hot"
        now = core.deployments[rule]
        self.swaps += 1
        try:
            what = self.random.choice(("set", "set", "rollback", "toggle"))
            if what == "set":
                core.deploy(replace(now, params={**now.params, "value": float(self.random.randrange(10, 40))}), policy=self.random.choice(("auto", "fresh", "replay")),
                            horizon_ns=30 * S, who="sim")
            elif what == "rollback":
                core.rollback(rule, who="sim")
            else:
                core.set_enabled(rule, not now.enabled, who="sim")
        except (ConfigError, RuleError, DiskError) as error:
            self.said.append(str(error))
        except Cut:
            self._power_gone()
            self.start()

    # --- the end

    def settle(self, seconds=1200):
        """All is well from now on: until the devices have nothing left and the lanes are empty. Each device is heard once more, so that its windows close."""
        self.disk.cut_at, self.disk.faults, self.disk.full = None, SimDisk.faults, SimDisk.full
        self.broker.behaviour, self.broker.reachable = "good", True
        self.wall_error_ns = 0
        for device in self.devices:
            device.plug()
        self.run(10)
        for device in self.devices:
            device.measure(sound=True)
        until_ns = self.universe.now_ns + seconds * S
        while self.universe.now_ns < until_ns:
            self.run(5)
            if not any(d.pending for d in self.devices) and not any(lane.rows_waiting for _, lane in self.daemon.core.lanes):
                self.run(30)             # windows of silent keys close
                if not any(lane.rows_waiting for _, lane in self.daemon.core.lanes):
                    break
        else:
            left = {d.name: d.pending for d in self.devices if d.pending} | {lane.name: lane.rows_waiting for _, lane in self.daemon.core.lanes}
            self.problems.append(f"it does not come to rest: {left}")
        self.look()

    def close(self):
        if self.daemon is not None:
            self._end()
        self.universe.close()
        gc.unfreeze()
        gc.enable()


def unhurried(config):
    """A call's limit is CPU time of this machine, which is no part of the world: it is out of reach."""
    return re.sub(r"(?m)^module = .*$", r'\g<0>\nlimits = { time = "60s" }', config)


def bad(folder):
    path = f"{folder}/bad.wasm"
    with open(path, "wb") as out:
        out.write(m.module(m.text(0x80, "temp") + m.data(m.PLAN + 40, 0x80, 4, 1, 0), process=BAD, manifest=m.MANIFEST | {"name": "bad"}))
    return path


class Folder:
    """A directory for as long as it is needed."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="tw")
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)
