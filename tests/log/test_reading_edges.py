"""A log that is read beside its writer: what an index is believed, what is torn and what is damage, and what is not even looked at."""

import pytest
from log_oracle import DIRECTORY, open_log
from memory_disk import MemoryDisk
from test_reading import Veil, Watched, changed, damages, grouped, positions, rot, segments_of, written

from edge.errors import DiskError
from edge.storage.reading import LogReader
from edge.storage.segment import MENDED, Segment, parse_name


def files_of(disk):
    return {path: bytes(node.data) for path, node in disk.files.items()}


def told(reader):
    """What reading all of it tells: (torn, damaged)."""
    positions(reader)
    return [(d.first, d.after) for d in reader.torn], [(d.first, d.after) for d in reader.damage]


def opened_again(files, then=lambda log: None):
    """The files after a start that found them so, and left its indexes."""
    disk = MemoryDisk(files)
    log = open_log(disk, segment_bytes_max=1 << 16, preamble=None)
    then(log)
    log.close()
    return files_of(disk)


def more(log):
    for _ in range(3):
        log.append(2, 3, log.head, 1, b"more")
        log.sync()


def test_an_index_tells_how_far_a_file_went():
    """So what is missing at the end of a log that was closed is damage, and no torn tail."""
    files = written()
    last = segments_of(files)[-1]
    reader = LogReader(MemoryDisk(changed(files, last, rot(3))), DIRECTORY)
    assert positions(reader) == list(range(11)) and (reader.head, reader.tail_bytes) == (12, 0)
    assert [(d.first, d.after, d.what) for d in reader.damage] == [(11, 12, "the end is damaged or missing")]
    del files[last[:-4] + ".idx"]
    reader = LogReader(MemoryDisk(changed(files, last, rot(3))), DIRECTORY)
    assert positions(reader) == list(range(11)) and (reader.head, bool(reader.tail_bytes), reader.damage) == (11, True, [])


def with_rot(files, record, segment=0):
    return changed(files, segments_of(files)[segment], rot(record))


def test_what_was_torn_stays_torn_when_the_log_goes_on_and_what_rots_later_is_damage():
    files = opened_again(with_rot(grouped(3, 6), 5), more)
    assert told(LogReader(MemoryDisk(files), DIRECTORY)) == ([(5, 6)], [])
    for record in (3, 7):
        assert told(LogReader(MemoryDisk(with_rot(files, record)), DIRECTORY)) == ([(5, 6)], [(record, record + 1)])


def test_a_first_record_that_was_torn_is_no_damage():
    assert told(LogReader(MemoryDisk(with_rot(grouped(4), 0)), DIRECTORY)) == ([(0, 1)], [])


def test_what_was_cut_off_still_tells_that_all_before_it_was_durable():
    files = opened_again(with_rot(grouped(3, 2, 2, 2), 4), lambda log: log.truncate(6))
    reader = LogReader(MemoryDisk(files), DIRECTORY)
    assert told(reader) == ([], [(4, 5)]) and positions(reader) == [0, 1, 2, 3, 5]
    files = opened_again(with_rot(grouped(3, 4, 2), 5), lambda log: log.truncate(6))
    assert told(LogReader(MemoryDisk(files), DIRECTORY)) == ([], [(5, 6)]), "the group behind it began when it was"


def test_what_stands_before_the_position_is_not_looked_at():
    """A reader that goes on from where it was tells of no damage that it was not asked for."""
    disk = Watched(with_rot(written(), 1))
    reader, opened = LogReader(disk, DIRECTORY), []
    disk.before = lambda name, path: opened.append(path) if name == "open" else None
    assert positions(reader, 4) == list(range(4, 12)) and reader.damage == [] and opened == segments_of(disk.files)[1:]
    assert positions(reader, 3) == list(range(3, 12)) and damages(reader) == [(segments_of(disk.files)[0], 1, 2)]


def test_a_repair_that_lost_nothing_is_not_told():
    files = written()
    path = segments_of(files)[1]
    segment = parse_name(path.rpartition("/")[2])
    header = Segment(segment.serial, segment.first, segment.salt, MENDED).header()
    reader = LogReader(MemoryDisk(changed(files, path, lambda data: data.__setitem__(slice(0, 32), header))), DIRECTORY)
    assert reader.mended == [] == reader.damage and positions(reader) == list(range(12))


def test_an_only_file_that_goes_is_looked_for_again():
    disk = Watched(written(segments=1))
    path, = segments_of(disk.files)
    later = path.replace("00000001-", "00000002-")

    def before(name, opened):
        if name == "open" and path in disk.files:
            del disk.files[path[:-4] + ".idx"]
            disk.files[later] = disk.files.pop(path)

    disk.before = before
    reader = LogReader(disk, DIRECTORY)
    assert positions(reader) == [0, 1, 2, 3] and reader.removed == []


def test_a_record_that_came_between_two_reads_of_the_end_is_there():
    """The end of a file that is written to may be seen before what stands before it."""
    disk = Watched(written(segments=1, closed=False))
    path, = segments_of(disk.files)
    whole, reads = bytes(disk.files[path].data), []
    rot(1)(disk.files[path].data)

    def before(name, opened):
        if name == "pread":
            reads.append(opened)
            if len(reads) == 4:              # the header, the records, what is behind them; and again
                disk.files[path].data[:] = whole

    disk.before = before
    reader = LogReader(disk, DIRECTORY)
    assert [(s.held, s.records, s.holes) for s in reader.segments] == [(4, 4, [])] and positions(reader) == [0, 1, 2, 3]


def test_a_segments_records_come_whole_and_from_its_begin_unless_told_otherwise():
    reader = LogReader(MemoryDisk(written()), DIRECTORY)
    assert [(r.position, r.payload) for r in reader.records(reader.segments[1])] == [(i, b"payload %d " % i * 5) for i in range(4, 8)]
    assert [(r.position, r.payload) for r in reader.records(reader.segments[1], 7, payloads=False)] == [(7, None)]


def test_what_events_a_sealed_log_has_is_known_without_the_key():
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes_max=1 << 16, preamble=None, cipher=Veil())
    for i in range(6):
        log.append(2, 3, 10 * i, 10, b"secret %d" % i)
    log.truncate(4)
    log.close()
    reader = LogReader(disk, DIRECTORY)
    assert [list(reader.ranges(segment)) for segment in reader.segments] == [[(2, 3, 0, 40)], []]
    with pytest.raises(DiskError, match="encrypted"):
        positions(reader)
