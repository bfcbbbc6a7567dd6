"""A whole site on this machine: fleet, gateway and receiver as processes, for the tests."""

import json
import signal
import socket
import string
import subprocess
import sys
import time
from pathlib import Path

from edge.errors import TidegateError
from gateway import control

CONFIG = """
[gateway]
name = "site"
data = "data"
isolation = "none"
checkpoint = "$CHECKPOINT"
[listener]
port = $PORT
[upstream]
host = "127.0.0.1"
port = $UPSTREAM
[streams.env]
topics = ["sensors/+/env"]
key = "device"
time = "ts"
lateness = "1s"
idle = "1s"
[streams.env.fields]
device = "str"
seq = "i64"
ts = { type = "time", format = "ms" }
temp = "f64"
hum = "f64"
[rules.once]
input = "env"
module = "dedup"
params = { id = "seq" }
[rules.hot]
input = "once"
module = "threshold"
params = { field = "temp", op = ">", value = 30.0 }
[rules.windows]
input = "once"
module = "window"
params = { length = "2s", fields = ["temp"], functions = ["count", "mean", "min", "max"] }
[lanes.alerts]
streams = ["hot"]
age = "0s"
priority = 0
[lanes.telemetry]
streams = ["once", "windows", "windows.late"]
age = "200ms"
"""

SENSORS = """  [[group.sensors]]
  name = "temp"
  kind = "walk"
  start = 27.0
  step = 0.8
  low = 12.0
  high = 38.0
  [[group.sensors]]
  name = "hum"
  kind = "sine"
  mean = 45.0
  amplitude = 12.0
  decimals = 1
"""

FLEET = """
name = "site"
seed = $SEED
[[group]]
name = "env"
count = $DEVICES
id = "dev-{n:03}"
topic = "sensors/{device}/env"
qos = 1
rate = $RATE
""" + SENSORS


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Site:
    """Processes in a folder. Everything that is started is ended by close()."""

    def __init__(self, folder, config=CONFIG, fleet=FLEET, **words):
        self.folder = Path(folder)
        self.processes = {}
        self.words = {"PORT": free_port(), "UPSTREAM": free_port(), "CHECKPOINT": "1s", "SEED": 1, "DEVICES": 20, "RATE": "20.0", **words}
        self.write("tidegate.toml", config)
        self.write("fleet.toml", fleet)

    def write(self, name, template):
        (self.folder / name).write_text(string.Template(template).substitute(self.words))

    @property
    def port(self):
        return self.words["PORT"]

    # --- processes

    def start(self, name, *command):
        with (self.folder / f"{name}.out").open("ab") as out, (self.folder / f"{name}.err").open("ab") as err:
            self.processes[name] = subprocess.Popen([sys.executable, "-m", *command], cwd=self.folder, stdout=out, stderr=err)
        return self.processes[name]

    def start_receiver(self):
        self.start("receiver", "gateway.cli", "receive", "--port", str(self.words["UPSTREAM"]), "--out", "received.jsonl", "--json")

    def start_gateway(self, wait=True):
        self.start("gateway", "gateway.cli", "run", "-c", "tidegate.toml")
        if wait:
            self.wait_for(lambda: self.ask("status"), "the gateway to answer")

    def start_fleet(self, seconds):
        self.start("fleet", "firmware_sim.cli", "run", "fleet.toml", "--port", str(self.port), "--seconds", str(seconds), "--seed", str(self.words["SEED"]),
                   "--truth", "truth.jsonl", "--json", "--drain-s", "30")

    def kill(self, name="gateway"):
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self, name, timeout_s=30):
        """SIGTERM; the exit status."""
        self.processes[name].send_signal(signal.SIGTERM)
        return self.processes[name].wait(timeout_s)

    def wait_for(self, ready, what, timeout_s=60):
        until = time.monotonic() + timeout_s
        while not (answer := ready()):
            assert time.monotonic() < until, f"waited {timeout_s} s for {what}; {self.errors()}"
            time.sleep(0.05)
        return answer

    def errors(self):
        return "\n".join(f"--- {p.name}\n{p.read_text()[-1500:]}" for p in sorted(self.folder.glob("*.err")))

    def close(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()

    # --- questions

    def ask(self, what):
        try:
            return control.ask(str(self.folder / "data"), what)
        except TidegateError:
            return None

    def drained(self):
        """Wait until upstream has acknowledged everything, twice in a row."""
        self.wait_for(lambda: self._waiting() == 0 and (time.sleep(2.5) or self._waiting() == 0), "the lanes to drain")

    def _waiting(self):
        status = self.ask("status")
        return -1 if status is None else sum(lane["rows_waiting"] for lane in status["lanes"].values())

    def last_json(self, name):
        return json.loads((self.folder / f"{name}.out").read_text().strip().splitlines()[-1])

    def verify(self, *options):
        """firmware-sim's verdict: (ok, report)."""
        done = subprocess.run([sys.executable, "-m", "firmware_sim.cli", "verify", "--received", "received.jsonl", "--json",
                               *([] if "--truth" in options else ["--truth", "truth.jsonl"]), *options],
                              cwd=self.folder, capture_output=True, text=True)
        assert done.stdout, done.stderr
        return done.returncode == 0, json.loads(done.stdout)
