"""What the campaigns over simulated worlds share: arguments, one compiled folder, a JSON object at the end."""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "log"), str(HERE.parent / "host"), str(HERE.parents[1]), str(HERE.parents[1] / "rules")]


def run(unit, seed, first, count, name):
    """Units first to first + count - 1 of a seed. unit: fn(seed text, folder) -> (figures to add up, [what was broken])."""
    from simulation import Folder

    total, broken, began, longest = Counter(), [], time.monotonic(), 0.0
    with Folder() as folder:
        os.makedirs(f"{folder}/data")
        for i in range(first, first + count):
            at = time.monotonic()
            figures, problems = unit(f"{seed}/{i}", folder)
            longest = max(longest, time.monotonic() - at)
            total.update(figures)
            broken += [f"seed {seed} {name} {i}: {problem}" for problem in problems]
    seconds = round(time.monotonic() - began, 1)
    return {"seed": seed, "first": first, name: count, **total, "seconds": seconds, "longest_s": round(longest, 1), "broken": broken[:20]}


def main(unit, name, doc):
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    arguments = parser.parse_args()
    results = run(unit, arguments.seed, arguments.first, arguments.count, name)
    print(json.dumps(results))
    return 1 if results["broken"] else 0
