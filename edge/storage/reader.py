"""Reading segments: sequentially at one pread a call, from anywhere by the index, passing over what is damaged and counting it."""

from contextlib import suppress

from edge.storage._record import FOLLOWS_DURABLE, HEADER_BYTES, Scan
from edge.storage.segment import TORN, WINDOW_BYTES, Segment, merged, walk


class Reader:
    """One file open at a time, and the place where the last read ended. Raises OSError when a file cannot be opened."""

    def __init__(self, disk, directory, recovery, cipher=None):
        self.disk, self.directory, self.recovery, self._cipher = disk, directory, recovery, cipher
        self._segment = self._fd = None
        self._cursor = (None, 0, 0)      # segment, position, offset: where the last read ended

    def read(self, segment, position, bytes_max) -> list:
        """Records of a segment from a position on: at most bytes_max of them but at least one; none when there are no more."""
        while records := self._read(segment, position, bytes_max):
            opened = [r for r in records if r.opened(self._cipher)]
            if len(opened) < len(records):           # what was put in their place is as good as damage
                good = {r.position for r in opened}
                self._lost(segment, [(r.position, r.position + 1) for r in records if r.position not in good])
            if opened:
                return opened
            position = records[-1].position + 1
        return []

    def _read(self, segment, position, bytes_max) -> list:
        if self._cursor[0] is segment and self._cursor[1] == position:
            offset, expected, window = self._cursor[2], position, bytes_max
        else:
            offset, expected = segment.place(position)
            window = max(bytes_max, WINDOW_BYTES)
        scan = Scan(segment.salt, offset, expected, wanted=position)
        for _ in walk(self.disk, self._open(segment), scan, segment.size, max(window, HEADER_BYTES)):
            records = [r for r in scan.records if r.position < segment.end]
            if records:
                start = records[0].offset
                n = next((i for i, r in enumerate(records) if i and r.end - start > bytes_max), len(records))
                last = records[n - 1]
                self._cursor = (segment, last.position + 1, last.end)
                self._lost(segment, [(a, b) for _, _, a, b in scan.holes if a <= last.position])
                return records[:n]
        self._lost(segment, [(a, b) for _, _, a, b in scan.holes] + [(scan.expected, segment.held)])
        return []

    def records(self, segment, position, payloads=True):
        """Every record of a segment from a position on."""
        offset, expected = segment.place(position)
        scan = Scan(segment.salt, offset, expected, wanted=position, payloads=payloads)
        for _ in walk(self.disk, self._open(segment), scan, segment.size):
            yield from (r for r in scan.records if r.position < segment.end)
        self._lost(segment, [(a, b) for _, _, a, b in scan.holes] + [(scan.expected, segment.held)])

    def events(self, segment, ranges) -> list:
        """(kind, stream, first, count) of a segment's events in ranges of positions, neighbours merged."""
        if segment.end < segment.held or not any(start <= segment.first and segment.end <= end for start, end in ranges):
            rest = Segment(segment.serial, segment.first, segment.salt)
            for start, end in ranges:
                for r in self.records(segment, max(start, segment.first), payloads=False) if start < segment.end and end > segment.first else ():
                    if r.position < end:
                        rest.note(r.offset, r.end - r.offset, r.position, r.kind, r.flags, r.stream, r.first, r.count)
            segment = rest
        return [(kind, stream, first, end - first) for kind, stream, first, end in merged(segment.ranges)]

    def damaged(self, segments, position) -> int:
        """How many records of `segments` from a position on cannot be read, of those that were durable."""
        sure, torn = self._sure(segments, position)
        return sum(b - max(a, position) for a, b in self.recovery.lost if b > position and a < sure and not any(first <= a < end for first, end in torn))

    def torn(self, segments) -> bool:
        """Whether something is missing of the last group that was written."""
        with suppress(OSError):
            return bool(self.recovery.lost) and self.recovery.lost[-1][0] >= self._sure(segments[-2:], 0)[0]
        return False

    def _sure(self, segments, position) -> tuple:
        """(position before which all was durable, ranges of positions before it of which what is missing was not)."""
        sure, torn = 0, []
        for segment in segments:
            if position < segment.end:
                if segment.flags & TORN:
                    torn.append((sure, segment.first))
                if segment.follows_durable:
                    sure = segment.first
                for r in self.records(segment, segment.first, payloads=False):
                    if r.flags & FOLLOWS_DURABLE:
                        sure = r.position
        return sure, torn

    def forget(self, segment):
        """A segment is removed or shortened."""
        if self._segment is segment:
            self.close()

    def close(self):
        self._cursor = (None, 0, 0)
        if self._segment is not None:
            self._segment = None
            self.disk.close(self._fd)

    def _open(self, segment) -> int:
        if self._segment is not segment:
            fd = self.disk.open(f"{self.directory}/{segment.name}.seg")
            self.close()
            self._segment, self._fd = segment, fd
        return self._fd

    def _lost(self, segment, holes):
        for first, after in holes:
            after = min(after, segment.end)
            if first < after and (new := segment.lose(first, after)):
                self.recovery.damaged += new
                self.recovery.lost.append((first, after))
