"""The promises, and the campaign that tries to break each: a script that takes --seed, --first and --count, prints one JSON object with what it did, and ends
with status 1 and a list `broken` where the promise did not hold. `ci` units are run by `make test`, `full` units by `make soak`."""

from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1]


class Campaign(NamedTuple):
    """name; the promise in a sentence; what a unit is; units in CI and in full; units a process; the script, from tests/."""

    name: str
    promise: str
    unit: str
    ci: int
    full: int
    chunk: int
    script: str

    def command(self, python, seed, first, count) -> list:
        return [python, TESTS / self.script, "--seed", str(seed), "--first", str(first), "--count", str(count)]


CAMPAIGNS = (
    Campaign("hostile", "a hostile module ends no process, changes no other rule's output, is stopped in time and keeps no memory", "modules", 2000, 10_000, 1000,
             "hostile/hostile_run.py"),
    Campaign("quota", "at a quota and on a full disk lanes give way by their policy; what is evicted, announced and lacking upstream is the same, event by event", "loads", 60, 5000,
             500, "edge/quota_run.py"),
)
