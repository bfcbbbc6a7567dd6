"""Bit rot: each bit of a segment of 1 MiB flipped, of batches as the gateway writes them; and bits of the files beside it.

    python bit_rot_run.py --seed 1 --count 131072 [--first 0]

A unit is a flip: unit i is bit 64 * (i mod 131072) + (i div 131072 + the seed) mod 64, so the first 131,072 units are every 64th bit and 8,388,608 are all.

What each flip goes through: the product's edge.storage._record.Scan reads the file from the record that holds the bit on, until it has come to two good records at
their places behind it. These, fields and payload, must be as they were written, and the hit record must be gone (or, in its marker's absence, unseen):
from there on the scan stands as it stood without the flip, and its state is all that reading depends on. Beside that
- 1 of FULL flips, 1 of FULL_BLANK in the blank space behind the records, and each one in the segment's header, goes through a start: Log opened on it (in turn with its index and without), everything read,
  compared, appended to, opened again;
- 1 of BESIDE flips one more bit in another file, by the seed: index, identity, checkpoints, rule store's catalogue and deployments, audit log: opened by their own code.
"""

import random
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from campaign import main  # first: it finds the other folders
from crash_states import Found
from log_oracle import DIRECTORY, open_log, read_all
from pipeline_world import CONFIG, S, World, env
from rot_files import beside

import gateway.core
from edge.storage._record import Scan
from edge.storage.memory import Memory
from edge.storage.segment import SEGMENT_HEADER, parse_header

SEGMENT = 1 << 20
EVERY = 64
COARSE = 8 * SEGMENT // EVERY
FULL = 128
FULL_BLANK = 8
BESIDE = 32
LANE = "[lanes.all]\nstreams = [\"plain\"]\nquota = \"4MiB\"\n"


def journal(seed, modules):
    """(name, bytes, bytes of its index) of a full journal segment: SEGMENT bytes, blank behind the last record."""
    rng, number = random.Random(seed), 0
    gateway.core.SEGMENT_BYTES = SEGMENT
    world = World(modules, CONFIG + LANE, Memory(seed=seed)).start()
    while not [p for p in world.disk.files if "journal" in p and p.endswith(".idx")]:
        world.now_ns += S // 7
        events = []
        for _ in range(rng.choice([1, 5, 20, 100, 400])):
            number += 1
            events.append(env(f"device-{rng.randrange(50)}", number, world.now_ns // 10**6 - rng.randrange(3000), rng.choice([None, round(rng.gauss(20, 3), 3)])))
        assert world.put(*events)
        world.pipeline.tick(world.now_ns) if rng.random() < 0.1 else None
    index = next(p for p in world.disk.files if "journal" in p and p.endswith(".idx"))
    segment = f"{index[:-4]}.seg"
    name = segment.rpartition("/")[2]
    return name, bytes(world.disk.files[segment].data).ljust(SEGMENT, b"\0"), bytes(world.disk.files[index].data)


def said(r):
    return r.position, r.kind, r.flags, r.stream, r.first, r.count, r.payload


class Rot:
    """One segment, its records, and the files beside it."""

    def __init__(self, seed, modules):
        self.seed = seed
        self.name, data, self.index = journal(seed, modules)
        self.data = bytearray(data)
        _, self.salt, self.first, _ = parse_header(data)
        scan = Scan(self.salt, SEGMENT_HEADER.size, self.first)
        scan.feed(memoryview(data)[SEGMENT_HEADER.size:], SEGMENT - SEGMENT_HEADER.size)
        self.records = [*scan.records]
        self.end = scan.end
        assert len(data) == SEGMENT and scan.end > SEGMENT * 0.9 and len(self.records) > 100 and not scan.holes
        self.said, self.offsets = [said(r) for r in self.records], [r.offset for r in self.records]
        self.of = []                     # byte // 64 -> the record that holds the first of these bytes
        at = 0
        for byte in range(0, self.end, 64):
            while byte >= self.records[at].end:
                at += 1
            self.of.append(at)
        self.beside = beside(seed)
        self.fates, self.broken = Counter(), []

    def flip(self, i):
        """Unit i."""
        bit = EVERY * (i % COARSE) + (i // COARSE + self.seed) % EVERY
        byte = bit >> 3
        self.data[byte] ^= 1 << (bit & 7)
        if byte < SEGMENT_HEADER.size:
            self.fates["in the header"] += 1
            self.start(bit, -1)
        elif byte < self.end:
            hit = self.of[byte >> 6]
            while byte >= self.records[hit].end:
                hit += 1
            self.scan(bit, hit)
            if i % FULL == 0:
                self.start(bit, hit)
        else:
            self.fates["in blank space"] += 1
            if i % FULL_BLANK == 0:
                self.start(bit, len(self.records))
        self.data[byte] ^= 1 << (bit & 7)
        if i % BESIDE == 0:
            self.rot_beside(i // BESIDE)

    def scan(self, bit, hit):
        """From the hit record to the two behind it."""
        records, data = self.records, self.data
        begin, n = records[hit].offset, len(records)
        stop = records[min(hit + 2, n - 1)].end
        scan = Scan(self.salt, begin, records[hit].position)
        view = memoryview(data)
        while scan.offset < stop:
            before = scan.offset
            scan.feed(view[scan.offset:max(stop, scan.offset + scan.needed)], len(data) - scan.offset)
            if scan.offset == before and not scan.needed:
                break
        found = scan.records
        after = hit + 1 + len(found)
        if after < min(hit + 3, n) or [said(r) for r in found] != self.said[hit + 1:after] or [r.offset for r in found] != self.offsets[hit + 1:after]:
            self.broken.append(f"seed {self.seed}, bit {bit}: behind record {hit} the scan finds {found[:3]}, not {records[hit + 1:hit + 3]}")
        self.fates["the hit record lost"] += 1

    def start(self, bit, hit):
        """All of the product's reading, from the start on."""
        self.fates["starts"] += 1
        files = {f"{DIRECTORY}/{self.name}": bytes(self.data)}
        if bit % 3 or hit < 0:
            files[f"{DIRECTORY}/{self.name[:-4]}.idx"] = self.index
        try:
            found = Found(files)
            log = open_log(found, segment_bytes_max=SEGMENT, quota_bytes_max=64 << 20, preamble=None)
            expected = [s for k, s in enumerate(self.said) if k != hit]
            assert [said(r) for r in read_all(log)] == expected, "records are lost or changed"
            head = log.append(2, 1, 0, 1, b"goes on")
            log.sync()
            assert head > self.said[-1][0], "a position is given twice"
            again = open_log(Found(found.contents()), segment_bytes_max=SEGMENT, quota_bytes_max=64 << 20, preamble=None)
            assert [said(r) for r in read_all(again)][:-1] == expected and again.head == head + 1
        except Exception as error:
            self.fail(f"bit {bit}, in record {hit}", error)

    def rot_beside(self, i):
        rng = random.Random(f"{self.seed}/{i}")
        kind = list(self.beside)[i % len(self.beside)]
        files, path, check = self.beside[kind]
        bit = rng.randrange(8 * len(files[path]))
        data = bytearray(files[path])
        data[bit >> 3] ^= 1 << (bit & 7)
        self.fates[kind] += 1
        try:
            check(Found(files | {path: bytes(data)}))
        except Exception as error:
            self.fail(f"{kind}, bit {bit}", error)

    def fail(self, what, error):
        last = traceback.extract_tb(error.__traceback__)[-1]
        self.broken.append(f"seed {self.seed}, {what}: {error!r} at {Path(last.filename).name}:{last.lineno}"[:600])


def run(seed, first, count):
    with tempfile.TemporaryDirectory(prefix="tidegate-rot-") as modules:
        rot = Rot(seed & 0xFFFFFFFF, modules)
    for i in range(first, first + count):
        rot.flip(i)
        if len(rot.broken) > 20:
            break
    return {"records": len(rot.records), "fates": dict(rot.fates)}, rot.broken


if __name__ == "__main__":
    sys.exit(main(run, __doc__, COARSE))
