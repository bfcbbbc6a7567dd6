"""End to end: simulated fleets through the listener and through Mosquitto, faults everywhere, and the receiver's rows equal the fleets' own account.

    python fleet_run.py --seed 1 --first 0 --count 5

A unit is 10,000 events and 5 faults: gateway and receiver killed, the broker restarted, links cut, truncated, delayed, dead and refused between all of them. The
devices have faults of their own: duplicates, disorder, lost acknowledgements, storms, bursts after an absence, wrong and stepped clocks, broken payloads. What must
have arrived is decided by `firmware-sim verify`, which knows nothing of the gateway. Without a Mosquitto that half is left out, and `mosquitto` is false.
"""

import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from campaign import main  # first: it finds the other folders
from count_world import MOSQUITTO, Mosquitto
from proxy import Proxy
from site_world import SENSORS, Site, free_port

EVENTS, FAULTS = 10_000, 5               # a unit
DEVICES, RATE = 25, 40.0                 # a fleet
HOT = 30.0

STREAM = """
[streams.{name}]
topics = ["{name}/+/env"]
key = "device"
time = "ts"
lateness = "1s"
idle = "1s"
sequence = "seq"
[streams.{name}.fields]
device = "str"
seq = "i64"
ts = {{ type = "time", format = "ms" }}
temp = "f64"
hum = "f64"
[rules.{name}_hot]
input = "{name}"
module = "threshold"
params = {{ field = "temp", op = ">", value = {hot} }}
"""


def config(broker):
    names = ["near", *(["far"] if broker else [])]
    hot = json.dumps([f"{name}_hot" for name in names])
    return ('[gateway]\nname = "site"\ndata = "data"\nisolation = "none"\ncheckpoint = "300ms"\n[listener]\nport = $PORT\n[upstream]\nhost = "127.0.0.1"\nport = $LINK\n'
            + ('[broker]\nhost = "127.0.0.1"\nport = $BROKER\n' if broker else "") + "".join(STREAM.format(name=name, hot=HOT) for name in names)
            + f'[lanes.alerts]\nstreams = {hot}\nage = "0s"\npriority = 0\n[lanes.telemetry]\nstreams = {json.dumps(names)}\nage = "100ms"\n')


FLEET = """
name = "NAME"
seed = SEED
[[group]]
name = "env"
count = DEVICES
id = "NAME-{n:03}"
topic = "NAME/{device}/env"
qos = 1
rate = RATE
jitter = 0.3
buffer_max = 100000
mqtt = "MQTT"
""" + SENSORS + """  [group.faults]
  duplicates = 0.01
  disorder = 0.02
  lost_acks = 0.003
  malformed = 0.002
  offline = 0.0005
  offline_s = 1.0
  skew_s = 30.0
  steps = [{ at_s = 6, by_s = -3600, devices = 3 }, { at_s = 12, by_s = 3600, devices = 3 }]
  half_open = [{ at_s = 5, devices = 3, for_s = 3 }]
  storms = [STORMS]
"""


class FleetSite(Site):
    """Gateway, receiver, broker, fleets, and a proxy on each way between them."""

    def __init__(self, folder, seed):
        super().__init__(folder, config="", fleet="")
        self.seed, self.faults = seed, Counter()
        self.broker = Mosquitto(self.folder, free_port()) if MOSQUITTO else None
        self.names = ("near", "far") if self.broker else ("near",)
        self.ways = {"upstream": Proxy(self.words["UPSTREAM"]), "devices": Proxy(self.port)}
        self.words["LINK"] = self.ways["upstream"].port
        if self.broker:
            self.ways["broker"] = Proxy(self.broker.port)
            self.words["BROKER"] = self.ways["broker"].port
        self.write("tidegate.toml", config(self.broker))

    def begin(self, first, events):
        """Everything runs; the fleets end by themselves after so many events."""
        self.start_receiver()
        self.start_gateway()
        if self.broker:
            self.wait_for(lambda: "broker: connected" in (self.folder / "gateway.err").read_text(), "the gateway to subscribe")
            time.sleep(0.5)
        seconds = events / len(self.names) / DEVICES / RATE
        storms = ", ".join(f"{{ at_s = {at}, devices = {DEVICES // 2}, for_s = 1 }}" for at in range(3, int(seconds) + 3, 7))
        for name in self.names:
            words = {"NAME": name, "SEED": str(random.Random(f"{self.seed}/{first}/{name}").randrange(1 << 31)), "DEVICES": str(DEVICES), "RATE": str(RATE),
                     "STORMS": storms, "MQTT": "5" if name == "far" else "3.1.1"}
            text = FLEET
            for word, value in words.items():
                text = text.replace(word, value)
            (self.folder / f"{name}.toml").write_text(text)
            port = self.ways["devices"].port if name == "near" else self.broker.port
            self.start(name, "firmware_sim.cli", "run", f"{name}.toml", "--port", str(port), "--events", str(events // len(self.names)),
                       "--truth", f"{name}.truth", "--json", "--drain-s", "60")

    def unit(self, number):
        """FAULTS faults, at random times within the unit's."""
        rng = random.Random(f"{self.seed}/{number}")
        began, length = time.monotonic(), EVENTS / len(self.names) / DEVICES / RATE
        for at in sorted(rng.uniform(0, length) for _ in range(FAULTS)):
            time.sleep(max(0.0, began + at - time.monotonic()))
            self.fault(rng)
        time.sleep(max(0.0, began + length - time.monotonic()))

    def fault(self, rng):
        way, seconds = rng.choice(sorted(self.ways)), rng.uniform(0.02, 0.8)
        kinds = ["gateway", "gateway", "receiver", "cut", "truncate", "delay", "swallow", "refuse", *(["mosquitto"] if self.broker else [])]
        kind = rng.choice(kinds)
        self.faults[kind if kind in ("gateway", "receiver", "mosquitto") else f"{kind} {way}"] += 1
        if kind == "gateway":
            self.kill()
            time.sleep(seconds / 4)
            self.start_gateway(wait=False)
        elif kind == "receiver":
            self.kill("receiver")
            time.sleep(seconds)
            self.start_receiver()
        elif kind == "mosquitto":
            self.broker.restart(seconds / 2)
        elif kind == "cut":
            self.ways[way].cut()
        else:
            getattr(self.ways[way], kind)(seconds)

    def settle(self, broken):
        """Everything arrives; the ledger, and SIGTERM."""
        for name in self.names:
            if self.processes[name].wait(180) != 0:
                broken.append(f"fleet {name}: {self.errors()}")
        self.drained()
        if not (ledger := self.ask("ledger"))["balanced"]:
            broken.append(f"the ledger: {ledger['problems']}")
        for name in ("gateway", "receiver"):
            if (status := self.stop(name)) != 0:
                broken.append(f"{name}: SIGTERM, status {status}")
        if "Traceback" in self.errors():
            broken.append(self.errors()[-1500:])

    def judge(self, broken):
        """What each fleet sent, and was acknowledged."""
        sent = {}
        for name in self.names:
            truth = ["--truth", f"{name}.truth"]
            for options in (["--stream", name], ["--stream", f"{name}_hot", "--where", f"temp > {HOT}"]):
                ok, report = self.verify(*truth, *options)
                if not ok:
                    broken.append(f"seed {self.seed}: {name} {options}: {({k: v for k, v in report.items() if k != 'devices'})}")
            sent[name] = self.last_json(name)
        return sent

    def close(self):
        super().close()
        for proxy in self.ways.values():
            proxy.close()
        if self.broker:
            self.broker.stop()


def run(seed, first, count):
    """The figures, and what was broken."""
    broken, sent = [], {}
    with tempfile.TemporaryDirectory(prefix="tidegate-fleet-") as folder:
        site = FleetSite(Path(folder), seed)
        try:
            site.begin(first, count * EVENTS)
            for number in range(first, first + count):
                site.unit(number)
            site.settle(broken)
            sent = site.judge(broken)
        except AssertionError as error:
            broken.append(f"seed {seed}: {error}")
        finally:
            site.close()
    totals = {what: sum(summary[what] for summary in sent.values()) for what in ("sent", "acknowledged", "duplicates", "resent", "malformed", "lost_acks", "cuts", "losses")}
    if not broken and (totals["sent"] < 0.9 * count * EVENTS or totals["resent"] < count or sum(site.faults.values()) < count * FAULTS):
        broken.append(f"this run tried too little: {totals}, {site.faults}")
    return {"events": totals["sent"], "faults": sum(site.faults.values()), "mosquitto": bool(site.broker), "fleets": totals,
            "kinds": dict(sorted(site.faults.items()))}, broken


if __name__ == "__main__":
    sys.exit(main(run, __doc__, 5))
