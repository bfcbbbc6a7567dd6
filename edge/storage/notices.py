"""Notices: what an eviction lets go, until the gaps that announce it are durable.

    reserve                      a block, the log's own since it was opened: no full disk refuses what is written over it
    reserve -> NAME.gone         an index file that holds what went of that segment; durable before the segment goes, which makes room for the next reserve

So a power cut, or a disk without room for the gaps, does not lose what was to be announced. An outbox's start takes it up (Outbox.cut_back), and once the gaps
themselves are durable the notices go. A notice says the same as the gaps would: what upstream has is not in it. Where there is neither a reserve nor room for one, an
index file makes it; and where the disk takes no notice, what it would be of stays.
"""

import errno
from contextlib import suppress

from edge.errors import DiskError
from edge.storage.disk import FULL
from edge.storage.segment import Segment, merged, parse_name, read_at

GONE = ".gone"
RESERVE, RESERVE_BYTES = "reserve", 4096         # some 200 ranges


class Notices:
    """Of a log that is open. segments: those that it has; a notice of one of them is void, as its file was still there after all. keeps: it announces what
    it evicts. Raises OSError where the directory cannot be listed."""

    def __init__(self, disk, directory, segments, keeps=True):
        self._disk, self._directory, self._left, self._fd, self._keeps = disk, directory, [], None, keeps
        held = {segment.name for segment in segments}
        void = []
        for name in sorted(n for n in disk.listdir(directory) if n.endswith(GONE)):
            segment = parse_name(name.removesuffix(GONE) + ".seg")
            if segment is None or segment.name in held or not self._read(segment):
                void.append(name)
            else:
                self._left.append(segment)
        self._forget(void)
        self.prepare()

    @property
    def events(self) -> list:
        """(kind, stream, first, count, position that they stood before) of what went and may not be announced."""
        return [(kind, stream, first, end - first, segment.held) for segment in self._left for kind, stream, first, end in merged(segment.ranges)]

    def prepare(self):
        """Take a block of the disk, for the next leave(), if there is none yet."""
        with suppress(OSError):
            self._take()

    def keep(self, gaps, head):
        """All that is to be announced of a log that is about to be cut back to `head`, in the place of all notices: as `events`. Raises DiskError."""
        before = self._left
        if gaps:
            segment = Segment(0, head, 0)        # none has this name
            self.leave(segment, max(position for *_, position in gaps), [gap[:4] for gap in gaps])
        self._left = [left for left in self._left if left not in before]
        if not self._forget([left.name + GONE for left in before if left.name not in {kept.name for kept in self._left}]):
            raise DiskError(f"{self._directory}: notices of what went before cannot be removed")

    def leave(self, segment, end, events):
        """Of segments that are about to go, up to the position `end`, what does of their events: (kind, stream, first, count). segment: the first of them.
        It is durable then. Raises DiskError; then they must stay."""
        notice = Segment(segment.serial, segment.first, segment.salt)
        notice.held = end
        for kind, stream, first, count in events:
            notice.ranges.note(kind, stream, first, first + count)
        while events:
            try:
                self._take()
                self._write(notice)
                break
            except OSError as error:
                if error.errno not in FULL or not self.spend():
                    raise DiskError(f"{self._directory}: what is to go cannot be noted first, so it stays: {error.strerror}", error.errno) from error
        self.prepare()

    def spend(self) -> bool:
        """Make a block free: an index goes, which is read only to save time; else the reserve. Returns whether there was one."""
        with suppress(OSError):
            names = sorted(name for name in self._disk.listdir(self._directory) if name.endswith(".idx")) or [RESERVE] * (self._fd is not None)
            if names:
                self._disk.unlink(f"{self._directory}/{names[0]}")
                if names[0] == RESERVE:
                    self.close()
                return True
        return False

    def _take(self):
        """The reserve. Raises OSError."""
        if self._fd is not None or not self._keeps:
            return
        path = f"{self._directory}/{RESERVE}"
        with suppress(FileNotFoundError):
            self._disk.unlink(path)              # of an earlier run
        self._fd = self._disk.create(path)
        try:
            self._fill(b"\xff" * RESERVE_BYTES)  # a block of zeros may be kept as none
            self._disk.fsync_directory(self._directory)
        except OSError:
            self.close()
            raise

    def _write(self, notice):
        """Over the reserve, which is the notice then. Raises OSError."""
        try:
            data = notice.index()
            self._fill(data)
            self._disk.truncate(self._fd, len(data))
            self._disk.fdatasync(self._fd)
            self._disk.rename(f"{self._directory}/{RESERVE}", f"{self._directory}/{notice.name}{GONE}")
            self._left = [left for left in self._left if left.name != notice.name] + [notice]
            self._disk.fsync_directory(self._directory)
        finally:
            self.close()

    def _fill(self, data):
        if self._disk.pwrite(self._fd, data, 0) != len(data):
            raise OSError(errno.ENOSPC, "there is room for a part only")
        self._disk.fdatasync(self._fd)

    def drop(self):
        """The gaps are durable."""
        self._forget([segment.name + GONE for segment in self._left])
        self._left = []
        self.prepare()

    def close(self):
        if self._fd is not None:
            self._disk.close(self._fd)
            self._fd = None

    def _forget(self, names):
        """Durably, where that can be. Returns whether that is so."""
        done = True
        for act, path in (*((self._disk.unlink, f"{self._directory}/{name}") for name in names), *[(self._disk.fsync_directory, self._directory)][:len(names)]):
            try:
                act(path)
            except FileNotFoundError:
                pass
            except OSError:
                done = False
        return done

    def _read(self, segment: Segment) -> bool:
        try:
            fd = self._disk.open(f"{self._directory}/{segment.name}{GONE}")
            try:
                return segment.load_index(read_at(self._disk, fd, self._disk.size(fd), 0), 1 << 64)
            finally:
                self._disk.close(fd)
        except OSError:
            return False
