import errno

import pytest
from log_oracle import DIRECTORY, open_log, read_all
from memory_disk import FaultyDisk, MemoryDisk

from edge.errors import DiskError

QUOTA = 8000


def bounded(disk, **options):
    evicted = []
    log = open_log(disk, quota_bytes_max=QUOTA, on_evict=lambda kind, *event: evicted.append(event), **options)
    return log, evicted


def fill(log, n, start=0, streams=(3, 4)):
    for i in range(start, start + n):
        log.append(2, streams[i % len(streams)], 10 * (i // len(streams)), 10, b"x" * 70)


def events(ranges):
    return [(s, e) for s, first, count in ranges for e in range(first, first + count)]


def held(log):
    return [(r.stream, e) for r in read_all(log) if r.kind == 2 for e in range(r.first, r.first + r.count)]


def test_what_eviction_reports_is_exactly_what_is_gone():
    log, evicted = bounded(MemoryDisk())
    for step in range(40):
        fill(log, 7, 7 * step)
        assert log.size_bytes <= QUOTA
        total = [(i % 2 + 3, 10 * (i // 2) + k) for i in range(7 * step + 7) for k in range(10)]
        assert sorted(events(evicted) + held(log)) == sorted(total), "each event is held or reported, once"
    assert evicted
    assert log.recovery.damaged == 0


def test_eviction_reports_the_same_after_a_restart():
    disk = MemoryDisk()
    log, _ = bounded(disk)
    fill(log, 40)
    log.close()
    for path in [p for p in disk.files if p.endswith(".idx")][::2]:
        del disk.files[path]
    log, evicted = bounded(disk)
    before = held(log)
    fill(log, 100, 40)
    assert sorted(events(evicted) + held(log)) == sorted(before + [(i % 2 + 3, 10 * (i // 2) + k) for i in range(40, 140) for k in range(10)])


def test_dropped_records_are_not_reported_as_evicted():
    log, evicted = bounded(MemoryDisk())
    fill(log, 40, streams=(3,))
    cursor = log.tail + 3
    taken = {e for e in held(log) if e not in {(r.stream, e) for r in read_all(log, position=cursor) for e in range(r.first, r.first + r.count)}}
    assert taken
    log.drop_before(cursor)
    fill(log, 100, 40, streams=(3,))
    assert not taken & set(events(evicted))
    assert len(evicted) == len(set(evicted))


def test_forgotten_records_are_not_reported_as_evicted():
    log, evicted = bounded(MemoryDisk())
    fill(log, 43, streams=(3,))
    log.truncate(log.head - 2)
    forgotten = set(range(410, 430))
    fill(log, 200, 100, streams=(3,))
    assert evicted and not forgotten & {e for _, e in events(evicted)}


def test_eviction_stops_at_keep_from_and_the_log_says_it_is_full():
    log, evicted = bounded(MemoryDisk())
    log.keep_from = 0
    assert not log.full
    while not log.full:
        fill(log, 1, log.head)
    assert log.size_bytes < QUOTA + 200 and not evicted
    fill(log, 3, log.head)
    assert not evicted, "what is appended all the same is kept"
    log.keep_from = log.head
    assert not log.full
    fill(log, 1, log.head)
    assert evicted and log.size_bytes <= QUOTA
    log.keep_from = log.tail
    while not log.full:
        fill(log, 1, log.head)
    log.drop_before(log.head)
    assert not log.full


def test_a_gap_record_may_be_appended_while_eviction_reports():
    disk, gaps = MemoryDisk(), []

    def on_evict(kind, stream, first, count):
        gaps.append((stream, first, count))
        log.append(7, stream, first, count, b"")

    log = open_log(disk, quota_bytes_max=32_000, segment_bytes_max=4000, on_evict=on_evict)
    for step in range(15):
        fill(log, 100, 100 * step)
        assert log.size_bytes <= 32_000 + 1000
    assert sorted(set(events(gaps))) == sorted(set(events(gaps)) - set(held(log))), "a gap is not held"
    positions = [r.position for r in read_all(log)]
    assert positions == sorted(set(positions))
    log.close()
    assert [r.position for r in read_all(open_log(disk, segment_bytes_max=4000, quota_bytes_max=32_000))] == positions


def test_each_segment_begins_with_the_preamble():
    disk = MemoryDisk()
    log, _ = bounded(disk)
    fill(log, 60)
    log.sync()
    log.drop_before(log.head)
    assert read_all(log)[0].kind == 1 and read_all(log)[0].payload == b"schema"
    log.close()
    log, _ = bounded(disk)
    assert read_all(log)[0].kind == 1


def test_the_position_survives_when_everything_is_dropped():
    disk = MemoryDisk()
    for _ in range(3):
        log, _ = bounded(disk)
        fill(log, 20)
        log.sync()
        head = log.head
        log.drop_before(head)
        assert log.head == head
        log.close()
        log, _ = bounded(disk)
        assert log.head == head
        log.close()


@pytest.mark.parametrize("bytes_max", [1, 100, 250, 1 << 20])
def test_sequential_reading_costs_one_read_of_the_file_a_call(bytes_max):
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes_max=1 << 20, quota_bytes_max=1 << 24)
    fill(log, 500)
    log.sync()
    position = log.read(0, bytes_max)[-1].position + 1
    while position < log.head:
        reads = sum(name == "pread" for name, _ in disk.trace)
        records = log.read(position, bytes_max)
        assert records[0].position == position
        assert sum(name == "pread" for name, _ in disk.trace) - reads <= (1 if bytes_max >= 106 else 2)
        assert len(records) == 1 or sum(36 + len(r.payload) for r in records) <= bytes_max
        position = records[-1].position + 1


def test_files_of_the_directory_are_few():
    disk = MemoryDisk()
    log, _ = bounded(disk)
    fill(log, 500)
    log.close()
    names = [p for p in disk.files if p.startswith(DIRECTORY)]
    assert len([p for p in names if p.endswith(".idx")]) == len([p for p in names if p.endswith(".seg")]) <= QUOTA // 500


def test_a_full_log_whose_records_are_of_no_more_use_takes_records_again():
    full = []
    disk = FaultyDisk(lambda number, name: errno.ENOSPC if name == "pwrite" and full else None)
    log, _ = bounded(disk)
    log.keep_from = 0
    while not log.full:
        fill(log, 3, log.head)
        log.sync()
        full.append(True)                # each segment goes on with the one before
        fill(log, 1, log.head)
        with pytest.raises(DiskError):
            log.sync()
        full.clear()
    log.sync()
    assert log.full
    log.drop_before(log.head)
    assert not log.full and log.tail == log.head
    fill(log, 3, log.head)
    log.sync()
    log.close()
    log, _ = bounded(disk)
    assert len(held(log)) == 30 and not log.recovery.damaged
