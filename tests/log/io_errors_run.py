"""I/O errors at each n-th operation of a run, until one that has no n-th operation.

    python io_errors_run.py --seed 1 --count 11198 [--first 0]

A unit is a fault (FAULTS) at an operation of a run: the log alone (appends, rolls, truncations, drops, evictions, checkpoints), a gateway on data that it finds (start,
events, checkpoint, upload, push, swap, audit, drain), and from unit SHORT on a gateway for long, with restarts. The first SHORT units are all faults at all operations of
the first two. What a fault cannot befall (a short write where nothing is written) is skipped. When the disk works again, the receiver has what it has after a run without
a fault, also after a power cut that leaves only what was synced; and no error but DiskError comes out of the product at any time.

A read that fails in earnest costs what is read there, so after EIO in open or pread only that is promised: the gateway starts, takes in events, and these arrive.
"""

import errno
import functools
import hashlib
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from campaign import main  # first: it finds the other folders
import swap_world
from log_oracle import Oracle, open_log
from memory_disk import FaultyDisk
from pipeline_world import START, S, World, env
from swap_world import RATE

import gateway.core
from edge.checkpoint import CheckpointStore
from edge.deployment import Deployment
from edge.errors import DiskError, RuleError
from edge.storage.log import Log
from edge.uploads import Uploads
from gateway.deploy.audit import Audit

gateway.core.SEGMENT_BYTES = Log.__init__.__kwdefaults__["segment_bytes_max"] = 64 << 10
LIE = FaultyDisk.LIE
FAULTS = ((errno.EIO, 1), (errno.EIO, 4), (errno.ENOSPC, 1), (errno.ENOSPC, 9), (errno.EDQUOT, 2), (errno.EROFS, 4), (errno.EINTR, 1), ("short", 1), ("short", 3), (LIE, 1), (LIE, 2))
READS = ("open", "pread")
PASSED = ("lock", "listdir", "mkdir", *READS)
SHORT_N, LONG_N = 509, 2503              # primes: more than the runs have operations
SHORT, FULL = 2 * len(FAULTS) * SHORT_N, 2 * len(FAULTS) * SHORT_N + len(FAULTS) * LONG_N
EVENTS = 3
TRIES = 30


def insist(call, *arguments):
    """As the daemon does: again, when the disk refused."""
    for _ in range(TRIES):
        try:
            return call(*arguments)
        except DiskError as error:
            assert "data" in str(error), "an error says where"
            last = error
    raise AssertionError(f"refused {TRIES} times: {last}")


# --- the log alone


def log_run(disk):
    """Returns (check of the files that it is given, None)."""
    oracle, images = Oracle(), {"a": bytearray(9000)}

    def opened(disk):
        def evicted(kind, stream, first, count):
            oracle.gone_before = max(oracle.gone_before, holder[0].evicts_before)

        holder = []
        holder.append(insist(functools.partial(open_log, quota_bytes_max=6000, on_evict=evicted), disk))
        return holder[0]

    def work(log, text, count, every):
        for i in range(count):
            insist(oracle.append, log, text % i * 6)
            if i % every:
                insist(oracle.sync, log)
        insist(oracle.check, log)

    log = opened(disk)
    work(log, b"record %d ", 14, 3)
    insist(oracle.drop_before, log, 4)
    insist(oracle.truncate, log, log.head - 3)
    work(log, b"more %d ", 6, 2)
    store = insist(CheckpointStore, disk, "data/checkpoints")
    for i in range(3):
        images["a"][i * 4100] = i + 1
        insist(store.save, b"%d" % i, images)
    work(log, b"until the quota pushes the oldest out %d ", 18, 3)
    try:
        log.close()
    except DiskError:
        pass
    log = opened(disk)
    work(log, b"last %d ", 3, 2)

    def check(found):
        oracle.check(opened(found))
        assert CheckpointStore(found, "data/checkpoints").load() == (b"2", images)

    return check


# --- a gateway


@functools.cache
def modules():
    folder = tempfile.TemporaryDirectory(prefix="tidegate-errors-")
    modules.kept = folder
    return folder.name


@functools.cache
def found_data():
    """The files that a gateway which ran before has left."""
    world = World(modules(), swap_world.RULES).start()
    for i in range(4):
        put(world, i)
    world.checkpoint()
    put(world, 4)
    return {path: bytes(node.data) for path, node in world.disk.after_cut(1).files.items()}


def put(world, turn):
    """Devices send, and send again until it is taken."""
    world.now_ns = START + turn * S
    events = [env(f"d{k}", turn, world.now_ns // 10**6, 20.0 + (turn * (k + 3)) % 17) for k in range(EVENTS)]
    if not world.put(*events, *([(b"env/x", b"{")] if turn % 4 == 1 else [])):
        assert any(world.commit() for _ in range(TRIES)), "the disk works again, and the gateway does not"
    insist(world.pipeline.flush)


def change(world, ask):
    """A change of what runs, asked for again when the disk refused it; then nothing has changed."""
    for _ in range(TRIES):
        before = world.core.deployments
        swap = ask()
        for _ in range(1000 * TRIES):    # slices of a warm-up; many, where a file that cannot be opened may have held so many positions
            if swap.state not in ("waiting", "warming"):
                break
            world.core.advance(0)
            insist(world.core.settle)
            insist(world.pipeline.flush)
        insist(world.core.settle)
        if swap.state == "done":
            insist(world.forward)
            return
        assert world.core.deployments == before, "what failed has changed something"
    raise AssertionError(f"a change was refused {TRIES} times: {swap.error}")


def upload(disk, data):
    """A module's bytes in parts, begun anew when the disk refused."""
    digest, uploads = hashlib.sha256(data).hexdigest(), insist(Uploads, disk, "data/uploads", lambda: 0.0)
    for _ in range(TRIES):
        try:
            at = uploads.begin(digest, len(data))
            while at < len(data):
                at = uploads.chunk(digest, at, data[at:at + 4096])
            return uploads.content(digest)
        except (DiskError, RuleError):
            pass
    raise AssertionError("the upload does not come to its end")


class Gateway:
    """A gateway's run on a disk. long: how often the short one's work is done, with restarts between."""

    def __init__(self, disk, rounds):
        self.world = World(modules(), swap_world.RULES, disk)
        self.disk, self.turn, self.noted = disk, 5, []
        insist(self.world.start)
        self.audit = insist(functools.partial(Audit, file_bytes_max=1500, wall=lambda: 1_700_000_000), disk, "data/audit")
        for i in range(rounds):
            if i:
                self.world.core.close()
                insist(self.world.start)
                for _ in range(6):
                    self.put()
            self.round(i)

    def put(self):
        put(self.world, self.turn)
        self.turn += 1

    def note(self, what):
        insist(self.audit.append, "test", what)
        self.noted.append(what)

    def round(self, i):
        world = self.world
        self.put()
        content = upload(self.disk, RATE)
        self.note(f"push {i}")

        def push():                      # all of it again, should a read have failed: then the file was moved aside
            digest = insist(lambda: world.core.store.put(content, who="test", when_ns=1)).digest
            return world.core.deploy(Deployment(f"slope{i}", "once", digest, {"field": "temp"}, lanes=["all"]), horizon_ns=1 << 62)

        change(world, push)
        self.put()
        insist(world.drain)
        insist(world.checkpoint)
        self.note(f"set {i}")
        now = world.core.deployments["tumble"]
        params = now.params | {"max_keys": 500 + i}
        change(world, lambda: world.core.deploy(Deployment("tumble", "once", now.digest, params), policy="keep"))
        self.put()
        change(world, lambda: world.core.deploy(Deployment("tumble", "once", now.digest, params | {"length": f"{6 + i}s"}), policy="fresh"))
        change(world, lambda: world.core.remove(f"slope{i}"))
        insist(world.tick, 0)

    def end(self):
        """(rows, deployments, audited) of the receiver in the end."""
        world = self.world
        world.now_ns += 60 * S
        world.tick()
        insist(world.drain)
        world.assert_balanced()
        return dict(world.rows), dict(world.core.deployments), self.noted

    def check(self, expected):
        rows, deployments, noted = expected
        assert self.end() == expected
        world = self.world
        assert not world.missing() and not world.announced(), (world.missing(), world.announced())
        world.crash(0)
        world.drain()
        world.assert_balanced()
        assert (world.rows, world.core.deployments) == (rows, deployments) and not world.missing() and not world.announced()
        audit = Audit(world.disk, "data/audit", file_bytes_max=1500)
        assert audit.verify()["broken"] is None and [line["what"] for line in audit.lines(limit=1000) if line["who"] == "test"][-6:] == noted[-6:]

    def serves(self):
        """After a read failed in earnest: the next start takes in events, and they arrive."""
        for _ in range(2):
            before = len(self.world.of("once"))
            for i in range(2):
                put(self.world, 1000 + self.turn + i)
            self.turn += 2
            self.world.drain()
            assert len(self.world.of("once")) >= before + EVENTS, "what comes after it does not arrive"
            self.world.crash(0)


@functools.cache
def clean(rounds):
    """(operations by name, what the receiver has in the end) of a run without a fault; rounds 0: of the log alone."""
    disk = FaultyDisk(lambda i, name: None, found_data() if rounds else ())
    if not rounds:
        log_run(disk)
        return [name for name, _ in disk.trace], None
    it = Gateway(disk, rounds)
    trace = [name for name, _ in disk.trace]
    return trace, it.end()


def unit(i):
    """(rounds, fault, times, n): in a mixed order, so that all chunks take equally long."""
    if i < SHORT:
        fault, times = FAULTS[i // 2 % len(FAULTS)]
        return i % 2, fault, times, i // (2 * len(FAULTS)) * 113 % SHORT_N
    fault, times = FAULTS[(i - SHORT) % len(FAULTS)]
    return 8, fault, times, (i - SHORT) // len(FAULTS) * 113 % LONG_N


def befalls(fault, times, name):
    if fault == "short":
        return name == "pwrite"
    if fault == LIE:
        return name == "fdatasync"
    return name not in PASSED or (name in READS and (fault, times) == (errno.EIO, 1))


def run_one(rounds, fault, times, n, fates):
    trace, expected = clean(rounds)
    if n >= len(trace):
        fates["beyond the run"] += 1
        return
    if not befalls(fault, times, trace[n]) or (not rounds and trace[n] in READS):
        fates["skipped"] += 1
        return
    fates[f"{'log' if not rounds else 'gateway'}: {trace[n]}"] += 1
    earnest = trace[n] in READS

    def strike(number, name):
        return fault if n <= number < n + times and (name not in PASSED or earnest and number == n) and not (fault in ("short", LIE) and not befalls(fault, times, name)) else None

    disk = FaultyDisk(strike, found_data() if rounds else (), seed=0)
    if not rounds:
        check = log_run(disk)
        disk.fault = lambda number, name: None
        check(disk.after_cut(0))
        return
    it = Gateway(disk, rounds)
    disk.fault = lambda number, name: None
    it.serves() if earnest else it.check(expected)


def run(seed, first, count):
    """seed says nothing here: all faults are tried."""
    fates, broken = Counter(), []
    for rounds, most in ((0, SHORT_N), (1, SHORT_N), *([(8, LONG_N)] if first + count > SHORT else [])):
        if len(clean(rounds)[0]) > most:
            broken.append(f"the run of {rounds} rounds has {len(clean(rounds)[0])} operations, and only {most} are tried")
    for i in range(first, first + count):
        rounds, fault, times, n = unit(i)
        try:
            run_one(rounds, fault, times, n, fates)
        except Exception as error:
            at = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[:-5:-1])
            name = errno.errorcode.get(fault, fault)
            broken.append(f"--first {i} --count 1: {name} x {times} at operation {n}, {clean(rounds)[0][n]}: {error!r} at {at}"[:700])
            if len(broken) > 20:
                break
    runs = sum(n for fate, n in fates.items() if fate not in ("skipped", "beyond the run"))
    return {"runs": runs, "short_operations": [len(clean(r)[0]) for r in (0, 1)], "fates": dict(sorted(fates.items()))}, broken


if __name__ == "__main__":
    sys.exit(main(run, __doc__, SHORT))
