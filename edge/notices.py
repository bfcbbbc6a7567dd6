"""Notices: what an eviction lets go on a disk so full that the log cannot take the gaps that announce it.

    NAME.idx -> NAME.gone        the index of a segment says which events it held, and a new name takes no room: renamed and durable before the segment goes

So a power cut before there is room again does not lose what was to be announced. An outbox's start takes it up (Outbox.cut_back), and once the gaps themselves are
durable the notices go. A notice is of a whole segment: what upstream had of it is announced, too, and a receiver knows better. Without an index (it could not be
written, the disk was full then) there is none.
"""

from contextlib import suppress

from edge.segment import Segment, merged, parse_name, read_at

GONE = ".gone"


class Notices:
    """Of a log that is open. segments: those that it has; a notice of one of them is void, as its file was still there after all."""

    def __init__(self, disk, directory, segments):
        self._disk, self._directory, self._left = disk, directory, []
        held = {segment.name for segment in segments}
        for name in sorted(n for n in disk.listdir(directory) if n.endswith(GONE)):
            segment = parse_name(name.removesuffix(GONE) + ".seg")
            if segment is None or segment.name in held or not self._read(segment):
                with suppress(OSError):
                    disk.unlink(f"{directory}/{name}")
            else:
                self._left.append(segment)

    @property
    def events(self) -> list:
        """(kind, stream, first, count, position that they stood before) of what went and may not be announced."""
        return [(kind, stream, first, end - first, segment.held) for segment in self._left for kind, stream, first, end in merged(segment.ranges)]

    def leave(self, segments):
        """Of segments that are about to go. Errors are passed over: the events go all the same."""
        for segment in segments:
            path = f"{self._directory}/{segment.name}"
            with suppress(OSError):
                fd = self._disk.open(f"{path}.idx")
                try:
                    self._disk.fdatasync(fd)
                finally:
                    self._disk.close(fd)
                self._disk.rename(f"{path}.idx", f"{path}{GONE}")
                self._disk.fsync_directory(self._directory)
                self._left.append(segment)

    def drop(self):
        """The gaps are durable."""
        while self._left:
            with suppress(OSError):          # then the next start announces it again, which changes nothing
                self._disk.unlink(f"{self._directory}/{self._left[-1].name}{GONE}")
            self._left.pop()

    def _read(self, segment: Segment) -> bool:
        try:
            fd = self._disk.open(f"{self._directory}/{segment.name}{GONE}")
            try:
                return segment.load_index(read_at(self._disk, fd, self._disk.size(fd), 0), 1 << 64)
            finally:
                self._disk.close(fd)
        except OSError:
            return False
