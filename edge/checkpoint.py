"""Checkpoints: named memory images and a few bytes about them, committed together and incrementally. docs/format/checkpoint.md.

A CheckpointStore is a Log with two kinds of records, so torn writes, bad sectors, full disks and failing syncs are the log's concern.

    FULL save    | PAGES PAGES ... COMMIT(previous 0) |      begins a segment
    delta save                                          | PAGES COMMIT(previous n) | PAGES COMMIT(previous n+1) | ...

Invariants:
- A save counts when its COMMIT and all PAGES records that it tells of can be read, and the save it builds on counts.
- RAM holds a fingerprint a page, not a copy. After a save that failed the next one is full: what the failed one left is not built on.
- The last but one full save and its deltas are kept until the next full save is durable, so a damaged full save costs age, not all.
"""

import struct

import msgpack
import zstandard

from edge.errors import DiskError
from edge.storage._pages import PAGE_BYTES, changed, fingerprints
from edge.storage.log import Log
from edge.storage.records import between

PAGES, COMMIT = 1, 2
PAGES_PER_RECORD = 256
DELTAS_MAX = 64


class CheckpointRecovery:
    """What load() found. `number` of the save that was restored, 0 for none; `skipped` newer saves that are damaged."""

    def __init__(self):
        self.number = self.skipped = 0


class CheckpointStore:
    """Saves and loads (meta, images). `size_bytes` on disk; `oldest_meta`: meta of the oldest state that a later load may fall back to,
    None before the first save or load: keep what is needed to go on from there."""

    def __init__(self, disk, directory, cipher=None):
        """Raises DiskError as Log does."""
        self.log = Log(disk, directory, quota_bytes_max=1 << 40, cipher=cipher)
        self.recovery = CheckpointRecovery()
        self._key = int.from_bytes(disk.entropy(8), "little")
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._number = 0
        self._prints = None              # name -> fingerprints of the last save, None: the next save is full
        self._deltas = self._delta_bytes = self._full_bytes = 0
        self._bases = []                 # (position, meta) of the full saves kept
        self._surveyed = False
        self._unfinished = None          # position of the first record of a save that failed

    @property
    def size_bytes(self) -> int:
        return self.log.size_bytes

    @property
    def oldest_meta(self) -> bytes | None:
        return self._bases[0][1] if self._bases else None

    def save(self, meta: bytes, images: dict):
        """Commit a state. images: name -> buffer of bytes. Durable when it returns. Raises DiskError; then the last state stands, but the next
        start may find this one all the same: see withdraw()."""
        if not self._surveyed:
            self._survey()
        full = self._prints is None or self._deltas >= DELTAS_MAX or self._delta_bytes > self._full_bytes
        before, self._prints = self._prints, None
        previous, self._number = self._number, self._number + 1
        prints, written, records = {}, 0, 0
        if full:
            self.log.roll()
        base = self._unfinished = self.log.head
        for i, (name, image) in enumerate(images.items()):
            view = memoryview(image).cast("B")
            prints[name] = fingerprints(view, self._key)
            pages = changed(b"" if full else before.get(name, b""), prints[name])
            for at in range(0, len(pages), PAGES_PER_RECORD):
                payload = self._pack(view, pages[at:at + PAGES_PER_RECORD])
                self.log.append(PAGES, i, self._number, len(pages[at:at + PAGES_PER_RECORD]), payload)
                written += len(payload)
                records += 1
        table = [[name, memoryview(image).nbytes] for name, image in images.items()]
        self.log.append(COMMIT, 0, self._number, records, msgpack.packb([0 if full else previous, table, bytes(meta)]))
        self.log.sync()
        self._prints, self._unfinished = prints, None
        if full:
            self._deltas, self._delta_bytes, self._full_bytes = 0, 0, written
            self._forget_all_before_last(base, bytes(meta))
        else:
            self._deltas += 1
            self._delta_bytes += written

    def withdraw(self):
        """Make sure that no start finds the save that failed last. Raises DiskError; call again before the state goes on from the one before."""
        if self._unfinished is not None:
            self.log.truncate(self._unfinished)
            self._unfinished = None

    def begin_anew(self):
        """Make the next save a full one. After two of them `oldest_meta` is the first one's: the way to let go of an old state."""
        self._prints = None

    def load(self) -> tuple[bytes, dict] | None:
        """(meta, name -> bytearray) of the newest state that is wholly readable, None if there is none; `recovery` says which."""
        commits = self._survey()
        bases = [(start, number) for start, number, previous, _ in commits if previous == 0]
        for start, number in reversed(bases):
            state = self._replay(start, number)
            if state is not None:
                number, base_meta, meta, images, end = state
                lost_after = any(after > end for _, after in self.log.recovery.lost)
                self.recovery.number = number
                self.recovery.skipped = sum(n > number for _, n, _, _ in commits) or int(lost_after)
                self._bases = [(start, base_meta)]
                return meta, images
        self.recovery.skipped = len(commits)
        return None

    def close(self):
        self.log.close()

    def _pack(self, view, pages) -> bytes:
        parts = [struct.pack(f"<{len(pages)}I", *pages)]
        parts += [view[p * PAGE_BYTES:(p + 1) * PAGE_BYTES] for p in pages]
        return self._compressor.compress(b"".join(parts))

    def _forget_all_before_last(self, base, meta):
        self._bases = [*self._bases[-1:], (base, meta)]
        try:
            self.log.drop_before(self._bases[0][0])
        except DiskError:
            pass                         # the state is saved; the next full save tries again

    def _survey(self) -> list:
        """(position of the first record, number, previous, position of the COMMIT) of every commit that can be read."""
        commits, start, read = [], {}, 0
        for r in between(self.log, self.log.tail):
            read += 1
            self._number = max(self._number, r.first)
            start.setdefault(r.first, r.position)
            if r.kind == COMMIT:
                commits.append((start[r.first], r.first, msgpack.unpackb(r.payload)[0], r.position))
        if read < self.log.head - self.log.tail:         # what cannot be read now may be readable the next time: no other save gets its number
            self._number = max(self._number, self.log.head)
        self._surveyed = True
        return commits

    def _replay(self, start, base):
        """(number, meta of the base, meta, images, position behind) by going from a full save as far as all is readable."""
        state, number, pages = None, 0, []
        for r in between(self.log, start):
            if r.kind == PAGES:
                if pages and pages[-1].first != r.first:
                    pages = []
                pages.append(r)
            elif r.kind == COMMIT:
                mine, pages = [p for p in pages if p.first == r.first], []
                previous, table, meta = msgpack.unpackb(r.payload)
                if len(mine) != r.count or previous != number or (previous == 0 and r.first != base):
                    break
                images = self._apply(state[3] if state else {}, table, mine)
                if images is None:
                    break
                number = r.first
                state = (number, state[1] if state else meta, meta, images, r.position + 1)
        return state

    def _apply(self, before, table, records):
        """The images after a save, None when its pages do not fit."""
        unpacked = []
        for r in records:
            bytes_max = r.count * (4 + PAGE_BYTES)
            try:
                if zstandard.get_frame_parameters(r.payload).content_size > bytes_max:
                    return None
                data = zstandard.ZstdDecompressor().decompress(r.payload)
                numbers = struct.unpack_from(f"<{r.count}I", data)
            except (zstandard.ZstdError, struct.error):
                return None
            unpacked.append((r.stream, numbers, memoryview(data)[4 * r.count:]))
        images = {}
        for name, size in table:
            images[name] = before.pop(name, None) or bytearray()
            if len(images[name]) > size:
                del images[name][size:]
            images[name].extend(bytes(size - len(images[name])))
        names = list(images)
        for i, numbers, data in unpacked:
            image, at = images[names[i]], 0
            for page in numbers:
                size = min(PAGE_BYTES, len(image) - page * PAGE_BYTES)
                image[page * PAGE_BYTES:page * PAGE_BYTES + size] = data[at:at + size]
                at += size
        return images
