"""A segment's name, header and index say what it holds, and nothing else is taken for one."""

import errno
import struct

import pytest
from log_oracle import open_log, read_all
from memory_disk import FaultyDisk, MemoryDisk

from edge.storage._crc32c import crc32c
from edge.storage._record import PREAMBLE, Scan, encode
from edge.storage.segment import (CONTINUES, MENDED, PLACE_BYTES, SEALED_RECORDS, SEGMENT_HEADER, SKIPS, UNSURE, Ranges, Segment, merged, parse_header, parse_name, read_at, survey, walk)


@pytest.mark.parametrize("name", ["0000000a-00000000000000ff-12345678.idx", "0000000a-00000000000000ff-1234567.seg", "0000000a-00000000000000ff.seg", "0000000g-00000000000000ff-12345678.seg",
                                  "0000000a_00000000000000ff_12345678.seg", "a-00000000000000ff-12345678.seg", "0000000a-00000000000000ff-12345678-0.seg", ".seg", "notes.txt"])
def test_no_other_name_is_taken_for_a_segments(name):
    assert parse_name(name) is None


def test_a_segments_name_is_read_as_it_was_written():
    segment = Segment(10, 255, 0x12345678)
    assert segment.name == "0000000a-00000000000000ff-12345678"
    read = parse_name(segment.name + ".seg")
    assert (read.serial, read.first, read.salt, read.flags, read.end, read.held, read.size) == (10, 255, 0x12345678, 0, 255, 255, 32)


@pytest.mark.parametrize("flags, version", [(0, 1), (CONTINUES | SKIPS | MENDED, 1), (SEALED_RECORDS, 2), (SEALED_RECORDS | SKIPS, 2)])
def test_a_header_has_the_documented_bytes_and_no_bit_of_it_may_differ(flags, version):
    header = Segment(7, 0x1122334455667788, 0xA1B2C3D4, flags).header()
    head = struct.pack("<8sHHIQI", b"TIDELOG\n", version, flags, 0xA1B2C3D4, 0x1122334455667788, 0)
    assert header == head + struct.pack("<I", crc32c(head))
    assert parse_header(header) == parse_header(header + b"records") == (version, 0xA1B2C3D4, 0x1122334455667788, flags)
    for bit in range(8 * len(header)):
        data = bytearray(header)
        data[bit >> 3] ^= 1 << (bit & 7)
        assert parse_header(data) is None
    for size in range(len(header)):
        assert parse_header(header[:size]) is None


def noted(records=3000, size=200):
    """A segment with several places, ranges and holes."""
    segment, at = Segment(3, 100, 0x55667788), SEGMENT_HEADER.size
    for i in range(records):
        segment.note(at, size, 100 + i, 2 + i // 1000, 0, 7, i, 1)
        at += size
    segment.lose(150, 160)
    segment.lose(200, 201)
    return segment


STATE = ("end", "held", "size", "places", "offsets", "ranges", "holes")


def state(segment):
    return [list(v) if isinstance(v := getattr(segment, name), (type(segment.places), Ranges)) else v for name in STATE]


def test_an_index_brings_back_all_that_was_noted():
    segment = noted()
    assert len(segment.places) == 5 and list(segment.ranges) == [(2, 7, 0, 1000), (3, 7, 1000, 2000), (4, 7, 2000, 3000)] and segment.records == 3000 - 11
    again = Segment(3, 100, 0x55667788)
    assert again.load_index(segment.index(), segment.size) and state(again) == state(segment)
    empty = Segment(3, 100, 0x55667788)
    assert empty.load_index(Segment(3, 100, 0x55667788).index(), 32) and state(empty) == state(Segment(3, 100, 0x55667788))


def test_an_index_has_the_documented_bytes():
    segment = Segment(9, 5, 0x11111111)
    segment.note(32, 50, 5, 2, 0, 3, 70, 4)
    segment.lose(1, 2)
    body = struct.pack("<8sIIQQQQII", b"TIDEIDX\n", 0x11111111, 1, 5, 6, 82, 9, 1, 1) + struct.pack("<QQ", 5, 32) + struct.pack("<BHQQ", 2, 3, 70, 74) + struct.pack("<QQ", 1, 2)
    assert segment.index() == body + struct.pack("<I", crc32c(body))


@pytest.mark.parametrize("other", [Segment(4, 100, 0x55667788), Segment(3, 101, 0x55667788), Segment(3, 100, 0x55667789)], ids=["serial", "first", "salt"])
def test_an_index_of_another_segment_is_not_believed(other):
    segment, before = noted(), state(other)
    assert not other.load_index(segment.index(), segment.size) and state(other) == before


def test_an_index_of_more_than_the_file_has_is_not_believed():
    segment, own = noted(), Segment(3, 100, 0x55667788)
    assert not own.load_index(segment.index(), segment.size - 1) and state(own) == state(Segment(3, 100, 0x55667788))
    assert own.load_index(segment.index(), segment.size)


def test_an_index_that_says_too_much_too_little_or_something_else_is_not_believed():
    whole = noted().index()
    blank = state(Segment(3, 100, 0x55667788))
    for change in (lambda b: b"TIDEIDY\n" + b[8:], lambda b: b + bytes(8), lambda b: b[:-8], lambda b: b[:48] + b"\xff" + b[49:], lambda b: b[:50], lambda b: b[:20], lambda b: b""):
        body = change(whole[:-4])
        own = Segment(3, 100, 0x55667788)
        assert not own.load_index(body + struct.pack("<I", crc32c(body)), 1 << 30) and state(own) == blank
    for cut in (0, 3, 4, 55, 56, 59, 60, len(whole) - 1):
        assert not Segment(3, 100, 0x55667788).load_index(whole[:cut], 1 << 30)


def test_records_are_found_from_the_nearest_place_before_them():
    segment = noted()
    assert segment.place(99) == segment.place(100) == (32, 100)
    second = segment.places[1]
    assert segment.offsets[1] - segment.offsets[0] >= PLACE_BYTES > segment.offsets[1] - 200 - segment.offsets[0]
    assert segment.place(second - 1) == (32, 100) and segment.place(second) == segment.place(second + 1) == (segment.offsets[1], second)
    assert Segment(1, 8, 1).place(8) == (32, 8)
    late = Segment(1, 8, 1)
    late.note(500, 50, 11, 2, 0, 1, 0, 1)        # what stood before it is damaged
    assert late.place(11) == late.place(12) == (500, 11) and late.place(10) == (32, 8)


def test_lost_positions_are_counted_once_whatever_overlaps():
    segment = Segment(1, 0, 1)
    told = [segment.lose(*hole) for hole in ((10, 20), (30, 40), (15, 18), (32, 35), (20, 25))]
    assert told == [10, 10, 0, 0, 5] and segment.holes == [(10, 25), (30, 40)], "neighbours are one, and in order"
    told = [segment.lose(*hole) for hole in ((5, 12), (24, 30), (50, 51), (0, 60))]
    assert told == [5, 5, 1, 60 - 36] and segment.holes == [(0, 60)]
    segment.lose(70, 71)
    assert segment.holes == [(0, 60), (70, 71)]


def test_events_are_noted_by_stream_and_kind_and_neighbours_become_one():
    segment = Segment(1, 0, 1)
    for i, (kind, flags, stream, first, count) in enumerate([(2, 0, 1, 0, 5), (2, 0, 2, 0, 1), (2, 0, 1, 5, 5), (7, 0, 1, 10, 1), (2, 0, 1, 10, 1), (2, PREAMBLE, 1, 11, 1), (2, 0, 1, 12, 1), (2, 0, 3, 9, 0)]):
        segment.note(32 + 50 * i, 50, i, kind, flags, stream, first, count)
    assert list(segment.ranges) == [(2, 1, 0, 11), (2, 2, 0, 1), (7, 1, 10, 11), (2, 1, 12, 13)]
    assert (segment.size, segment.held, segment.end) == (32 + 50 * 8, 8, 8)
    segment.note(32 + 50 * 8, 50, 8, 2, 0, 1, 11, 1)
    assert list(segment.ranges)[-2:] == [(2, 1, 12, 13), (2, 1, 11, 12)], "what comes out of order is a range of its own"


def test_ranges_of_many_streams_are_reported_as_one_each():
    """More streams at a time than a segment looks back over."""
    segment = Segment(1, 0, 1)
    for i in range(60):
        segment.note(32 + 50 * i, 50, i, 2, 0, i % 20, 10 * (i // 20), 10)
    assert len(segment.ranges) == 60
    assert merged(segment.ranges) == [[2, stream, 0, 30] for stream in range(20)]
    assert merged([[2, 1, 0, 5], [2, 1, 6, 7], [3, 1, 7, 8], [3, 2, 8, 9]]) == [[2, 1, 0, 5], [2, 1, 6, 7], [3, 1, 7, 8], [3, 2, 8, 9]]
    assert next(iter(segment.ranges)) == (2, 0, 0, 10), "what is noted stays as it is"


@pytest.mark.parametrize("flags, follows", [(0, True), (CONTINUES, True), (MENDED, True), (MENDED | CONTINUES, True), (SEALED_RECORDS, True), (SKIPS, False), (UNSURE, False),
                                           (MENDED | CONTINUES | UNSURE, False), (SKIPS | MENDED, False), (1, True), (4, True), (8, True), (32, True), (2, False), (16, False)])
def test_what_a_segment_follows(flags, follows):
    assert Segment(1, 5, 1, flags).follows_durable is follows and Segment(1, 5, 1, flags).continues is bool(flags & CONTINUES)


# --- reading bytes

def disk_of(data):
    disk = FaultyDisk(lambda number, name: None, {"f": data})
    return disk, disk.open("f")


def test_what_can_be_read_is_read_and_a_bad_sector_comes_as_ones():
    data = bytes(i % 251 for i in range(20_000))
    disk, fd = disk_of(data)
    assert read_at(disk, fd, 20_000, 0) == data and read_at(disk, fd, 100, 19_950) == data[19_950:] and read_at(disk, fd, 0, 5) == b""

    def pread(fd, size, offset):
        if offset < 12_288 and offset + size > 8192:
            raise OSError(errno.EIO, "bad sector")
        return MemoryDisk.pread(disk, fd, size, offset)

    disk.pread = pread
    expected = data[:8192] + b"\xff" * 4096 + data[12_288:]
    for start, size in ((0, 20_000), (8192, 10), (8191, 5000), (100, 8092), (100, 8093), (8600, 300), (8500, 12_000), (12_288, 10)):
        assert read_at(disk, fd, size, start) == expected[start:start + size], (start, size)


def test_only_what_a_bad_sector_does_is_passed_over():
    disk, fd = disk_of(b"x" * 100)
    tries = [InterruptedError(), InterruptedError()]
    disk.pread = lambda fd, size, offset: (_ for _ in ()).throw(tries.pop()) if tries else MemoryDisk.pread(disk, fd, size, offset)
    assert read_at(disk, fd, 100, 0) == b"x" * 100 and not tries
    tries = [OSError(errno.EBADF, "closed")]
    with pytest.raises(OSError, match="closed"):
        read_at(disk, fd, 100, 0)


def test_a_short_read_is_read_on():
    disk, fd = disk_of(bytes(range(250)))
    disk.pread = lambda fd, size, offset: MemoryDisk.pread(disk, fd, min(size, 7), offset)
    assert read_at(disk, fd, 1000, 3) == bytes(range(3, 250))


def records_of(count, size=300):
    return b"".join(encode(77, 10 + i, 2, 0, 1, i, 1, bytes([i % 256]) * size) for i in range(count))


@pytest.mark.parametrize("window", [36, 100, 336, 337, 700, 1000, 1 << 20])
@pytest.mark.parametrize("missing", [0, 10, 400])
def test_a_walk_finds_all_up_to_where_the_file_ends_by_windows_of_any_size(window, missing):
    data = records_of(30)
    disk, fd = disk_of(data[:len(data) - missing])
    scan, found = Scan(77, 0, 10), []
    for _ in walk(disk, fd, scan, len(data), window):
        found += [r.position for r in scan.records]
    assert found == list(range(10, 40 - -(-missing // 336))) and scan.holes == []
    stopped, found = Scan(77, 0, 10), []
    for _ in walk(disk, fd, stopped, 336 * 4 + 5, window):
        found += [r.position for r in stopped.records]
    assert found == [10, 11, 12, 13]


@pytest.mark.parametrize("behind, tail", [(b"", 0), (bytes(300_000), 0), (b"\0" * 300_000 + b"x", 300_001), (b"x" + bytes(300_000), 1), (bytes(10) + b"ab\0c" + bytes(600_000), 14)])
def test_a_survey_tells_what_is_behind_the_last_record(behind, tail):
    data = Segment(1, 10, 77).header() + records_of(5) + behind
    disk, fd = disk_of(data)
    segment = Segment(1, 10, 77)
    assert survey(disk, fd, segment, len(data)) == tail
    assert (segment.held, segment.size, segment.holes, list(segment.ranges)) == (15, 32 + 5 * 336, [], [(2, 1, 0, 5)])
    assert survey(disk, fd, Segment(1, 10, 77), len(data) + 1000) == tail, "the file has become shorter"


def test_a_survey_does_not_look_at_what_was_written_since_it_began():
    data = Segment(1, 10, 77).header() + records_of(5) + bytes(10) + b"since then"
    disk, fd = disk_of(data)
    assert [survey(disk, fd, Segment(1, 10, 77), len(data) - more) for more in (0, 9, 10, 15)] == [20, 11, 0, 0]


def test_a_survey_notes_what_is_damaged():
    data = bytearray(Segment(1, 10, 77).header() + records_of(5))
    data[32 + 336 + 50] ^= 1
    disk, fd = disk_of(bytes(data))
    segment = Segment(1, 10, 77)
    assert survey(disk, fd, segment, len(data)) == 0 and segment.holes == [(11, 12)] and segment.records == 4


def test_a_segment_that_is_read_in_small_parts_gives_each_record_once():
    log = open_log(MemoryDisk(), segment_bytes_max=1 << 20, quota_bytes_max=1 << 24, preamble=None)
    for i in range(300):
        log.append(2, 1, i, 1, bytes([i % 256]) * (i % 90))
    log.sync()
    for size in (1, 50, 400, 1 << 20):
        assert [r.first for r in read_all(log, size)] == list(range(300))
