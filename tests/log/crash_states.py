"""Every state in which a power cut may leave the files, by POSIX, from the operations since record().

Between two operations (and within them, which comes to the same) these may be lost or there, each alone: every un-synced entry of a directory (made, removed;
a rename is both), every change of a file's size, every un-synced sector. All 2^n mixtures are visited up to n = `bound`; beyond it those that lose or keep
one thing or all from one thing on, and `samples` more by the seed. A long write counts as PIECES runs of sectors, the first and the last sector apart.
"""

import random
from typing import Any, NamedTuple

from memory_disk import SECTOR, FaultyDisk

from edge.storage.memory import File, Memory, resize, write

PIECES = 4


class Shared(File):
    """A file whose bytes are another's until it is written to."""

    def __init__(self, data=b""):
        self.data = data


class Found(Memory):
    """What a start finds: files on a disk that loses and refuses nothing."""

    file = Shared

    def _own(self, fd):
        file = self.open_files[fd][1]
        if not isinstance(file.data, bytearray):
            file.data = bytearray(file.data)

    def pwrite(self, fd, data, offset):
        self._own(fd)
        return super().pwrite(fd, data, offset)

    def truncate(self, fd, size):
        self._own(fd)
        super().truncate(fd, size)

    def contents(self):
        return {path: bytes(file.data) for path, file in self.files.items()}


class Point(NamedTuple):
    """A moment: entries on stable storage, entries pending, node -> (its stable bytes, changes since); what was promised then, as (tag, value) with equal tags
    for equal values; and where that was."""

    entries: dict
    pending: tuple
    nodes: dict
    promise: tuple[Any, Any]
    where: str


class Recorder(FaultyDisk):
    """`points` since record(promise); promise: fn() -> (tag, value)."""

    def __init__(self, files=(), seed=0):
        super().__init__(lambda number, name: None, files, seed)
        self.promise, self.points = None, []

    def settle(self):
        """All that was done is on stable storage."""
        for node in {*self.files.values(), *self.stable.values()}:
            node.stable, node.changes = bytes(node.data), []
        self.stable, self.pending = dict(self.files), []

    def record(self, promise):
        self.promise = promise
        self.point("at the beginning")

    def operate(self, name, path=""):
        if self.promise is not None and name not in ("open", "pread", "listdir", "lock", "mkdir"):
            self.point(f"before {name} {path}")
        super().operate(name, path)

    def stop(self):
        self.point("at the end")
        self.promise = None

    def point(self, where):
        nodes = {node: (node.stable, tuple(node.changes)) for node in (*self.stable.values(), *(c[2] for c in self.pending if c[0] == "link"))}
        self.points.append(Point(dict(self.stable), tuple(self.pending), nodes, self.promise(), f"{where} (operation {self.operations})"))


def atoms(stable, changes, rng) -> list:
    """What of a node's changes is lost or there alone: ("size", n) and ("data", offset, bytes), in order."""
    found, size = [], len(stable)
    for kind, offset, piece in changes:
        if kind == "truncate":
            found.append(("size", offset))
            size = offset
            continue
        end = offset + len(piece)
        if end > size:
            found.append(("size", end))
            size = end
        cuts = [c for c in range(offset - offset % SECTOR + SECTOR, end, SECTOR)]
        if len(cuts) >= PIECES:
            cuts = sorted({cuts[0], cuts[-1], *rng.sample(cuts[1:-1], PIECES - 3)})
        found += [("data", a, piece[a - offset:b - offset]) for a, b in zip([offset, *cuts], [*cuts, end])]
    return found


def content(stable, parts, mask):
    """A node's bytes when those of its parts are there whose bits are set."""
    if not mask:
        return stable
    data = bytearray(stable)
    for i, part in enumerate(parts):
        if mask >> i & 1:
            if part[0] == "size":
                resize(data, part[1])
            else:
                write(data, part[1], part[2])
    return bytes(data)


def masks(n, bound, samples, rng):
    """Which of n things are there, each as bits of a number."""
    if n <= bound:
        return range(1 << n)
    whole = (1 << n) - 1
    chosen = {0, whole, *((1 << i) - 1 for i in range(n)), *(whole ^ (1 << i) - 1 for i in range(n)), *(1 << i for i in range(n)), *(whole ^ 1 << i for i in range(n))}
    return [*sorted(chosen), *(rng.getrandbits(n) for _ in range(samples))]


class Enumeration:
    """states(points): (point, path -> bytes), each mixture once for each promise. `visited`, `exhaustive`, `sampled`: points whose mixtures were all
    visited, and those of which a sample was."""

    def __init__(self, seed, bound=10, samples=64):
        self.rng, self.bound, self.samples = random.Random(seed), bound, samples
        self.visited = self.exhaustive = self.sampled = self.n_max = 0

    def states(self, points):
        seen, same = set(), None
        for point in points:
            here = (point.entries, point.pending, point.nodes, point.promise[0])
            if here == same:
                continue
            same = here
            for files in self._mixtures(point):
                key = hash((frozenset(files.items()), point.promise[0]))
                if key not in seen:
                    seen.add(key)
                    self.visited += 1
                    yield point, files

    def _mixtures(self, point):
        parts, first, n = {}, {}, len(point.pending)
        for node, (stable, changes) in point.nodes.items():
            if changes:
                parts[node], first[node] = atoms(stable, changes, self.rng), n
                n += len(parts[node])
        known = {node: {} for node in parts}
        self.n_max = max(self.n_max, n)
        self.exhaustive, self.sampled = self.exhaustive + (n <= self.bound), self.sampled + (n > self.bound)
        for mask in masks(n, self.bound, self.samples, self.rng):
            entries = dict(point.entries)
            for i, change in enumerate(point.pending):
                if mask >> i & 1:
                    if change[0] == "link":
                        entries[change[1]] = change[2]
                    else:
                        entries.pop(change[1], None)
            files = {}
            for path, node in entries.items():
                if node not in parts:
                    files[path] = point.nodes[node][0]
                    continue
                mine = mask >> first[node] & (1 << len(parts[node])) - 1
                if mine not in known[node]:
                    known[node][mine] = content(point.nodes[node][0], parts[node], mine)
                files[path] = known[node][mine]
            yield files
