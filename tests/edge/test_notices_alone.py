"""Notices without a log around them: what is durable when, what makes room, and what no error can spoil."""

import errno
from contextlib import nullcontext

import pytest
from memory_disk import BLOCK, FaultyDisk, MemoryDisk, SmallDisk
from test_notices import gone

from edge.errors import DiskError
from edge.storage.notices import Notices
from edge.storage.records import BATCH, GAP
from edge.storage.segment import Segment

D = "data/outbox"


@pytest.mark.parametrize("operation", ["open", "pread", "pwrite", "truncate", "fdatasync", "rename", "fsync_directory", "create", "unlink"])
def test_a_notice_that_cannot_be_left_or_read_stops_nothing(operation):
    disk = FaultyDisk(lambda number, name: None)
    notices = Notices(disk, D, [])
    disk.fault = lambda number, name: errno.EIO if name == operation else None
    with pytest.raises(DiskError) if operation not in ("open", "pread", "create", "unlink") else nullcontext():
        notices.leave(Segment(1, 0, 7), 3, [(BATCH, 1, 0, 3)])
    notices.prepare()
    notices.close()
    disk.fault = lambda number, name: None
    Notices(disk, D, []).leave(Segment(2, 3, 7), 6, [(BATCH, 1, 3, 3)])
    files = {path: bytes(disk.files[path].data) for path in gone(disk)}
    assert len(files) >= 1
    reading = FaultyDisk(lambda number, name: errno.EIO if name == operation else None, files)
    found = Notices(reading, D, [])
    found.close()
    assert len(found.events) == (0 if operation in ("open", "pread") else len(files)) and not reading.open_files


def test_half_a_notice_is_none():
    disk = FaultyDisk(lambda number, name: None)
    notices = Notices(disk, D, [])
    disk.fault = lambda number, name: "short" if name == "pwrite" else None
    with pytest.raises(DiskError):
        notices.leave(Segment(1, 0, 7), 3, [(BATCH, 1, 0, 3)])
    assert not gone(disk) and not notices.events


def test_what_is_announced_durably_is_noted_no_more_also_after_a_power_cut():
    disk = MemoryDisk()
    notices = Notices(disk, D, [])
    notices.leave(Segment(1, 0, 7), 3, [(BATCH, 1, 0, 3)])
    after = disk.after_cut(0)
    assert Notices(after, D, []).events == notices.events == [(BATCH, 1, 0, 3, 3)]
    notices.drop()
    assert not gone(disk) and not gone(disk.after_cut(0)) and not notices.events


def noted(disk, *segments):
    """What a start finds on it."""
    files = {path: bytes(node.data) for path, node in disk.files.items()}
    return Notices(MemoryDisk(files), D, segments).events


def test_a_notice_is_void_of_a_segment_that_is_there_and_where_it_is_none():
    disk = MemoryDisk()
    notices = Notices(disk, D, [])
    for n in range(3):
        notices.leave(Segment(1 + n, 4 * n, 7), 4 * n + 4, [(BATCH, 1, 10 * n, 8), (BATCH, 1, 10 * n + 8, 2)])
    left = [(BATCH, 1, 10 * n, 10, 4 * n + 4) for n in range(3)]
    assert notices.events == noted(disk) == left
    first, second, third = gone(disk)
    there = MemoryDisk({path: bytes(node.data) for path, node in disk.files.items()} | {f"{D}/other.gone": b"no name of ours"})
    there.files[third].data[20] ^= 1
    assert Notices(there, D, [Segment(1, 0, 7)]).events == left[1:2] and gone(there) == [second] == gone(there.after_cut(0))


def test_of_one_segment_there_is_one_notice_and_of_nothing_none():
    disk = MemoryDisk()
    notices = Notices(disk, D, [])
    notices.leave(Segment(1, 0, 7), 4, [])
    assert not gone(disk) and not notices.events
    for count in (3, 2):
        notices.leave(Segment(1, 0, 7), 4, [(BATCH, 1, 0, count)])
        assert notices.events == noted(disk) == noted(disk.after_cut(0)) == [(BATCH, 1, 0, count, 4)]


def test_what_is_kept_takes_the_place_of_all_notices():
    disk = FaultyDisk(lambda number, name: None)
    notices = Notices(disk, D, [])
    for n in range(2):
        notices.leave(Segment(1 + n, 4 * n, 7), 4 * n + 4, [(BATCH, 1, 10 * n, 8)])
    for gaps in ([(BATCH, 1, 0, 8, 6), (GAP, 2, 5, 3, 7)], [(BATCH, 1, 0, 4, 5)]):
        notices.keep(gaps, 9)
        last = max(position for *_, position in gaps)
        assert notices.events == noted(disk) == noted(disk.after_cut(0)) == [(*gap[:4], last) for gap in gaps] and len(gone(disk)) == 1
    disk.fault = lambda number, name: errno.EIO if name == "unlink" else None
    with pytest.raises(DiskError, match="notices of what went before cannot be removed"):
        notices.keep([], 9)
    disk.fault = lambda number, name: None
    notices = Notices(disk, D, [])
    notices.keep([], 9)
    assert not gone(disk) and not gone(disk.after_cut(0)) and not notices.events


def test_on_a_full_disk_the_reserve_carries_a_notice_then_an_index_makes_room_then_all_stays():
    disk = SmallDisk()
    index = f"{D}/{3:08x}-{8:016x}-00000007.idx"
    disk.pwrite(disk.create(index), b"index", 0)
    disk.open_files.clear()
    notices = Notices(disk, D, [])
    disk.room = disk.used()
    for n, indexed in (0, True), (1, False):
        notices.leave(Segment(1 + n, 4 * n, 7), 4, [(BATCH, 1, 10 * n, 8)])
        assert (index in disk.files) == indexed and len(gone(disk)) == n + 1 == len(noted(disk))
    with pytest.raises(DiskError, match="cannot be noted first, so it stays: no space left on device") as told:
        notices.leave(Segment(3, 8, 7), 12, [(BATCH, 1, 20, 8)])
    assert told.value.number == errno.ENOSPC and len(notices.events) == 2 == len(noted(disk)) and not disk.open_files


def test_a_disk_that_fails_in_another_way_gets_no_room_made():
    index = f"{D}/{3:08x}-{8:016x}-00000007.idx"
    disk = FaultyDisk(lambda number, name: None, {index: b"index"})
    notices = Notices(disk, D, [])
    disk.fault = lambda number, name: errno.EIO if name == "fdatasync" else None
    with pytest.raises(DiskError):
        notices.leave(Segment(1, 0, 7), 4, [(BATCH, 1, 0, 8)])
    assert index in disk.files


def test_the_reserve_is_a_block_of_its_own_taken_once_and_none_where_nothing_is_announced():
    disk = SmallDisk({f"{D}/reserve": b"of an earlier run"})
    Notices(disk, D, [], keeps=False)
    assert bytes(disk.files[f"{D}/reserve"].data) == b"of an earlier run"
    notices = Notices(disk, D, [])
    operations = disk.operations
    notices.prepare()
    assert disk.operations == operations and disk.used() == BLOCK and 0 not in disk.files[f"{D}/reserve"].data
    disk.kill()
    assert f"{D}/reserve" in disk.after_cut(0).files


def test_what_cannot_be_opened_hides_no_other_notice():
    disk = MemoryDisk()
    for serial in (1, 2):
        Notices(disk, D, []).leave(Segment(serial, 0, 7), 3 * serial, [(BATCH, serial, 0, 3)])
    files = {path: bytes(disk.files[path].data) for path in gone(disk)}
    refused = iter([errno.EMFILE])
    reading = FaultyDisk(lambda _, name: next(refused, None) if name == "open" else None, files)
    assert len(files) == 2 and Notices(reading, D, []).events == [(BATCH, 2, 0, 3, 6)]


@pytest.mark.parametrize("operation", ["open", "pread"])
def test_a_notice_that_cannot_be_read_goes_and_is_asked_for_nothing(operation):
    """It says nothing, so it is not kept either: at a later start its positions may be those of other rows."""
    disk = MemoryDisk()
    Notices(disk, D, []).leave(Segment(1, 0, 7), 3, [(BATCH, 1, 0, 3)])
    files = {path: bytes(disk.files[path].data) for path in gone(disk)}
    reading = FaultyDisk(lambda number, name: errno.EIO if name == operation else None, files)
    assert files and not Notices(reading, D, []).events and not gone(reading)


def test_of_several_indexes_the_oldest_gives_way():
    """It is of the segment that goes next."""
    disk = MemoryDisk({f"{D}/{n:08x}-{n:016x}-00000007.idx": b"index" for n in (3, 1, 2)})
    notices = Notices(disk, D, [], keeps=False)
    for left in ([2, 3], [3], []):
        assert notices.spend() and sorted(int(path[12:20], 16) for path in disk.files) == left


def test_a_block_is_had_of_an_index_of_the_reserve_or_not_at_all():
    disk = FaultyDisk(lambda number, name: None)
    notices = Notices(disk, D, [])
    disk.close(disk.create(f"{D}/00000001-0000000000000000-00000007.idx"))
    assert notices.spend() and sorted(disk.files) == [f"{D}/reserve"]
    assert notices.spend() and not disk.files and not disk.open_files
    assert not notices.spend()
    notices.prepare()
    disk.fault = lambda number, name: errno.EIO if name == "unlink" else None
    assert not notices.spend() and sorted(disk.files) == [f"{D}/reserve"]
