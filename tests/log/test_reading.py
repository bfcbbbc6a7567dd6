"""A log is read beside its writer: files come and go and grow, what is damaged is named, and nothing is changed."""

import errno

import pytest
from log_oracle import DIRECTORY, open_log
from memory_disk import FaultyDisk, MemoryDisk

from edge.errors import DiskError
from edge.storage.reading import BLANK_LOOKS_MAX, LOOKS_MAX, Damage, LogReader
from edge.storage.segment import MENDED, SEGMENT_HEADER, SKIPS, Segment, parse_name


class Watched(FaultyDisk):
    """before: called with (operation, path) before each, and may change the files or raise."""

    def __init__(self, files):
        super().__init__(lambda number, name: None, files)
        self.before = lambda name, path: None

    def operate(self, name, path=""):
        self.before(name, path)
        super().operate(name, path)


def written(segments=3, records=4, closed=True):
    """{path: bytes} of a log, `records` in each segment, none of a preamble."""
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes_max=1 << 16, preamble=None)
    for i in range(segments * records):
        if i and i % records == 0:
            log.roll()
        log.append(2, 3, i, 1, b"payload %d " % i * 5)
        log.sync()
    if closed:
        log.close()
    return {path: bytes(node.data) for path, node in sorted(disk.files.items())}


def segments_of(files):
    return [path for path in sorted(files) if path.endswith(".seg")]


def positions(reader, position=0):
    return [r.position for r in reader.all(position)]


def damages(reader):
    return [(d.file, d.first, d.after) for d in reader.damage]


def changed(files, path, change):
    data = bytearray(files[path])
    change(data)
    return files | {path: bytes(data)}


@pytest.mark.parametrize("closed", [True, False])
def test_what_stands_there_is_told_and_read(closed):
    files = written(closed=closed)
    disk = Watched(files)
    reader = LogReader(disk, DIRECTORY)
    assert (reader.tail, reader.head, reader.tail_bytes, reader.quarantined, reader.mended, reader.removed, reader.damage) == (0, 12, 0, [], [], [], [])
    assert reader.size_bytes == sum(len(bytes(files[p]).rstrip(b"\0")) for p in segments_of(files))
    assert [reader.path(s) for s in reader.segments] == segments_of(files)
    assert positions(reader) == list(range(12)) and positions(reader, 7) == list(range(7, 12)) and positions(reader, 8) == list(range(8, 12)) and positions(reader, 50) == []
    assert [r.payload for r in reader.all(11)] == [b"payload 11 " * 5] and [r.payload for r in reader.all(11, payloads=False)] == [None]
    assert not disk.open_files and {path: bytes(node.data) for path, node in disk.files.items()} == files


def test_an_empty_directory_is_an_empty_log():
    reader = LogReader(MemoryDisk(), DIRECTORY)
    assert (reader.tail, reader.head, reader.size_bytes, reader.segments, positions(reader)) == (0, 0, 0, [], [])


def test_a_log_that_begins_later_says_where():
    files = written()
    for path in segments_of(files)[:1]:
        del files[path]
    reader = LogReader(MemoryDisk(files), DIRECTORY)
    assert (reader.tail, reader.head) == (4, 12) and not reader.damage


def test_files_that_go_while_they_are_looked_at_are_looked_for_again():
    disk = Watched(written())
    last = segments_of(disk.files)[-1]
    renamed = last.replace("00000003-", "00000004-")

    def before(name, path):
        if name == "open" and path == last and last in disk.files:
            del disk.files[last[:-4] + ".idx"]
            disk.files[renamed] = disk.files.pop(last)

    disk.before = before
    reader = LogReader(disk, DIRECTORY)
    assert positions(reader) == list(range(12)) and not reader.damage and not reader.removed


def test_the_oldest_may_go_meanwhile_and_is_named():
    disk = Watched(written())
    first = segments_of(disk.files)[0]
    disk.before = lambda name, path: disk.files.pop(path, None) if name == "open" and path == first else None
    reader = LogReader(disk, DIRECTORY)
    assert reader.removed == [first.rpartition("/")[2][:-4]] and positions(reader) == list(range(4, 12)) and not reader.damage


def test_a_segment_in_the_midst_that_goes_is_looked_for_again_and_then_is_damage():
    disk = Watched(written())
    middle = segments_of(disk.files)[1]
    disk.before = lambda name, path: disk.files.pop(path, None) if name == "open" and path == middle else None
    reader = LogReader(disk, DIRECTORY)
    assert [d[1:] for d in damages(reader)] == [(4, 8)] and reader.damage[0].what == "no file has these positions" and not reader.removed
    assert reader.damage[0].file == segments_of(disk.files)[0] and reader.damage[0].offset == reader.damage[0].end == reader.segments[0].size


def test_a_directory_that_changes_for_ever_is_given_up():
    disk = Watched(written())
    looks = []

    def before(name, path):
        looks.append(name) if name == "listdir" else None
        if name == "open":
            raise FileNotFoundError(errno.ENOENT, "no such file", path)

    disk.before = before
    with pytest.raises(DiskError, match="faster than it can be read"):
        LogReader(disk, DIRECTORY)
    assert len(looks) == LOOKS_MAX


@pytest.mark.parametrize("operation, number", [("listdir", errno.EACCES), ("open", errno.EMFILE), ("open", errno.EACCES), ("pread", errno.EBADF)])
def test_what_may_not_be_read_is_an_error_not_damage(operation, number):
    disk = Watched(written())

    def before(name, path):
        if name == operation:
            raise OSError(number, "refused", path)

    disk.before = before
    place = DIRECTORY if operation == "listdir" else segments_of(disk.files)[0]
    with pytest.raises(DiskError, match=f"cannot read {place}: refused: check the path and the permissions"):
        LogReader(disk, DIRECTORY)
    assert not disk.open_files
    disk.before = lambda name, path: (_ for _ in ()).throw(OSError(number, "refused")) if name == operation else None
    with pytest.raises(DiskError, match=f"cannot read {DIRECTORY}: refused: check the path and the permissions"):
        LogReader(disk, DIRECTORY)


def test_a_file_that_the_disk_cannot_open_is_damage_that_is_named():
    disk = Watched(written())
    middle = segments_of(disk.files)[1]

    def before(name, path):
        if name == "open" and path == middle:
            raise OSError(errno.EIO, "bad inode", path)

    disk.before = before
    reader = LogReader(disk, DIRECTORY)
    assert reader.damage[0] == Damage(middle, 0, 0, 4, 4, "cannot be opened: bad inode")
    assert [d[1:] for d in damages(reader)] == [(4, 4), (4, 8)] and positions(reader) == [*range(4), *range(8, 12)]


def test_a_file_that_cannot_be_opened_later_costs_what_it_holds():
    disk = Watched(written())
    reader = LogReader(disk, DIRECTORY)
    middle = segments_of(disk.files)[1]

    def before(name, path):
        if name == "open" and path == middle:
            raise OSError(errno.EMFILE, "too many files", path)

    disk.before = before
    assert positions(reader) == [*range(4), *range(8, 12)] == positions(reader)
    assert reader.damage == [Damage(middle, 0, reader.segments[1].size, 4, 8, "cannot be opened: too many files")], "told once"
    del disk.files[segments_of(disk.files)[0]]
    disk.before = lambda name, path: None
    assert positions(reader) == list(range(4, 12)) and reader.removed == [reader.segments[0].name]


def test_a_disk_that_refuses_to_read_on_is_an_error():
    disk = Watched(written())
    reader = LogReader(disk, DIRECTORY)

    def before(name, path):
        if name == "pread":
            raise OSError(errno.EBADF, "bad descriptor", path)

    disk.before = before
    with pytest.raises(DiskError, match=f"cannot read {segments_of(disk.files)[0]}: bad descriptor: check the disk"):
        positions(reader)
    assert not disk.open_files


def test_a_newer_version_is_refused_by_name():
    from struct import pack

    from edge.storage._crc32c import crc32c

    files = written()
    path = segments_of(files)[1]
    head = files[path][:8] + b"\3\0" + files[path][10:28]
    with pytest.raises(DiskError, match=f"{path} is of format version 3, this program reads up to 2"):
        LogReader(MemoryDisk(files | {path: head + pack("<I", crc32c(head)) + files[path][32:]}), DIRECTORY)


def test_a_last_segment_without_a_header_is_being_made_and_is_waited_for():
    files = written(closed=False)
    last = segments_of(files)[-1]
    disk, whole, looks = Watched(files | {last: b""}), files[last], []

    def before(name, path):
        if name == "listdir":
            looks.append(path)
            if len(looks) == BLANK_LOOKS_MAX:
                disk.files[last].data[:] = whole
    disk.before = before
    assert positions(LogReader(disk, DIRECTORY)) == list(range(12))
    disk = Watched(files | {last: bytes(1000)})          # left so by a power cut
    disk.before = lambda name, path: looks.append(path)
    looks.clear()
    disk.before = lambda name, path: looks.append(path) if name == "listdir" and "quarantine" not in path else None
    reader = LogReader(disk, DIRECTORY)
    assert positions(reader) == list(range(8)) and not reader.damage and len(looks) == BLANK_LOOKS_MAX + 1


def test_a_damaged_header_is_told_and_costs_nothing():
    files = written(closed=False)
    for i, path in enumerate(segments_of(files)):
        reader = LogReader(MemoryDisk(changed(files, path, lambda data: data.__setitem__(slice(0, 32), bytes(32)))), DIRECTORY)
        assert reader.damage == [Damage(path, 0, SEGMENT_HEADER.size, 4 * i, 4 * i, "the header is damaged; the file's name stands in for it")]
        assert positions(reader) == list(range(12))


def test_a_file_of_noise_is_told_and_a_blank_one_is_not():
    files = written()
    path = segments_of(files)[1]
    files.pop(path[:-4] + ".idx")
    noise = bytes(7 * i % 251 for i in range(500))
    reader = LogReader(MemoryDisk(files | {path: noise}), DIRECTORY)
    assert reader.damage[0] == Damage(path, 0, 500, 4, 4, "nothing in this file can be recognised") and [d[1:] for d in damages(reader)] == [(4, 4), (4, 8)]
    reader = LogReader(MemoryDisk(files | {path: bytes(500)}), DIRECTORY)
    assert [d[1:] for d in damages(reader)] == [(4, 8)]


@pytest.mark.parametrize("flags, mended, damaged", [(0, [], [(4, 8)]), (SKIPS, [], []), (MENDED, [(4, 8)], []), (MENDED | SKIPS, [(4, 8)], []), (1, [], [(4, 8)]), (4, [(4, 8)], []), (32, [], [(4, 8)])])
def test_positions_between_two_segments_are_damage_unless_they_were_skipped_or_a_repair_knows(flags, mended, damaged):
    files = written()
    path = segments_of(files)[2]
    segment = parse_name(path.rpartition("/")[2])
    header = Segment(segment.serial, segment.first, segment.salt, flags).header()
    del files[segments_of(files)[1]]
    reader = LogReader(MemoryDisk(changed(files, path, lambda data: data.__setitem__(slice(0, 32), header))), DIRECTORY)
    assert reader.mended == mended and [d[1:] for d in damages(reader)] == damaged


def rot(record, position=None):
    """A change of a record's payload."""
    def change(data):
        at = 32
        for _ in range(record):
            at += 36 + int.from_bytes(data[at + 8:at + 12], "little")
        data[at + 40] ^= 1
    return change


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("segment, record", [(0, 0), (0, 3), (1, 1), (1, 3), (2, 0), (2, 2)])
def test_a_rotten_record_is_told_with_its_place(segment, record, indexed):
    files = written(closed=indexed)
    path = segments_of(files)[segment]
    position = 4 * segment + record
    reader = LogReader(MemoryDisk(changed(files, path, rot(record))), DIRECTORY)
    assert positions(reader) == [p for p in range(12) if p != position]
    found = [d for d in reader.damage if d.first < d.after]
    assert [(d.file, d.first, d.after) for d in found] == [(path, position, position + 1)] and not reader.torn
    records = [r for r in LogReader(MemoryDisk(files), DIRECTORY).all() if r.position == position]
    assert (found[0].offset, found[0].end) == (records[0].offset, records[0].end)
    assert found[0].what == ("the end is damaged or missing" if record == 3 else "the bytes are not those that were written")


def grouped(*groups):
    """{path: bytes} of an open log of one segment, its records synced in groups of so many."""
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes_max=1 << 16, preamble=None)
    for count in groups:
        for _ in range(count):
            log.append(2, 3, log.head, 1, b"payload %d " % log.head * 5)
        log.sync()
    return {path: bytes(node.data) for path, node in disk.files.items()}


def test_a_hole_in_the_last_group_is_torn_and_one_before_it_is_damage():
    files = grouped(3, 4)
    path, = files
    for record in range(6):
        reader = LogReader(MemoryDisk(changed(files, path, rot(record))), DIRECTORY)
        assert positions(reader) == [p for p in range(7) if p != record]
        torn, damaged = [(d.first, d.after) for d in reader.torn], [(d.first, d.after) for d in reader.damage]
        assert (torn, damaged) == (([(record, record + 1)], []) if record >= 3 else ([], [(record, record + 1)])), record
    reader = LogReader(MemoryDisk(changed(files, path, rot(6))), DIRECTORY)
    assert positions(reader) == list(range(6)) and reader.tail_bytes and not reader.damage and not reader.torn


def test_what_a_later_segment_made_void_is_no_loss_and_its_events_are_not_counted():
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes_max=1 << 16, preamble=None)
    for i in range(6):
        log.append(2, 3, 10 * i, 10, b"payload %d " % i * 5)
        log.sync()
    log.truncate(4)
    log.append(2, 3, 40, 10, b"another")
    log.close()
    files = {path: bytes(node.data) for path, node in disk.files.items()}
    reader = LogReader(MemoryDisk(files), DIRECTORY)
    assert positions(reader) == list(range(5))
    assert [list(reader.ranges(segment)) for segment in reader.segments] == [[(2, 3, 0, 40)], [(2, 3, 40, 50)]]
    first = segments_of(files)[0]
    for record, lost in ((5, []), (4, []), (3, [(3, 4)])):
        reader = LogReader(MemoryDisk(changed(files, first, rot(record))), DIRECTORY)
        positions(reader)
        assert [(d.first, d.after) for d in reader.damage] == lost


def test_what_an_earlier_start_put_aside_is_listed_without_the_reasons():
    files = written() | {f"{DIRECTORY}/quarantine/b.seg": b"1", f"{DIRECTORY}/quarantine/a.seg": b"2", f"{DIRECTORY}/quarantine/a.seg.why": b"{}"}
    disk = MemoryDisk(files)
    listdir = disk.listdir
    disk.listdir = lambda path: listdir(path) + (["quarantine"] if path == DIRECTORY else [])
    assert LogReader(disk, DIRECTORY).quarantined == ["a.seg", "b.seg"]


class Veil:
    """A cipher that anybody sees through. spoiled: payloads that it does not know again."""

    spoiled = ()

    def hide(self, position, kind, stream, first, count, payload):
        return bytes(40) + payload

    def show(self, record):
        return None if record.payload[40:] in self.spoiled else record.payload[40:]


@pytest.mark.parametrize("position", [0, 2, 3])
def test_a_payload_that_is_not_what_was_encrypted_is_damage_of_that_record(position):
    disk, veil = MemoryDisk(), Veil()
    log = open_log(disk, segment_bytes_max=1 << 16, preamble=None, cipher=veil)
    for i in range(4):
        log.append(2, 3, i, 1, b"secret %d" % i)
    log.close()
    files = {path: bytes(node.data) for path, node in disk.files.items()}
    veil.spoiled = (b"secret %d" % position,)
    reader = LogReader(MemoryDisk(files), DIRECTORY, veil)
    records = list(reader.all())
    assert [r.payload for r in records] == [b"secret %d" % i for i in range(4) if i != position]
    found, = reader.damage
    assert (found.first, found.after, found.what) == (position, position + 1, "the payload is not what was encrypted")
    assert (found.offset, found.end) == (32 + position * 84, 32 + position * 84 + 84)
    assert positions(reader) == [i for i in range(4) if i != position] and len(reader.damage) == 1, "told once"
    plain = LogReader(MemoryDisk(files), DIRECTORY)
    assert [r.position for r in plain.all(payloads=False)] == [0, 1, 2, 3] and not plain.damage, "headers need no key"
    log = open_log(MemoryDisk(files), preamble=None, cipher=veil)
    assert [r.position for r in log.read(0)] == [i for i in range(4) if i != position] and log.recovery.damaged == 1 and log.recovery.lost == [(position, position + 1)]
