import errno

import pytest
from log_oracle import DIRECTORY, Oracle, open_log, read_all
from memory_disk import FaultyDisk, MemoryDisk

from edge.checkpoint import CheckpointStore
from edge.errors import DiskError

def test_no_acknowledgement_rests_on_a_second_fsync():
    disk = FaultyDisk(lambda i, name: None)
    log, oracle = open_log(disk), Oracle()
    oracle.append(log, b"before")
    oracle.sync(log)
    lie = [True]
    disk.fault = lambda i, name: FaultyDisk.LIE if name == "fdatasync" and lie and lie.pop() else None
    oracle.append(log, b"while it fails")
    oracle.sync(log)
    files = [p for p in disk.files if p.endswith(".seg")]
    assert len(files) == 2, "the records went to a second file"
    oracle.check(open_log(disk.after_cut(0)))


def test_what_goes_on_without_a_preamble_is_dropped_only_with_the_segment_that_has_it():
    failing = []
    disk = FaultyDisk(lambda i, name: FaultyDisk.LIE if name == "fdatasync" and failing and failing.pop() else None)
    log = open_log(disk, segment_bytes_max=400)
    for i in range(20):
        if i in (1, 6, 11):
            failing.append(True)
        log.append(2, 3, i, 1, b"x" * 70)
        log.sync()
    for position in range(log.head):
        log.drop_before(position)
        assert log.tail <= position
        assert read_all(log)[0].kind == 1, "the oldest record is of a preamble"
    log.close()
    assert read_all(open_log(disk))[0].kind == 1


def test_a_truncation_that_failed_voids_nothing_afterwards():
    failing = []
    disk = FaultyDisk(lambda i, name: errno.EIO if failing and name in failing else None)
    log, oracle = open_log(disk), Oracle()
    for i in range(8):
        oracle.append(log, b"record %d" % i * 5)
    oracle.sync(log)
    failing += ["fsync_directory", "unlink"]
    with pytest.raises(DiskError):
        log.truncate(3)
    failing.remove("fsync_directory")
    oracle.append(log, b"more")
    with pytest.raises(DiskError):
        log.sync()
    failing.clear()
    oracle.sync(log)
    oracle.check(log)
    oracle.check(open_log(disk.after_cut(1)))


def test_a_full_disk_keeps_the_records_until_there_is_space_again():
    full = [False]
    disk = FaultyDisk(lambda i, name: errno.ENOSPC if full[0] and name in ("create", "pwrite", "fdatasync") else None)
    log, oracle = open_log(disk, segment_bytes_max=1 << 20, quota_bytes_max=1 << 24), Oracle()
    oracle.append(log, b"before")
    oracle.sync(log)
    full[0] = True
    for i in range(20):
        oracle.append(log, b"waiting %d" % i)
        with pytest.raises(DiskError, match="room"):
            log.sync()
    assert log.durable == oracle.acknowledged
    assert [r.payload for r in read_all(log) if r.kind == 2] == list(oracle.records.values()), "readers see them all the same"
    full[0] = False
    oracle.sync(log)
    assert log.durable == log.head
    oracle.check(log)
    oracle.check(open_log(disk.after_cut(0)))


def test_a_disk_that_stays_full_bounds_the_records_in_ram():
    disk = FaultyDisk(lambda i, name: errno.ENOSPC if name == "create" else None)
    log = open_log(disk, quota_bytes_max=1 << 30, segment_bytes_max=8 << 20)
    with pytest.raises(DiskError):
        for _ in range(1000):
            log.append(2, 1, 0, 1, bytes(10_000))
    assert log.size_bytes <= 1 << 20
    head = log.head
    with pytest.raises(DiskError):
        log.append(2, 1, 0, 1, bytes(10_000))
    assert log.head == head, "a refused record is not taken"


def test_what_opening_cannot_sync_is_written_again():
    disk = MemoryDisk()
    log, oracle = open_log(disk), Oracle()
    for i in range(3):
        oracle.append(log, b"record %d" % i)
    oracle.sync(log)
    lie = [True]
    faulty = FaultyDisk(lambda i, name: FaultyDisk.LIE if name == "fdatasync" and lie and lie.pop() else None, {p: n.data for p, n in disk.files.items()})
    log = open_log(faulty)
    assert log.recovery.warnings and log.durable == log.head
    oracle.check(log)
    assert len([p for p in faulty.files if p.endswith(".seg")]) == 1, "the doubtful file is gone"
    oracle.check(open_log(faulty.after_cut(0)))


def test_a_sector_that_cannot_be_read_costs_the_records_in_it():
    class BadSector(MemoryDisk):
        def pread(self, fd, size, offset):
            if offset <= 5000 < offset + size and self.open_files[fd][0].endswith(".seg"):
                raise OSError(errno.EIO, "bad sector")
            return super().pread(fd, size, offset)

    disk = MemoryDisk()
    log = open_log(disk, segment_bytes_max=1 << 20, quota_bytes_max=1 << 24)
    for i in range(100):
        log.append(2, 1, i, 1, bytes([i]) * 164)
    log.close()
    log = open_log(BadSector({p: n.data for p, n in disk.files.items()}))
    found = [r.first for r in read_all(log) if r.kind == 2]
    lost = sorted(set(range(100)) - set(found))
    assert 20 <= len(lost) <= 23 and lost == list(range(lost[0], lost[-1] + 1))
    assert log.recovery.damaged == len(lost)


def test_a_file_that_cannot_be_opened_is_left_alone_and_its_positions_are_not_given_again():
    class BadInode(MemoryDisk):
        def open(self, path):
            if "00000001-" in path and path.endswith(".seg"):
                raise OSError(errno.EIO, "bad inode", path)
            return super().open(path)

    disk = MemoryDisk()
    log, oracle = open_log(disk), Oracle()
    for i in range(3):
        oracle.append(log, b"record %d" % i)
    oracle.sync(log)
    bad = BadInode({p: n.data for p, n in disk.files.items()})
    log = open_log(bad)
    assert log.recovery.warnings and read_all(log) == []
    oracle.append(log, b"new")
    oracle.sync(log)
    log.close()
    oracle.check(open_log(MemoryDisk({p: n.data for p, n in bad.files.items()})))


def test_a_second_process_is_refused():
    disk = MemoryDisk()
    log = open_log(disk)
    with pytest.raises(DiskError, match="another process"):
        open_log(disk)
    log.close()
    open_log(disk)


def test_after_a_save_that_failed_nothing_builds_on_it():
    failing = []
    disk = FaultyDisk(lambda i, name: errno.EIO if failing and name == "fdatasync" else None)
    store = CheckpointStore(disk, DIRECTORY)
    image = bytearray(20_000)
    store.save(b"0", {"a": image})
    failing.append(True)
    image[0] = 1
    with pytest.raises(DiskError):
        store.save(b"1", {"a": image})
    failing.clear()
    image[0] = 0
    image[9000] = 2
    store.save(b"2", {"a": image})
    assert CheckpointStore(disk.after_cut(0), DIRECTORY).load() == (b"2", {"a": image})
