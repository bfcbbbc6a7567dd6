"""Every crash state of every operation: a start finds each, and what the operation's oracle says must be true.

    python crash_states_run.py --seed 1 --count 32 [--first 0] [--only NAME]

A unit is an operation; unit i is operation i modulo their number, in its round i divided by it: other bytes, and from round 1 on files not yet synced before it.
Prints one JSON object: for each operation the states visited, points in time, those whose mixtures were all visited and those of which a sample was.
"""

import random
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from campaign import main  # first: it finds the other folders
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


def run(seed, first, count, only):
    """only: operations whose name has this in it."""
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
    return {"states": sum(r["states"] for r in results.values()), "operations": results}, broken


if __name__ == "__main__":
    sys.exit(main(run, __doc__, len(OPERATIONS), only=""))
