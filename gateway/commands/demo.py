"""`tidegate demo`: a simulated fleet, a gateway and a receiver, each a process of its own; ends with the ledger and the simulator's verdict.

Exit status 0 only if the ledger balances and the receiver has exactly what the simulator knows to have been acknowledged.
"""

import json
import os
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

from edge.errors import ConfigError, TidegateError
from gateway import control
from gateway.commands.ledger import table

START_S = 120.0                  # a slow board compiles the rules for a while; who ends is noticed at once
DRAIN_S = 30.0
QUIET_S = 9.0                    # the fleet is silent: windows close by the idle time-out


def add_arguments(parser):
    parser.add_argument("--seconds", type=float, default=15.0, help="how long the devices send (%(default)s)")
    parser.add_argument("--devices", type=int, default=50, help="how many devices (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulated fleet (%(default)s)")
    parser.add_argument("--keep", metavar="DIR", help="leave configuration, data, truth and what was received here")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object, the last line")


def run(arguments):
    if arguments.devices < 3 or not arguments.seconds > 0:
        raise ConfigError("--devices: at least 3, one of each kind; --seconds: more than 0")
    folder = Path(arguments.keep or tempfile.mkdtemp(prefix="tidegate-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    demo = Demo(folder, arguments)
    try:
        result = demo.play()
    finally:
        demo.stop()
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        print(json.dumps(result))
    else:
        _report(result)
    return 0 if result["ok"] else 1


class Demo:
    """Three processes in a folder."""

    def __init__(self, folder, arguments):
        self.folder = folder
        self.arguments = arguments
        self.processes = {}
        self.loud = not arguments.json

    def play(self) -> dict:
        """Start all, let the fleet run, wait until upstream has everything, stop, compare."""
        upstream = self._start_receiver()
        port = self._start_gateway(upstream)
        self._start("fleet", [sys.executable, "-m", "firmware_sim.cli", "run", self._scenario(), "--port", str(port), "--seconds",
                              str(self.arguments.seconds), "--seed", str(self.arguments.seed), "--truth", "truth.jsonl", "--json"])
        while self.processes["fleet"].poll() is None:
            self._show()
            time.sleep(0.5)
        fleet = json.loads(self._output("fleet").splitlines()[-1])
        status, ledger = self._drain()
        self._finish("gateway", "receiver")
        received = json.loads(self._output("receiver").splitlines()[-1])
        checks = self._verify()
        ok = ledger["balanced"] and all(c["ok"] for c in checks.values()) and self.processes["gateway"].returncode == 0
        return {"ok": ok, "seed": self.arguments.seed, "fleet": fleet, "streams": status["streams"], "rules": status["rules"], "lanes": status["lanes"],
                "received": received, "ledger": ledger, "checks": checks}

    # --- the processes

    def _start(self, name, command):
        out, err = (self.folder / f"{name}.out").open("wb"), (self.folder / f"{name}.err").open("wb")
        self.processes[name] = subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=err)

    def _start_receiver(self):
        self._start("receiver", [sys.executable, "-m", "gateway.cli", "receive", "--port", "0", "--out", "received.jsonl", "--port-file", "port", "--json"])
        path = self.folder / "port"
        self._wait("receiver", lambda: path.exists() and path.read_text().strip())
        return int(path.read_text())

    def _start_gateway(self, upstream):
        template = string.Template(resources.files("gateway.demo").joinpath("tidegate.toml").read_text())
        (self.folder / "tidegate.toml").write_text(template.substitute(UPSTREAM=upstream))
        if self.loud:
            print("starting: compiling five rules in a child process", flush=True)
        self._start("gateway", [sys.executable, "-m", "gateway.cli", "run", "-c", "tidegate.toml"])
        self._wait("gateway", lambda: self._ask("status"))
        return self._ask("status")["listener"]["port"]

    def _ask(self, what):
        try:
            return control.ask(str(self.folder / "data"), what)
        except TidegateError:
            return None

    def _wait(self, name, ready):
        until = time.monotonic() + START_S
        while not ready():
            if self.processes[name].poll() is not None or time.monotonic() > until:
                raise TidegateError(f"the {name} did not start:\n{(self.folder / f'{name}.err').read_text()}")
            time.sleep(0.05)

    def _drain(self):
        """Wait until windows of the now silent devices are closed and upstream has acknowledged all."""
        started = time.monotonic()
        while True:
            status = self._status()
            waiting = sum(lane["rows_waiting"] for lane in status["lanes"].values())
            quiet = time.monotonic() - started
            if (quiet > QUIET_S and not waiting) or quiet > DRAIN_S:
                return status, self._ask("ledger")
            self._show(status)
            time.sleep(0.5)

    def _status(self):
        """The gateway's status. Raises TidegateError with its last words when it is gone."""
        status = self._ask("status")
        if status is None:
            raise TidegateError(f"the gateway no longer answers:\n{(self.folder / 'gateway.err').read_text()[-3000:]}")
        return status

    def _finish(self, *names):
        for name in names:
            self.processes[name].send_signal(signal.SIGTERM)
            self.processes[name].wait(30)

    def _output(self, name):
        return (self.folder / f"{name}.out").read_text()

    def stop(self):
        """End whatever still runs."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()

    def _scenario(self):
        """The ready-made scenario with as many devices as asked for."""
        text = subprocess.run([sys.executable, "-m", "firmware_sim.cli", "scenarios", "demo"], capture_output=True, text=True, check=True).stdout
        machines, meters = max(1, self.arguments.devices * 8 // 50), max(1, self.arguments.devices * 2 // 50)
        for was, now in ((40, max(1, self.arguments.devices - machines - meters)), (8, machines), (2, meters)):
            text = text.replace(f"\ncount = {was}\n", f"\ncount = {now}\n")
        (self.folder / "fleet.toml").write_text(text)
        return "fleet.toml"

    # --- what it shows

    def _show(self, status=None):
        status = status or self._ask("status")
        if not self.loud or status is None:
            return
        events = sum(s["events"] for s in status["streams"].values())
        dead = sum(s["dead_letters"] for s in status["streams"].values())
        rules = "  ".join(f"{n} {r['in']}>{r['out']}" for n, r in status["rules"].items())
        sent = sum(lane["bytes_sent"] for lane in status["lanes"].values())
        waiting = sum(lane["rows_waiting"] for lane in status["lanes"].values())
        line = f"in {events:6,} ({dead} dead letters) | {rules} | up {sent:8,} B, {waiting} rows waiting"
        if sys.stdout.isatty():
            print(f"\r\x1b[K{line[:os.get_terminal_size().columns - 1]}", end="", flush=True)
        else:
            print(line, flush=True)

    def _verify(self):
        """The simulator's own verdict on what the receiver wrote, by stream."""
        questions = {
            "every event of env once": ["--stream", "once", "--group", "env"],
            "every event above 30 °C alerted": ["--stream", "hot", "--group", "env", "--where", "temp > 30"],
            "every event of machine once (QoS 2)": ["--stream", "machine", "--group", "machine"],
            "windows of temp": ["--stream", "climate", "--group", "env", "--windows", "temp", "5", "--tolerance", "0.01", "--columns",
                                "device=device,start=window_start,count=count,mean=temp_mean,min=temp_min,max=temp_max"],
        }
        checks = {}
        for question, options in questions.items():
            done = subprocess.run([sys.executable, "-m", "firmware_sim.cli", "verify", "--truth", "truth.jsonl", "--received", "received.jsonl", "--json",
                                   *options], cwd=self.folder, capture_output=True, text=True)
            report = json.loads(done.stdout) if done.stdout else {"error": done.stderr.strip()}
            report.pop("devices", None)
            checks[question] = {"ok": done.returncode == 0, **report}
        return checks


def _report(result):
    print("\n\nwhat went in and out")
    for name, stream in result["streams"].items():
        print(f"  stream {name:10} {stream['events']:8,} events, {stream['dead_letters']} dead letters")
    for name, rule in result["rules"].items():
        print(f"  rule   {name:10} {rule['in']:8,} in {rule['out']:8,} out   {rule['cpu_ns_per_event']['p50']:7.0f} ns an event")
    for name, lane in result["lanes"].items():
        print(f"  lane   {name:10} {lane['rows_acked']:8,} rows acknowledged in {lane['messages_acked']:,} messages, {lane['bytes_acked']:,} bytes")
    print("\nledger")
    print(table(result["ledger"]["accounts"]))
    print("\nthe simulator's verdict")
    for question, check in result["checks"].items():
        print(f"  {'ok    ' if check['ok'] else 'NOT OK'} {question}")
        if not check["ok"]:
            print(f"         {json.dumps({k: v for k, v in check.items() if k != 'ok'})[:600]}")
    print("\n" + ("balanced: nothing lost, nothing doubled" if result["ok"] else "SOMETHING IS WRONG"))
