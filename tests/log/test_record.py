import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import DiskError
from edge.storage._crc32c import by_instruction, crc32c, crc32c_by_table
from edge.storage._record import PAYLOAD_BYTES_MAX, SEALED, Scan, decode, encode, fields, is_blank, position_of

READ_PDU = bytes.fromhex("01c00000000000000000000000000000140000000000040000000014000000182800000000000000" "0200000000000000")
RFC3720_B4 = [(bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E), (bytes(range(31, -1, -1)), 0x113FDB5C),
              (READ_PDU, 0xD9963A56), (b"123456789", 0xE3069283), (b"", 0)]


@pytest.mark.parametrize("crc", [crc32c, crc32c_by_table])
@pytest.mark.parametrize("data, expected", RFC3720_B4)
def test_crc32c_gives_the_published_values(crc, data, expected):
    assert crc(data) == expected


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_crc32c_of_parts_is_that_of_the_whole(a, b, seed):
    assert crc32c(b, crc32c(a, seed)) == crc32c(a + b, seed) == crc32c_by_table(a + b, seed)


def test_crc32c_by_instruction_is_that_by_table_at_every_size_and_alignment():
    data = os.urandom(3 * 1360 * 3 + 70)
    assert by_instruction() in (True, False)
    for size in [*range(0, 70), *range(3 * 1360 - 20, 3 * 1360 + 20), *range(2 * 3 * 1360 - 9, 2 * 3 * 1360 + 9)]:
        for offset in range(8):
            piece = memoryview(data)[offset:offset + size]
            assert crc32c(piece) == crc32c_by_table(piece), (size, offset)


RECORDS = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=80)),
                   max_size=8)


def encoded(rows, salt, position=5):
    return [encode(salt, position + i, kind, 0, stream, first, count, payload) for i, (kind, stream, first, count, payload) in enumerate(rows)]


@given(RECORDS, st.integers(1, 2**32 - 1))
def test_a_record_has_the_documented_bytes(rows, salt):
    for i, (record, (kind, stream, first, count, payload)) in enumerate(zip(encoded(rows, salt), rows)):
        marker, crc, *fields = struct.unpack("<IIIQQIHBB", record[:36])
        assert (marker, crc) == (salt, crc32c(record[8:], salt))
        assert fields == [len(payload), 5 + i, first, count, stream, kind, 0] and record[36:] == payload
        r = decode(record)
        assert (r.position, r.kind, r.stream, r.first, r.count, r.payload) == (5 + i, kind, stream, first, count, payload)


@given(RECORDS, st.integers(1, 2**32 - 1), st.integers(1, 200), st.binary(max_size=100))
def test_a_scan_finds_the_same_whole_in_windows_and_with_trailing_data(rows, salt, window, trailing):
    data = b"".join(encoded(rows, salt))
    file = data + trailing
    scan = Scan(salt, 0, 5)
    while scan.offset < len(file):
        before = scan.offset
        size = max(window, scan.needed, 36)
        scan.feed(file[before:before + size], len(file) - before)
        if scan.offset == before and not scan.needed:
            break
    assert [(r.kind, r.stream, r.first, r.count, r.payload) for r in scan.records] == rows
    assert scan.end == len(data) and scan.holes == []


@given(st.binary(max_size=500), st.integers(1, 2**32 - 1))
def test_any_bytes_can_be_scanned(data, salt):
    scan = Scan(salt, 0, 0)
    scan.feed(data, len(data))
    assert scan.records == []
    scan = Scan(struct.unpack("<I", (data + bytes(4))[:4])[0], 0, 0)
    scan.feed(data, len(data))


def test_a_record_inside_a_payload_is_not_taken_for_one():
    """Not one with a guessed salt; and not one of another segment. Even if what holds it is damaged."""
    inner = b"".join(encode(salt, 1, 2, 0, 3, 4, 5, b"forged") for salt in range(1, 2000))
    data = bytearray(encode(0xABCDEF12, 0, 1, 0, 0, 0, 0, inner) + encode(0xABCDEF12, 1, 1, 0, 0, 0, 0, b"next"))
    data[20] ^= 1
    scan = Scan(0xABCDEF12, 0, 0)
    scan.feed(data, len(data))
    assert [r.payload for r in scan.records] == [b"next"]
    assert [(a, b) for _, _, a, b in scan.holes] == [(0, 1)]


def test_the_fields_of_a_record_are_read_without_its_payload():
    record = encode(9, 7, 2, 1, 3, 1 << 60, 50, b"payload")
    assert fields(record) == (36 + 7, 7, 2, 1, 3, 1 << 60, 50) and position_of(record) == 7
    r = decode(record)
    assert (r.offset, r.end, r.flags) == (0, 43, 1) and repr(r) == f"Record(7, kind 2, stream 3, first {1 << 60}, count 50, at 0)"
    scan = Scan(9, 0, 7, payloads=False)
    scan.feed(record, len(record))
    assert scan.records[0].payload is None


def test_a_payload_larger_than_a_reader_takes_is_not_made():
    with pytest.raises(AssertionError, match="at most 64 MiB"):
        encode(1, 0, 1, 0, 0, 0, 0, memoryview(bytes(PAYLOAD_BYTES_MAX + 1)))


def test_a_sealed_payload_is_opened_once_and_only_with_a_key():
    class Cipher:
        shown = []

        def show(self, record):
            self.shown.append(record.payload)
            return b"plain" if record.payload == b"sealed" else None

    cipher, good, bad, plain = Cipher(), *(decode(encode(1, 0, 1, flags, 0, 0, 0, data)) for flags, data in ((SEALED | 1, b"sealed"), (SEALED, b"rotten"), (0, b"open")))
    assert plain.opened(None) and plain.payload == b"open"
    with pytest.raises(DiskError, match="records are encrypted: name the configuration"):
        good.opened(None)
    assert good.opened(cipher) and good.opened(cipher) and good.opened(None) and good.payload == b"plain" and good.flags == 1
    assert not bad.opened(cipher) and bad.payload is None
    assert cipher.shown == [b"sealed", b"rotten"]


def test_records_before_the_wanted_position_are_passed_over_and_no_hole():
    data = b"".join(encoded([(2, 1, i, 1, b"x" * i) for i in range(6)], 77))
    scan = Scan(77, 0, 5, wanted=8)
    scan.feed(data, len(data))
    assert [r.position for r in scan.records] == [8, 9, 10] and scan.holes == [] and scan.expected == 11 and scan.end == len(data)


def test_a_position_that_does_not_go_up_is_no_record():
    again = encode(77, 5, 2, 0, 1, 0, 1, b"again")
    data = encode(77, 5, 2, 0, 1, 0, 1, b"first") + again + encode(77, 6, 2, 0, 1, 0, 1, b"next")
    scan = Scan(77, 0, 5)
    scan.feed(data, len(data))
    assert [r.payload for r in scan.records] == [b"first", b"next"] and scan.holes == [(41, 41 + len(again), 6, 6)]


def test_bytes_are_blank_when_all_are_zero():
    assert is_blank(b"") and is_blank(bytes(1000))
    assert not any(is_blank(bytes(at) + b"\1" + bytes(999 - at)) for at in (0, 1, 500, 999))


def test_an_empty_window_says_nothing():
    scan = Scan(77, 3, 5)
    scan.feed(b"", 0)
    assert (scan.offset, scan.end, scan.expected, scan.records, scan.holes, scan.needed) == (3, 3, 5, [], [], 0)


def test_positions_that_are_passed_over_between_two_records_are_a_hole_also_where_no_byte_is():
    data = encode(77, 5, 2, 0, 1, 0, 1, b"first") + encode(77, 9, 2, 0, 1, 0, 1, b"next")
    scan = Scan(77, 0, 5)
    scan.feed(data, len(data))
    assert [r.position for r in scan.records] == [5, 9] and scan.holes == [(41, 41, 6, 9)]
