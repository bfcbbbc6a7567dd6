"""Starts after evictions: what the checkpoint does not know is announced and counted once, whatever befell in between, and a full disk stops none of them."""

import errno

import pytest
from memory_disk import SmallDisk
from test_notices import LANE, again, evict, filled, gone, sequences
from test_outbox import kept, made, put

from edge.errors import DiskError
from edge.storage.records import BATCH, GAP


def test_gaps_that_upstream_has_and_no_checkpoint_knows_are_counted_after_a_power_cut():
    """They were written, sent, acknowledged and dropped while checkpoints failed: the notices tell of them still."""
    disk = SmallDisk()
    outbox, *then = filled(disk)
    evict(outbox)
    disk.room = None
    outbox.writer.sync()
    outbox.log.roll()
    end = outbox.log.head
    put(outbox, made(gathers=False)[1], 1)
    outbox.writer.sync()
    outbox.log.drop_before(end)
    assert not sequences(outbox, GAP)
    lane = LANE | {"rows_acked": {}}
    after = again(disk.after_cut(0), *then, lane)
    assert after.evicted == outbox.evicted and lane["rows_acked"] == {1: 2400 - outbox.evicted[1]}
    once_more = again(after.log.disk.after_cut(0), *then, lane | {"rows_acked": {}})
    assert once_more.evicted == outbox.evicted


def full_start():
    """(disk, state, sequences): after a power cut, of an outbox that is to be cut back."""
    disk = SmallDisk()
    outbox, state, numbers = filled(disk, full=False)
    put(outbox, made(gathers=False)[1], 5)
    outbox.writer.sync()
    return disk.after_cut(0), state, numbers


@pytest.mark.parametrize("indexes", [True, False])
@pytest.mark.parametrize("back", [0, 1000])
def test_a_start_on_a_full_disk_cuts_back_in_room_of_its_own(indexes, back):
    """Of segments that are void, of an index, or of the reserve."""
    disk, state, numbers = full_start()
    head = state["head"] - back // 40
    outbox, *_ = made(gathers=False, disk=disk)
    for path in [path for path in disk.files if path.endswith(".idx") and not indexes]:
        disk.unlink(path)
    disk.room = disk.used()
    outbox.cut_back(state | {"head": head}, numbers)
    assert outbox.log.head == head and outbox.log.tail == 0
    there = sequences(outbox)
    assert there == list(range(len(there))) and len(there) >= 2400 - back - 40
    disk.room = None
    again = made(gathers=False, disk=disk.after_cut(0))[0]
    assert again.log.head == head and sequences(again) == there


def test_starts_without_a_checkpoint_between_them_count_the_same():
    """Notices of before the checkpoint, which counts them, and of after it; the first start keeps both in one."""
    disk = SmallDisk()
    outbox, *_ = filled(disk, full=False)
    evict(outbox, full=False)
    outbox.writer.sync()
    state = kept(outbox)
    lane = LANE | {"rows_acked": {}, "rows_waiting": 3040 - outbox.evicted[1]}
    evict(outbox, full=False)
    told = sequences(outbox, GAP)
    for _ in range(3):
        disk = disk.after_cut(0)
        outbox = again(disk, state, {1: 3040}, now := lane | {"rows_acked": {}})
        assert outbox.evicted == {1: len(told)} and sequences(outbox, GAP) == told and now["rows_acked"] == {}


def test_notices_of_rows_that_came_after_the_checkpoint_are_none_of_those_that_come_in_their_place():
    """Rows of after it went as well; a replay puts them out again, at other positions, and the next checkpoint has them. The notices are there still."""
    disk = SmallDisk()
    outbox, state, numbers = filled(disk, full=False)
    outbox.writer.sync()
    outbox.log.roll()
    outbox.writer.append(BATCH, 1, 3040, 1, b"x")
    outbox.writer.sync()
    while max(sequences(outbox, GAP), default=0) < 2600:
        assert outbox.log.give_way()
    outbox = again(disk.after_cut(0), state, numbers)
    assert sequences(outbox) == [] and outbox.evicted == {1: 2400} and len(gone(outbox.log.disk)) == 1
    timed = made(gathers=False)[1]
    timed.next_sequence = 2400
    put(outbox, timed, *[40] * 16)
    outbox.writer.sync()
    state, there = kept(outbox), sequences(outbox)
    outbox = again(outbox.log.disk.after_cut(0), state, {1: 3040})
    assert sequences(outbox) == there and len(there) == 640 and outbox.evicted == {1: 2400}


def test_a_start_goes_no_further_while_notices_of_before_it_cannot_go():
    disk = SmallDisk()
    outbox, *then = filled(disk, full=False)
    evict(outbox, full=False)
    disk = disk.after_cut(0)
    outbox, *_ = made(gathers=False, disk=disk)
    unlink = disk.unlink
    disk.unlink = lambda path: (_ for _ in ()).throw(OSError(errno.EIO, "no")) if path.endswith(".gone") else unlink(path)
    with pytest.raises(DiskError, match="cannot be removed"):
        outbox.cut_back(*then)


def test_a_cut_within_the_last_segment_takes_the_room_of_an_index():
    disk = SmallDisk()
    filled(disk, full=False)[0].log.close()
    log = made(gathers=False, disk=disk)[0].log
    indexes = sum(path.endswith(".idx") for path in disk.files)
    disk.room = disk.used()
    log.truncate(log.head - 1)
    assert sum(path.endswith(".idx") for path in disk.files) == indexes - 1 and log.head == log._segments[-1].first == log._segments[-2].end
