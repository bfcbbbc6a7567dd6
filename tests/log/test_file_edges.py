"""What opening a log finds, makes sure of and leaves; and what its reader passes over, at the last record that counts and the first that does not."""

import errno

import pytest
from log_oracle import DIRECTORY, open_log, read_all
from memory_disk import MemoryDisk
from test_log_edges import Odd, refused
from test_reading import Veil, changed, grouped, rot, segments_of, written

from edge.storage.opening import Recovery, settle
from edge.storage.segment import TORN, UNSURE, Segment, parse_name


def files_of(disk):
    return {path: bytes(node.data) for path, node in disk.files.items()}


def opened(disk, **options):
    return open_log(disk, segment_bytes_max=1 << 16, preamble=None, **options)


def indexes_of(files):
    return {path: data for path, data in files.items() if path.endswith(".idx")}


def without_indexes(files):
    return {path: data for path, data in files.items() if not path.endswith(".idx")}


def with_rot(files, segment, *records):
    path = segments_of(files)[segment]
    for record in records:
        files = changed(files, path, rot(record))
    return files


# --- opening

def test_a_clean_log_has_lost_nothing_and_its_positions_go_on():
    log = opened(MemoryDisk(written()))
    assert (log.head, log.durable, log.recovery.lost, log.recovery.damaged, log.recovery.trimmed_bytes) == (12, 12, [], 0, 0)
    assert log.recovery.records == 12 and not log.recovery.lacks_before(1 << 40)


@pytest.mark.parametrize("closed", [True, False])
def test_opening_writes_the_indexes_that_are_missing(closed):
    files = written()
    disk = MemoryDisk(files if closed else without_indexes(files))
    opened(disk)
    assert indexes_of(files_of(disk)) == indexes_of(files)
    damaged = {path: data[:-1] + b"?" for path, data in indexes_of(files).items()}
    disk = MemoryDisk(files | damaged)
    opened(disk)
    assert indexes_of(files_of(disk)) == indexes_of(files)


def test_what_could_not_be_synced_gets_no_index():
    """An index says what a file durably holds."""
    disk = Odd(without_indexes(written()))
    doubtful = segments_of(disk.files)[1]
    disk.odd["fdatasync"] = lambda own, fd: refused(errno.EIO)(own) if disk.open_files[fd][0] == doubtful else own(fd)
    log = opened(disk)
    assert len(log.recovery.warnings) == 1 and sorted(indexes_of(files_of(disk))) == [path[:-4] + ".idx" for path in segments_of(disk.files) if path != doubtful]


def test_what_was_void_gets_no_index_and_goes():
    disk = Odd(written())
    log = opened(disk)
    disk.odd["unlink"] = refused(errno.EIO)
    log.truncate(4)                      # at the very first position of a file
    log.append(2, 3, 4, 1, b"another")
    log.close()
    disk = MemoryDisk(without_indexes(files_of(disk)))
    assert len(segments_of(disk.files)) == 4
    log = opened(disk)
    assert [r.position for r in read_all(log)] == [0, 1, 2, 3, 4] and len(segments_of(disk.files)) == 2
    assert sorted(files_of(disk)) == sorted(f"{DIRECTORY}/{s.name}.{kind}" for s in log._segments for kind in ("seg", "idx"))


def test_what_a_died_process_wrote_is_made_sure_of_before_anything_rests_on_it():
    disk = MemoryDisk()
    for path, data in without_indexes(written()).items():
        disk.pwrite(disk.create(path), data, 0)          # neither the bytes nor the name are on stable storage
    disk.kill()
    opened(disk)
    assert [r.position for r in read_all(opened(disk.after_cut(0)))] == list(range(12))


@pytest.mark.parametrize("tail, positions", [(b"x", 1), (b"x" * 35, 1), (b"x" * 36, 2), (b"x" * 72, 3), (b"x" + bytes(200), 1), (bytes(200), 0)])
def test_a_torn_tail_costs_the_positions_of_the_records_that_may_have_stood_there(tail, positions):
    """They may have been durable, and rotten since."""
    files = without_indexes(written(closed=False))
    first, _, last = segments_of(files)
    whole = files[last].rstrip(b"\0")
    assert opened(MemoryDisk(files | {last: whole + tail})).head == 12 + positions
    assert opened(MemoryDisk(files | {first: files[first].rstrip(b"\0") + tail})).head == 12, "behind another file it is none"


def test_no_position_is_given_again_that_a_file_may_hold_which_the_disk_does_not_open():
    disk = Odd(written())
    last = segments_of(disk.files)[-1]
    disk.odd["open"] = lambda own, path: refused(errno.EIO)(own) if path == last else own(path)
    log = opened(disk)
    assert log.recovery.unopened == [last.rpartition("/")[2]] and log.recovery.lacks_before(9) and not log.recovery.lacks_before(8)
    assert log.head >= 8 + (8 << 20) // 36, "a segment of 8 MiB of the smallest records"


def test_what_is_lost_lacks_only_behind_where_it_begins():
    recovery = Recovery()
    recovery.lost.append((4, 6))
    assert [recovery.lacks_before(position) for position in (3, 4, 5, 9)] == [False, False, True, True]
    recovery.quarantined.append(Segment(1, 2, 0x11223344).name + ".seg")
    assert [recovery.lacks_before(position) for position in (2, 3)] == [False, True]


def test_what_was_cut_off_and_is_rotten_is_no_loss():
    disk = MemoryDisk(written(segments=1, records=6))
    log = opened(disk)
    log.truncate(4)
    log.close()
    for record, lost in ((3, [(3, 4)]), (4, []), (5, [])):
        log = opened(MemoryDisk(with_rot(without_indexes(files_of(disk)), 0, record)))
        assert (log.recovery.lost, log.recovery.damaged, log.head) == (lost, len(lost), 4), record


def test_a_higher_serial_wins_from_its_first_position_on():
    def segment(serial, first, held):
        made = Segment(serial, first, 1)
        made.held = made.end = held
        return made

    a, b, c, d = segment(1, 0, 5), segment(2, 5, 9), segment(3, 9, 12), segment(4, 7, 8)
    assert settle([a, b, c, d]) == [c] and [s.end for s in (a, b, c, d)] == [5, 7, 7, 8]
    a, b, c = segment(1, 0, 5), segment(2, 5, 9), segment(3, 5, 5)
    assert settle([a, b, c]) == [b] and [s.end for s in (a, b, c)] == [5, 5, 5], "what begins where it was cut is void, and what cut it is not"
    a, b = segment(1, 0, 5), segment(2, 5, 5)
    assert settle([a, b]) == [] and settle([a]) == [] and settle([]) == [] and settle([segment(1, 0, 0), segment(2, 3, 3)]) == []


# --- what is torn, and what is damage

def going_on(files):
    """(damage that is counted since position 0, whether the next file says TORN, the files) of a log that is opened, gets more records, and is closed."""
    disk = MemoryDisk(files)
    log = opened(disk)
    count = log.damaged_since(0)
    for _ in range(3):
        log.append(2, 3, log.head, 1, b"more of it")
        log.sync()
    says = bool(log._segments[-1].flags & TORN)
    log.close()
    return count, says, files_of(disk)


@pytest.mark.parametrize("groups, rotten, torn, damaged", [
    ((4,), [0], True, 0), ((3, 4), [4], True, 0), ((3, 4), [2], False, 1), ((3, 4), [0], False, 1), ((3, 4), [0, 2, 5], True, 2), ((3, 4), [1], False, 1), ((3, 4, 1), [5], False, 1)])
def test_only_what_is_missing_of_the_last_group_is_torn_and_is_so_for_ever(groups, rotten, torn, damaged):
    files = with_rot(grouped(*groups), 0, *rotten)
    count, says, files = going_on(files)
    assert (count, says) == (damaged, torn)
    for _ in range(2):
        count, says, files = going_on(files)
        assert (count, says) == (damaged, False)


def test_the_first_group_of_what_a_repair_made_may_be_torn_too():
    files = grouped(4)
    path, = segments_of(files)
    segment = parse_name(path.rpartition("/")[2])
    header = Segment(segment.serial, 0, segment.salt, UNSURE).header()
    count, says, files = going_on(with_rot(changed(files, path, lambda data: data.__setitem__(slice(0, 32), header)), 0, 0))
    assert (count, says) == (0, True) and going_on(files)[0] == 0


def test_what_rots_later_behind_what_was_torn_is_damage():
    _, says, files = going_on(with_rot(grouped(4), 0, 0))
    assert says and going_on(with_rot(files, 1, 0))[0] == 1


@pytest.mark.parametrize("groups, rotten, to", [((3, 3), 1, 16), ((1, 3), 0, 1), ((2, 3), 1, 2), ((2, 3), 0, 1)])
def test_an_empty_file_behind_damage_does_not_make_it_torn(groups, rotten, to):
    disk = MemoryDisk(with_rot(grouped(*groups), 0, rotten))
    log = opened(disk)
    log.truncate(to)                     # a skip, or a cut
    assert log._segments[-1].first == to == log._segments[-1].end
    log.close()
    count, says, files = going_on(files_of(disk))
    assert (count, says) == (1, False) and going_on(files)[0] == 1


def reads_of(disk):
    """A set of the files of which more than a header is read from now on."""
    read = set()

    def pread(own, fd, size, offset):
        if size > 32:
            read.add(disk.open_files[fd][0])
        return own(fd, size, offset)

    disk.odd["pread"] = pread
    return read


def test_a_start_reads_no_more_than_the_last_two_files_again():
    files = with_rot(written(segments=5), 0, 1)
    del files[segments_of(files)[0][:-4] + ".idx"]
    disk = MemoryDisk(files)
    opened(disk).close()                 # its index knows what is lost
    disk = Odd(files_of(disk))
    read = reads_of(disk)
    assert opened(disk).recovery.lost == [(1, 2)] and sorted(p for p in read if p.endswith(".seg")) == segments_of(disk.files)[-2:]


def test_damage_is_looked_for_from_the_position_on():
    disk = Odd(with_rot(written(), 0, 1))
    log, segments = opened(disk), segments_of(disk.files)
    for position, found, looked_at in ((8, 0, segments[2:]), (4, 0, segments[1:]), (3, 0, segments), (1, 1, segments)):
        read = reads_of(disk)
        assert log.damaged_since(position) == found and sorted(read) == looked_at


# --- what is passed over, and what is not read

@pytest.mark.parametrize("bytes_max", [1, 170, 340, 1 << 20])
def test_what_cannot_be_decrypted_is_tried_once_and_passed_over(bytes_max):
    disk, veil, tried = MemoryDisk(), Veil(), []
    log = opened(disk, cipher=veil)
    for i in range(8):
        log.append(2, 3, i, 1, b"secret %d" % i)         # 84 bytes each
    log.close()
    veil.spoiled = [b"secret %d" % i for i in (0, 1, 2, 3, 5)]
    veil.show = lambda record: (tried.append(record.position), Veil.show(veil, record))[1]
    log = opened(disk, cipher=veil)
    assert [r.position for r in read_all(log, bytes_max)] == [4, 6, 7] and tried[:5] == [0, 1, 2, 3, 4] and len(tried) <= 9
    assert log.recovery.lost == [(i, i + 1) for i in (0, 1, 2, 3, 5)] and log.recovery.damaged == 5


def test_what_whole_files_hold_is_told_without_reading_them():
    """Eviction asks it, and a disk that is full or fails is to go on."""
    disk = Odd(written())
    log = opened(disk)
    disk.odd["open"] = refused(errno.EIO)
    for first, end in ((0, 4), (4, 8), (8, 12), (0, 8), (4, 12), (0, None)):
        assert log.events([(first, end)]) == [(2, 3, at, 4) for at in range(first, end or 12, 4)], (first, end)
    disk.odd.clear()
    assert log.events([(1, 3)]) == [(2, 3, 1, 2)] and log.events([(3, 5)]) == [(2, 3, 3, 1), (2, 3, 4, 1)]
    assert log.events([(0, 2), (7, None)]) == [(2, 3, 0, 2), (2, 3, 7, 1), (2, 3, 8, 4)]


def test_a_file_that_is_read_and_goes_does_not_stay_open():
    disk = MemoryDisk(written())
    log = opened(disk)
    log.read(0)
    log.drop_before(4)
    assert len(segments_of(disk.files)) == 2 and not [path for path, _ in disk.open_files.values() if path not in disk.files]
    log.read(8)
    log.drop_before(8)
    assert len(segments_of(disk.files)) == 1 and [path for path, _ in disk.open_files.values() if path in disk.files], "another stays"


def test_reading_changes_nothing_of_what_is_known():
    disk = MemoryDisk()
    log = opened(disk)
    for i in range(12):
        if i and i % 4 == 0:
            log.roll()
        log.append(2, 3, i, 1, b"payload %d " % i * 5)
        log.sync()
        assert len(read_all(log, 100)) == i + 1 and log.damaged_since(0) == 0
    log.close()
    assert files_of(disk) == written()
