"""Every crash state of every operation: a start finds each, and what the operation's oracle says must be true.

    python crash_states_run.py --seed 1 --count 32 [--first 0] [--only NAME]

A unit is an operation; unit i is operation i modulo their number, in its round i divided by it: other bytes, and from round 1 on files not yet synced before it.
Prints one JSON object: for each operation the states visited, points in time, those whose mixtures were all visited and those of which a sample was.
"""

import argparse
import json
import random
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / name) for name in ("host", "manage", "edge")), str(HERE.parents[1]), str(HERE.parents[1] / "rules")]

import crash_operations
from crash_core import CORE
from crash_states import Enumeration, Found, Recorder

OPERATIONS = CORE | crash_operations.OPERATIONS       # the long ones first


def visit(name, operation, seed, settled=True, broken_max=3, disk=None):
    """(what was visited, what was broken)."""
    rng = random.Random(seed)
    disk = disk or Recorder(seed=rng.randrange(1 << 30))
    operation.prepare(disk, rng)
    if settled and getattr(operation, "settled", True):
        disk.settle()
    disk.record(operation.promise)
    operation.act()
    disk.stop()
    outcomes = set()
    enumeration, broken, began = Enumeration(seed, *getattr(operation, "bounds", ())), [], time.perf_counter()
    for point, files in enumeration.states(disk.points):
        try:
            outcomes.add(operation.check(Found(files, seed=1), point.promise[1]))
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            broken.append(f"{name}, seed {seed}, state {enumeration.visited} {point.where}: {error!r} at {Path(last.filename).name}:{last.lineno}"[:600])
            if len(broken) >= broken_max:
                break
    if getattr(operation, "change", None) and outcomes != {True, False}:
        broken.append(f"{name}, seed {seed}: after a cut the change is always {'there' if True in outcomes else 'gone'}: this tries too little")
    return {"states": enumeration.visited, "exhaustive": enumeration.exhaustive, "sampled": enumeration.sampled, "n_max": enumeration.n_max,
            "seconds": round(time.perf_counter() - began, 1)}, broken


def run(seed, first, count, only=None):
    results, broken = {}, []
    names = list(OPERATIONS)
    for i in range(first, first + count):
        name, turn = names[i % len(names)], i // len(names)
        if only and only not in name:
            continue
        figures, wrong = visit(name, OPERATIONS[name], f"{seed}/{i}", settled=turn == 0)
        known = results.setdefault(name, dict.fromkeys(figures, 0))
        results[name] = {k: max(known[k], v) if k == "n_max" else round(known[k] + v, 1) for k, v in figures.items()}
        broken += wrong
    return results, broken


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=len(OPERATIONS))
    parser.add_argument("--only", help="operations whose name has this in it")
    arguments = parser.parse_args()
    began = time.monotonic()
    results, broken = run(arguments.seed, arguments.first, arguments.count, arguments.only)
    print(json.dumps({"seed": arguments.seed, "first": arguments.first, "states": sum(r["states"] for r in results.values()), "operations": results,
                      "seconds": round(time.monotonic() - began, 1), "broken": broken[:20]}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
