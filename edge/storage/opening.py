"""Opening a log's directory: what is there, what of it counts, and what was damaged. It changes no byte of a segment.

1. Refuse what a newer version wrote, before anything is touched.
2. A segment with a valid index is taken at its word; any other is read whole, and each record's CRC checked.
3. A segment in which nothing can be recognised moves to quarantine/, a blank one is removed.
4. Make sure of what was read (sync files, then the directory): a process may have died before its sync.
5. Only then remove what a later segment has made void, and write the indexes that were missing.
"""

import errno

from edge.errors import DiskError
from edge.storage._record import HEADER_BYTES
from edge.storage.segment import SEGMENT_HEADER, SKIPS, VERSION, parse_header, parse_name, read_at, survey

UNREADABLE = (errno.EIO, errno.EUCLEAN)
RECORDS_MAX = 1 << 20                # more than a segment holds


class Recovery:
    """What opening found.

    records: held; trimmed_bytes: torn tails; damaged: records that cannot be read any more, with `lost`, their ranges of
    positions (first, after); quarantined: files that hold nothing recognisable; unopened: files that the disk does not open; warnings: what could not be
    put right, in words.
    """

    def __init__(self):
        self.records = self.trimmed_bytes = self.damaged = 0
        self.lost, self.quarantined, self.unopened, self.warnings = [], [], [], []

    def lacks_before(self, position) -> bool:
        """Whether records before a position may be there no more that the log had, and did not let go."""
        files = [parse_name(name).first for name in (*self.quarantined, *self.unopened)]
        return any(first < position for first in (*files, *(first for first, _ in self.lost)))


class Opening:
    """segments: those that count, in order; shown: the position after the last; head: the position after all that can have been given
    out, also in what cannot be read; unsure: of the segments, those whose sync failed."""

    def __init__(self, disk, directory):
        self.disk, self.directory = disk, directory
        self.recovery = Recovery()
        self.segments, self.unsure = [], []
        self.head = self.shown = self.serial = 0
        self._tail = (None, 0)           # a segment and the bytes behind its last good record that are not blank
        names = sorted(disk.listdir(directory))
        headers = {name: self._header(name) for name in names if parse_name(name)}
        fresh, void = [], []
        for name, header in headers.items():
            self._take(name, header, set(names), fresh)
        void += settle(self.segments)
        self.segments = [s for s in self.segments if s not in void]
        for segment in fresh:
            self._make_sure(segment)
        if fresh or self.recovery.quarantined:
            self._attempt("sync the directory", disk.fsync_directory, directory)
        for segment in void:
            self._attempt(f"remove {segment.name}.seg, which is void", disk.unlink, f"{directory}/{segment.name}.seg")
        for segment in fresh:
            if segment in self.segments and segment not in self.unsure:
                write_index(disk, directory, segment)
        kept = {f"{s.name}.idx" for s in self.segments}
        for name in names:
            if name.endswith(".idx") and name not in kept:
                self._attempt(f"remove {name}", disk.unlink, f"{directory}/{name}")
        self._sum_up()

    def _header(self, name):
        path = f"{self.directory}/{name}"
        try:
            header = parse_header(self._read(name, SEGMENT_HEADER.size))
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            header = None
        if header and header[0] > VERSION:
            raise DiskError(f"{path} is of format version {header[0]}, this program reads up to {VERSION}: install the newer version again, or move the directory away")
        return header

    def _take(self, name, header, names, fresh):
        segment = parse_name(name)
        self.serial = max(self.serial, segment.serial)
        if header:
            _, segment.salt, segment.first, segment.flags = header
            segment.end = segment.held = segment.first
        try:
            fd = self.disk.open(f"{self.directory}/{name}")
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            self.recovery.warnings.append(f"{self.directory}/{name}: cannot be opened ({error.strerror}); left where it is")
            self.recovery.unopened.append(name)
            self.head = max(self.head, segment.first + RECORDS_MAX)
            return
        try:
            size = self.disk.size(fd)
            index = f"{name[:-4]}.idx"
            if header and index in names and segment.load_index(self._index(index), size):
                self.segments.append(segment)
                return
            tail = survey(self.disk, fd, segment, size)
        finally:
            self.disk.close(fd)
        if header or segment.held > segment.first:
            self.recovery.trimmed_bytes += tail
            self._tail = (segment, tail)
            self.segments.append(segment)
            fresh.append(segment)
            return
        self.head = max(self.head, segment.first)
        if tail:
            self._quarantine(name)
        else:
            self._attempt(f"remove {name}, which is blank", self.disk.unlink, f"{self.directory}/{name}")

    def _index(self, name) -> bytes:
        try:
            return self._read(name)
        except OSError:
            return b""                   # disposable: as good as damaged

    def _read(self, name, size=None) -> bytes:
        fd = self.disk.open(f"{self.directory}/{name}")
        try:
            return read_at(self.disk, fd, self.disk.size(fd) if size is None else size, 0)
        finally:
            self.disk.close(fd)

    def _quarantine(self, name):
        def move():
            self.disk.mkdir(f"{self.directory}/quarantine")
            self.disk.rename(f"{self.directory}/{name}", f"{self.directory}/quarantine/{name}")

        self._attempt(f"move {name} to quarantine", move)
        self.recovery.quarantined.append(name)

    def _make_sure(self, segment):
        try:
            fd = self.disk.open(f"{self.directory}/{segment.name}.seg")
            try:
                self.disk.fdatasync(fd)
            finally:
                self.disk.close(fd)
        except OSError as error:
            self.recovery.warnings.append(f"{self.directory}/{segment.name}.seg: could not sync what was found ({error.strerror}); it will be written again")
            if segment in self.segments:
                self.unsure.append(segment)

    def _attempt(self, what, call, *arguments):
        try:
            call(*arguments)
        except OSError as error:
            self.recovery.warnings.append(f"{self.directory}: could not {what} ({error.strerror})")

    def _sum_up(self):
        expected = None
        for segment in self.segments:
            if expected is not None and segment.first > expected and not segment.flags & SKIPS:
                self.recovery.lost.append((expected, segment.first))
            self.recovery.lost += [(a, min(b, segment.end)) for a, b in segment.holes if a < segment.end]
            expected = segment.end
            self.shown = segment.end
            self.recovery.records += segment.records
        segment, tail = self._tail
        torn = tail // HEADER_BYTES + 1 if tail and segment is self.segments[-1] else 0
        self.head = max(self.head, self.shown + torn)    # what looks torn may be rotten, and have been durable
        self.recovery.damaged = sum(b - a for a, b in self.recovery.lost)


def settle(segments) -> list:
    """A higher serial wins: sets each segment's `end`, and returns those of which nothing counts. segments: in order of serial."""
    void, limit = [], 1 << 64
    for segment in reversed(segments):
        segment.end = min(segment.held, limit)
        if segment.end <= segment.first and limit <= segment.first:
            void.append(segment)
        limit = min(limit, segment.first)
    return void


def write_index(disk, directory, segment):
    """Write a segment's index file. Errors are passed over: it is disposable."""
    path = f"{directory}/{segment.name}.idx"
    try:
        try:
            fd = disk.create(path)
        except FileExistsError:
            disk.unlink(path)
            fd = disk.create(path)
        try:
            disk.pwrite(fd, segment.index(), 0)
        finally:
            disk.close(fd)
    except OSError:
        pass
