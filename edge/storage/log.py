"""A log: records in segments, appended with group commit, read by position, bounded by a quota. It survives power cuts, bad sectors,
full disks and failing syncs; docs/format/log.md draws the bytes, segment.py holds the file format and its invariants.

    append -> RAM ---- sync: one write, one fdatasync ----> active segment --- full ---> sealed segments ---> dropped, evicted
              `durable` .. `head`                                                        `tail` ..

Invariants:
- Records stay in RAM until fdatasync returned, and positions before `durable` are on stable storage.
- Any error on a file ends that file (after a failed fsync the kernel calls lost pages clean, so no retry on the file can be believed):
  it is sealed at its last durable record, and the next sync writes all records since to a new file. A segment that goes on like this
  keeps salt and positions, and is dropped only together with the one whose preamble it needs.
- Files are removed oldest first, each made sure of before the next, and the last is never removed: it carries the position.
"""

import errno
from bisect import bisect_right
from contextlib import suppress

from edge.errors import DiskError
from edge.storage._record import FOLLOWS_DURABLE, HEADER_BYTES, PREAMBLE, SEALED, decode, encode, fields, position_of
from edge.storage.cipher import OVERHEAD
from edge.storage.disk import FULL
from edge.storage.notices import Notices
from edge.storage.opening import Opening, write_index
from edge.storage.reader import Reader
from edge.storage.segment import CONTINUES, SEALED_RECORDS, SEGMENT_HEADER, SKIPS, TORN, Segment

UNSYNCED_BYTES_MAX = 1 << 20         # in RAM; append() syncs by itself beyond that
BLOCK = 4096                         # of a file system: the least that it writes
NO_SPACE = (*FULL, errno.EROFS)


class Log:
    """Records by position. Positions are numbers that only go up, except through truncate().

    keep_from: eviction stops before this position; None lets it take anything. on_evict(kind, stream, first, count): events that the
    quota is about to push out, neighbours merged; it may append. Not reported: records without events, of the preamble, before
    drop_before()'s position.
    cipher: a Cipher, or None. preamble(): (kind, stream, payload) of records that each segment begins with, so that it can be read without those before it.
    """

    def __init__(self, disk, directory, *, segment_bytes_max=8 << 20, quota_bytes_max, preamble=None, on_evict=None, cipher=None):
        """Opens or makes the directory. Damage is put aside and told in `recovery`. Raises DiskError when another process has the log,
        when a newer version wrote it, or when the directory cannot be read."""
        self.disk, self.directory = disk, directory
        self.segment_bytes_max = min(segment_bytes_max, quota_bytes_max // 4)
        self.quota_bytes_max = quota_bytes_max
        self.keep_from, self.needed = None, lambda: [[0, None]]          # needed: ranges of positions of use, the last without an end; asked before each eviction
        self._cipher = cipher
        self._preamble, self._on_evict = preamble or (lambda: ()), on_evict
        try:
            disk.mkdir(directory)
            self._lock = disk.lock(directory)
        except BlockingIOError:
            raise DiskError(f"{directory} is in use by another process: stop it first") from None
        except OSError as error:
            raise self._error("open", error) from error
        try:
            found = Opening(disk, directory)
            self.notices = Notices(disk, directory, found.segments, keeps=on_evict is not None)
        except OSError as error:
            disk.close(self._lock)
            raise self._error("read", error) from error
        except DiskError:
            disk.close(self._lock)
            raise
        self.recovery = found.recovery
        self._segments, self._serial = found.segments, found.serial
        self.head = self.durable = found.shown
        self._disk_bytes = sum(s.size for s in self._segments)
        self._unsynced, self._unsynced_bytes = [], 0
        self._fd = None                  # of the active segment, which is the last in _segments; None: the next sync makes one
        self._salt = self._floor = 0
        self._fresh = True               # the next record begins a segment, with a preamble
        self._continues = False          # the next file goes on with the segment before
        self._evicting = False
        self.written_bytes = self.syncs = 0      # of this process: whole BLOCKs that a sync writes
        self._litter = []                # files of truncations that failed: to go before anything else is written, as they void records
        self.evicts_before = 0           # on_evict was told of the events before this position: they go, or are gone
        self._new = None                 # the active segment while no record of it is durable: not in _segments
        self._reader = Reader(disk, directory, self.recovery, cipher)
        self._torn = self._reader.torn(self._segments)           # the next segment says so: no later opening is to take it for damage
        if found.unsure and found.unsure[-1] is self._segments[-1]:
            self._write_again(self._segments[-1])
        if found.head > self.head:       # no position is given twice, and every later start comes to the same
            with suppress(DiskError):
                self.truncate(found.head)
            self.head = found.head

    # --- state

    @property
    def tail(self) -> int:
        """The oldest position held."""
        return self._segments[0].first if self._segments else position_of(self._unsynced[0]) if self._unsynced else self.head

    @property
    def size_bytes(self) -> int:
        """Bytes held, in files and in RAM."""
        return self._disk_bytes + self._unsynced_bytes

    @property
    def full(self) -> bool:
        """The quota is used up and eviction may not take more: append no more until drop_before() or a later keep_from."""
        return self.size_bytes >= self.quota_bytes_max and not self._evictable()

    # --- writing

    def append(self, kind: int, stream: int, first: int, count: int, payload) -> int:
        """Take a record; returns its position. It is durable after sync(). Raises DiskError; then the record was not taken."""
        size = HEADER_BYTES + len(payload) + OVERHEAD * (self._cipher is not None)
        held = self._unsynced_bytes + (self._segments[-1].size if self._fd is not None else SEGMENT_HEADER.size)
        if not self._fresh and held + size > self.segment_bytes_max:
            self.roll()
        elif self._unsynced and self._unsynced_bytes + size > UNSYNCED_BYTES_MAX:
            self.sync()
        self._begin()
        while self.size_bytes + size > self.quota_bytes_max and self.give_way():
            self._begin()                # what on_evict appended may have filled the segment
        self._hold(kind, 0 if self._unsynced else FOLLOWS_DURABLE, stream, first, count, payload)
        return self.head - 1

    def _hold(self, kind, flags, stream, first, count, payload):
        """The record, encoded, in RAM."""
        if self._cipher is not None:
            flags, payload = flags | SEALED, self._cipher.hide(self.head, kind, stream, first, count, payload)
        self._unsynced.append(encode(self._salt, self.head, kind, flags, stream, first, count, payload))
        self._unsynced_bytes += len(self._unsynced[-1])
        self.head += 1

    def sync(self):
        """Make all appended records durable: one write, one fdatasync. Raises DiskError; the records are kept."""
        if not self._unsynced:
            return
        try:
            self._write()
        except OSError as error:
            self._abandon()
            if error.errno in NO_SPACE:
                raise self._error("write", error) from error
            try:
                self._write()
            except OSError as again:
                self._abandon()
                raise self._error("write", again) from again

    def _write(self):
        data = b"".join(self._unsynced)
        fresh = self._fd is None
        if fresh:
            segment = self._create(position_of(self._unsynced[0]))
            offset = SEGMENT_HEADER.size
            data = segment.header() + data
            self._write_all(data, 0)
        else:
            segment = self._segments[-1]
            offset = segment.size
            self._write_all(data, offset)
        self.disk.fdatasync(self._fd)
        if fresh:
            self.disk.fsync_directory(self.directory)
            self._adopt(segment)
        for record in self._unsynced:
            segment.note(offset, *fields(record))
            offset += len(record)
        self._disk_bytes += self._unsynced_bytes
        self.durable = self.head
        self._unsynced, self._unsynced_bytes = [], 0

    def _create(self, first) -> Segment:
        while self._litter:
            with suppress(FileNotFoundError):        # an unlink that failed may have been done
                self.disk.unlink(self._litter[-1])
            self._litter.pop()
        self._serial += 1
        before = next((s.end for s in reversed(self._segments) if s.end > s.first), first)
        flags = CONTINUES * self._continues | SKIPS * (first > before) | SEALED_RECORDS * (self._cipher is not None) | TORN * self._torn
        self._new = segment = Segment(self._serial, first, self._salt, flags)
        self._fd = self.disk.create(f"{self.directory}/{segment.name}.seg")
        self.disk.truncate(self._fd, self.segment_bytes_max)     # then fdatasync need not write a new size each time
        return segment

    def _adopt(self, segment):
        self._segments.append(segment)
        self._disk_bytes += segment.size
        self._new, self._torn = None, False

    def _write_all(self, data, offset):
        self.written_bytes += BLOCK * (-(-(offset + len(data)) // BLOCK) - offset // BLOCK)
        self.syncs += 1
        while True:
            try:
                written = self.disk.pwrite(self._fd, data, offset)
            except InterruptedError:
                continue
            if written == len(data):
                return
            if written <= 0:
                raise OSError(errno.EIO, "nothing was written")
            data = memoryview(data)[written:]
            offset += written

    def _abandon(self):
        """The active file failed: seal it at its last durable record, or be rid of it if it has none."""
        if self._fd is None:
            return
        if self._new is None:
            self._continues = True
            self._seal()
            return
        self.disk.close(self._fd)
        self._fd = None
        path = f"{self.directory}/{self._new.name}.seg"
        try:
            self.disk.unlink(path)
        except OSError:
            if self._new.first < self.durable:
                self._litter.append(path)
        self._new = None

    def _seal(self):
        if self._fd is None:
            return
        with suppress(OSError):
            self.disk.truncate(self._fd, self._segments[-1].size)
        self.disk.close(self._fd)
        self._fd = None
        write_index(self.disk, self.directory, self._segments[-1])

    def roll(self):
        """Sync, and begin a new segment with the next record. Raises DiskError."""
        self.sync()
        self._seal()
        self._fresh, self._continues = True, False

    def _begin(self):
        if not self._fresh:
            return
        self._fresh = False
        if self._fd is None:
            self._salt = self._new_salt()
        for kind, stream, payload in self._preamble():
            self._hold(kind, PREAMBLE, stream, 0, 0, payload)

    def _new_salt(self) -> int:
        """Random, and without zero bytes, so that no marker is found in blank space."""
        return int.from_bytes(bytes(b or 0xA5 for b in self.disk.entropy(4)), "little")

    def _write_again(self, segment):
        """Opening could not sync the last segment: hold its records as un-synced, and write them to another file, if they can be read again. (Those before it
        were synced when it was begun.)"""
        with suppress(OSError):
            self._unsynced = [encode(segment.salt, r.position, r.kind, r.flags, r.stream, r.first, r.count, r.payload) for r in self._reader.records(segment, segment.first)]
            self._disk_bytes -= self._segments.pop().size
            self._salt, self._fresh, self._continues = segment.salt, False, segment.continues
            self._unsynced_bytes = sum(map(len, self._unsynced))
            self.durable = segment.first
            with suppress(DiskError):
                self.sync()
                self._unlink(segment)    # if not, the next opening does it

    # --- reading

    def read(self, position: int, bytes_max: int = 1 << 20) -> list:
        """Records from the first one at or after a position: about bytes_max of them, at least one if there is one. Records that cannot
        be read are passed over and counted in `recovery`. Raises DiskError when a file cannot be opened."""
        i = max(0, bisect_right(self._segments, position, key=lambda s: s.first) - 1)
        try:
            while i < len(self._segments):
                segment = self._segments[i]
                if position < segment.end:
                    records = self._reader.read(segment, max(position, segment.first), bytes_max)
                    if records:
                        return records
                i += 1
        except OSError as error:
            raise self._error("read", error) from error
        taken, size = [], 0
        for record in self._unsynced[bisect_right(self._unsynced, position - 1, key=position_of):] if position > 0 else self._unsynced:
            size += len(record)
            if taken and size > bytes_max:
                break
            taken.append(decode(record))
            taken[-1].opened(self._cipher)
        return taken

    def damaged_since(self, position: int) -> int:
        """How many records from a position on were durable and cannot be read. Reads and checks every one of them. What is torn in the last
        group that was written does not count: a power cut does that, and no sync had returned."""
        try:
            return self._reader.damaged(self._segments, position)
        except OSError as error:
            raise self._error("read", error) from error

    # --- dropping

    def drop_before(self, position: int):
        """Records before a position are of no more use: remove the segments that hold no others. Raises DiskError."""
        self._floor = max(self._floor, position)
        if position >= self.head and self.full:          # what fills it is of no use: segments that go on with each other, to the last
            self._cut(self.head)
        while (chain := self._oldest()) and self._segments[chain - 1].end <= position:
            for _ in range(chain):
                self._remove_oldest()

    def truncate(self, position: int):
        """Forget records from a position on; the next one appended gets it. A position beyond `head` is skipped to. Atomic, and durable
        when it returns. Raises DiskError; then nothing has changed, but that a full disk may have made room by what is to be forgotten."""
        if position != self.head:
            self._cut(position)

    def _cut(self, position):
        self.roll()
        self._salt = self._new_salt()
        try:
            segment = self._create(position)
            self._write_all(segment.header(), 0)
            self.disk.fdatasync(self._fd)
            self.disk.fsync_directory(self.directory)
        except OSError as error:
            self._abandon()
            if error.errno in FULL and (self._forget_last(position) or self.notices.spend()):
                return self._cut(position)
            raise self._error("write", error) from error
        void = [s for s in self._segments if s.first >= position]
        self._segments = [s for s in self._segments if s.first < position]
        for old in self._segments:
            old.end = min(old.end, position)
        for old in void:
            self._disk_bytes -= old.size
            with suppress(OSError):      # opening does it otherwise
                self._unlink(old)
        self._adopt(segment)
        self.notices.prepare()
        self._reader.close()
        self.head = self.durable = position
        self._floor = min(self._floor, position)
        self.evicts_before = min(self.evicts_before, position)

    def _forget_last(self, position) -> bool:
        """Remove the last of several segments if all of it stands at or after a position."""
        with suppress(OSError):
            if len(self._segments) > 1 and self._segments[-1].first >= position:
                self._unlink(self._segments[-1])
                self._disk_bytes -= self._segments.pop().size
                self.head = self.durable = self._segments[-1].end
                return True
        return False

    def _oldest(self) -> int:
        """How many segments must go together at the old end; 0 when none may go."""
        n = 1
        while n < len(self._segments) and self._segments[n].continues:
            n += 1
        return n if n < len(self._segments) else 0

    def _evictable(self) -> int:
        n = self._oldest()
        return n if n and (self.keep_from is None or self._segments[n - 1].end <= self.keep_from) else 0

    def give_way(self) -> bool:
        """Report what is in the oldest segment and remove it. False when none may go. Raises DiskError."""
        if self._evicting or not (n := self._evictable()):
            return False
        self._evicting = True
        try:
            self._floor = max(self._floor, (needed := self.needed())[0][0])
            going = [(segment, self.events(needed, [segment]) if self._on_evict else []) for segment in self._segments[:n]]
            self.notices.leave(going[0][0], going[-1][0].end, [event for _, events in going for event in events])
            for segment, events in going:
                if segment.end > self.evicts_before:
                    self.evicts_before = segment.end
                    for event in events:
                        self._on_evict(*event)
            for _ in going:
                self._remove_oldest()
            self.notices.prepare()       # in the room that this made
        finally:
            self._evicting = False
        return True

    def events(self, ranges, segments=None, dropped=False) -> list:
        """(kind, stream, first, count) of durable events in ranges of positions, as `needed`, but for those that were dropped; neighbours of a segment merged. Raises DiskError."""
        ranges = [(max(start, 0 if dropped else self._floor), self.head if end is None else end) for start, end in ranges]
        try:
            return [event for segment in segments or self._segments for event in self._reader.events(segment, ranges)]
        except OSError as error:
            raise self._error("read", error) from error

    def _remove_oldest(self):
        segment = self._segments[0]
        try:
            self._unlink(segment)
            del self._segments[0]
            self._disk_bytes -= segment.size
            self.disk.fsync_directory(self.directory)
        except OSError as error:
            raise self._error("remove segments", error) from error

    def _unlink(self, segment):
        self._reader.forget(segment)
        self.disk.unlink(f"{self.directory}/{segment.name}.seg")
        with suppress(OSError):
            self.disk.unlink(f"{self.directory}/{segment.name}.idx")

    def close(self):
        """Sync, leave an index of the last segment, and let go of the directory. Raises DiskError when the sync failed."""
        try:
            self.sync()
        finally:
            self._seal()
            self._reader.close()
            self.notices.close()
            self.disk.close(self._lock)

    def _error(self, what, error) -> DiskError:
        advice = "make room or raise the quota of the file system" if error.errno in NO_SPACE else "check the disk (dmesg) and the permissions"
        last = (getattr(self, "_segments", None) or [None])[-1]
        where = f"{self.directory}/{last.name}.seg at offset {last.size}" if last else self.directory
        return DiskError(f"cannot {what} {where}: {error.strerror or error}: {advice}", error.errno)
