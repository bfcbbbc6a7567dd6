"""kill -9 at random points of a gateway under load: nothing acknowledged is lost, nothing is doubled after the receiver, nobody has to repair anything.

    python kill_run.py --seed 1 --first 0 --count 100

A unit is a kill, at a point that its number says: while events come in, within a checkpoint, at the roll of a segment, within a change of what runs (pushed, set,
rolled back, shadowed and promoted through the local socket), while it drains after upstream was away, while it starts. In every other chunk rules have a process of their own. The devices, the receiver and the gateway
are real; what was acknowledged is known by the devices alone. In the end the receiver's rows are compared with it, the windows' counts too.
"""

import json
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from campaign import main  # first: it finds the other folders
import tidegate_rules
from count_world import LISTENER, STREAM, UPSTREAM, CountSite
from numbered import HOT, Load, temperature

from edge.errors import TidegateError
from gateway import control
from gateway.manage import remote

CONFIG = """
[gateway]
name = "site"
data = "data"
checkpoint = "100ms"
isolation = "none"
[journal]
quota = "32KiB"
""" + LISTENER + UPSTREAM + STREAM + f"""
[rules.once]
input = "env"
module = "dedup"
params = {{ id = "seq" }}
[rules.hot]
input = "once"
module = "threshold"
params = {{ field = "temp", op = ">", value = {HOT} }}
[lanes.alerts]
streams = ["hot"]
age = "0s"
priority = 0
[lanes.main]
streams = ["once"]
age = "50ms"
quota = "128KiB"
full = "backpressure"
"""
PASS = {"field": "seq", "op": ">=", "value": -1}
CHUNK = 250                          # units a process of `make soak`
BACK_S_MAX = 30.0                    # from a kill to the next PUBACK; the machine may be busy
POINTS = ("ingest", "checkpoint", "roll", "swap", "drain", "start", "swap", "ingest", "checkpoint", "roll")


class Broken(Exception):
    """The promise did not hold."""


class KillSite(CountSite):
    """A site that is killed. kills: how many at each point."""

    def __init__(self, folder, seed, isolation):
        super().__init__(folder, CONFIG.replace('"none"', f'"{isolation}"'))
        self.seed, self.kills, self.waits_s = seed, Counter(), []
        self.aimed = 0                   # kills of checkpoint and roll that came right after one
        self.load = Load(self.port)
        self.data = self.folder / "data"

    def begin(self):
        """Everything runs, and the rules that will be changed."""
        self.start_receiver()
        self.start_gateway()
        gateway = remote.connect(str(self.data))
        for name, module, params in (("every", "threshold", PASS), ("windows", "window", {"length": "1s", "fields": ["seq"], "functions": ["count"]})):
            digest = gateway.push(Path(tidegate_rules.path(module)).read_bytes())
            job = gateway.ask({"do": "rule.push", "digest": digest, "rule": name, "input": "once", "lanes": ["main"], "params": params})
            self.wait_for(lambda job=job: gateway.ask({"do": "job", "id": job["job"]})["state"] == "done", f"{name} to run")
        gateway.ask({"do": "rule.set", "rule": "every", "params": {"value": -2}})

    def unit(self, number):
        """One kill. Raises Broken when the gateway does not come back from the kill before."""
        rng, point = random.Random(f"{self.seed}/{number}"), POINTS[number % len(POINTS)]
        self.load.mark = number
        if point == "start":
            self.load.pump(rng.uniform(0, 0.25))
        else:
            self._back(number)
            getattr(self, f"_{point}")(rng)
        status = self.processes["gateway"].poll()
        if status is not None:
            raise Broken(f"unit {number}: the gateway had ended by itself, status {status}; {self.log()[-500:]}")
        self.kill()
        self.kills[point] += 1
        self.start_gateway(wait=False)

    def _back(self, number):
        began, before = time.monotonic(), self.load.acknowledged
        if not self.load.pump(BACK_S_MAX, until=lambda: self.load.acknowledged > before):
            raise Broken(f"unit {number}: {BACK_S_MAX:.0f} s after a kill nothing is acknowledged; {self.log()[-500:]}")
        self.waits_s.append(time.monotonic() - began)

    # --- points

    def _ingest(self, rng):
        """At any time; every other time at once when a PUBACK was read, when what it says has to be true."""
        self.load.pump(rng.uniform(0, 0.2))
        if rng.random() < 0.5:
            before = self.load.acknowledged
            self.load.pump(1, until=lambda: self.load.acknowledged > before)

    def _changed(self, rng, now):
        """Go on until something that is looked at changes, then for a moment."""
        before = now()
        self.aimed += self.load.pump(0.8, until=lambda: now() != before)
        self.load.pump(rng.uniform(0, 0.004))

    def _checkpoint(self, rng):
        self._changed(rng, lambda: [stat.st_mtime_ns for path in self.data.glob("checkpoints/*.seg") if (stat := _stat(path))])

    def _roll(self, rng):
        self._changed(rng, lambda: {str(path) for pattern in ("journal/*.seg", "outbox/main/*.seg") for path in self.data.glob(pattern)})

    def _swap(self, rng):
        changes = ({"do": "rule.set", "rule": "every", "params": {"value": -rng.randint(1, 9)}, "policy": rng.choice(["auto", "keep", "replay"])},
                   {"do": "rule.rollback", "rule": "every"}, {"do": "rule.promote", "rule": "every"},
                   {"do": "rule.push", "digest": "threshold@1", "rule": "every", "params": {"value": -rng.randint(10, 19)}},
                   {"do": "rule.push", "digest": "threshold@1", "rule": "every", "params": {"value": -rng.randint(20, 29)}, "shadow": True},
                   {"do": "rule.set", "rule": "windows", "params": {"length": f"{rng.randint(1, 3)}s"}, "policy": "fresh"})
        asked = []
        for _ in range(rng.randint(1, 2)):
            asked.append(self._ask(rng.choice(changes)))
            self.load.pump(rng.uniform(0, 0.06))
        for connection in asked:
            connection.close()

    def _ask(self, request):
        """Ask for a change, as soon as somebody listens, and wait for nothing. (A PUBACK that was read may be from before the last kill.)"""
        connection = socket.socket(socket.AF_UNIX)
        if not self.load.pump(BACK_S_MAX, until=lambda: connection.connect_ex(os.path.join(self.data, control.SOCKET)) == 0):
            raise Broken(f"{BACK_S_MAX:.0f} s after a kill nobody listens at {control.SOCKET}; {self.log()[-500:]}")
        connection.sendall(json.dumps({"get": "manage", "request": request}).encode() + b"\n")
        return connection

    def _drain(self, rng):
        """Upstream was away; it is back, and takes."""
        self.stop("receiver")
        self.load.pump(rng.uniform(0.05, 0.4))
        size = _size(self.folder / "received.jsonl")
        self.start_receiver()
        self.load.pump(10, until=lambda: _size(self.folder / "received.jsonl") > size)
        self.load.pump(rng.uniform(0, 0.03))

    # --- the end

    def settle(self):
        """Everything on its way arrives; the ledger, then SIGTERM and its status."""
        if not self.load.pump(BACK_S_MAX, publish=False, until=lambda: self.load.settled):
            raise Broken("not everything is acknowledged in the end")
        self.load.close()
        events = self.load.acknowledged
        self.wait_for(lambda: self.counted() >= events and self._waiting() == 0, "the windows to close and the lanes to drain", 60)
        ledger = self.ask("ledger")
        if not ledger["balanced"]:
            raise Broken(f"the ledger: {ledger['problems']}")
        if (status := self.stop("gateway")) != 0:
            raise Broken(f"SIGTERM: status {status}")
        self.stop("receiver")

    def counted(self):
        """Events that are in a window upstream, or said to be late for it."""
        return sum(row["count"] for stream in ("windows", "windows.partial") for row in self.rows(stream)) + len(self.rows("windows.late"))


def _stat(path):
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _size(path):
    return path.stat().st_size if path.exists() else 0


def judge(site, seed):
    """What is not as the devices know it: sentences."""
    published = {(device.name, seq): device.acknowledged[seq] for device in site.load.devices for seq in range(device.published)}
    hot = {event for event in published if temperature(event[1]) > HOT}
    for stream, wanted in (("once", published.keys()), ("every", published.keys()), ("hot", hot)):
        rows = site.rows(stream)
        got = Counter((row["device"], row["seq"]) for row in rows)
        lost, doubled, strange = wanted - got.keys(), [e for e, n in got.items() if n > 1], got.keys() - wanted
        for kind, events in (("lost", lost), ("doubled", doubled), ("never sent", strange)):
            if events:
                where = sorted({published.get(event, -1) for event in events})
                yield f"seed {seed}: {len(events)} events {kind} in {stream}, such as {sorted(events)[:3]}; acknowledged in units {where[:10]}"
        if wrong := [row for row in rows if row["temp"] != temperature(row["seq"])]:
            yield f"seed {seed}: {len(wrong)} rows of {stream} are not what was sent, such as {wrong[0]}"
    if (counted := site.counted()) != len(published):
        yield f"seed {seed}: windows count {counted} of {len(published)} events"
    if repairs := [str(p.relative_to(site.data)) for p in site.data.rglob("*") if "quarantine" in p.name or p.suffix == ".bad"]:
        yield f"seed {seed}: files were put aside: {repairs[:5]}"
    if "Traceback" in site.log():
        yield f"seed {seed}: {site.log()[site.log().index('Traceback'):][:800]}"


def run(seed, first, count):
    """The figures, and what was broken."""
    broken = []
    with tempfile.TemporaryDirectory(prefix="tidegate-kill-") as folder:
        site = KillSite(folder, seed, "process" if first // CHUNK % 2 else "none")
        try:
            site.begin()
            for number in range(first, first + count):
                site.unit(number)
            site.settle()
            broken = list(judge(site, seed))
        except (Broken, AssertionError, TidegateError) as error:
            broken = [f"seed {seed}: {error}"]           # what was on its way is nowhere yet: nothing to compare
        finally:
            site.close()
        waits = sorted(site.waits_s) or [0.0]
        return {"kills": sum(site.kills.values()), "at": dict(site.kills), "aimed": site.aimed, "events": site.load.acknowledged,
                "hot": len(site.rows("hot")), "back_s_median": round(waits[len(waits) // 2], 3), "back_s_max": round(waits[-1], 3)}, broken


if __name__ == "__main__":
    sys.exit(main(run, __doc__, 100))
