"""What a log holds, writes and reads at a time, to the byte: quotas, and a card's life, are reckoned from it."""

import errno

import pytest
from log_oracle import open_log, read_all
from memory_disk import MemoryDisk
from test_log_edges import Odd, refused


def held_bytes(log):
    """What a log holds, reckoned from its records: a header a segment, and each record."""
    return sum(36 + len(r.payload) for r in read_all(log)) + 32 * len(log._segments)


def test_the_size_is_that_of_headers_and_records_to_the_byte():
    """Quotas are kept by it."""
    disk = Odd()
    log = open_log(disk, quota_bytes_max=1 << 20)
    assert log.size_bytes == 0
    for i in range(20):
        log.append(2, 3, i, 1, b"x" * (10 * i))
        assert log.size_bytes == held_bytes(log)
        if i % 3 == 0:
            log.sync()
            assert log.size_bytes == held_bytes(log)
        if i == 11:
            disk.odd["fdatasync"] = lambda own, fd: (disk.odd.clear(), refused(errno.EIO)(own))[1]
    log.sync()
    assert len(log._segments) > 4 and log.size_bytes == held_bytes(log)
    log.drop_before(log._segments[2].first + 1)
    assert log.size_bytes == held_bytes(log)
    log.close()
    log = open_log(disk)
    assert log.size_bytes == held_bytes(log)
    log.truncate(log._segments[-2].first)
    assert log.size_bytes == held_bytes(log) and log._segments[-1].size == 32


def test_what_was_cut_off_within_a_segment_still_takes_its_room():
    log = open_log(MemoryDisk(), segment_bytes_max=1 << 16)
    for i in range(5):
        log.append(2, 3, i, 1, b"x" * 50)
    log.sync()
    size = log.size_bytes
    log.truncate(3)
    assert log.size_bytes == size + 32


@pytest.mark.parametrize("quota", [8000, 8003, 100_000])
def test_a_segment_is_a_quarter_of_the_quota_at_most(quota):
    log = open_log(MemoryDisk(), segment_bytes_max=20_000, quota_bytes_max=quota, preamble=None)
    largest = min(20_000, quota // 4)
    for i in range(300):
        log.append(2, 3, i, 1, b"x" * 64)        # 100 bytes each
    log.sync()
    sizes = [s.size for s in log._segments[:-1]]
    assert set(sizes) == {32 + (largest - 32) // 100 * 100} and log.size_bytes <= quota


def test_records_in_ram_are_read_in_parts_too():
    log = open_log(MemoryDisk(), preamble=None, segment_bytes_max=1 << 16)
    for i in range(6):
        log.append(2, 3, i, 1, b"x" * 64)
    assert [[r.position for r in log.read(2, size)] for size in (1, 100, 199, 200, 1 << 20)] == [[2], [2], [2], [2, 3], [2, 3, 4, 5]]
    assert [r.position for r in log.read(0, 300)] == [0, 1, 2] and log.read(6) == []
    log.sync()
    assert [[r.position for r in log.read(2, size)] for size in (1, 100, 199, 200, 1 << 20)] == [[2], [2], [2], [2, 3], [2, 3, 4, 5]]


def test_a_preamble_has_neither_events_nor_numbers():
    log = open_log(MemoryDisk())
    log.append(2, 3, 5, 1, b"x")
    first, second = log.read(0)
    assert (first.kind, first.stream, first.first, first.count, first.flags & 1, first.payload) == (1, 7, 0, 0, 1, b"schema")
    assert (second.flags & 1, second.position) == (0, 1)


def test_the_first_record_after_a_sync_says_that_all_before_it_is_durable():
    log = open_log(MemoryDisk(), preamble=None, segment_bytes_max=1 << 16)
    for group in (1, 3, 2):
        for _ in range(group):
            log.append(2, 3, log.head, 1, b"x")
        log.sync()
    assert [bool(r.flags & 2) for r in read_all(log)] == [True, True, False, False, True, False]


def test_blocks_that_were_written_are_counted():
    """What a card's life is reckoned from."""
    log = open_log(MemoryDisk(), preamble=None, segment_bytes_max=1 << 20, quota_bytes_max=1 << 24)
    assert (log.written_bytes, log.syncs) == (0, 0)
    log.append(2, 3, 0, 1, bytes(4096 - 32 - 36))
    log.sync()
    assert (log.written_bytes, log.syncs) == (4096, 1), "one block, full"
    log.append(2, 3, 1, 1, b"")
    log.sync()
    assert (log.written_bytes, log.syncs) == (2 * 4096, 2)
    log.append(2, 3, 2, 1, bytes(4096 - 36))
    log.sync()
    assert (log.written_bytes, log.syncs) == (4 * 4096, 3), "from one block into the next"
    log.sync()
    assert log.syncs == 3, "nothing to write"


def test_a_log_that_is_read_from_end_to_end_is_read_once():
    disk = Odd()
    log = open_log(disk, segment_bytes_max=1 << 20, quota_bytes_max=1 << 24, preamble=None)
    for i in range(8000):
        log.append(2, 3, i, 1, bytes(64))        # 100 bytes each
    log.sync()
    asked = []
    disk.odd["pread"] = lambda own, fd, size, offset: asked.append(size) or own(fd, size, offset)
    position = 0
    while records := log.read(position, 10_000):
        position = records[-1].position + 1
    assert position == 8000 and sum(asked) < 2 * 800_000


def test_a_file_that_is_removed_does_not_stay_open():
    disk = Odd()
    log = open_log(disk, preamble=None)
    for i in range(30):
        log.append(2, 3, i, 1, bytes(64))
    log.sync()
    log.read(0)
    log.drop_before(12)
    assert log.tail > 0 and not [path for path, _ in disk.open_files.values() if path not in disk.files]
    log.read(log.tail)
    reading = len(disk.open_files)
    log.drop_before(log.tail + 6)
    log.read(log.tail)
    assert len(disk.open_files) == reading
    log.close()
    assert not disk.open_files
