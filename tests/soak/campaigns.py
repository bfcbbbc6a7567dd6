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
    Campaign("crash_states", "a power cut in any operation leaves a state that the next start takes up: nothing acknowledged lost, nothing invented, every mixture of what was not synced",
             "operations", 74, 740, 74, "log/crash_states_run.py"),
    Campaign("power_cut", "power cuts at random moments of long runs, swaps and starts included, change no bit of what the receiver has in the end; a start takes 5 s at most",
             "cuts", 500, 15_000, 500, "log/power_cut_run.py"),
    Campaign("bit_rot", "a flipped bit is harmless or detected, and costs the record that holds it at most; the start goes on", "flips", 131_072, 8_388_608, 131_072,
             "log/bit_rot_run.py"),
    Campaign("io_errors", "an I/O error at any operation loses nothing that was acknowledged and stops nothing for longer than the disk refuses", "faults", 9262, 36_795, 4631,
             "log/io_errors_run.py"),
)
