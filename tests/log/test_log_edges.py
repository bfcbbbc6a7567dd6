"""What a log does where the disk behaves oddly: refuses in the middle, writes nothing, has removed what it said it could not."""

import errno

import pytest
from log_oracle import DIRECTORY, Oracle, open_log, read_all
from memory_disk import FaultyDisk, MemoryDisk

from edge.errors import DiskError
from edge.storage.log import Log
from edge.storage.segment import TORN, Segment, parse_name
from edge.storage.writer import Writer


class Odd(FaultyDisk):
    """odd: {operation: callable that does it instead}, called with the disk's own method and its arguments."""

    def __init__(self, files=()):
        super().__init__(lambda number, name: None, files)
        self.odd = {}

    def __getattribute__(self, name):
        own = super().__getattribute__(name)
        odd = object.__getattribute__(self, "__dict__").get("odd", {}).get(name)
        return own if odd is None else lambda *arguments: odd(own, *arguments)


def refused(number, *arguments):
    def act(own, *_):
        raise OSError(number, *(arguments or (errno.errorcode[number],)))
    return act


def files_of(disk):
    return {path: bytes(node.data) for path, node in disk.files.items()}


def filled(records=12, **options):
    """(disk, log, oracle) with several segments, all synced."""
    disk, oracle = Odd(), Oracle()
    log = open_log(disk, **options)
    for i in range(records):
        oracle.append(log, b"record %d " % i * 8)
        oracle.sync(log)
    return disk, log, oracle


@pytest.mark.parametrize("operation", ["mkdir", "lock", "listdir", "open", "pread", "size"])
def test_a_directory_that_cannot_be_read_is_refused_in_words_and_not_held(operation):
    disk, log, oracle = filled()
    log.close()
    before = files_of(disk)
    disk.odd[operation] = refused(errno.EACCES, "Permission denied")
    with pytest.raises(DiskError, match=f"cannot .*{DIRECTORY}.*: Permission denied: check the disk .* and the permissions") as told:
        open_log(disk)
    assert told.value.number == errno.EACCES
    assert files_of(disk) == before and not disk.locked and not disk.open_files
    disk.odd.clear()
    oracle.check(open_log(disk))


def test_a_disk_that_writes_nothing_and_says_so_costs_its_file_and_no_record():
    disk, log, oracle = filled(3)
    left = [0]
    disk.odd["pwrite"] = lambda own, *arguments: left.pop() if left else own(*arguments)
    oracle.append(log, b"while nothing is written")
    oracle.sync(log)
    oracle.check(open_log(disk.after_cut(0)))
    disk.odd["pwrite"] = lambda own, *arguments: 0
    oracle.append(log, b"and again")
    with pytest.raises(DiskError, match="nothing was written"):
        log.sync()
    disk.odd.clear()
    oracle.sync(log)
    oracle.check(open_log(disk.after_cut(0)))


def test_an_interrupted_write_is_no_error():
    disk, log, oracle = filled(1)
    signals = [1, 1, 1]

    def interrupted(own, *arguments):
        if signals:
            signals.pop()
            raise InterruptedError
        return own(*arguments)

    disk.odd["pwrite"] = interrupted
    oracle.append(log, b"between signals")
    oracle.sync(log)
    assert not signals and len([p for p in disk.files if p.endswith(".seg")]) == 1
    oracle.check(open_log(disk.after_cut(0)))


@pytest.mark.parametrize("gone", [False, True])
def test_what_a_failed_truncation_left_goes_before_anything_is_written_also_where_it_is_gone_already(gone):
    """An unlink may be refused although it was done."""
    disk, log, oracle = filled(8)

    def unlink(own, path):
        if gone:
            own(path)
        raise OSError(errno.EIO, "EIO")

    disk.odd.update(fsync_directory=refused(errno.EIO), unlink=unlink)
    with pytest.raises(DiskError):
        log.truncate(3)
    disk.odd.clear()
    oracle.append(log, b"more")
    oracle.sync(log)
    oracle.check(log)
    oracle.check(open_log(disk.after_cut(0)))


def test_a_skip_that_failed_leaves_nothing_that_later_records_wait_for():
    disk, log, oracle = filled(4)
    disk.odd.update(fsync_directory=refused(errno.EIO), unlink=refused(errno.EIO))
    head = log.head
    with pytest.raises(DiskError):
        log.truncate(head + 100)
    assert log.head == head
    disk.odd["fsync_directory"] = lambda own, path: own(path)
    oracle.append(log, b"more")
    oracle.sync(log)
    assert head < log.head < head + 100
    disk.odd.clear()
    oracle.check(log)
    oracle.check(open_log(disk.after_cut(0)))


def test_damage_that_cannot_be_counted_is_an_error_not_none():
    disk, log, _ = filled()
    disk.odd["open"] = refused(errno.EMFILE)
    with pytest.raises(DiskError, match="cannot read"):
        log.damaged_since(0)
    with pytest.raises(DiskError, match="cannot read"):
        log.read(0)


def test_events_that_are_of_no_more_use_are_not_reported_as_evicted():
    """needed is asked before each eviction, so that what was acknowledged meanwhile counts as acknowledged."""
    evicted, first = [], {}
    log = open_log(MemoryDisk(), quota_bytes_max=8000, on_evict=lambda kind, stream, first, count: evicted.extend(range(first, first + count)))
    log.needed = lambda: [[70, None]]         # a position in the midst of a segment
    while log.tail < 110:
        first[log.append(2, 3, len(first), 1, b"x" * 70)] = len(first)
        assert evicted == [i for position, i in first.items() if 70 <= position < log.tail]
    assert 70 not in {s.first for s in log._segments} and evicted


def test_a_segment_whose_events_cannot_be_read_is_not_evicted_unreported():
    disk, evicted = Odd(), []
    log = open_log(disk, quota_bytes_max=8000, on_evict=lambda kind, stream, first, count: evicted.extend(range(first, first + count)))
    log.append(2, 3, 0, 1, b"x" * 70)
    log.append(2, 3, 1, 1, b"x" * 70)
    log.sync()
    log.drop_before(2)                   # in the middle of the first segment: its events must be read one by one
    disk.odd["open"] = refused(errno.EIO)
    i, told = 2, None
    while told is None:
        try:
            log.append(2, 3, i, 1, b"x" * 70)
            i += 1
        except DiskError as error:
            told, head = str(error), log.head
    assert "cannot read" in told and not evicted and log.tail == 0
    with pytest.raises(DiskError):
        log.append(2, 3, i, 1, b"x" * 70)
    assert log.head == head, "what was refused is not taken"
    disk.odd.clear()
    log.append(2, 3, i, 1, b"x" * 70)
    assert log.tail > 0 and evicted == [r for r in range(1, i) if r not in {e.first for e in read_all(log) if e.kind == 2}]


def test_what_eviction_has_reported_it_does_not_report_again_when_the_removal_failed():
    disk, evicted = Odd(), []
    log = open_log(disk, quota_bytes_max=8000, on_evict=lambda kind, stream, first, count: evicted.extend(range(first, first + count)))
    disk.odd["unlink"] = refused(errno.EIO)
    i = 0
    with pytest.raises(DiskError, match="cannot remove segments"):
        while True:
            log.append(2, 3, i, 1, b"x" * 70)
            i += 1
    told = list(evicted)
    assert told and log.tail == 0 and log.evicts_before == told[-1] + 2, "it stands there still"
    for _ in range(2):
        with pytest.raises(DiskError):
            log.append(2, 3, i, 1, b"x" * 70)
    assert evicted == told
    disk.odd.clear()
    log.append(2, 3, i, 1, b"x" * 70)
    assert evicted == told and log.tail == log.evicts_before


def test_two_truncations_that_failed_void_nothing_afterwards():
    disk, log, oracle = filled(8)
    disk.odd.update(fsync_directory=refused(errno.EIO), unlink=refused(errno.EIO))
    for position in (3, 5):
        with pytest.raises(DiskError):
            log.truncate(position)
    disk.odd.clear()
    oracle.append(log, b"more")
    oracle.sync(log)
    oracle.check(open_log(disk.after_cut(0)))
    oracle.check(open_log(disk.after_cut(1)))


@pytest.mark.parametrize("fails", ["all", "the last"])
def test_of_several_segments_the_last_is_written_again_when_it_cannot_be_synced(fails):
    disk, log, oracle = filled(8)
    disk.kill()
    last = sorted(p for p in disk.files if p.endswith(".seg"))[-1]
    for path in [p for p in disk.files if p.endswith(".idx") and (fails == "all" or p[:-4] == last[:-4])]:
        del disk.files[path]
    files = files_of(disk)
    disk = Odd(files)
    for path, node in disk.files.items():
        if path == last:
            node.stable, node.changes = b"", [("write", 0, bytes(node.data))]        # the process died before its sync
    lies = []

    def sync(own, fd):
        path, node = disk.open_files[fd]
        if path not in lies and path in files:
            lies.append(path)
            node.changes = []                # lost, and counted as clean from now on
            raise OSError(errno.EIO, "write-back failed")
        return own(fd)

    disk.odd["fdatasync"] = sync
    log = open_log(disk)
    disk.odd.clear()
    assert last in lies
    oracle.check(log)
    oracle.check(open_log(disk.after_cut(0)))


# --- opening

@pytest.mark.parametrize("nth", [1, 2])
def test_a_file_that_may_not_be_read_refuses_the_start(nth):
    """A wrong owner is to be put right, and then all is there; damage would have cost the records."""
    disk, log, oracle = filled()
    log.close()
    path = sorted(p for p in disk.files if p.endswith(".seg"))[1]
    asked = []

    def opening(own, name):
        asked.append(name)
        if name == path and asked.count(path) == nth:
            raise OSError(errno.EACCES, "Permission denied", name)
        return own(name)

    disk.odd["open"] = opening
    with pytest.raises(DiskError, match="permissions"):
        open_log(disk)
    assert not disk.locked
    disk.odd.clear()
    oracle.check(open_log(disk))


def test_an_index_that_cannot_be_read_costs_nothing():
    disk, log, oracle = filled()
    log.close()
    disk.odd["open"] = lambda own, path: refused(errno.EIO)(own) if path.endswith(".idx") else own(path)
    log = open_log(disk)
    assert log.recovery.records == len(read_all(log)) and not log.recovery.warnings and not log.recovery.lost
    oracle.check(log)


def test_a_void_file_that_cannot_be_synced_is_not_written_again():
    """It counts for nothing, so nothing depends on it."""
    disk, log, oracle = filled(8)
    disk.odd["unlink"] = refused(errno.EIO)
    oracle.truncate(log, 2)
    void = {parse_name(p.rpartition("/")[2]).serial for p in disk.files if p.endswith(".seg")} - {s.serial for s in log._segments}
    assert void
    log.close()
    for path in [p for p in disk.files if p.endswith(".idx")]:
        del disk.files[path]

    def sync(own, fd):
        if parse_name(disk.open_files[fd][0].rpartition("/")[2]).serial in void:
            raise OSError(errno.EIO, "write-back failed")
        return own(fd)

    disk.odd = {"fdatasync": sync}
    log = open_log(disk)
    assert [w for w in log.recovery.warnings if "could not sync" in w] and len(log.recovery.warnings) == len(void)
    oracle.check(log)
    assert {parse_name(p.rpartition("/")[2]).serial for p in disk.files if p.endswith(".seg")} == {s.serial for s in log._segments}


@pytest.mark.parametrize("operation, what", [("unlink", "remove"), ("fsync_directory", "sync the directory"), ("rename", "to quarantine")])
def test_what_opening_cannot_put_right_is_told_and_stops_nothing(operation, what):
    disk, log, oracle = filled()
    log.close()
    serial = log._serial
    files = files_of(disk) | {f"{DIRECTORY}/{Segment(serial + 1, 900, 0x11223344).name}.seg": b"noise" * 100, f"{DIRECTORY}/{Segment(serial + 2, 901, 0x11223344).name}.seg": bytes(500),
                              f"{DIRECTORY}/{Segment(1, 77, 0x11223344).name}.idx": b"of a segment that is gone"}
    disk = Odd(files)
    disk.odd[operation] = refused(errno.EIO)
    log = open_log(disk)
    assert any(what in warning and "EIO" in warning for warning in log.recovery.warnings), log.recovery.warnings
    oracle.check(log)
    disk.odd.clear()
    log.close()
    log = open_log(disk)
    assert not log.recovery.warnings and f"{DIRECTORY}/{Segment(1, 77, 0x11223344).name}.idx" not in disk.files
    oracle.check(log)


# --- a writer on it

def test_what_the_disk_refuses_waits_in_order_and_keeps_its_positions():
    disk = Odd()
    log = open_log(disk, preamble=None)
    writer = Writer(log)
    writer.append(2, 1, 0, 1, b"first")
    writer.sync()
    refuse = [True]
    append = log.append

    def refusing(*record):
        if refuse:
            raise DiskError("no room")
        return append(*record)

    log.append = refusing
    for i in range(1, 5):
        assert writer.head == i
        writer.append(2, 1, i, 1, b"%d" % i)
    assert (writer.waiting, writer.head, log.head) == (4, 5, 1)
    with pytest.raises(DiskError):
        writer.flush()
    with pytest.raises(DiskError):
        writer.sync()
    assert writer.waiting == 4
    refuse.clear()
    writer.append(2, 1, 5, 1, b"5")
    assert writer.waiting == 5, "what comes later stands behind what waits"
    writer.sync()
    assert (writer.waiting, writer.head, log.durable) == (0, 6, 6)
    assert [r.first for r in read_all(log)] == list(range(6))


def test_what_rests_on_others_gets_in_when_they_are_durable():
    disk = Odd()
    log = open_log(disk, preamble=None)
    writer = Writer(log)
    writer.append(2, 1, 0, 1, b"first")
    writer.part()
    disk.odd["fdatasync"] = refused(errno.EIO)
    writer.append(2, 1, 1, 1, b"rests on it")
    assert (writer.waiting, writer.head, log.head) == (1, 2, 1)
    with pytest.raises(DiskError):
        writer.sync()
    assert (log.head, log.durable) == (1, 0)
    disk.odd.clear()
    writer.flush()
    assert (writer.waiting, writer.head, log.head, log.durable) == (0, 2, 2, 1)
    writer.sync()
    assert [r.first for r in read_all(log)] == [0, 1]


@pytest.mark.parametrize("times", [2, 3])
def test_a_log_whose_file_opens_and_then_no_more_opens_all_the_same(times):
    """Two opens find what it holds, the third makes sure of it, and the fourth asks whether what is missing was torn."""
    disk = Odd()
    log = Log(disk, "log", quota_bytes_max=1 << 20)
    for i in range(6):
        log.append(1, 0, i, 1, b"x" * 50)
        log.sync()
    path, = (path for path in disk.files if path.endswith(".seg"))
    files = files_of(disk)
    rotten = bytearray(files[path])
    rotten[200] ^= 0xFF
    disk, opened = Odd({path: bytes(rotten)}), []

    def some(own, path):
        opened.append(path)
        return own(path) if opened.count(path) <= times else refused(errno.EIO)(own)

    disk.odd["open"] = some
    log = Log(disk, "log", quota_bytes_max=1 << 20)
    assert log.recovery.lost and opened.count(path) > times and len(log.recovery.warnings) == (times == 2)
    disk.odd.clear()
    log.append(1, 0, 6, 1, b"x")
    log.sync()
    assert not log._segments[-1].flags & TORN and log.damaged_since(0) == 1 and [r.first for r in read_all(log)] == [0, 2, 3, 4, 5, 6]
