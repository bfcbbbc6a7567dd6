"""The audit log: every decision on rules, in lines that are chained by hash, so that none can be changed, moved or taken out unseen.

    audit/NNNNNNNN.jsonl     a JSON object a line: {"n", "at", "who", "what", ..., "before"}

n: number of the line, from 1. before: SHA-256 of the line before it without its newline, hexadecimal, over the files' borders too; of the first 64 zeros.

Invariants:
- A line is on the disk when append() returns. A file is written only by the process that made it; the next one writes its lines anew.
- Only the last line can be torn, by a power cut: it is cut off at the start and a line "audit.torn" says so. Nothing else is ever mended.
- Beyond FILES_MAX the oldest file goes; a line "audit.dropped" says up to which number.
What the chain can't tell is that the newest lines were all cut off while the gateway stood still: keep the head that `tidegate rule audit` prints.
"""

import hashlib
import json
import re
import time

from edge.errors import DiskError
from edge.storage import whole

FILE = re.compile(r"(\d{8})\.jsonl")
LINE_BYTES_MAX = 4096
READ_BYTES_MAX = 64 << 20                # a file that grew beyond this was not written here
TEXT_MAX = 500                           # characters of a detail
FILES_MAX = 4
NOTHING = "0" * 64


class Audit:
    """Chained lines on a disk, in at most FILES_MAX files of a little more than file_bytes_max. head: (number, hash) of the newest line."""

    def __init__(self, disk, directory, *, file_bytes_max=256 << 10, wall=time.time):
        """Raises DiskError."""
        self._disk, self._directory, self._wall = disk, directory, wall
        self._file_bytes_max = file_bytes_max
        self._fd, self._name, self._size = None, "", 0
        self._torn = 0                   # bytes that a power cut left behind the last line, until the next append says so
        self._sound = None               # (file, its bytes that count), where more are in it
        self.head = (0, NOTHING)
        try:
            disk.mkdir(directory)
            disk.fsync_directory(directory.rpartition("/")[0] or ".")
            self._recover()
        except OSError as error:
            raise self._error("read", error) from error

    def append(self, who, what, **details) -> dict:
        """Add a line; it is on the disk when this returns. Details are plain data; long ones are cut. Raises DiskError; then it was not added."""
        try:
            if self._torn:
                self._append("gateway", "audit.torn", {"bytes": self._torn})
                self._torn = 0
            line = self._append(who, what, details)
        except OSError as error:
            raise self._error("write", error) from error
        try:
            self._drop_oldest()
        except OSError:
            pass                         # the next append tries again
        return line

    def lines(self, after=0, limit=100) -> list[dict]:
        """The lines after a number, the oldest first; those that are no JSON are left out: verify() names them."""
        found = []
        for name in reversed(self._names()):
            lines = [line for raw in self._content(name).split(b"\n")[:-1] if (line := _parsed(raw))]
            found = [line for line in lines if line["n"] > after] + found
            if lines and lines[0]["n"] <= after:
                break                        # those before it are older
        return found[:limit]

    def newest(self, limit=100) -> list[dict]:
        """The last lines, the oldest first."""
        return self.lines(max(0, self.head[0] - limit), limit)

    def verify(self) -> dict:
        """{"lines", "head": [n, hash], "broken": None or {"file", "line", "why"}}: whether the chain holds, and its first line that does not."""
        count, number, chained, first, dropped, broken = 0, None, None, 1, 0, None
        for name, place, raw in self._raw_lines():
            line, count = _parsed(raw), count + 1
            if line is None:
                why = "is no line of this log"
            elif number is not None and line["n"] != number + 1:
                why = f"has number {line['n']} after {number}: lines are missing, or moved"
            elif (number is not None or line["n"] == 1) and line["before"] != (chained or NOTHING):
                why = "does not follow from the line before it: one of the two was changed"
            else:
                if number is None:
                    first = line["n"]
                number, chained = line["n"], _hash(raw)
                if line["what"] == "audit.dropped":
                    dropped = max(dropped, line.get("through", 0))
                continue
            broken = {"file": name, "line": place, "why": why}
            break
        if broken is None and first > dropped + 1:
            broken = {"file": "", "line": 0, "why": f"lines {dropped + 1} to {first - 1} are missing at the beginning, and no line says that they were dropped"}
        if broken is None and (number or 0, chained or NOTHING) != self.head:
            broken = {"file": "", "line": 0, "why": f"the newest line is {number or 0}, it was {self.head[0]}: lines were changed or cut off while the gateway ran"}
        return {"lines": count, "head": list(self.head), "broken": broken}

    def close(self):
        """Let go of the file."""
        if self._fd is not None:
            self._disk.close(self._fd)
            self._fd = None

    # --- writing

    def _append(self, who, what, details):
        number, before = self.head
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall()))
        line = {"n": number + 1, "at": at, "who": who, "what": what, **{k: _short(v) for k, v in details.items()}, "before": before}
        raw = json.dumps(line, ensure_ascii=False, default=str).encode("utf-8", "replace")
        if len(raw) > LINE_BYTES_MAX:
            line = {"n": number + 1, "at": at, "who": who[:TEXT_MAX], "what": what[:TEXT_MAX], "cut": len(raw), "before": before}
            raw = json.dumps(line).encode()
        self._open()
        data, offset = raw + b"\n", 0
        try:
            while offset < len(data):
                offset += self._disk.pwrite(self._fd, data[offset:], self._size + offset)
            self._disk.fdatasync(self._fd)
        except OSError:
            self._sound = (self._name, self._size)
            self.close()                     # nothing is known of the file now: its good lines are written anew before the next
            raise
        self._size += len(data)
        self.head = (number + 1, _hash(raw))
        return line

    def _open(self):
        """A file of this process's own to write to: the last one, its lines written anew, or the next."""
        if self._fd is not None and self._size < self._file_bytes_max:
            return
        names = self._names()
        content = self._content(names[-1]) if names and self._fd is None else b""
        anew = names and self._fd is None and len(content) < self._file_bytes_max
        name = names[-1] if anew else f"{int(names[-1][:8]) + 1 if names else 1:08}.jsonl"
        self.close()
        self._fd, self._size = whole.replace_and_hold(self._disk, f"{self._directory}/{name}", content if anew else b""), len(content) if anew else 0
        self._name, self._sound = name, None

    def _drop_oldest(self):
        names = self._names()
        while len(names) > FILES_MAX:
            broken = self.verify()["broken"]
            last = next((line["n"] for raw in reversed(self._content(names[0]).splitlines()) if (line := _parsed(raw))), 0)
            self._append("gateway", "audit.dropped", {"through": last, **({"broken": broken} if broken else {})})
            self._disk.unlink(f"{self._directory}/{names.pop(0)}")

    # --- reading

    def _recover(self):
        for name in self._disk.listdir(self._directory):
            if name.endswith(whole.FRESH):
                self._disk.unlink(f"{self._directory}/{name}")
        names = self._names()
        if names:
            content = self._content(names[-1])
            tail = content.rpartition(b"\n")[2] if not content.endswith(b"\n") else content[:-1].rpartition(b"\n")[2] + b"\n"
            if content and (not tail.endswith(b"\n") or _parsed(tail[:-1]) is None):
                self._torn, self._sound = len(tail), (names[-1], len(content) - len(tail))
        for count, (_, _, raw) in enumerate(self._raw_lines(), 1):
            line = _parsed(raw)
            self.head = (line["n"] if line else count, _hash(raw))

    def _names(self):
        return sorted(name for name in self._disk.listdir(self._directory) if FILE.fullmatch(name))

    def _content(self, name) -> bytes:
        """A file's bytes that count."""
        content = whole.read(self._disk, f"{self._directory}/{name}", READ_BYTES_MAX)
        return content[:self._sound[1]] if self._sound is not None and name == self._sound[0] else content

    def _raw_lines(self):
        """(file, number in it, line without newline) of all."""
        for name in self._names():
            for place, raw in enumerate(self._content(name).split(b"\n")[:-1], 1):
                yield name, place, raw

    def _error(self, what, error):
        return DiskError(f"cannot {what} {self._directory}: {error.strerror or error}: decisions on rules are written there; check the disk")


def _hash(raw) -> str:
    return hashlib.sha256(raw).hexdigest()


def _parsed(raw):
    """A line of the log; None for anything else."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(line, dict) and all(isinstance(line.get(name), kind) for name, kind in (("n", int), ("who", str), ("what", str), ("before", str)))
    return line if sound else None


def _short(value):
    """A detail, its texts cut to TEXT_MAX."""
    if isinstance(value, str):
        return value if len(value) <= TEXT_MAX else value[:TEXT_MAX] + "…"
    if isinstance(value, dict):
        return {_short(str(k)): _short(v) for k, v in list(value.items())[:100]}
    return [_short(v) for v in value[:100]] if isinstance(value, (list, tuple)) else value
