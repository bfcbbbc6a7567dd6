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
    Campaign("years", "a gateway-year with power cuts, outages, clock steps, changes and hostile peers breaks no promise", "simulated gateway-years", 1, 1000, 5,
             "world/years_run.py"),
    Campaign("windows", "windows are bit-equal to an undisturbed run's, whatever crashes in them, with late and skewed input", "runs of 10 crashes", 10, 100, 10,
             "world/windows_run.py"),
    Campaign("clocks", "clocks that jump, begin in 1970 or are hours off lose nothing, change no order, fire no window twice and make nobody else late",
             "runs of 50 jumps", 2, 100, 10, "world/clocks_run.py"),
    Campaign("upstream", "an upstream that is slow, mute, out of order, forgetful, flapping or malformed costs nothing but time", "spells", 7, 700, 35,
             "world/upstream_run.py"),
)
