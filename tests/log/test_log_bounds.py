"""Where a log's bounds lie, to the byte and to the position: what still fits, what goes and what stays, what a full disk may cost."""

import errno
import os

import pytest
from log_oracle import DIRECTORY, Oracle, open_log, read_all
from memory_disk import MemoryDisk
from test_log_edges import Odd, files_of, filled, refused

from edge.errors import DiskError
from edge.storage.cipher import Cipher
from edge.storage.log import Log
from edge.storage.segment import parse_header


def cipher():
    pytest.importorskip("cryptography")
    return Cipher(bytes(32), os.urandom)


def put(log, size, overhead=0):
    """A record with an event, of so many bytes in all."""
    return log.append(2, 3, log.head, 1, bytes(size - 36 - overhead))


def of_segments(n, **options):
    """(disk, log, oracle) with n segments of two records each."""
    disk, oracle = Odd(), Oracle()
    log = open_log(disk, preamble=None, **options)
    for i in range(n):
        if i:
            log.roll()
        oracle.append(log, b"one of %d" % i)
        oracle.append(log, b"two of %d " % i * (i + 1))
        oracle.sync(log)
    return disk, log, oracle


def once(disk, operation, number=errno.EIO):
    """The disk refuses the next such operation."""
    disk.odd[operation] = lambda own, *arguments: (disk.odd.pop(operation), refused(number)(own))[1]


# --- to the byte

@pytest.mark.parametrize("sealed", [False, True])
def test_a_segment_is_filled_to_its_last_byte_and_its_file_ends_there(sealed):
    overhead, disk = 40 * sealed, Odd()
    log = open_log(disk, preamble=None, segment_bytes_max=1000, cipher=cipher() if sealed else None)
    for size in (100, 200):
        put(log, size, overhead)
        log.roll()
    for rest in (668, 669):
        put(log, 300, overhead)
        log.sync()
        put(log, rest, overhead)
        log.sync()
    sizes = {f"{DIRECTORY}/{s.name}.seg": s.size for s in log._segments}
    assert [*sizes.values()] == [132, 232, 1000, 332, 701], "one byte more begins the next"
    log.close()
    assert {path: len(data) for path, data in files_of(disk).items() if path in sizes} == sizes


@pytest.mark.parametrize("sealed", [False, True])
def test_a_quota_is_filled_to_its_last_byte(sealed):
    overhead = 40 * sealed
    log = open_log(MemoryDisk(), preamble=None, segment_bytes_max=1000, quota_bytes_max=4000, cipher=cipher() if sealed else None)
    for size in (968, 968, 968, 892):
        put(log, size, overhead)
    log.sync()
    log.keep_from = 0
    assert log.size_bytes == 3924 and not log.full
    log.keep_from = None
    put(log, 76, overhead)
    assert (log.size_bytes, log.tail) == (4000, 0), "nothing has to go for what fits"
    log.keep_from = 0
    assert log.full
    log.keep_from = None
    assert not log.full
    put(log, 76, overhead)
    assert log.tail == 1


def test_a_mebibyte_of_records_waits_in_ram_and_no_more():
    log = open_log(MemoryDisk(), preamble=None, segment_bytes_max=4 << 20, quota_bytes_max=1 << 30)
    for _ in range(16):
        put(log, 1 << 16)
    assert (log.syncs, log.durable, log.size_bytes) == (0, 0, 1 << 20)
    put(log, 36)
    assert (log.syncs, log.durable, log.head) == (1, 16, 17)


# --- what is written

@pytest.mark.parametrize("drawn", [bytes(4), bytes((1, 0, 3, 255)), bytes((1, 2, 3, 4))])
def test_a_salt_is_what_was_drawn_but_for_zeros(drawn):
    """Blank space shows no marker then."""
    disk = Odd()
    disk.odd["entropy"] = lambda own, n: drawn[:n]
    log = open_log(disk)
    put(log, 50)
    log.sync()
    salt = log._segments[0].salt.to_bytes(4, "little")
    assert all(salt) and all(a == b for a, b in zip(salt, drawn) if b)


def test_only_a_log_with_a_cipher_asks_for_a_program_that_knows_sealed_records():
    for version, made in ((1, None), (2, cipher())):
        disk = MemoryDisk()
        log = open_log(disk, cipher=made)
        put(log, 100)
        log.sync()
        data, = files_of(disk).values()
        assert parse_header(data)[0] == version


def test_a_disk_that_writes_byte_by_byte_costs_no_file_and_no_record():
    disk, log, oracle = filled(1)
    disk.odd["pwrite"] = lambda own, fd, data, offset: own(fd, data[:1], offset)
    oracle.append(log, b"byte by byte")
    oracle.sync(log)
    assert len(log._segments) == 1 and not log.damaged_since(0)
    oracle.check(open_log(disk.after_cut(0)))


def test_a_file_that_could_not_be_begun_nor_removed_stops_nothing():
    disk, oracle = Odd(), Oracle()
    log = open_log(disk)
    disk.odd["unlink"] = refused(errno.EIO)
    once(disk, "fdatasync")
    oracle.append(log, b"the first")
    oracle.sync(log)
    oracle.append(log, b"the second")
    oracle.sync(log)
    for survival in (0, 1):
        oracle.check(open_log(disk.after_cut(survival)))


def test_an_error_says_where_the_log_ends_and_what_to_do():
    disk, log, _ = of_segments(4)
    last = log._segments[-1]
    for number, advice in ((errno.EIO, "check the disk"), (errno.ENOSPC, "make room")):
        disk.odd["pwrite"] = refused(number)
        put(log, 50)
        with pytest.raises(DiskError, match=f"cannot write {DIRECTORY}/{last.name}.seg at offset {last.size}: {errno.errorcode[number]}: {advice}"):
            log.sync()


# --- what is read

@pytest.mark.parametrize("sealed", [False, True])
def test_records_that_wait_in_ram_are_read_as_those_on_the_disk_from_each_position(sealed):
    log = open_log(MemoryDisk(), preamble=None, cipher=cipher() if sealed else None)
    payloads = [b"record %d" % i for i in range(4)]
    for i, payload in enumerate(payloads):
        log.append(2, 3, i, 1, payload)
    for waiting in (True, False):
        assert log.tail == 0 and log.durable == (0 if waiting else 4)
        for position in range(4):
            assert [(r.position, r.payload) for r in log.read(position)] == [*enumerate(payloads)][position:]
        log.sync()


def test_skipped_positions_are_no_loss_at_any_later_start_and_those_of_a_file_that_is_gone_are():
    disk, log, oracle = filled(4)
    oracle.truncate(log, log.head + 100)
    for i in range(3):
        log.close()
        log = open_log(disk)
        assert not log.recovery.lost and not log.recovery.damaged
        oracle.check(log)
        oracle.append(log, b"after start %d " % i * 20)
        oracle.sync(log)
    gone = log._segments[-2]
    log.close()
    for suffix in (".seg", ".idx"):
        del disk.files[f"{DIRECTORY}/{gone.name}{suffix}"]
    log = open_log(disk)
    assert log.recovery.lost == [(gone.first, gone.end)] and log.recovery.damaged == gone.end - gone.first


# --- what goes

def test_a_segment_goes_as_soon_as_nothing_of_it_is_of_use():
    disk, log, oracle = of_segments(4)
    log.close()
    log = open_log(disk, preamble=None)
    oracle.append(log, b"of the next run")
    oracle.sync(log)
    for first in [s.first for s in log._segments[1:]]:
        before = log.tail
        oracle.drop_before(log, first - 1)
        assert log.tail == before
        oracle.drop_before(log, first)
        assert log.tail == first
    oracle.check(log)


def test_to_drop_what_must_stay_writes_nothing():
    """The last segment carries the position."""
    disk, log, _ = of_segments(1)
    done = len(disk.trace)
    log.drop_before(log.head)
    assert len(disk.trace) == done and [r.position for r in read_all(log)] == [0, 1]


def test_events_are_told_with_and_without_those_that_were_dropped():
    log = open_log(MemoryDisk(), preamble=None)
    for _ in range(4):
        put(log, 50)
    log.sync()
    log.drop_before(2)
    assert log.events([[0, None]]) == [(2, 3, 2, 2)]
    assert log.events([[0, None]], dropped=True) == [(2, 3, 0, 4)]
    assert log.events([[0, 1], [3, None]], dropped=True) == [(2, 3, 0, 1), (2, 3, 3, 1)]


@pytest.mark.parametrize("records, needed, reported", [(1, None, [(0, 1)]), (4, None, [(0, 4)]), (4, [[0, 1], [3, None]], [(0, 1), (3, 1)])])
def test_what_goes_is_reported_from_the_very_first_event_on(records, needed, reported):
    told = []
    log = open_log(MemoryDisk(), preamble=None, segment_bytes_max=32 + 150 * records, quota_bytes_max=8000, on_evict=lambda kind, stream, *event: told.append(event))
    if needed:
        log.needed = lambda: needed
    assert log.evicts_before == 0
    while log.tail == 0:
        put(log, 150)
    assert told == reported and log.evicts_before == log.tail == records


def chained():
    """(disk, log, segments): the second of them goes on with the first."""
    disk = Odd()
    log = open_log(disk, preamble=None, on_evict=lambda *event: None)
    for i in range(5):
        if i > 1:
            log.roll()
        put(log, 50)
        if i == 1:
            once(disk, "fdatasync")
        log.sync()
    assert [s.continues for s in log._segments] == [False, True, False, False, False]
    return disk, log, list(log._segments)


def test_segments_that_go_on_with_each_other_go_together_and_not_before_keep_from_allows_the_last():
    disk, log, segments = chained()
    for keep_from, tail in ((0, 0), (segments[0].end, 0), (segments[1].end, 2), (segments[1].end, 2), (segments[2].end, 3)):
        log.keep_from, before = keep_from, log.tail
        assert log.give_way() == (before < tail) and log.tail == tail
    assert log.notices.events == [(2, 3, 0, 2, 2), (2, 3, 2, 1, 3)], "each stood before where the last of its segments ended"


def test_of_segments_that_went_in_part_all_is_told_after_a_crash():
    disk, log, segments = chained()
    disk.odd["unlink"] = lambda own, path: own(path) if segments[1].name not in path else refused(errno.EIO)(own)
    with pytest.raises(DiskError, match="cannot remove segments"):
        log.give_way()
    for survival in (0, 1):
        again = open_log(disk.after_cut(survival), preamble=None, on_evict=lambda *event: None)
        told = {number for _, _, first, count, _ in again.notices.events for number in range(first, first + count)}
        assert told | {r.first for r in read_all(again)} == set(range(5))


# --- a truncation on a full disk

def full_until(disk, names, removed):
    """The disk takes nothing before so many of these segments are removed."""
    gone = []
    disk.odd["unlink"] = lambda own, path: (own(path), gone.append(path) if path in {f"{DIRECTORY}/{name}.seg" for name in names} else None)[0]
    disk.odd["pwrite"] = lambda own, *arguments: own(*arguments) if len(gone) >= removed else refused(errno.ENOSPC)(own)


@pytest.mark.parametrize("segments, removed", [(2, 1), (3, 1), (4, 2)])
def test_what_is_to_be_forgotten_makes_room_for_its_truncation(segments, removed):
    disk, log, oracle = of_segments(segments)
    position = log._segments[-removed].first
    for path in [path for path in disk.files if path.endswith(".idx")]:
        del disk.files[path]
    full_until(disk, [s.name for s in log._segments], removed)
    oracle.truncate(log, position)
    disk.odd.clear()
    assert log.head == log.durable == position
    oracle.append(log, b"instead")
    oracle.sync(log)
    oracle.check(log)
    oracle.check(open_log(disk.after_cut(0)))


@pytest.mark.parametrize("number, segments, left", [(errno.ENOSPC, 4, 6), (errno.ENOSPC, 1, 2), (errno.EIO, 4, 8)])
def test_a_truncation_that_the_disk_refuses_costs_at_most_what_was_to_be_forgotten(number, segments, left):
    """And of a single segment not even that, as it carries the position; nor where room is not what is missing."""
    disk, log, _ = of_segments(segments)
    disk.odd["pwrite"] = refused(number)
    with pytest.raises(DiskError, match="cannot write"):
        log.truncate(log._segments[-1].first)
    assert log.head == log.durable == left and [r.position for r in read_all(log)] == list(range(left))
    disk.odd.clear()
    assert put(log, 50) == left
    log.sync()
    assert [r.position for r in read_all(open_log(disk.after_cut(0)))] == list(range(left + 1))
