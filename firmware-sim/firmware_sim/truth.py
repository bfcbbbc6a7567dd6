"""The truth file: what the fleet sent and what was acknowledged, as JSON lines, appended as it happens.

Four kinds of lines, told apart by their first key (firmware-sim/README.md shows each):

    {"run": {...}}                             once, first
    {"n": N, "sent": NS, "device": ..., ...}   an event handed to its connection for the first time; N counts from 0
    {"acked": [N, ...], "at": NS}              the broker took responsibility (PUBACK; PUBREC at QoS 2)
    {"copies": [N, ...], "dup": B, "at": NS}   sent once more: by a fault (dup false) or after a lost connection (dup true)
    {"summary": {...}}                         last; absent when the fleet was killed

What holds: an event's line reaches the operating system before its first byte reaches the socket. So a killed fleet
leaves no event that was sent but is not in the truth; a torn last line belongs to an event that was never sent.
"""

import json
import os

import msgspec

from .errors import TruthError

VERSION = 1
_json = msgspec.json.Encoder().encode


class TruthWriter:
    """Buffers lines; flush() hands them to the operating system. Holds nothing per event."""

    def __init__(self, path):
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise TruthError(f"{path}: cannot be written: {error.strerror}") from None
        self._path = path
        self._lines = []
        self._acked = []
        self._copies = {False: [], True: []}
        self.sent = self.acked_count = self.malformed = 0
        self.copies_count = {False: 0, True: 0}

    def begin(self, scenario, start_ns):
        """The first line: what the reader needs to know of the scenario."""
        groups = {g.name: {"count": g.count, "first_seq": g.first_seq, "device": g.device_field, "seq": g.seq_field, "time": g.time_field}
                  for g in scenario.group}
        run = {"version": VERSION, "scenario": scenario.name, "seed": scenario.seed, "start": start_ns, "groups": groups}
        self._lines.append(_json({"run": run}) + b"\n")

    def event(self, record: bytes, now_ns, malformed) -> int:
        """A first sending; record is the event's keys from "device" on, with the closing brace. Returns its number."""
        n = self.sent
        self.sent = n + 1
        self.malformed += malformed
        self._lines.append(b'{"n":%d,"sent":%d,%b\n' % (n, now_ns, record))
        return n

    def acked(self, n):
        self._acked.append(n)
        self.acked_count += 1

    def copy(self, n, dup):
        self._copies[dup].append(n)
        self.copies_count[dup] += 1

    def flush(self, now_ns):
        """Write what has come up; call before the sockets are written."""
        lines = self._lines
        if self._acked:
            lines.append(b'{"acked":%b,"at":%d}\n' % (_json(self._acked), now_ns))
            self._acked = []
        for dup, numbers in self._copies.items():
            if numbers:
                lines.append(b'{"copies":%b,"dup":%b,"at":%d}\n' % (_json(numbers), b"true" if dup else b"false", now_ns))
                self._copies[dup] = []
        if lines:
            self._write(b"".join(lines))
            self._lines = []

    def close(self, summary: dict, now_ns):
        """The last line, then fsync."""
        self.flush(now_ns)
        self._write(_json({"summary": summary}) + b"\n")
        os.fsync(self._fd)
        os.close(self._fd)

    def _write(self, data):
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view):]
        except OSError as error:
            raise TruthError(f"{self._path}: {error.strerror}; stopped, since what is sent from here on would not be known") from None


class NoTruth(TruthWriter):
    """Counts, and keeps nothing: a run whose truth nobody asked for."""

    def __init__(self):
        super().__init__(os.devnull)

    def _write(self, data):
        pass

    def close(self, summary, now_ns):
        os.close(self._fd)


class Line(msgspec.Struct, gc=False):
    """Any line of a truth file."""
    n: int = -1
    sent: int = 0
    device: str = ""
    group: str = ""
    seq: int = -1
    time: int = 0
    qos: int = 0
    malformed: str | None = None
    values: dict | None = None
    acked: list[int] | None = None
    copies: list[int] | None = None
    dup: bool = False
    at: int = 0
    run: dict | None = None
    summary: dict | None = None


decode_line = msgspec.json.Decoder(Line).decode


def read_lines(file, path):
    """(offset, line) for each complete line; a torn last line is left out. Raises TruthError on damage and on other files."""
    offset, number = 0, 0
    for raw in file:
        if not raw.endswith(b"\n"):
            return
        number += 1
        try:
            line = decode_line(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TruthError(f"{path}:{number}: not a line of a truth file: {error}") from None
        if number == 1 and (line.run or {}).get("version") != VERSION:
            raise TruthError(f"{path}: is no truth file of version {VERSION}: the first line is {json.dumps(raw[:60].decode(errors='replace'))}")
        yield offset, line
        offset += len(raw)
