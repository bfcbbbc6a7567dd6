"""What the script of a campaign does beside its promise: takes its arguments, finds the tests' modules, prints one JSON object, ends with a status."""

import argparse
import json
import random
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [*(str(TESTS / name) for name in ("edge", "host", "hostile", "log", "manage", "mqtt", "system", "world")), str(TESTS.parent), str(TESTS.parent / "rules")]


def main(run, doc, count, **options) -> int:
    """Run units --first to --first + --count - 1 of --seed and say what came of it. Returns the status to end with.

    run: fn(seed, first, count, **options) -> (figures, [what was broken]). count: the default. options: a default each; a flag where that is False.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=count)
    for name, default in options.items():
        kind = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        parser.add_argument(f"--{name.replace('_', '-')}", **kind)
    arguments = vars(parser.parse_args())
    asked = {name: arguments[name] for name in ("seed", "first", "count")}
    began = time.monotonic()
    figures, broken = run(**arguments)
    print(json.dumps(asked | figures | {"seconds": round(time.monotonic() - began, 1), "broken": broken[:20]}))
    return 1 if broken else 0
