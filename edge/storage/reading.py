"""Reading a log that another process may be writing. Takes no lock, and changes no byte, name or directory entry.

The rules are those of opening.py: a higher serial wins, a valid index is taken at its word, a torn tail of the last segment is no damage.
What differs is that a writer may be at work meanwhile:
- Files come and go: when one is gone between listing and opening, the directory is listed again. A segment that is removed later (evicted,
  or acknowledged upstream) is passed over and named in `removed`.
- The last segment grows, front to back. What stands before a record that was read is written, so the segment is read up to the last record
  that the first look found, and no further.
"""

from dataclasses import dataclass

from edge.errors import DiskError
from edge.storage._record import FOLLOWS_DURABLE, PREAMBLE, Scan
from edge.storage.opening import UNREADABLE, settle
from edge.storage.segment import MENDED, SEGMENT_HEADER, SKIPS, VERSION, Segment, parse_header, parse_name, read_at, survey, walk

LOOKS_MAX = 50                       # at a directory from which files go while it is looked at
BLANK_LOOKS_MAX = 5                  # at a last segment without a header: it is being made, or was left so by a power cut


@dataclass(frozen=True)
class Damage:
    """Bytes offset..end of a file that should hold positions first..after - 1 and do not; first == after where no record is lost."""

    file: str
    offset: int
    end: int
    first: int
    after: int
    what: str


class LogReader:
    """A log as it was when it was looked at. segments: those that count, in order; damage: what is known of it so far, more comes to light
    by records(); torn: likewise, holes that a power cut left in the last group of records that was written, of which no sync had returned;
    tail_bytes: behind the last record, torn or just being written; mended: positions (first, after) that are lost, as a repair has noted;
    quarantined: files that an earlier start or a repair put aside."""

    def __init__(self, disk, directory, cipher=None):
        """Raises DiskError when there is no log, when a newer version wrote it, or when it cannot be read."""
        self.disk, self.directory, self._cipher = disk, directory, cipher
        try:
            for look in range(LOOKS_MAX):
                names = sorted(disk.listdir(directory))
                try:
                    if self._look(names, patient=look < BLANK_LOOKS_MAX):
                        break
                except FileNotFoundError:
                    continue
            else:
                raise DiskError(f"{directory} changes faster than it can be read: try again")
            self.quarantined = sorted(n for n in disk.listdir(f"{directory}/quarantine") if not n.endswith(".why")) if "quarantine" in names else []
        except OSError as error:
            raise DiskError(f"cannot read {error.filename or directory}: {error.strerror}: check the path and the permissions") from error

    @property
    def head(self) -> int:
        """The position after the last record."""
        return self.segments[-1].end if self.segments else 0

    @property
    def tail(self) -> int:
        """The oldest position held."""
        return self.segments[0].first if self.segments else 0

    @property
    def size_bytes(self) -> int:
        """Bytes of segments, up to the last record of each."""
        return sum(segment.size for segment in self.segments)

    def path(self, segment) -> str:
        """Of a segment's file."""
        return f"{self.directory}/{segment.name}.seg"

    # --- what is there

    def _look(self, names, patient) -> bool:
        """False: the last segment's header is not (yet) there, look again."""
        self.segments, self.damage, self.torn, self.mended, self.removed, self.tail_bytes = [], [], [], [], [], 0
        self._told = {}                  # segment -> its holes as an index or a look at the last segment tells them
        self._growing = None             # the last segment, while it has no index: more may be appended, or cut off
        known = set(names)
        files = [name for name in names if parse_name(name)]
        for name in files:
            try:
                if not self._take(name, known, name == files[-1], patient):
                    return False
            except FileNotFoundError:
                if self.segments or name == files[-1]:
                    raise
                self.removed.append(name.removesuffix(".seg"))       # the oldest go first, so nothing is missing between the others
        void = settle(self.segments)
        self.segments = [s for s in self.segments if s not in void]
        for before, after in zip(self.segments, self.segments[1:]):
            if after.first > before.end and after.flags & MENDED:
                self.mended.append((before.end, after.first))
            elif after.first > before.end and not after.flags & SKIPS:
                self.damage.append(Damage(self.path(before), before.size, before.size, before.end, after.first, "no file has these positions"))
        return True

    def _take(self, name, names, last, patient) -> bool:
        segment = parse_name(name)
        path = f"{self.directory}/{name}"
        try:
            fd = self.disk.open(path)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            self.damage.append(Damage(path, 0, 0, segment.first, segment.first, f"cannot be opened: {error.strerror}"))
            return True
        try:
            size = self.disk.size(fd)
            header = parse_header(read_at(self.disk, fd, SEGMENT_HEADER.size, 0))
            if header is None and last and patient:
                return False
            if header:
                self._obey(segment, header, path)
            indexed = header and f"{name[:-4]}.idx" in names and segment.load_index(self._index(name), size)
            if not indexed:
                segment, tail = self._survey(fd, segment, size)
                if last:
                    self.tail_bytes, self._growing = tail, segment
                if not header and tail and segment.held == segment.first:
                    self.damage.append(Damage(path, 0, size, segment.first, segment.first, "nothing in this file can be recognised"))
        finally:
            self.disk.close(fd)
        if indexed or last:
            self._told[segment] = tuple(segment.holes)
        if header or segment.held > segment.first:
            self.segments.append(segment)
            if not header:
                self.damage.append(Damage(path, 0, SEGMENT_HEADER.size, segment.first, segment.first,
                                          "the header is damaged; the file's name stands in for it"))
        return True

    def _obey(self, segment, header, path):
        version, segment.salt, segment.first, segment.flags = header
        if version > VERSION:
            raise DiskError(f"{path} is of format version {version}, this program reads up to {VERSION}: use the newer version's `tidegate`")
        segment.end = segment.held = segment.first

    def _index(self, name):
        fd = self.disk.open(f"{self.directory}/{name[:-4]}.idx")
        try:
            return read_at(self.disk, fd, self.disk.size(fd), 0)
        finally:
            self.disk.close(fd)

    def _survey(self, fd, segment, size):
        """A hole may be a write that came between two reads, so a segment with holes is read again, up to its last record."""
        tail = survey(self.disk, fd, segment, size)
        if segment.holes:
            stop = segment.size
            segment = Segment(segment.serial, segment.first, segment.salt, segment.flags)
            survey(self.disk, fd, segment, stop)
        return segment, tail

    # --- reading

    def records(self, segment, position=0, payloads=True):
        """A segment's records from a position on, at most a window of them in memory. What cannot be read is added to `damage`."""
        try:
            fd = self.disk.open(self.path(segment))
        except FileNotFoundError:
            self.removed.append(segment.name)
            return
        except OSError as error:
            self._lost(segment, 0, segment.size, segment.first, segment.end, f"cannot be opened: {error.strerror}")
            return
        try:
            offset, expected = segment.place(max(position, segment.first))
            scan = Scan(segment.salt, offset, expected, wanted=position, payloads=payloads)
            sure = 0
            for _ in walk(self.disk, fd, scan, segment.size):
                for record in scan.records:
                    if record.flags & (PREAMBLE | FOLLOWS_DURABLE):
                        sure = record.position
                    if record.position >= segment.end:
                        continue
                    if payloads and not record.opened(self._cipher):
                        self._lost(segment, record.offset, record.end, record.position, record.position + 1, "the payload is not what was encrypted")
                        continue
                    yield record
            for start, end, first, after in scan.holes:
                torn = first >= sure and any(a <= first and after <= b for a, b in self._told.get(segment, ()))
                self._lost(segment, start, end, first, after, "the bytes are not those that were written", self.torn if torn else self.damage)
            if segment is not self._growing:
                self._lost(segment, scan.end, segment.size, scan.expected, segment.held, "the end is damaged or missing")
        except OSError as error:
            raise DiskError(f"cannot read {self.path(segment)}: {error.strerror}: check the disk (dmesg)") from error
        finally:
            self.disk.close(fd)

    def all(self, position=0, payloads=True):
        """Every record from a position on."""
        for segment in self.segments:
            if position < segment.end:
                yield from self.records(segment, position, payloads)

    def ranges(self, segment):
        """[kind, stream, first, end] of a segment's events that count."""
        if segment.end == segment.held:
            return segment.ranges
        rest = Segment(segment.serial, segment.first, segment.salt)
        for r in self.records(segment, payloads=False):
            rest.note(r.offset, r.end - r.offset, r.position, r.kind, r.flags, r.stream, r.first, r.count)
        return rest.ranges

    def _lost(self, segment, offset, end, first, after, what, into=None):
        """Positions that a later segment has made void are no loss."""
        into = self.damage if into is None else into
        after = min(after, segment.end)
        damage = Damage(self.path(segment), offset, end, first, after, what)
        if first < after and damage not in into:
            into.append(damage)
