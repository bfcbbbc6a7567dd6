"""The promises, and the campaign that tries to break each: a script that takes --seed, --first and --count, prints one JSON object with what it did, and ends
with status 1 and a list `broken` where the promise did not hold. `ci` units are run by `make test`, `full` units by `make soak`."""

from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1]


class Campaign(NamedTuple):
    """name; the promise in a sentence; what a unit is; units in CI and in full; units a process; the script, from tests/. noisy: it judges the time or the memory
    of processes on a machine with other work, so what fails once is run again, and is broken if it fails twice. alone: arguments of `make soak`, which has the machine
    to itself."""

    name: str
    promise: str
    unit: str
    ci: int
    full: int
    chunk: int
    script: str
    noisy: bool = False
    alone: tuple = ()

    def command(self, python, seed, first, count, *more) -> list:
        return [python, TESTS / self.script, "--seed", str(seed), "--first", str(first), "--count", str(count), *more]


CAMPAIGNS = (
    Campaign("hostile", "a hostile module ends no process, changes no other rule's output, is stopped in time, keeps no memory and costs the others 10 % of their p99 at most", "modules", 2000, 10_000, 10_000,
             "hostile/hostile_run.py", True, ("--p99-ratio-max", "1.1", "--copies", "3")),
    Campaign("quota", "at a quota and on a full disk lanes give way by their policy, power cuts included; what is evicted, announced and lacking upstream is the same, event by event", "loads", 60, 5000,
             500, "edge/quota_run.py"),
    Campaign("kill", "SIGKILL at random points under load loses no acknowledged event, doubles none after the receiver, and needs no repair", "kills", 200, 10_000, 250,
             "system/kill_run.py"),
    Campaign("fleet", "what the receiver has equals what the devices sent, through the listener and through Mosquitto, with crashes, dead links, duplicates and disorder",
             "times 10,000 events and 5 faults", 10, 1000, 50, "system/fleet_run.py"),
    Campaign("outage", "72 hours without upstream at 500 events a second fit 4 GB, drain at 50,000 a second and leave live alerts within twice their latency", "minutes",
             44, 4320, 4320, "system/outage_run.py", True),
    Campaign("memory", "memory stays within 2 MB over events and device connects", "times 10,000 events and a connect", 200, 10_000, 10_000, "system/memory_run.py", True),
    Campaign("packets", "fuzzed MQTT and bombs crash, hang and fill nothing, and a device that floods costs the others 10 % of their p99 at most",
             "times 100 packets in process and one on the wire", 10_000, 1_000_000, 50_000, "mqtt/packets_run.py", True),
    Campaign("crash_states", "a power cut in any operation leaves a state that the next start takes up: nothing acknowledged lost, nothing invented, every mixture of what was not synced",
             "operations", 74, 740, 74, "log/crash_states_run.py"),
    Campaign("power_cut", "power cuts at random moments of long runs, swaps and starts included, change no bit of what the receiver has in the end; a start takes 5 s at most",
             "cuts", 500, 15_000, 500, "log/power_cut_run.py"),
    Campaign("bit_rot", "a flipped bit is harmless or detected, and costs the record that holds it at most; the start goes on", "flips", 131_072, 8_388_608, 131_072,
             "log/bit_rot_run.py"),
    Campaign("io_errors", "an I/O error at any operation loses nothing that was acknowledged and stops nothing for longer than the disk refuses", "faults", 11_198, 38_731, 5599,
             "log/io_errors_run.py"),
    Campaign("years", "a gateway-year with power cuts, outages, clock steps, changes and hostile peers breaks no promise", "simulated gateway-years", 1, 1000, 5,
             "world/years_run.py"),
    Campaign("windows", "windows are bit-equal to an undisturbed run's, whatever crashes in them, with late and skewed input", "runs of 10 crashes", 10, 100, 10,
             "world/windows_run.py"),
    Campaign("clocks", "clocks that jump, begin in 1970 or are hours off lose nothing, change no order, fire no window twice and make nobody else late",
             "runs of 50 jumps", 2, 100, 10, "world/clocks_run.py"),
    Campaign("upstream", "an upstream that is slow, mute, out of order, forgetful, flapping or malformed costs nothing but time", "spells", 7, 700, 35,
             "world/upstream_run.py"),
)

MEASURES = (                         # of the tests of the code in proven.py; not a part of `make test`
    Campaign("coverage", "every branch of the log, recovery, checkpoint and receiver code runs under its tests (in Cython: every line)", "runs", 0, 1, 1, "soak/coverage_run.py"),
    Campaign("mutants", "of the mutants of that code at least 90 % are killed", "hundredths of the mutants", 0, 100, 10, "soak/mutants_run.py"),
    Campaign("planted", "what is planted in its Cython modules is found", "mistakes", 0, 25, 25, "soak/planted_run.py"),
)
