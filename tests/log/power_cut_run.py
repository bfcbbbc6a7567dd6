"""Power cuts at random operations of long runs of a whole gateway, its devices, rules, swaps, lanes and receiver, also while it starts.

    python power_cut_run.py --seed 1 --count 500 [--first 0]

A unit is a cut; RUN cuts make a run, of one seed. In the end of each script the receiver has, bit by bit, what it has after the same script without a cut.
Prints one JSON object: cuts (and those during a start), rows compared, those of windows, swaps, starts, the longest start in seconds of wall time.
"""

import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from campaign import main  # first: it finds the other folders
from memory_disk import MemoryDisk, PowerCut
from pipeline_script import script
from pipeline_world import Script, World

import gateway.core
from edge.storage.log import Log

RUN = 25
STEPS = 120
OPERATIONS = 50                          # on average, from a start to a cut
IN_START = 0.3                           # of the cuts, while the gateway starts
START_S_MAX = 5.0
WINDOWS = ("tumble", "hop", "slopes")
gateway.core.SEGMENT_BYTES = Log.__init__.__kwdefaults__["segment_bytes_max"] = 64 << 10         # files that are full soon, and quickly copied


class Run:
    """RUN cuts from one seed."""

    def __init__(self, name, modules, figures):
        self.rng = random.Random(name)
        self.modules, self.figures = modules, figures
        self.cuts = []

    def go(self):
        while len(self.cuts) < RUN:
            steps = script(self.rng.random(), STEPS, swaps=0.06)
            expected = World(self.modules).start()
            Script(steps).play(expected)
            expected.drain()
            got = self.with_cuts(steps)
            got.drain()
            got.assert_balanced()
            assert not got.missing() and not got.announced(), (got.missing(), got.announced())
            assert got.rows.keys() == expected.rows.keys(), sorted(got.rows.keys() ^ expected.rows.keys())[:20]
            assert got.rows == expected.rows, [(k, v, got.rows[k]) for k, v in expected.rows.items() if got.rows[k] != v][:3]
            assert got.core.deployments == expected.core.deployments
            self.figures["rows"] += len(got.rows)
            self.figures["window_rows"] += sum(name in WINDOWS for name, _ in got.rows)
            self.figures["swaps"] += sum(what == "swap" for _, what, _ in steps)

    def with_cuts(self, steps):
        world, play = World(self.modules, disk=MemoryDisk(seed=self.rng.randrange(1 << 30))).start(), Script(steps)
        self.plan(world.disk, 2 * OPERATIONS)
        crashed = False
        while True:
            try:
                if crashed:
                    self.start(world)
                    play.resume(world)
                    crashed = False
                play.play(world)
                world.disk.cut_at = None
                return world
            except PowerCut:
                crashed = True
                self.cuts.append(world.disk.operations)
                self.figures["cuts"] += 1
                world.disk = world.disk.after_cut(self.rng.choice([0, 0.1, 0.5, 0.9, 1]))

    def plan(self, disk, operations):
        """The power goes within so many more operations, as long as there are cuts to make."""
        disk.cut_at = disk.operations + self.rng.randrange(1, operations) if len(self.cuts) < RUN else None

    def start(self, world):
        if self.rng.random() < IN_START:
            self.plan(world.disk, 150)
        began = time.perf_counter()
        try:
            world.start()
        except PowerCut:
            self.figures["cuts_in_starts"] += 1
            raise
        self.plan(world.disk, 2 * OPERATIONS)
        self.figures["starts"] += 1
        self.figures["start_s_max"] = max(self.figures["start_s_max"], round(time.perf_counter() - began, 3))
        assert not world.recovered.lost and not world.recovered.failed and not world.recovered.fresh, world.recovered


def run(seed, first, count):
    figures = {"cuts": 0, "cuts_in_starts": 0, "starts": 0, "swaps": 0, "rows": 0, "window_rows": 0, "start_s_max": 0.0}
    broken = []
    with tempfile.TemporaryDirectory(prefix="tidegate-cuts-") as modules:
        for i in range(first // RUN, -(-(first + count) // RUN)):
            it = Run(f"{seed}/{i}", modules, figures)
            try:
                it.go()
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                broken.append(f"seed {seed}, --first {i * RUN}, cuts after {it.cuts} operations: {error!r} at {Path(last.filename).name}:{last.lineno}"[:1500])
    if figures["start_s_max"] > START_S_MAX:
        broken.append(f"a start took {figures['start_s_max']} s")
    return figures, broken


if __name__ == "__main__":
    sys.exit(main(run, __doc__, 500))
