"""What gave way on a full disk is announced, also after a power cut that took the gaps with it."""

import errno

import pytest
from memory_disk import FaultyDisk, MemoryDisk, PowerCut
from test_outbox import held, kept, made, put

from edge.notices import Notices
from edge.records import GAP


def on_a_full_disk(disk):
    """(the outbox after an eviction for which no gap could be written, its state of before, the sequences then)."""
    outbox, timed, _ = made(gathers=False, quota=1 << 20, disk=disk)
    outbox.log.segment_bytes_max = 5000
    for _ in range(60):
        put(outbox, timed, 40)
    outbox.writer.sync()
    outbox.log.notices.drop()
    return outbox, kept(outbox), {1: timed.sequence}


def evict_without_room(disk, outbox):
    disk.fault = lambda number, name: errno.ENOSPC if name in ("create", "pwrite", "truncate") else None
    assert outbox.log.give_way() and outbox.log.give_way()


def test_a_power_cut_on_a_full_disk_loses_no_gap_of_what_gave_way():
    """The gaps are in memory alone when the rows go, and nothing may be written: the rows' index is kept under another name until they are durable."""
    count = FaultyDisk(lambda number, name: None)
    outbox, _, _ = on_a_full_disk(count)
    before = count.operations
    evict_without_room(count, outbox)
    for cut in range(before, count.operations + 1):
        for survival in (0, 0.5, 1):
            disk = FaultyDisk(lambda number, name: None, seed=cut)
            disk.cut_at = cut
            outbox, state, sequences = on_a_full_disk(disk)
            try:
                evict_without_room(disk, outbox)
            except PowerCut:
                pass
            after, _, _ = made(gathers=False, disk=disk.after_cut(survival))
            after.cut_back(state, sequences)
            there = {n for _, first, rows in held(after) for n in range(first, first + rows)}
            told = {n for _, first, rows in held(after, GAP) for n in range(first, first + rows)}
            assert there | told == set(range(2400)) and not there & told, f"cut {cut}, {survival}"
            assert after.evicted.get(1, 0) == len(told)
            after.writer.sync()
            after.log.notices.drop()
            assert not [path for path in after.log.disk.files if path.endswith(".gone")]
    assert told, "the last of them went"


def test_notices_go_once_the_gaps_are_durable_and_what_is_no_notice_is_none():
    disk = FaultyDisk(lambda number, name: None)
    outbox, state, sequences = on_a_full_disk(disk)
    evict_without_room(disk, outbox)
    left = [path for path in disk.files if path.endswith(".gone")]
    assert len(left) == 2 and len(outbox.log.notices.events) == 2
    disk.fault = lambda number, name: errno.EIO if name == "unlink" else None
    outbox.writer.sync()
    outbox.log.notices.drop()
    assert outbox.log.notices.events == [] and [path for path in disk.files if path.endswith(".gone")] == left
    disk.fault = lambda number, name: None
    files = {path: bytes(node.data) for path, node in disk.files.items()}
    rotten = {left[0]: b"rotten" + files[left[0]][6:], "data/outbox/other.gone": b"no name of ours"}
    after, _, _ = made(gathers=False, disk=MemoryDisk(files | rotten))
    assert after.log.notices.events == made(disk=MemoryDisk(files))[0].log.notices.events[1:]
    assert {path for path in after.log.disk.files if path.endswith(".gone")} == {left[1]}


@pytest.mark.parametrize("operation", ["open", "pread", "fdatasync", "rename", "fsync_directory"])
def test_a_notice_that_cannot_be_left_or_read_stops_nothing(operation):
    disk = FaultyDisk(lambda number, name: None)
    outbox, _, _ = on_a_full_disk(disk)
    disk.fault = lambda number, name: errno.EIO if name == operation else errno.ENOSPC if name in ("create", "pwrite") else None
    notices = outbox.log.notices
    notices.leave(outbox.log._segments[:2])
    assert not disk.locked or not [fd for fd, (path, _) in disk.open_files.items() if path.endswith((".idx", ".gone"))]
    disk.fault = lambda number, name: None
    notices.leave(outbox.log._segments[:1])
    files = {path: bytes(node.data) for path, node in disk.files.items() if path.endswith(".gone")}
    assert len(files) >= 1 or operation == "fsync_directory"
    reading = FaultyDisk(lambda number, name: errno.EIO if name == operation else None, files)
    assert len(Notices(reading, "data/outbox", []).events) == (0 if operation in ("open", "pread") else len(files)) and not reading.open_files


def test_of_what_upstream_has_and_of_a_log_that_announces_nothing_there_is_no_notice():
    for journal in (False, True):
        disk = FaultyDisk(lambda number, name: None)
        outbox, _, _ = on_a_full_disk(disk)
        if journal:
            outbox.log._on_evict = None
        else:
            outbox.log.needed_from = lambda: outbox.log._segments[2].first
        evict_without_room(disk, outbox)
        assert outbox.log.notices.events == [] and not [path for path in disk.files if path.endswith(".gone")]


def test_gaps_that_were_written_after_all_are_announced_once():
    disk = FaultyDisk(lambda number, name: None)
    outbox, state, sequences = on_a_full_disk(disk)
    evict_without_room(disk, outbox)
    disk.fault = lambda number, name: None
    outbox.writer.sync()                 # and the notices are there still
    after, _, _ = made(gathers=False, disk=disk.after_cut(0))
    after.cut_back(state, sequences)
    told = [n for _, first, rows in held(after, GAP) for n in range(first, first + rows)]
    assert told and len(told) == len(set(told)) == after.evicted[1]
