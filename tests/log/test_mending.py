"""A damaged log is mended: nothing readable is lost, nothing is deleted, `verify` is good after it, wherever the power goes."""

import random

import pytest
from memory_disk import FaultyDisk, MemoryDisk, PowerCut

from edge.errors import DiskError
from edge.storage.log import Log
from edge.storage.mending import Mending
from edge.storage.reading import LogReader

D = "log"
PREAMBLE = [(1, 1, b"what stream 1 means")]


def written(records=120, seed=1, sealed=True, rough=False):
    """A log of several segments on a disk, its files as bytes. rough: syncs failed, positions were skipped, and it was cut back."""
    failing = []
    disk = FaultyDisk(lambda number, name: FaultyDisk.LIE if name == "fdatasync" and failing and failing.pop() else None, seed=seed)
    log = Log(disk, D, segment_bytes_max=1500, quota_bytes_max=1 << 20, preamble=lambda: PREAMBLE)
    for n in range(records):
        log.append(2, 1, n, 1, b"payload %d " % n * 4)
        if rough and n % 13 == 7:
            failing.append(True)
        if n % 5 == 4:
            log.sync()
        if rough and n % 31 == 30:
            log.truncate(log.head + 20 if n % 2 else log.head - 4)
    log.sync()
    if sealed:
        log.close()
    else:
        disk.kill()
    return {path: bytes(node.data) for path, node in disk.files.items()}


def readable(disk):
    """(position, payload) of every record that counts, by a reader of its own."""
    return [(r.position, r.payload) for r in LogReader(disk, D).all()]


def damage_of(disk, check=lambda record: None):
    reader = LogReader(disk, D)
    for record in reader.all():
        try:
            check(record)
        except DiskError:
            return ["a record that cannot be decoded"]
    return reader.damage


def rot(files, seed):
    """Damage of every kind, by chance. Returns the files."""
    dice, files = random.Random(seed), dict(files)
    for _ in range(dice.randint(1, 4)):
        path = dice.choice(sorted(p for p in files if p.endswith(".seg")))
        data = bytearray(files[path])
        kind = dice.choice(["bytes", "bytes", "sector", "header", "cut", "gone", "blank", "all"])
        if kind == "bytes":
            at = dice.randrange(len(data))
            data[at:at + 4] = dice.randbytes(len(data[at:at + 4]))
        elif kind == "sector":
            at = dice.randrange(0, len(data), 512)
            data[at:at + 512] = b"\xff" * len(data[at:at + 512])
        elif kind == "header":
            data[:32] = dice.randbytes(32)
        elif kind == "cut":
            del data[dice.randrange(33, max(34, len(data))):]
        elif kind == "blank":
            at = dice.randrange(32, max(33, len(data)))
            data[at:] = bytes(len(data) - at)
        elif kind == "all":
            data[:] = dice.randbytes(len(data))
        files[path] = bytes(data)
        if kind == "gone":
            del files[path]
            files.pop(path[:-4] + ".idx", None)
        if not any(p.endswith(".seg") for p in files):
            files[path] = bytes(data)
        if dice.random() < 0.3:
            files.pop(path[:-4] + ".idx", None)
    return files


def mend(disk, **options):
    mending = Mending(disk, D, **options)
    mending.apply()
    return mending


def opened(disk):
    return Log(disk, D, segment_bytes_max=1500, quota_bytes_max=1 << 20, preamble=lambda: PREAMBLE)


def held(log):
    found, position = [], 0
    while records := log.read(position, 1 << 20):
        found += [(r.position, r.payload) for r in records]
        position = records[-1].position + 1
    return found


FILES = {sealed: written(sealed=sealed) for sealed in (True, False)}
ROUGH = {sealed: written(sealed=sealed, rough=True) for sealed in (True, False)}


@pytest.mark.parametrize("seed", [*range(100), 516, 2362])
def test_after_it_verify_is_good_and_the_log_opens_with_all_that_was_readable(seed):
    files = rot((FILES if seed % 2 else ROUGH)[seed % 3 > 0], seed)
    before, plain = readable(MemoryDisk(files)), opened(MemoryDisk(files))
    disk = MemoryDisk(files)
    mending = mend(disk)
    assert damage_of(disk) == [] and readable(disk) == before, mending.actions
    assert Mending(disk, D).actions == []
    log = opened(disk)
    assert held(log) == before == held(plain)
    assert log.head >= plain.head, "a position could be given twice"
    since = max(log.tail, plain.tail)        # before the tail: recovery.py sees that itself
    assert log.damaged_since(since) == plain.damaged_since(since), "what a start is told of is what it would have been told of"
    position = log.append(2, 1, 0, 1, b"goes on")
    log.sync()
    assert held(log)[-1] == (position, b"goes on")


@pytest.mark.parametrize("seed", range(100))
def test_no_byte_is_deleted(seed):
    """Every damaged file is in quarantine whole, with the reason beside it; every other stands as it was but for its header."""
    files = rot(FILES[True], seed)
    disk = MemoryDisk(files)
    actions = mend(disk).actions
    for action in actions:
        data = files[f"{D}/{action['file']}"]
        if action["do"].startswith("put aside"):
            assert bytes(disk.files[f"{D}/quarantine/{action['file']}"].data) == data
            assert action["file"].encode() in disk.files[f"{D}/quarantine/{action['file']}.why"].data
        else:
            assert bytes(disk.files[f"{D}/{action['file']}"].data)[32:] == data[32:len(data)].rstrip(b"\0") or disk.files[f"{D}/{action['file']}"].data[32:] in data
    touched = {action["file"] for action in actions}
    assert all(bytes(disk.files[path].data) == data for path, data in files.items() if path.endswith(".seg") and path[len(D) + 1:] not in touched)


@pytest.mark.parametrize("survival", [0, 0.5, 1])
@pytest.mark.parametrize("seed", [3, 8, 21, 34, 78])
def test_a_power_cut_at_any_step_loses_nothing(seed, survival):
    """Whatever the cut leaves, a start reads all that was readable, and so does a second repair."""
    files = rot(ROUGH[False] if seed == 78 else FILES[True], seed)
    before = readable(MemoryDisk(files))
    whole = MemoryDisk(files)
    mend(whole)
    for cut in range(whole.operations):
        disk = MemoryDisk(files, seed=cut, cut_at=cut)
        with pytest.raises(PowerCut):
            mend(disk)
        after = disk.after_cut(survival)
        left = {path: bytes(node.data) for path, node in after.files.items()}
        assert held(opened(MemoryDisk(left))) == before, f"seed {seed}, cut {cut} at {disk.trace[-3:]}"
        again = MemoryDisk(left)
        mend(again)
        assert readable(again) == before and damage_of(again) == [], f"seed {seed}, cut {cut} at {disk.trace[-3:]}"


def test_a_record_that_cannot_be_decoded_is_taken_out_alone():
    disk = MemoryDisk(FILES[True])
    before = readable(disk)
    victim = before[40]

    def check(record):
        if record.payload == victim[1]:
            raise DiskError("no batch")

    mend(disk, check=check)
    assert readable(disk) == [r for r in before if r != victim] and damage_of(disk, check) == []
    assert LogReader(disk, D).mended == [(victim[0], victim[0] + 1)]


def test_a_good_log_is_left_as_it_is():
    for files in FILES.values():
        disk = MemoryDisk(files)
        assert mend(disk).actions == []
        assert {path: bytes(node.data) for path, node in disk.files.items()} == files


def test_what_a_start_must_know_is_still_told():
    """Losses after the position that a checkpoint covers make sequences jump: a repair does not hide them."""
    path = sorted(p for p in FILES[True] if p.endswith(".seg"))[2]
    data = bytearray(FILES[True][path])
    data[700:704] = b"rot!"
    files = FILES[True] | {path: bytes(data)}
    files.pop(path[:-4] + ".idx")
    lost = opened(MemoryDisk(files)).damaged_since(0)
    disk = MemoryDisk(files)
    mend(disk)
    assert opened(disk).damaged_since(0) == lost > 0


def test_a_full_disk_refuses_and_nothing_has_changed_for_the_reader():
    from errno import ENOSPC

    from memory_disk import FaultyDisk

    files = rot(FILES[True], 5)
    before = readable(MemoryDisk(files))
    whole = MemoryDisk(files)
    mend(whole)
    for n in range(whole.operations):
        disk = FaultyDisk(lambda number, name, n=n: ENOSPC if number == n and name in ("pwrite", "create", "fdatasync", "rename") else None, files)
        try:
            mend(disk)
        except DiskError as error:
            assert "make room" in str(error)
        disk.fault = lambda number, name: None
        disk.open_files = {}
        assert readable(disk) == before
        mend(disk)
        assert readable(disk) == before and damage_of(disk) == []
