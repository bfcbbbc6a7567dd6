"""An index of a truth file: some 20 bytes an event in memory; the values stay in the file."""

import mmap
from array import array

from .errors import TruthError
from .truth import decode_line, read_lines

PASSES, ACKED, MALFORMED, COUNTED = 1, 2, 4, 8      # bits of flags; COUNTED: QoS >= 1
_ABSENT = 0xFFFFFFFF
_SEQ_SPAN_MAX = 50_000_000


class TruthIndex:
    """Events of a truth file by device and sequence number.

    flags[n], received[n] (saturates at 255) and copies (n -> further sendings) are by event number.
    `passes` is a condition on an event's values; events that it does not hold for are not expected upstream.
    Raises TruthError.
    """

    def __init__(self, path, passes=None, group=None):
        self.path = path
        self.flags = bytearray()
        self.copies = {}
        self.summary = None
        self.groups = {}
        self._offsets = array("Q")
        self._devices = {}           # device -> (first sequence number, array of event numbers by sequence number)
        self._passes, self._group = passes, group
        try:
            with open(path, "rb") as file:
                for offset, line in read_lines(file, path):
                    self._take(offset, line)
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise TruthError(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError:
            raise TruthError(f"{path}: is empty") from None
        if group is not None and group not in self.groups:
            raise TruthError(f"{path}: has no group '{group}'; groups: {', '.join(self.groups)}")
        self.received = bytearray(len(self.flags))

    def __len__(self):
        return len(self.flags)

    def find(self, device, seq) -> int:
        """The event's number, or -1."""
        if not isinstance(device, str) or not isinstance(seq, int):
            return -1
        found = self._devices.get(device)
        if found is None:
            return -1
        at = seq - found[0]
        if not 0 <= at < len(found[1]) or found[1][at] == _ABSENT:
            return -1
        return found[1][at]

    def line(self, n):
        """The event's line."""
        start = self._offsets[n]
        return decode_line(self._bytes[start:self._bytes.find(b"\n", start)])

    def counts(self, n) -> bool:
        """The event belongs to the group asked for and its payload is sound."""
        return bool(self.flags[n] & PASSES) and not self.flags[n] & MALFORMED

    def _take(self, offset, line):
        if line.n >= 0:
            self._event(offset, line)
        elif line.acked:
            for n in line.acked:
                self.flags[self._known(n)] |= ACKED
        elif line.copies:
            for n in line.copies:
                self.copies[self._known(n)] = self.copies.get(n, 0) + 1
        elif line.run is not None:
            self.groups = line.run["groups"]
        elif line.summary is not None:
            self.summary = line.summary

    def _event(self, offset, line):
        if line.n != len(self.flags) or line.group not in self.groups or line.values is None:
            raise TruthError(f"{self.path}: event {line.n} at byte {offset} is out of order or incomplete")
        first = self.groups[line.group]["first_seq"]
        numbers = self._devices.setdefault(line.device, (first, array("I")))[1]
        at = line.seq - first
        if not 0 <= at < _SEQ_SPAN_MAX:
            raise TruthError(f"{self.path}: event {line.n}: sequence number {line.seq} of {line.device} is out of range")
        if at >= len(numbers):
            numbers.extend([_ABSENT] * (at + 1 - len(numbers)))
        numbers[at] = line.n
        passes = (self._group is None or line.group == self._group) and (self._passes is None or self._passes(line.values))
        self.flags.append((PASSES if passes else 0) | (MALFORMED if line.malformed else 0) | (COUNTED if line.qos else 0))
        self._offsets.append(offset)

    def _known(self, n):
        if not 0 <= n < len(self.flags):
            raise TruthError(f"{self.path}: names event {n} before it was sent")
        return n
