"""What each kind of damage costs: at most the records that were hit, and never the start."""

import struct

import pytest
from log_oracle import DIRECTORY, open_log, read_all
from memory_disk import MemoryDisk

from edge.errors import DiskError
from edge.storage._crc32c import crc32c
from edge.storage.segment import SEGMENT_HEADER

PAYLOADS = [b"payload %d " % i * 5 for i in range(9)]          # three records a segment, positions 0..8 without preamble
LARGE = {"segment_bytes_max": 1 << 16, "quota_bytes_max": 1 << 20, "preamble": None}


def files(segments=3, clean=True):
    """path -> bytes of a log of nine records, in so many segments. clean: with indexes."""
    disk = MemoryDisk()
    log = open_log(disk, **LARGE)
    for i, payload in enumerate(PAYLOADS):
        if i and i % (9 // segments) == 0:
            log.roll()
        log.append(2, 3, i, 1, payload)
    log.close()
    return {path: bytes(node.data) for path, node in sorted(disk.files.items()) if clean or path.endswith(".seg")}


def survivors(files):
    """(payload numbers that are read, the log)"""
    log = open_log(MemoryDisk(files), **LARGE)
    found = read_all(log)
    for r in found:
        assert r.payload == PAYLOADS[r.position]
    assert log.append(2, 3, 9, 1, b"goes on") >= max((r.position + 1 for r in found), default=0)
    log.sync()
    assert read_all(log)[-1].payload == b"goes on"
    return [r.position for r in found], log


def starts(segment):
    """Offsets of the records."""
    at, offsets = SEGMENT_HEADER.size, []
    while at < len(segment):
        offsets.append(at)
        at += 36 + struct.unpack_from("<I", segment, at + 8)[0]
    return offsets


def edit(change, segment=1):
    def apply(data):
        path = [p for p in data if p.endswith(".seg")][segment]
        data[path] = bytes(change(bytearray(data[path])))
    return apply


def put(offset, value, record=None):
    def change(data):
        at = offset if record is None else starts(data)[record] + offset
        data[at:at + len(value)] = value
        return data
    return change


def without_index(data):
    for path in [p for p in data if p.endswith(".idx")]:
        del data[path]


def flip_index(data):
    path = [p for p in data if p.endswith(".idx")][1]
    data[path] = data[path][:40] + bytes([data[path][40] ^ 4]) + data[path][41:]


def swap_index(data):
    a, b = [p for p in data if p.endswith(".idx")][:2]
    data[a], data[b] = data[b], data[a]


def remove(kind, segment):
    def apply(data):
        del data[[p for p in data if p.endswith(kind)][segment]]
    return apply


def stray_files(data):
    data[f"{DIRECTORY}/notes.txt"] = b"mine"
    data[f"{DIRECTORY}/00000009-zzzz.seg"] = b"mine too"


ALL = list(range(9))
NAMED = {                            # name: (damage, survivors, damaged records)
    "nothing": (lambda data: None, ALL, 0),
    "no index": (without_index, ALL, 0),
    "bit flip in an index": (flip_index, ALL, 0),
    "indexes of one another": (swap_index, ALL, 0),
    "marker gone": (edit(put(0, b"\0\0\0\0", 1)), [0, 1, 2, 3, 5, 6, 7, 8], 1),
    "wrong crc": (edit(put(4, b"\1\2\3\4", 1)), [0, 1, 2, 3, 5, 6, 7, 8], 1),
    "length too small": (edit(put(8, b"\1\0\0\0", 1)), [0, 1, 2, 3, 5, 6, 7, 8], 1),
    "length larger than the file": (edit(put(8, b"\xff\xff\xff\x7f", 1)), [0, 1, 2, 3, 5, 6, 7, 8], 1),
    "length into the next record": (edit(put(8, b"\x60\0\0\0", 1)), [0, 1, 2, 3, 5, 6, 7, 8], 1),
    "other position": (edit(put(12, b"\x63", 1)), [0, 1, 2, 3, 5, 6, 7, 8], 1),
    "payload rotten": (edit(put(50, b"\0\0", 1)), [0, 1, 2, 3, 5, 6, 7, 8], 1),
    "first record of a segment rotten": (edit(put(50, b"\0\0", 0)), [0, 1, 2, 4, 5, 6, 7, 8], 1),
    "last record of a sealed segment rotten": (edit(put(50, b"\0\0", 2)), [0, 1, 2, 3, 4, 6, 7, 8], 1),
    "two neighbours rotten": (edit(lambda d: put(50, b"\0\0", 1)(put(50, b"\0", 0)(d))), [0, 1, 2, 5, 6, 7, 8], 2),
    "sealed segment cut short": (edit(lambda d: d[:-60]), [0, 1, 2, 3, 4, 6, 7, 8], 1),
    "sealed segment emptied": (edit(lambda d: b""), [0, 1, 2, 6, 7, 8], 3),
    "sealed segment blank": (edit(lambda d: bytes(len(d))), [0, 1, 2, 6, 7, 8], 3),
    "sealed segment is noise": (edit(lambda d: bytes(7 * i % 251 for i in range(len(d)))), [0, 1, 2, 6, 7, 8], 3),
    "sealed segment missing": (remove(".seg", 1), [0, 1, 2, 6, 7, 8], 3),
    "header gone": (edit(put(0, bytes(32))), ALL, 0),
    "header of noise": (edit(put(0, bytes(range(100, 132)))), ALL, 0),
    "header's salt flipped": (edit(put(12, b"\1")), ALL, 0),
    "header and a record gone": (edit(lambda d: put(50, b"\0\0", 1)(put(0, bytes(32))(d))), [0, 1, 2, 3, 5, 6, 7, 8], 1),
    "torn tail": (edit(lambda d: d[:-10], 2), [0, 1, 2, 3, 4, 5, 6, 7], 0),
    "tail of zeros": (edit(lambda d: d + bytes(5000), 2), ALL, 0),
    "tail of noise": (edit(lambda d: d + bytes(range(256)), 2), ALL, 0),
    "last segment emptied": (edit(lambda d: b"", 2), [0, 1, 2, 3, 4, 5], 0),
    "oldest segment missing": (remove(".seg", 0), [3, 4, 5, 6, 7, 8], 0),
    "other files in the directory": (stray_files, ALL, 0),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("clean", [True, False], ids=["indexed", "scanned"])
def test_damage_costs_what_was_hit_and_is_counted(name, clean):
    damage, expected, damaged = NAMED[name]
    data = files(clean=clean)
    if not clean and "index" in name:
        pytest.skip("there is none")
    damage(data)
    found, log = survivors(data)
    assert found == expected
    assert log.recovery.damaged == damaged == log.damaged_since(0)
    lost = {p for a, b in log.recovery.lost for p in range(a, b)}
    assert len(lost) == damaged and not lost & set(found)


@pytest.mark.parametrize("name", NAMED)
def test_nothing_unrecognised_is_deleted(name):
    data = files()
    NAMED[name][0](data)
    _, log = survivors(data)
    for path, content in data.items():
        if path.endswith(".seg") and bytes(content).strip(b"\0"):
            kept = log.disk.files.get(path) or log.disk.files.get(path.replace(DIRECTORY, f"{DIRECTORY}/quarantine"))
            assert kept and bytes(kept.data) == content, "recovery changed or removed a file"
    assert log.recovery.quarantined == ([] if name != "sealed segment is noise" else [[p for p in data if ".seg" in p][1].rpartition("/")[2]])


def test_a_torn_tail_at_every_byte_loses_only_the_torn_record():
    data = files(1, clean=False)
    (path, whole), = data.items()
    offsets = [*starts(whole), len(whole)]
    for cut in range(len(whole) + 1):
        found, log = survivors({path: whole[:cut]})
        assert found == list(range(sum(o <= cut for o in offsets[1:]))), cut
        assert log.recovery.damaged == 0
        for fill in (b"\0", b"\xff"):
            assert survivors({path: whole[:cut] + fill * 50})[0] == found, cut


def test_any_single_bit_flip_costs_at_most_the_record_that_it_hits():
    data = files(1, clean=False)
    (path, whole), = data.items()
    offsets = starts(whole)
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        log = open_log(MemoryDisk({path: bytes(flipped)}), **LARGE)
        hit = sum(o <= bit // 8 for o in offsets) - 1
        assert [r.payload for r in read_all(log)] == [p for i, p in enumerate(PAYLOADS) if i != hit], bit
        assert log.recovery.damaged == (0 <= hit < 8) and bool(log.recovery.trimmed_bytes) == (hit == 8)


def test_positions_are_not_given_twice_after_a_rotten_tail():
    data = files(1, clean=False)
    (path, whole), = data.items()
    for _ in range(2):               # as long as nothing is appended every start comes to the same
        log = open_log(MemoryDisk({path: whole[:-1] + b"?"}), **LARGE)
        assert log.head >= 9 and log.recovery.records == 8
        log.close()
        data = {p: bytes(n.data) for p, n in log.disk.files.items()}
    head = log.head
    log = open_log(MemoryDisk(data), **LARGE)
    assert log.head == head
    log.append(2, 3, 9, 1, b"new")
    log.close()
    log = open_log(MemoryDisk({p: bytes(n.data) for p, n in log.disk.files.items()}), **LARGE)
    assert log.recovery.damaged == 0 and read_all(log)[-1].position == head


def test_a_directory_of_a_newer_version_is_refused_untouched():
    data = files()
    path = [p for p in data if p.endswith(".seg")][1]
    head = bytearray(data[path][:28])
    head[8:10] = b"\3\0"
    data[path] = bytes(head) + struct.pack("<I", crc32c(head)) + data[path][32:]
    disk = MemoryDisk(data)
    with pytest.raises(DiskError, match=r"format version 3, this program reads up to 2.*install"):
        open_log(disk, **LARGE)
    assert {p: bytes(n.data) for p, n in disk.files.items()} == data
    assert not {name for name, _ in disk.trace} & {"create", "pwrite", "unlink", "rename", "truncate"}
    assert not disk.locked, "the next program can open it"


def test_damage_in_a_sealed_segment_is_found_on_reading():
    data = files()
    edit(put(50, b"\0\0", 1))(data)
    log = open_log(MemoryDisk(data), **LARGE)
    assert log.recovery.damaged == 0, "the index was believed: nothing was read yet"
    assert [r.position for r in read_all(log, 1)] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert log.recovery.lost == [(4, 5)]
    read_all(log)
    assert log.recovery.damaged == 1, "counted once"
    assert log.damaged_since(5) == 0
