"""Files beside a segment, and what must be true when one bit of them is flipped: what is found is what was written, or is told to be damaged; all go on."""

import random

from crash_states import Found
from log_oracle import open_log, read_all
from module_maker import rule

from edge.checkpoint import CheckpointStore
from edge.columns.schema import Field, Schema
from edge.errors import RuleError
from edge.identity import Identity
from edge.rule_store import RuleStore
from edge.storage.memory import Memory
from gateway.deploy.audit import Audit


def contents(disk):
    return {path: bytes(file.data) for path, file in disk.files.items()}


def index(seed):
    disk, rng = Memory(seed=seed), random.Random(seed)
    log = open_log(disk, segment_bytes_max=1 << 16, quota_bytes_max=1 << 24)
    for k in range(60):
        log.append(2, k % 3, k, 1, rng.randbytes(3000))
    log.close()

    def read(found):
        return [(r.position, r.kind, r.first, r.payload) for r in read_all(open_log(found, segment_bytes_max=1 << 16, quota_bytes_max=1 << 24))]

    whole = read(Found(contents(disk)))

    def check(found):
        assert read(found) == whole

    return {"index": (contents(disk), next(p for p in disk.files if p.endswith(".idx")), check)}


def identity(seed):
    disk = Memory(seed=seed)
    written = Identity(disk, "data", "g1")
    for k in range(5):
        written.number(Schema(f"s{k}", (Field("t", "f64", "C"), Field("at", "time")), time="at"))
    written.save()

    def check(found):
        now = Identity(found, "data", "g1")
        assert now.damaged or (now.epoch, now.schemas()) == (written.epoch, written.schemas()), "another identity, and nobody says so"
        assert not now.damaged or now.epoch != written.epoch
        now.number(Schema("later", ()))
        now.save()
        assert Identity(found, "data", "g1").epoch == now.epoch

    return {"identity": (contents(disk), "data/identity.json", check)}


def checkpoint(seed):
    disk, rng, states = Memory(seed=seed), random.Random(seed), [None]
    image = bytearray(rng.randbytes(20_000))
    for k in range(6):
        if k % 3 == 0:
            store = CheckpointStore(disk, "data/checkpoints")
            store.load()
        image[rng.randrange(20_000)] ^= 255
        store.save(b"%d" % k, {"a": image})
        states.append((b"%d" % k, {"a": bytearray(image)}))
        if k % 3 == 2:
            store.close()

    def check(found):
        store = CheckpointStore(found, "data/checkpoints")
        state = store.load()
        assert state in states[3:], "a state that never was, or one older than the full save before"
        assert state == states[-1] or store.recovery.skipped or store.recovery.number < 6, "an older state, and nobody says so"
        store.save(b"later", {"a": b"later"})
        assert store.load() == (b"later", {"a": bytearray(b"later")})

    files = {p: d.rstrip(b"\0") for p, d in contents(disk).items() if p.endswith(".seg")}
    return {"checkpoint": (files, max(files), check)}


def rules(seed):
    disk = Memory(seed=seed)
    store = RuleStore(disk, "data/rules")
    versions = [store.put(rule("hot", k), who="someone", when_ns=k, signed_by="plant") for k in (1, 2, 3)]
    saved = (3, [{"rule": "hot", "digest": versions[0].digest}])
    store.save_deployments(*saved)

    def check(found):
        store = RuleStore(found, "data/rules")
        assert store.versions() == versions or store.warnings, "what is known of a module changed, and nobody says so"
        assert {v.digest for v in store.versions()} == {v.digest for v in versions}, "a module is gone"
        assert store.deployments() == saved or store.deployments() == (0, []) and store.warnings
        damaged = 0
        for version in versions:
            try:
                assert store.module(version.digest).digest == version.digest
            except RuleError:
                damaged += 1
                assert store.warnings, "a module is damaged, and nobody says so"
        assert damaged <= 1
        store.put(rule("later"), who="test", when_ns=1)
        assert RuleStore(found, "data/rules").resolve("later")

    files = contents(disk)
    return {"catalogue": (files, "data/rules/catalogue.json", check), "deployments": (files, "data/rules/deployments.json", check),
            "module": (files, store.path(versions[1].digest), check)}


def audit(seed):
    def log_on(disk):
        return Audit(disk, "data/audit", file_bytes_max=1500, wall=lambda: 1_700_000_000)

    disk = Memory(seed=seed)
    log = log_on(disk)
    for k in range(14):
        log.append("local:0", "admitted", rule="hot", number=k)
    lines = log.lines(limit=100)

    def check(found):
        now = log_on(found)
        now.append("local:0", "later")
        read = [line for line in now.lines(limit=100) if line["what"] != "later"]
        assert read == lines or now.verify()["broken"] or any(line["what"] == "audit.torn" for line in read), "a line was changed, and nobody says so"

    def end(found):
        """The newest line has none behind it that would show a change of it: all others are there, or it is told."""
        now = log_on(found)
        now.append("local:0", "later")
        read = now.lines(limit=100)
        assert read[:len(lines) - 1] == lines[:-1] or now.verify()["broken"] or any(line["what"] == "audit.torn" for line in read), "a line was changed, and nobody says so"
        assert read[-1]["what"] == "later"

    first, *_, last = sorted(p for p in disk.files if "audit" in p)
    return {"audit, older file": (contents(disk), first, check), "audit, last file": (contents(disk), last, end)}


def beside(seed):
    """kind -> (files, the one that rots, check(found))."""
    return index(seed) | identity(seed) | checkpoint(seed) | rules(seed) | audit(seed)
