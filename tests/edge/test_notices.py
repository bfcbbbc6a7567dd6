"""What gave way on a full disk is announced, also after a power cut that took the gaps with it, and counted for what it was."""

import errno

import pytest
from memory_disk import BLOCK, MemoryDisk, PowerCut, SmallDisk
from test_outbox import held, kept, made, put

from edge.errors import DiskError
from edge.storage.notices import Notices
from edge.storage.records import BATCH, GAP

LANE = {"ranges": [[0, None]], "rows_acked": {}, "rows_dead": {}, "rows_waiting": 2400}


def filled(disk, indexed=True, full=True):
    """(an outbox of 2400 rows in many segments, its state, the sequences then). indexed: there was room for indexes; full: there is none for more."""
    outbox, timed, _ = made(gathers=False, disk=disk)
    outbox.log.segment_bytes_max = 5000
    for _ in range(60):
        put(outbox, timed, 40)
    outbox.writer.sync()
    outbox.log.notices.drop()
    for path in [path for path in disk.files if path.endswith(".idx") and not indexed]:
        disk.unlink(path)
    disk.fsync_directory(outbox.log.directory)
    state = kept(outbox)
    disk.room = disk.used() if full else None
    put(outbox, timed, *[40] * 16)       # not durable, and no gap before they are
    return outbox, state, {1: 2400}


def evict(outbox, full=True):
    disk = outbox.log.disk
    for _ in range(2):
        disk.room = disk.used() if full else None
        assert outbox.log.give_way()


def sequences(outbox, kind=BATCH):
    return [n for _, first, rows in held(outbox, kind) for n in range(first, first + rows)]


def gone(disk):
    return sorted(path for path in disk.files if path.endswith(".gone"))


def again(disk, state, numbers, lane=None):
    """The outbox as the next start finds it."""
    disk.room = None
    outbox, _, _ = made(gathers=False, disk=disk)
    outbox.cut_back(state, numbers, lane)
    return outbox


@pytest.mark.parametrize("indexed", [True, False])
def test_a_power_cut_on_a_full_disk_loses_no_gap_of_what_gave_way(indexed):
    """The gaps are in memory alone when the rows go, and no block is free; also where none was for an index."""
    count = SmallDisk()
    outbox, *_ = filled(count, indexed)
    before = count.operations
    evict(outbox)
    for cut in range(before, count.operations + 1):
        for survival in (0, 0.5, 1):
            disk = SmallDisk(seed=cut)
            outbox, *then = filled(disk, indexed)
            disk.cut_at = cut
            try:
                evict(outbox)
            except PowerCut:
                pass
            after = again(disk.after_cut(survival), *then)
            there, told = sequences(after), sequences(after, GAP)
            assert sorted(there + told) == list(range(2400)), f"cut {cut}, {survival}: each is there or announced, once"
            assert after.evicted.get(1, 0) == len(told)
            after.writer.sync()
            after.log.notices.drop()
            assert not gone(after.log.disk)
    assert told, "the last of them went"


def test_a_power_cut_at_the_start_after_it_loses_none_either():
    """The gaps are in the log behind its last state: it is cut back, and they stand in memory alone once more."""
    def evicted(seed):
        disk = SmallDisk(seed=seed)
        outbox, *then = filled(disk, full=False)
        evict(outbox, full=False)
        return disk.after_cut(1), then

    disk, then = evicted(1)
    again(disk, *then)
    for cut in range(disk.operations + 1):
        disk, then = evicted(cut)
        disk.cut_at = cut
        try:
            again(disk, *then)
        except PowerCut:
            pass
        after = again(disk.after_cut(0.5), *then)
        assert sorted(sequences(after) + sequences(after, GAP)) == list(range(2400)) and after.evicted[1] == len(sequences(after, GAP)) > 0, f"cut {cut}"


def test_a_gap_that_waits_for_the_disk_outside_of_the_log_is_not_durable():
    disk = SmallDisk()
    outbox, *then = filled(disk)
    disk.room = None
    outbox.writer._held.append((BATCH, 1, 3040, 1, b"x"))
    assert outbox.log.give_way() and gone(disk)
    after = again(disk.after_cut(0), *then)
    assert sorted(sequences(after) + sequences(after, GAP)) == list(range(2400))


@pytest.mark.parametrize("full", [True, False])
def test_what_upstream_has_is_not_counted_as_evicted_after_a_restart(full):
    """The cursor stood inside the segment that went, further than the checkpoint knows."""
    disk = SmallDisk()
    outbox, state, numbers = filled(disk, full=full)
    end = outbox.log._segments[0].end
    acked = sum(r.count for r in outbox.log.read(0) if r.position < end - 2 and r.kind == BATCH)
    outbox.log.needed = lambda: [[end - 2, None]]
    assert outbox.log.give_way() and outbox.evicted == {1: 80} and len(gone(disk)) == 1
    for known in (0, 1):
        lane = LANE | {"ranges": [[known, None]], "rows_acked": {1: 40 * known}}
        after = again(disk.after_cut(0), state, numbers, lane)
        assert sequences(after, GAP) == list(range(acked, acked + 80)) and after.evicted == {1: 80}
        assert lane["rows_acked"] == {1: acked} and lane["rows_waiting"] == len(sequences(after)) == 2400 - acked - 80
        row, = after.accounts(lane["rows_acked"], {})
        assert row.out == {"acknowledged": acked, "dead_lettered": 0, "evicted": 80, "pending": 2400 - acked - 80}


def test_rows_that_were_acknowledged_out_of_order_are_not_evicted():
    outbox, state, numbers = filled(SmallDisk(), full=False)
    outbox.log.needed = lambda: [[0, 1], [3, None]]
    assert outbox.log.give_way() and outbox.log.give_way()
    told = sequences(outbox, GAP)
    assert told[:41] == [*range(40), 120] and outbox.evicted[1] == len(told)
    lane = LANE | {"rows_acked": {1: 40}, "rows_dead": {1: 3}}           # one batch was known to be there, and three rows are lost
    after = again(outbox.log.disk.after_cut(0), state, numbers, lane)
    assert lane["rows_acked"][1] == 80 - 3 and sequences(after, GAP) == told
    assert sum(lane["rows_acked"].values()) + 3 + after.evicted[1] + lane["rows_waiting"] == 2400


def test_a_checkpoint_that_counts_more_as_acknowledged_than_the_gaps_leave_is_right():
    disk = SmallDisk()
    outbox, state, numbers = filled(disk)
    evict(outbox)
    lane = LANE | {"rows_acked": {1: 10}}
    evicted, after = outbox.evicted[1], again(disk.after_cut(0), state, numbers, lane)
    assert after.evicted == {1: evicted - 10} and lane["rows_acked"] == {1: 10}


def test_a_checkpoint_that_knows_all_that_upstream_has_is_left_as_it_is():
    disk = SmallDisk()
    outbox, state, numbers = filled(disk)
    evict(outbox)
    lane = LANE | {"rows_acked": {}}
    after = again(disk.after_cut(0), state, numbers, lane)
    assert after.evicted == outbox.evicted and lane == LANE | {"rows_waiting": 2400 - after.evicted[1]}
    after.arrived(1, 40)
    after.arrived(2, 1)
    assert after.evicted == {1: outbox.evicted[1] - 40, 2: 0}


@pytest.mark.parametrize("lost, known", [((10, 11), 0), ((10**6, 10**6 + 1), 120)])
def test_where_records_are_damaged_nothing_is_said_of_what_upstream_took(lost, known):
    """But for records that came after the state: they come again."""
    disk = SmallDisk()
    outbox, state, numbers = filled(disk)
    outbox.log.needed = lambda: [[3, None]]
    evict(outbox)
    lane = LANE | {"rows_acked": {}}
    disk = disk.after_cut(0)
    disk.room = None
    after, *_ = made(gathers=False, disk=disk)
    after.log.recovery.lost.append(lost)
    after.cut_back(state, numbers, lane)
    assert lane["rows_acked"].get(1, 0) == known and (lane["rows_waiting"] == 2400) == (not known)


def test_what_a_state_has_counted_is_not_counted_again():
    """A notice whose removal was not durable."""
    disk = SmallDisk()
    outbox, *_ = filled(disk)
    evict(outbox)
    notices = {path: bytes(disk.files[path].data) for path in gone(disk)}
    disk.room = None
    outbox.writer.sync()
    outbox.log.notices.drop()
    state, told = kept(outbox), sequences(outbox, GAP)
    files = {path: bytes(node.data) for path, node in disk.files.items()}
    after = again(SmallDisk(files | notices), state, {1: 3040})
    assert after.evicted == outbox.evicted == {1: len(told)} and sequences(after, GAP) == told


def test_a_gap_that_goes_was_counted_up_to_where_the_state_says():
    """In one segment: a gap that the state has counted, one of after it, and rows. The state does not know that upstream has the first rows."""
    disk = SmallDisk()
    outbox, timed, _ = made(gathers=False, disk=disk)
    outbox.log.segment_bytes_max = 5000
    put(outbox, timed, *[40] * 20)
    outbox.log.roll()
    put(outbox, timed, 3)
    outbox.log.needed = lambda: [[1, None]]
    assert outbox.log.give_way()
    outbox.writer.sync()
    state, told = kept(outbox), outbox.evicted[1]
    put(outbox, timed, 3)
    assert outbox.log.give_way()
    outbox.writer.sync()
    mixed = sequences(outbox, GAP)
    assert len(mixed) == outbox.evicted[1] > told
    outbox.log.roll()
    put(outbox, timed, 3)
    outbox.writer.sync()
    while sequences(outbox) != [806, 807, 808]:
        assert outbox.log.give_way()
        outbox.writer.sync()
    assert sequences(outbox, GAP)[-len(mixed):] == mixed and outbox.evicted == {1: 766}
    lane = LANE | {"rows_acked": {}, "rows_waiting": 803 - told}
    after = again(disk.after_cut(0), state, {1: 803}, lane)
    assert sorted(sequences(after, GAP)) == list(range(40, 803)) and after.evicted == {1: 763} and lane["rows_acked"] == {1: 40}
    assert after.state()["evicted_to"] == {1: 803}


def test_notices_go_once_the_gaps_are_durable_and_what_is_no_notice_is_none():
    disk = SmallDisk()
    outbox, *_ = filled(disk)
    evict(outbox)
    left = gone(disk)
    assert len(left) == len(outbox.log.notices.events) == 2
    files = {path: bytes(node.data) for path, node in disk.files.items()}
    rotten = {left[0]: b"rotten" + files[left[0]][6:], "data/outbox/other.gone": b"no name of ours"}
    after, *_ = made(gathers=False, disk=MemoryDisk(files | rotten))
    assert after.log.notices.events == made(disk=MemoryDisk(files))[0].log.notices.events[1:]
    assert gone(after.log.disk) == left[1:]
    disk.unlink = lambda path: (_ for _ in ()).throw(OSError(errno.EIO, "not removed"))
    outbox.log.notices.drop()
    assert outbox.log.notices.events == [] and gone(disk) == left
    disk = MemoryDisk(files)
    outbox, *_ = made(gathers=False, disk=disk)
    disk.unlink(left[0])                 # by whoever tidied up
    outbox.log.notices.drop()
    assert outbox.log.notices.events == [] and gone(disk) == []


def test_where_there_is_no_block_for_a_reserve_an_index_makes_room_and_without_one_nothing_goes():
    disk = SmallDisk()
    outbox, *_ = filled(disk)
    outbox.log.notices.close()
    disk.unlink("data/outbox/reserve")
    disk.room = disk.used()
    assert outbox.log.give_way() and len(gone(disk)) == 1
    disk = SmallDisk()
    outbox, *_ = filled(disk, indexed=False)
    outbox.log.notices.close()
    disk.unlink("data/outbox/reserve")
    disk.room, there = disk.used(), sequences(outbox)
    with pytest.raises(DiskError, match="cannot be noted first, so it stays"):
        outbox.log.give_way()
    assert sequences(outbox) == there and not outbox.evicted and not sequences(outbox, GAP)
    disk.room = disk.used() + BLOCK
    assert outbox.log.give_way() and len(gone(disk)) == 1


def test_of_what_upstream_has_and_of_a_log_that_announces_nothing_there_is_no_notice():
    for journal in (False, True):
        disk = SmallDisk()
        outbox, *_ = filled(disk)
        if journal:
            outbox.log._on_evict = None
        else:
            outbox.log.needed = lambda: [[outbox.log._segments[2].first, None]]
        evict(outbox)
        assert outbox.log.notices.events == [] and not gone(disk)
    notices = Notices(disk := MemoryDisk(), "data/journal", [], keeps=False)
    notices.drop()
    assert not disk.files


def test_gaps_that_are_durable_while_their_segment_is_there_are_void():
    """They may not be all: a sync came between two of them, and the power went before the rest."""
    disk = SmallDisk()
    outbox, state, numbers = filled(disk, full=False)
    evict, log = outbox.on_evict, outbox.log

    def told(kind, stream, first, count):
        evict(kind, stream, first, 40)
        log.sync()
        disk.cut_at = disk.operations
        return evict(kind, stream, first + 40, count - 40)

    log._on_evict = told
    with pytest.raises(PowerCut):
        log.give_way()
    after = again(disk.after_cut(0), state, numbers)
    assert sequences(after) == list(range(2400)) and not sequences(after, GAP) and not after.evicted


def test_a_notice_tells_where_its_segment_ended_when_it_went():
    """It held more before the last start cut it back: a state that has counted all that went has counted this too."""
    disk = SmallDisk()
    outbox, state, _ = filled(disk, full=False)
    outbox.log.truncate(state["head"] - 1)
    end = outbox.log._segments[-2].end
    assert end == state["head"] - 1 < outbox.log._segments[-2].held
    outbox.writer._held.append((BATCH, 1, 3040, 1, b"x"))
    while outbox.log.give_way():
        pass
    assert max(position for *_, position in outbox.log.notices.events) == end


def test_gaps_that_were_written_after_all_are_announced_once():
    disk = SmallDisk()
    outbox, *then = filled(disk)
    evict(outbox)
    disk.room = None
    outbox.writer.sync()                 # and the notices are there still
    after = again(disk.after_cut(0), *then)
    told = sequences(after, GAP)
    assert told and len(told) == len(set(told)) == after.evicted[1]
