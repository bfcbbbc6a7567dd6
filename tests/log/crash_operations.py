"""The operations whose crash states are visited, each with its oracle: what must be true of what a start finds, said without the code under test.

Each has prepare(disk), act() while the disk records, promise() -> (tag, value), and check(found, promise): opens it with the product's own code, asserts
that nothing promised is lost, nothing invented, and that it can be used, also by the start after the next.
"""

import copy
import errno
import hashlib

from crash_states import Found
from log_oracle import Oracle, open_log, read_all
from memory_disk import FaultyDisk
from module_maker import rule

from edge.checkpoint import CheckpointStore
from edge.columns.schema import Field, Schema
from edge.errors import DiskError, RuleError
from edge.host.module import Module
from edge.identity import Identity
from edge.rule_store import RuleStore
from edge.storage.log import Log
from edge.uploads import Uploads
from gateway.deploy.audit import Audit

GAP = 7
PREAMBLE = [(1, number, bytes(200)) for number in range(3)]
Log.__init__.__kwdefaults__["segment_bytes_max"] = 64 << 10          # files that are quickly copied, and full soon


class LogOperation:
    """A log of three records a segment; before and act: fn(self)."""

    quota = 1 << 20

    def __init__(self, before, act):
        self._before, self._act = before, act

    def open(self, disk, oracle):
        def evicted(kind, stream, first, count):
            holder[0].append(GAP, stream, first, count, b"")
            oracle.gone_before = max(oracle.gone_before, holder[0].evicts_before)

        holder = []
        holder.append(open_log(disk, segment_bytes_max=4096, quota_bytes_max=self.quota, on_evict=evicted, preamble=lambda: PREAMBLE))
        return holder[0]

    def prepare(self, disk, rng):
        self.disk, self.rng, self.oracle = disk, rng, Oracle()
        self.log = self.open(disk, self.oracle)
        self._before(self)

    def act(self):
        self._act(self)

    def put(self, *sizes):
        for size in sizes:
            self.oracle.append(self.log, self.rng.randbytes(size))

    def sync(self, *sizes):
        self.put(*sizes)
        self.oracle.sync(self.log)

    def promise(self):
        o = copy.copy(self.oracle)
        o.records, o.old = dict(o.records), dict(o.old)
        return (len(o.records), o.acknowledged, o.gone_before, o.forgotten, len(o.old)), o

    def check(self, found, oracle):
        oracle = copy.copy(oracle)
        log = self.open(found, oracle)
        assert not log.recovery.warnings and not log.damaged_since(0), vars(log.recovery)
        if oracle.gone_before and self.quota < 1 << 20:
            told = {first + i for r in read_all(log) if r.kind == GAP for first in [r.first] for i in range(r.count)}
            told |= {first + i for kind, _, first, count, _ in log.notices.events if kind == 2 for i in range(count)}
            held = {r.first for r in read_all(log) if r.kind == 2}
            assert {n for n, position in enumerate(oracle.records) if position < oracle.acknowledged} <= told | held, "evicted, and no gap says so"
        oracle.restart(log)
        for size in (10, 900):
            oracle.append(log, bytes(size))
        oracle.sync(log)
        oracle.check(log)
        oracle.gone_before = max(oracle.gone_before, log.tail)
        oracle.check(self.open(Found(found.contents()), oracle))


class Evicting(LogOperation):
    quota = 20_000


def until_rolled(o):
    serial = o.log._serial
    while o.log._serial == serial:
        o.sync(700, 300)


def refuse(o, *faults):
    """The next syncs fail by `faults`."""
    left = list(faults)
    o.disk.fault = lambda number, name: left.pop(0) if left and name == "fdatasync" else None


def fail_then_go_on(o):
    refuse(o, FaultyDisk.LIE)
    o.sync(600)
    o.sync(200)


def reopened(o):
    """A process died before its sync, behind a truncation whose void files are there still; the next one opens the log."""
    o.log = o.open(o.disk, o.oracle)
    o.oracle.restart(o.log)
    o.sync(100)


def dead_before_sync(o):
    o.sync(*[800] * 9)
    unlink, o.disk.unlink = o.disk.unlink, lambda path: (_ for _ in ()).throw(OSError(errno.EIO, "not removed"))
    o.oracle.truncate(o.log, o.log.head - 4)
    o.disk.unlink = unlink
    o.sync(300)
    o.put(400, 1200)
    o.log._write_all(b"".join(o.log._unsynced), o.log._segments[-1].size)
    o.disk.kill()


def held(o):
    o.sync(*[700] * 12)


LOG = {
    "log: first append": LogOperation(lambda o: None, lambda o: o.sync(900, 300)),
    "log: append and sync": LogOperation(lambda o: o.sync(500), lambda o: (o.sync(700), o.sync(100), o.put(60), o.sync(400, 40))),
    "log: long append": LogOperation(lambda o: o.sync(10), lambda o: (o.sync(2600), o.sync(9000))),
    "log: roll": LogOperation(lambda o: o.sync(*[600] * 4), lambda o: (o.log.roll(), o.sync(200))),
    "log: roll when full": LogOperation(lambda o: o.sync(*[900] * 3), until_rolled),
    "log: truncate": LogOperation(held, lambda o: (o.oracle.truncate(o.log, o.log.head - 7), o.sync(300))),
    "log: skip": LogOperation(lambda o: o.sync(800), lambda o: (o.oracle.truncate(o.log, o.log.head + 10), o.sync(300))),
    "log: drop_before": LogOperation(held, lambda o: (o.oracle.drop_before(o.log, 8), o.sync(100))),
    "log: evict": Evicting(lambda o: o.sync(*[700] * 24), lambda o: [o.sync(700) for _ in range(9)]),
    "log: sync that fails": LogOperation(lambda o: o.sync(400), fail_then_go_on),
    "log: close": LogOperation(lambda o: o.sync(900), lambda o: (o.put(300), o.oracle.sync(o.log), o.log.close())),
    "log: opening": LogOperation(dead_before_sync, reopened),
}


class Checkpoint:
    """States of two images; the one saved last, or the one that is being saved."""

    where = "data/checkpoints"

    def __init__(self, before, act):
        self._before, self._act = before, act

    def prepare(self, disk, rng):
        self.disk, self.rng, self.images = disk, rng, {"a": bytearray(rng.randbytes(13_000)), "b": bytearray(100)}
        self.number, self.allowed = 0, [None]
        self.store = CheckpointStore(disk, self.where)
        self._before(self)

    def act(self):
        self._act(self)

    def save(self, fails=False):
        self.number += 1
        self.images["a"][self.rng.randrange(13_000)] ^= 255
        self.images["b"] += self.rng.randbytes(50)
        state = (b"%d" % self.number, copy.deepcopy(self.images))
        self.allowed = [*self.allowed, state]
        try:
            self.store.save(*state)
            self.allowed = [state]
        except DiskError:
            assert fails

    def withdrawn(self):
        refuse(self, errno.ENOSPC)
        self.save(fails=True)
        self.store.withdraw()
        self.allowed = self.allowed[:1]

    def promise(self):
        return tuple(s and s[0] for s in self.allowed), self.allowed

    def check(self, found, allowed):
        store = CheckpointStore(found, self.where)
        state = store.load()
        assert state in allowed, f"loaded {state and state[0]}, allowed {[s and s[0] for s in allowed]}"
        later = (b"later", {"a": bytearray(b"y" * 5000)})
        store.save(*later)
        assert CheckpointStore(Found(found.contents()), self.where).load() == later


CHECKPOINT = {
    "checkpoint: full": Checkpoint(lambda o: (o.save(), o.save(), o.store.begin_anew()), lambda o: (o.save(), o.store.begin_anew(), o.save())),
    "checkpoint: delta": Checkpoint(lambda o: o.save(), lambda o: (o.save(), o.save())),
    "checkpoint: withdrawn": Checkpoint(lambda o: o.save(), lambda o: (o.withdrawn(), o.save())),
}

A, B, C, D = (rule("hot", version) for version in (1, 2, 3, 4))


class Store:
    """The rule store of three: `must` be there, `may` be there, generations that the deployments may have."""

    where = "data/rules"

    def __init__(self, before, act):
        self._before, self._act = before, act

    def prepare(self, disk, rng):
        self.must, self.may, self.generations = set(), set(), {0}
        self.store = RuleStore(disk, self.where, count_max=3)
        self._before(self)

    def act(self):
        self._act(self)

    def put(self, *modules, evicts=()):
        for wasm in modules:
            gone, digest = {Module(e).digest for e in evicts}, Module(wasm).digest
            self.must, self.may = self.must - gone, self.may | {digest}
            self.store.put(wasm, who="test", when_ns=1)
            self.must, self.may = self.must | {digest}, self.may - gone

    def remove(self, wasm):
        self.must = self.must - {Module(wasm).digest}
        self.store.remove(Module(wasm).digest)
        self.may = self.may - {Module(wasm).digest}

    def save(self, generation, *modules):
        self.generations = self.generations | {generation}
        self.store.save_deployments(generation, [{"rule": "hot", "digest": Module(m).digest} for m in modules])
        self.generations = {generation}

    def promise(self):
        value = frozenset(self.must), frozenset(self.may), frozenset(self.generations)
        return value, value

    def check(self, found, promise):
        must, may, generations = promise
        store = RuleStore(found, self.where, count_max=3)
        there = {v.digest for v in store.versions()}
        assert must <= there <= may, (must - there, there - may)
        assert all(store.module(digest).digest == digest for digest in there)
        assert store.deployments()[0] in generations and {d["digest"] for d in store.deployments()[1]} <= there
        assert not [name for name in found.listdir(self.where) if name.endswith((".new", ".damaged"))]
        later = store.put(rule("later"), who="test", when_ns=1).digest
        again = RuleStore(Found(found.contents()), self.where, count_max=3)
        assert later in {v.digest for v in again.versions()} and not again.take_warnings()


STORE = {
    "rule store: first upload": Store(lambda o: None, lambda o: o.put(A)),
    "rule store: upload": Store(lambda o: (o.put(A), o.save(1, A)), lambda o: (o.put(B), o.save(2, B))),
    "rule store: upload that evicts": Store(lambda o: (o.put(A, B, C), o.save(1, A)), lambda o: o.put(D, evicts=[B])),
    "rule store: remove": Store(lambda o: o.put(A, B), lambda o: o.remove(A)),
    "deployments: save": Store(lambda o: (o.put(A, B), o.save(1, A)), lambda o: (o.save(2, B, A), o.save(3, A))),
}


class Upload:
    """Parts of a module; it goes on or begins anew, and what is complete is what its digest says."""

    data = D + bytes(range(256)) * 4

    def prepare(self, disk, rng):
        self.uploads = Uploads(disk, "data/uploads", lambda: 0.0)

    def act(self):
        self.send(self.uploads)

    def send(self, uploads):
        digest, at = hashlib.sha256(self.data).hexdigest(), 0
        at = uploads.begin(digest, len(self.data))
        while at < len(self.data):
            at = uploads.chunk(digest, at, self.data[at:at + 700])
        assert uploads.content(digest) == self.data

    def promise(self):
        return None, None

    def check(self, found, _):
        uploads = Uploads(found, "data/uploads", lambda: 0.0)
        try:
            self.send(uploads)
        except RuleError:
            self.send(uploads)


class Naming:
    """identity.json: None, or epoch and schemas by number."""

    def __init__(self, begun):
        self._begun = begun

    def identity(self, disk):
        return Identity(disk, "data", "g")

    def number(self, *names):
        for name in names:
            self.now.number(Schema(name, (Field("t", "f64"),)))
        state = self.now.epoch, self.now.schemas()
        self.allowed = [*self.allowed, state]
        self.now.save()
        self.allowed = [state]

    def prepare(self, disk, rng):
        self.allowed, self.now = [None], self.identity(disk)
        if self._begun:
            self.number("s", *(f"s{i}" for i in range(30)))

    def act(self):
        self.number("a", "b")
        self.number("c")

    def promise(self):
        return tuple(s and len(s[1]) for s in self.allowed), self.allowed

    def check(self, found, allowed):
        identity = self.identity(found)
        state = (identity.epoch, identity.schemas()) if identity.found else None
        assert not identity.damaged and state in allowed
        identity.number(Schema("later", ()))
        identity.save()
        assert self.identity(Found(found.contents())).schemas() == identity.schemas()


class Auditing:
    """The audit log: `done` lines returned, one more may be there."""

    def __init__(self, before, lines, bytes_max):
        self._before, self._lines, self._bytes_max = before, lines, bytes_max

    def audit(self, disk):
        return Audit(disk, "data/audit", file_bytes_max=self._bytes_max, wall=lambda: 1_700_000_000)

    def lines(self, count):
        for _ in range(count):
            self.now.append("local:0", "admitted", number=self.done, text="x" * self.rng.randrange(200, 490))
            self.done += 1

    def prepare(self, disk, rng):
        self.rng, self.done, self.now = rng, 0, self.audit(disk)
        self.lines(self._before)

    def act(self):
        self.lines(self._lines)

    def promise(self):
        return self.done, self.done

    def check(self, found, done):
        audit = self.audit(found)
        assert audit.verify()["broken"] is None, audit.verify()
        numbers = [line["number"] for line in audit.lines(limit=1000) if "number" in line]
        assert not done and not numbers or numbers and numbers in (list(range(numbers[0], done)), list(range(numbers[0], done + 1))), (numbers, done)
        dropped = max((line["through"] for line in audit.lines(limit=1000) if line["what"] == "audit.dropped"), default=0)
        assert not done or audit.lines()[0]["n"] <= dropped + 1, "lines are gone, and none says so"
        audit.append("local:0", "later")
        again = self.audit(Found(found.contents()))
        assert again.verify()["broken"] is None and again.lines(limit=1000)[-1]["what"] in ("later", "audit.dropped")


FILES = {
    "uploads: parts": Upload(),
    "identity: first save": Naming(False),
    "identity: save": Naming(True),
    "audit: append": Auditing(2, 3, 1 << 16),
    "audit: append to further files": Auditing(9, 4, 900),
}
OPERATIONS = LOG | CHECKPOINT | STORE | FILES
