"""A small file is replaced whole or stays as it was, at any error and any power cut."""

import errno
import hashlib
import json

import pytest
from memory_disk import FaultyDisk, MemoryDisk, PowerCut

from edge.storage import whole
from edge.storage.disk import Disk

PATH = "data/file"


def bytes_of(disk):
    return bytes(disk.files[PATH].data) if PATH in disk.files else None


def begun():
    disk = MemoryDisk()
    whole.replace(disk, PATH, b"old" * 700)
    return {path: bytes(node.data) for path, node in disk.files.items()}


@pytest.mark.parametrize("survival", [0, 0.5, 1])
def test_a_power_cut_leaves_the_old_file_or_the_new_one(survival):
    count = MemoryDisk(begun())
    whole.replace(count, PATH, b"new" * 900)
    for cut in range(count.operations):
        for seed in range(5):
            disk = MemoryDisk(begun(), seed=seed, cut_at=cut)
            with pytest.raises(PowerCut):
                whole.replace(disk, PATH, b"new" * 900)
            after = disk.after_cut(survival)
            assert bytes_of(after) in (b"old" * 700, b"new" * 900)
            whole.replace(after, PATH, b"later")
            assert bytes_of(after.after_cut(0)) == b"later" and not after.open_files


def test_an_error_leaves_the_old_file_or_the_new_one_and_no_file_open():
    count = MemoryDisk(begun())
    whole.replace(count, PATH, b"new" * 900)
    assert bytes_of(count.after_cut(0)) == b"new" * 900, "durable on return"
    for n in range(count.operations):
        disk = FaultyDisk(lambda number, name, n=n: errno.EIO if number == n else None, begun())
        if disk.fault(n, "") and count.trace[n][0] == "unlink":
            continue                     # what it would remove is not there
        with pytest.raises(OSError):
            whole.replace(disk, PATH, b"new" * 900)
        assert bytes_of(disk) in (b"old" * 700, b"new" * 900) and not disk.open_files
        disk.fault = lambda number, name: None
        whole.replace(disk, PATH, b"later")
        assert bytes_of(disk.after_cut(0)) == b"later"


def test_what_a_cut_left_is_in_nobodys_way():
    disk = MemoryDisk({PATH + whole.FRESH: b"half"})
    whole.replace(disk, PATH, b"new")
    assert {path: bytes(node.data) for path, node in disk.files.items()} == {PATH: b"new"}
    disk = FaultyDisk(lambda number, name: errno.EACCES if name == "unlink" else None, {PATH + whole.FRESH: b"half"})
    with pytest.raises(PermissionError):
        whole.replace(disk, PATH, b"new")


def test_short_writes_are_written_on():
    disk = FaultyDisk(lambda number, name: "short" if name == "pwrite" and number % 2 else None)
    whole.replace(disk, PATH, bytes(range(200)))
    assert bytes_of(disk) == bytes(range(200))


def test_it_is_so_on_the_real_disk_too(tmp_path):
    path = tmp_path / "file"
    for data in (b"", b"begun", bytes(range(200)), b""):
        whole.replace(Disk(), str(path), data)
        assert path.read_bytes() == data and list(tmp_path.iterdir()) == [path]


def test_the_file_can_be_written_on():
    disk = MemoryDisk()
    fd = whole.replace_and_hold(disk, PATH, b"begin")
    disk.pwrite(fd, b" and on", 5)
    disk.close(fd)
    assert bytes_of(disk) == b"begin and on" and whole.read(disk, PATH, 5) == b"begin " and whole.read(disk, PATH, 100) == b"begin and on" and not disk.open_files


def test_a_sealed_file_says_whether_it_is_what_was_written():
    value = {"name": "é", "list": [1, 2.5, None], "text": "a\nb"}
    data = whole.seal(value)
    line, end = data[:-1].rsplit(b"\n", 1)
    assert json.loads(line) == value and end.decode() == hashlib.sha256(line).hexdigest() and "é".encode() in data
    assert whole.unseal(data) == value
    for bit in range(8 * len(data)):
        rotten = bytearray(data)
        rotten[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(ValueError):
            whole.unseal(bytes(rotten))
    for size in range(len(data)):
        with pytest.raises(ValueError, match="checksum"):
            whole.unseal(data[:size])


def test_a_sealed_file_has_a_bound(monkeypatch):
    data = whole.seal("x" * 50)
    monkeypatch.setattr(whole, "SEALED_BYTES_MAX", len(data))
    assert whole.unseal(data) == "x" * 50
    monkeypatch.setattr(whole, "SEALED_BYTES_MAX", len(data) - 1)
    with pytest.raises(ValueError):
        whole.unseal(data)
