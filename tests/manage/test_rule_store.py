"""The rule store: what put() returned is there after anything; what is damaged costs itself alone."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_disk import FaultyDisk, MemoryDisk, PowerCut
from module_maker import rule

from edge.errors import DiskError, RuleError
from edge.host.module import SIGNATURE_SECTION, Module, with_section
from edge.rule_store import RuleStore
from edge.storage import whole

RULES = "data/rules"
A, B, C, D = (rule("hot", version) for version in (1, 2, 3, 4))


def digest(wasm):
    return Module(wasm).digest


def open_store(disk, **bounds):
    return RuleStore(disk, RULES, **bounds)


def put(store, wasm, **words):
    return store.put(wasm, **{"who": "local:0", "when_ns": 7} | words)


def stored(store):
    return {v.digest for v in store.versions()}


def deployed(name, wasm, **more):
    return {"rule": name, "digest": digest(wasm), "previous": None, "shadow": None} | more


# --- what it does


def test_a_stored_module_comes_back_with_all_that_is_known_of_it():
    disk = MemoryDisk()
    given_back = put(open_store(disk), A, signed_by="plant")
    store = open_store(disk)
    assert store.versions() == [given_back] == store.versions("hot") and store.versions("cold") == []
    assert (given_back.label, given_back.who, given_back.when_ns, given_back.signed_by, given_back.size) == ("hot@1", "local:0", 7, "plant", len(A))
    assert store.module(digest(A)).wasm == Module(A).wasm


def test_put_is_idempotent_and_a_signature_that_comes_later_is_kept():
    store = open_store(MemoryDisk())
    first = put(store, A)
    assert put(store, A, who="other", when_ns=9) == first
    signed = with_section(A, SIGNATURE_SECTION, b"signature")
    better = put(store, signed, signed_by="plant")
    assert better.digest == first.digest and better.signed_by == "plant" and store.versions() == [better]
    assert put(store, A) == better, "what is signed is not replaced by what is not"
    assert store.module(first.digest).signature == b"signature"
    assert store.find(better.file) == store.find(better.digest) == better and store.find("0" * 64) is None


def test_a_version_names_one_content_unless_it_is_forced():
    store, other = open_store(MemoryDisk()), rule("hot", 1, summary="another")
    put(store, A)
    with pytest.raises(RuleError, match="hot@1 is in the store with another content.*raise the version"):
        put(store, other)
    assert put(store, other, force=True) == store.resolve("hot@1")
    assert store.module(digest(A)), "the one before can still be gone back to"


def test_a_version_is_found_by_name_number_or_the_beginning_of_its_digest():
    store = open_store(MemoryDisk())
    for wasm in (C, A, B):
        put(store, wasm)
    assert store.resolve("hot").version == 3 and store.resolve("hot@2").version == 2
    assert store.resolve(digest(A)[:8]).version == 1 == store.resolve(digest(A)).version
    for unknown in ("cold", "hot@9", "", "@", digest(A)[:3], "f" * 64):
        with pytest.raises(RuleError, match="has no"):
            store.resolve(unknown)


def test_what_is_no_module_is_refused_and_leaves_nothing():
    disk = MemoryDisk()
    store = open_store(disk)
    with pytest.raises(RuleError):
        put(store, b"\0asm junk")
    assert not disk.files and not store.versions()


# --- bounds


def test_the_oldest_version_that_nothing_uses_makes_room():
    disk = MemoryDisk()
    store = open_store(disk, count_max=3)
    for wasm in (A, B, C):
        put(store, wasm)
    store.save_deployments(1, [deployed("hot", B, previous={"digest": digest(A)})])
    put(store, D)
    assert stored(store) == {digest(w) for w in (A, B, D)}
    assert sorted(n for n in disk.listdir(RULES) if n.endswith(".wasm")) == sorted(f"{digest(w)}.wasm" for w in (A, B, D))
    store.protected = lambda: {digest(D)}
    with pytest.raises(RuleError, match="full .3 versions.*tidegate rule rm"):
        put(store, C)
    assert stored(store) == {digest(w) for w in (A, B, D)}


def test_bytes_are_bounded_too():
    store = open_store(MemoryDisk(), bytes_max=2 * len(A) + 10)
    for wasm in (A, B, C):
        put(store, wasm)
    assert stored(store) == {digest(B), digest(C)}


def test_a_version_in_use_is_not_removed():
    store = open_store(MemoryDisk())
    put(store, A)
    store.save_deployments(1, [deployed("hot", B, shadow={"digest": digest(A)})])
    with pytest.raises(RuleError, match="in use"):
        store.remove(digest(A))
    store.save_deployments(2, [])
    store.remove(digest(A))
    with pytest.raises(RuleError, match="no module"):
        store.remove(digest(A))
    with pytest.raises(RuleError, match="push it again"):
        store.module(digest(A))


# --- disks that refuse


def history(disk, done):
    """Each step is noted in `done` once it is durable: ("put" | "remove" | "save", what)."""
    store = open_store(disk, count_max=3)
    for step, what in (("put", A), ("save", (1, [deployed("hot", A)])), ("put", B), ("save", (2, [deployed("hot", B, previous={"digest": digest(A)})])),
                       ("put", C), ("remove", C), ("put", with_section(B, SIGNATURE_SECTION, b"s")), ("put", C), ("put", D)):
        if step == "put":
            put(store, what)
        elif step == "remove":
            store.remove(digest(what))
        else:
            store.save_deployments(*what)
        done.append((step, what))


def test_a_disk_that_refuses_leaves_what_was_there():
    whole_run = MemoryDisk()
    history(whole_run, [])
    for at in range(4, whole_run.operations):
        disk = FaultyDisk(lambda number, name: 28 if number == at else None)
        done = []
        try:
            history(disk, done)
        except DiskError as error:
            assert "check the disk" in str(error)
        store = open_store(MemoryDisk({path: bytes(node.data) for path, node in disk.files.items()}), count_max=3)
        for version in store.versions():
            store.module(version.digest)
        kept = {digest(w) for step, w in done if step == "put" and ("remove", w) not in done} - {digest(C)}
        assert kept <= stored(store)


def test_a_power_cut_while_a_signature_comes_costs_no_version():
    """The file is replaced before the catalogue: in between it is not the file that the catalogue names, and still that version."""
    signed = with_section(A, SIGNATURE_SECTION, b"signature")
    with_both = MemoryDisk()
    put(open_store(with_both), A)
    begun = with_both.operations
    put(open_store(with_both), signed, signed_by="plant")
    for at in range(begun, with_both.operations):
        disk = MemoryDisk(cut_at=at)
        with pytest.raises(PowerCut):
            put(open_store(disk), A)
            put(open_store(disk), signed, signed_by="plant")
        for survival in (0.0, 1.0):
            store = open_store(disk.after_cut(survival))
            assert store.module(digest(A)).content == Module(A).content, at
            file = whole.read(store._disk, store.path(digest(A)), 1 << 20)
            assert store.find(hashlib.sha256(file).hexdigest()) is not None, "what it says of the file is true again"
            assert put(store, signed, signed_by="plant").signed_by == "plant" and store.module(digest(A)).signature == b"signature"


# --- damage


def full_disk():
    disk = MemoryDisk()
    store = open_store(disk)
    for wasm in (A, B):
        put(store, wasm, signed_by="plant")
    store.save_deployments(5, [deployed("hot", B, previous={"digest": digest(A)})])
    return disk


def test_a_damaged_catalogue_is_rebuilt_from_the_modules():
    disk = full_disk()
    disk.files[f"{RULES}/catalogue.json"].data[20] ^= 1
    store = open_store(disk)
    assert [(v.label, v.who, v.signed_by) for v in sorted(store.versions(), key=lambda v: v.version)] == [("hot@1", "recovered", ""), ("hot@2", "recovered", "")]
    assert len(store.take_warnings()) == 3 and store.take_warnings() == []
    assert open_store(disk).take_warnings() == [], "the new catalogue is written"


def test_a_damaged_module_is_moved_aside_when_it_is_read_and_comes_back_by_a_push():
    disk = full_disk()
    disk.files[f"{RULES}/{digest(A)}.wasm"].data[-3] ^= 1
    store = open_store(disk)
    with pytest.raises(RuleError, match="damaged.*push it again"):
        store.module(digest(A))
    assert "kept as" in store.take_warnings()[0] and f"{digest(A)}.wasm.damaged" in disk.listdir(RULES)
    assert store.module(digest(B))
    put(store, A)
    assert store.module(digest(A))


def test_a_push_heals_a_damaged_module_before_anyone_reads_it():
    disk = full_disk()
    disk.files[f"{RULES}/{digest(A)}.wasm"].data[-3] ^= 1
    store = open_store(disk)
    put(store, A)
    assert store.module(digest(A))


def test_damaged_files_do_not_pile_up():
    disk = MemoryDisk()
    for i in range(12):
        wasm = rule("hot", i)
        store = open_store(disk)
        put(store, wasm)
        disk.files[f"{RULES}/{digest(wasm)}.wasm"].data[-3] ^= 1
        with pytest.raises(RuleError):
            store.module(digest(wasm))
    assert sum(n.endswith(".damaged") for n in disk.listdir(RULES)) <= 4


def test_a_newer_versions_store_is_left_alone():
    disk = MemoryDisk({f"{RULES}/catalogue.json": whole.seal({"version": 2, "entries": "of another shape"})})
    with pytest.raises(DiskError, match="newer version"):
        open_store(disk)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(["catalogue.json", "deployments.json", f"{digest(A)}.wasm", f"{digest(B)}.wasm"]), data=st.data())
def test_no_damage_of_one_file_stops_the_start_or_costs_another(name, data):
    disk = full_disk()
    node = disk.files[f"{RULES}/{name}"]
    change = data.draw(st.sampled_from(["cut", "flip", "replace", "sealed"]))
    if change == "cut":
        del node.data[data.draw(st.integers(0, len(node.data) - 1)):]
    elif change == "flip":
        node.data[data.draw(st.integers(0, len(node.data) - 1))] ^= data.draw(st.integers(1, 255))
    elif change == "replace":
        node.data[:] = data.draw(st.binary(max_size=200))
    else:                                    # sound JSON of any shape under a right checksum
        value = data.draw(st.recursive(st.none() | st.integers(-5, 1) | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from(["version", "entries", "generation", "deployments", "digest"]), inner, max_size=4), max_leaves=8))
        node.data[:] = whole.seal(value)
    store = open_store(disk)
    others = {digest(A), digest(B)} - {name[:-5]}
    assert others <= stored(store)
    for other in others:
        assert store.module(other)
    if name != "deployments.json":
        assert store.deployments()[0] == 5
    for version in store.versions():
        try:
            store.module(version.digest)
        except RuleError:
            assert version.digest == name[:-5]


def test_the_seal_holds_any_plain_data():
    value = {"a": ["ü\n", 1.5, None], "b": {}}
    assert whole.unseal(whole.seal(value)) == json.loads(json.dumps(value))
