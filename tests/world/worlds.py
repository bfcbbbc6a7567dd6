"""What the campaigns over simulated worlds share: one compiled folder for all units of a process."""

import os
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

import campaign
from simulation import Folder


def main(unit, doc) -> int:
    """unit: fn(seed text, folder) -> (figures to add up, [what was broken])."""

    def run(seed, first, count):
        total, broken, longest = Counter(), [], 0.0
        with Folder() as folder:
            os.makedirs(f"{folder}/data")
            for i in range(first, first + count):
                at = time.monotonic()
                figures, problems = unit(f"{seed}/{i}", folder)
                longest = max(longest, time.monotonic() - at)
                total.update(figures)
                broken += [f"seed {seed}, unit {i}: {problem}" for problem in problems]
        return {**total, "longest_s": round(longest, 1)}, broken

    return campaign.main(run, doc, 1)
