"""A segment: one file of a log. Its name, header, index file, and how it is read. docs/format/log.md is the normative draw.

    name      SERIAL-FIRST-SALT.seg          hexadecimal, 8 + 16 + 8 digits: the header again, should its sector go bad
    header    | "TIDELOG\\n" | version | flags | salt | first position | reserved | crc32c |       32 bytes
                8            2         2       4      8                4          4
    records   back to back (_record.pyx), then zeros or nothing
    index     SERIAL-FIRST-SALT.idx          where records are, and what eviction must report; disposable

Invariants:
- A file is written only by the process that made it, front to back; recovery changes no byte of it.
- A higher serial wins: positions from a segment's `first` on that stand in a segment of a lower serial are void. This is how a log is
  cut back, and how records of a file whose sync failed are written again: one new file, no in-place change. (Of one serial are only the parts
  of a segment that was mended: the one with the higher `first` wins.)
- An index is written after its segment was synced for the last time, so a valid one says what the file durably holds.
"""

import errno
import struct
from array import array
from bisect import bisect_right

from edge.storage._crc32c import crc32c
from edge.storage._record import PREAMBLE, Scan, is_blank

MAGIC = b"TIDELOG\n"
VERSION = 2                          # 2: with SEALED; a segment without it is written as version 1
CONTINUES = 1                        # header flag: goes on with the preamble of the segment before, and is dropped together with it
SKIPS = 2                            # header flag: positions before `first` that no segment has were passed over, not lost
MENDED = 4                           # header flag: they are lost, and a repair has put aside what was left of them
SEALED_RECORDS = 8                   # header flag: it may hold sealed records
UNSURE = 16                          # header flag: a repair made it, and it does not say that all before it was durable
TORN = 32                            # header flag: what is missing of the last group before it was torn by a power cut, and never durable
SEGMENT_HEADER = struct.Struct("<8sHHIQII")
INDEX_MAGIC = b"TIDEIDX\n"
INDEX_HEADER = struct.Struct("<8sIIQQQQII")
RANGE = struct.Struct("<BHQQ")
RECENT = 16
PLACE_BYTES = 128 << 10              # an index entry each so many bytes
WINDOW_BYTES = 256 << 10
SECTOR_BYTES = 4096


class Ranges:
    """(kind, stream, first, end) of a segment's events in their order, neighbours merged. Packed, but for the last RECENT that may grow: of dead letters each has its own."""

    __slots__ = ("_packed", "_recent")

    def __init__(self, packed=b""):
        self._packed, self._recent = bytearray(packed), []

    def note(self, kind, stream, first, end):
        for known in reversed(self._recent):
            if known[1] == stream and known[0] == kind:
                if known[3] == first:
                    known[3] = end
                    return
                break
        self._recent.append([kind, stream, first, end])
        if len(self._recent) > RECENT:
            self._packed += RANGE.pack(*self._recent.pop(0))

    def __len__(self):
        return len(self._packed) // RANGE.size + len(self._recent)

    def __iter__(self):
        yield from RANGE.iter_unpack(self._packed)
        yield from map(tuple, self._recent)


class Segment:
    """What is known of a segment. `first <= position < end` are its positions that count; `size` its bytes up to the last good record."""

    __slots__ = ("serial", "first", "salt", "flags", "end", "size", "held", "places", "offsets", "ranges", "holes")

    def __init__(self, serial, first, salt, flags=0):
        self.serial, self.first, self.salt, self.flags = serial, first, salt, flags
        self.end = first             # may be lower than `held` when a later segment voids the rest
        self.held = first            # position behind the last record in the file
        self.size = SEGMENT_HEADER.size
        self.places = array("Q")     # positions, one each PLACE_BYTES
        self.offsets = array("Q")    # and their offsets
        self.ranges = Ranges()       # what eviction reports
        self.holes = []              # (first position lost, position after), apart and in order

    @property
    def name(self) -> str:
        return f"{self.serial:08x}-{self.first:016x}-{self.salt:08x}"

    @property
    def continues(self) -> bool:
        return bool(self.flags & CONTINUES)

    @property
    def follows_durable(self) -> bool:
        """Whether all that stood before it was durable when it was made: not where an opening skipped what was torn, nor of what a repair put there anew."""
        return not self.flags & (SKIPS | UNSURE)

    @property
    def records(self) -> int:
        return self.held - self.first - sum(b - a for a, b in self.holes)

    def header(self) -> bytes:
        head = SEGMENT_HEADER.pack(MAGIC, 2 if self.flags & SEALED_RECORDS else 1, self.flags, self.salt, self.first, 0, 0)[:-4]
        return head + struct.pack("<I", crc32c(head))

    def lose(self, first, after) -> int:
        """Positions first .. after - 1 cannot be read. Returns how many of them were not known to be lost."""
        before = sum(b - a for a, b in self.holes)
        merged = []
        for a, b in sorted((*self.holes, (first, after))):
            if merged and a <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
            else:
                merged.append((a, b))
        self.holes = merged
        return sum(b - a for a, b in merged) - before

    def note(self, offset, size, position, kind, flags, stream, first, count):
        """A record stands at `offset`."""
        if not self.offsets or offset - self.offsets[-1] >= PLACE_BYTES:
            self.places.append(position)
            self.offsets.append(offset)
        self.size = offset + size
        self.held = self.end = position + 1
        if count and not flags & PREAMBLE:
            self.ranges.note(kind, stream, first, first + count)

    def place(self, position) -> tuple[int, int]:
        """(offset, position) of an indexed record at or before a position."""
        i = bisect_right(self.places, position) - 1
        return (self.offsets[i], self.places[i]) if i >= 0 else (SEGMENT_HEADER.size, self.first)

    def index(self) -> bytes:
        """The index file's bytes."""
        n = len(self.places)
        body = b"".join((struct.pack(f"<{2 * n}Q", *self.places, *self.offsets), *(RANGE.pack(*r) for r in self.ranges),
                         *(struct.pack("<QQ", *h) for h in self.holes)))
        head = INDEX_HEADER.pack(INDEX_MAGIC, self.salt, len(self.holes), self.first, self.held, self.size, self.serial, n, len(self.ranges))
        return head + body + struct.pack("<I", crc32c(body, crc32c(head)))

    def load_index(self, data, file_size) -> bool:
        """Take over what an index file says; False, and nothing changed, when it is damaged or of another segment."""
        if len(data) < INDEX_HEADER.size + 4 or crc32c(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
            return False
        magic, salt, n_holes, first, held, size, serial, n_places, n_ranges = INDEX_HEADER.unpack_from(data)
        if (magic, salt, first, serial) != (INDEX_MAGIC, self.salt, self.first, self.serial) or size > file_size:
            return False
        at = INDEX_HEADER.size
        if len(data) != at + 16 * n_places + RANGE.size * n_ranges + 16 * n_holes + 4:
            return False
        numbers = struct.unpack_from(f"<{2 * n_places}Q", data, at)
        self.places, self.offsets = array("Q", numbers[:n_places]), array("Q", numbers[n_places:])
        at += 16 * n_places
        self.ranges = Ranges(data[at:at + RANGE.size * n_ranges])
        at += RANGE.size * n_ranges
        self.holes = [struct.unpack_from("<QQ", data, at + 16 * i) for i in range(n_holes)]
        self.held = self.end = held
        self.size = size
        return True


def parse_name(name) -> Segment | None:
    """The segment that a file name tells of, or None."""
    parts = name[:-4].split("-")
    if not name.endswith(".seg") or [len(p) for p in parts] != [8, 16, 8]:
        return None
    try:
        return Segment(*(int(p, 16) for p in parts))
    except ValueError:
        return None


def parse_header(data) -> tuple[int, int, int, int] | None:
    """(version, salt, first, flags) of a segment header; None when it is damaged. In every version magic, version and CRC stand here."""
    if len(data) < SEGMENT_HEADER.size or not data.startswith(MAGIC):
        return None
    _, version, flags, salt, first, _, crc = SEGMENT_HEADER.unpack_from(data)
    if crc32c(data[:SEGMENT_HEADER.size - 4]) != crc:
        return None
    return version, salt, first, flags


def read_at(disk, fd, size, offset) -> bytes:
    """Up to `size` bytes; sectors that the disk cannot read come as ones, so a bad sector costs the records in it and no more."""
    parts = []
    while size:
        try:
            data = disk.pread(fd, size, offset)
        except InterruptedError:
            continue
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            part = min(SECTOR_BYTES - offset % SECTOR_BYTES, size)
            try:
                data = disk.pread(fd, part, offset)
            except OSError:
                data = b"\xff" * part
        if not data:
            break
        parts.append(data)
        size -= len(data)
        offset += len(data)
    return b"".join(parts)


def walk(disk, fd, scan, stop, window_bytes=WINDOW_BYTES):
    """Feed a Scan from a file up to offset `stop`, yielding after each window with what was found in scan.records. window_bytes: HEADER_BYTES at least."""
    while scan.offset < stop:
        size = min(max(window_bytes, scan.needed), stop - scan.offset)
        window = read_at(disk, fd, size, scan.offset)
        left = stop - scan.offset
        if len(window) < size:
            stop = scan.offset + len(window)
            left = len(window)
        scan.feed(window, left)
        yield scan
        scan.records.clear()


def survey(disk, fd, segment, file_size) -> int:
    """Read a whole segment and note its records and holes. Returns the bytes behind the last good record that are not blank."""
    scan = Scan(segment.salt, SEGMENT_HEADER.size, segment.first, payloads=False)
    for _ in walk(disk, fd, scan, file_size):
        for r in scan.records:
            segment.note(r.offset, r.end - r.offset, r.position, r.kind, r.flags, r.stream, r.first, r.count)
    segment.holes = [(first, after) for _, _, first, after in scan.holes]
    tail, offset = 0, scan.end
    while offset < file_size:
        data = read_at(disk, fd, min(WINDOW_BYTES, file_size - offset), offset)
        if not data:
            break
        if not is_blank(data):
            tail = offset + len(data.rstrip(b"\0")) - scan.end
        offset += len(data)
    return tail


def merged(ranges) -> list:
    """[kind, stream, first, end] in order, neighbours joined."""
    joined = []
    for kind, stream, first, end in sorted(ranges):
        if joined and joined[-1][:2] == [kind, stream] and joined[-1][3] == first:
            joined[-1][3] = end
        else:
            joined.append([kind, stream, first, end])
    return joined
