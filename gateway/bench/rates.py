"""Rates: the load generator, the gateway and the upstream end as processes that share this machine, and nothing is lost."""

import contextlib
import time

from edge.errors import TidegateError
from gateway.bench import workload
from gateway.bench.baseline import SCRIPT, script_at_rate, script_flat_out
from gateway.bench.figure import Figure
from gateway.bench.rig import Gateway, Mosquitto, Sink, cpu_s, load, mosquitto_path, settle

LISTENER = """
[listener]
port = 0
"""
BROKER = """
[broker]
host = "127.0.0.1"
port = {port}
"""
LANES = """
[upstream]
host = "127.0.0.1"
port = {port}
[lanes.alerts]
streams = ["hot"]
age = "0s"
priority = 0
[lanes.telemetry]
streams = ["seconds"]
age = "1s"
"""
KEPT = 0.98                          # of the rate that was asked for
BEHIND_S = 0.1                       # how far the gateway may be behind at the end


def direct(folder, quick):
    """Devices at the gateway's own listener, QoS 1: what is acknowledged is in the synced journal."""
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Sink(folder, "hot"))
        text = LISTENER + LANES.format(port=sink.port) + workload.STREAM + workload.RULES
        gateway = stack.enter_context(Gateway(folder / "direct", text))
        steps = (20e3, 50e3) if quick else (100e3, 200e3, 420e3, 600e3, 800e3, 1000e3, 1200e3, 1400e3)
        site = Site(folder, gateway, gateway.port, qos=1)
        run, stopped = site.best(steps, *((1, 1) if quick else (3, 10)))
        _must_balance(gateway)
    count = 5_000 if quick else 60_000
    script = script_flat_out(workload.packets(count), count)
    name = "rate, devices connected directly, durable"
    if run is None:
        return [Figure(name, 0, "events/s", 400_000, more=True, note=stopped)]
    return [
        Figure(name, run["rate"], "events/s", 400_000, more=True, baseline=f"{SCRIPT} flat out", ratio=run["rate"] / script["rate"],
               note=f"QoS 1, {run['seconds']:.0f} s, all arrived, the ledger balances; {stopped}"),
        Figure("CPU per event at this rate, whole gateway", run["cpu_us"], "us", baseline=SCRIPT, ratio=run["cpu_us"] / script["cpu_us"],
               note="with sockets, upstream and kernel"),
    ]


def broker(folder, quick):
    """Behind Mosquitto, which needs more than the gateway of the two cores; QoS 0, so what the gateway does not take in time is lost."""
    names = ("rate behind Mosquitto", "CPU per event behind Mosquitto, whole gateway")
    if mosquitto_path() is None:
        why = "mosquitto is not installed"
        return [Figure(names[0], None, "events/s", 70_000, more=True, note=why), Figure(names[1], None, "us", 2.5, note=why)]
    with contextlib.ExitStack() as stack:
        mosquitto = stack.enter_context(Mosquitto(folder))
        sink = stack.enter_context(Sink(folder, "hot"))
        text = BROKER.format(port=mosquitto.port) + LANES.format(port=sink.port) + workload.STREAM + workload.RULES
        gateway = stack.enter_context(Gateway(folder / "broker", text))
        site = Site(folder, gateway, mosquitto.port, qos=0)
        site.subscribed()
        run, stopped = site.best((5e3, 10e3) if quick else (30e3, 50e3, 60e3, 72e3, 80e3, 100e3, 120e3, 140e3), *((1, 1) if quick else (3, 10)))
        _must_balance(gateway)
    script = script_at_rate(folder, 5_000, 2 if quick else 5)
    if run is None:
        return [Figure(names[0], 0, "events/s", 70_000, more=True, note=stopped), Figure(names[1], None, "us", 2.5, note=stopped)]
    return [
        Figure(names[0], run["rate"], "events/s", 70_000, more=True, note=f"QoS 0, {run['seconds']:.0f} s, all arrived; {stopped}"),
        Figure(names[1], run["cpu_us"], "us", 2.5, baseline=f"{SCRIPT} at 5,000/s", ratio=run["cpu_us"] / script["cpu_us"]),
    ]


def _must_balance(gateway):
    if not gateway.ask("ledger")["balanced"]:
        raise TidegateError("the gateway's ledger does not balance after the run")


class Site:
    """A gateway under a load that is offered on a port: its own or a broker's."""

    def __init__(self, folder, gateway, port, qos):
        self._folder, self._gateway, self._port, self._qos = folder, gateway, port, qos

    def subscribed(self):
        """Until an event goes through the broker."""
        while not self._events():
            self._gateway.wait_for(lambda: self._gateway.ask("status")["broker"]["connection"] == "connected")
            with load(self._folder, self._port, rate=10, seconds=0.2, qos=1) as generator:
                generator.wait(60)
            time.sleep(0.2)

    def best(self, steps, step_s, confirm_s):
        """(the highest of these rates that is kept for confirm_s seconds, or None; what came at the next one)."""
        kept, stopped = [], "higher rates were not tried"
        for step in steps:
            run = self.offer(step, step_s)
            if not run["kept"]:
                stopped = f"asked for {step:,.0f}/s: {run['words']}"
                break
            kept.append(step)
        while kept:
            run = self.offer(kept.pop(), confirm_s)
            if run["kept"]:
                return run, stopped
            stopped = f"asked for {run['asked']:,.0f}/s: {run['words']}"
        return None, stopped

    def offer(self, rate, seconds) -> dict:
        """One run of the load generator. Kept: it made its rate, all arrived, the gateway was at most BEHIND_S behind at the end."""
        before, cpu = self._events(), cpu_s(self._gateway.pid)
        with load(self._folder, self._port, rate=rate, seconds=seconds, qos=self._qos, window=4000) as generator:
            generator.wait(seconds + 60)
            sent = generator.last_json()
        behind = sent["sent"] - (self._events() - before)
        lost = sent["sent"] - (settle(self._events) - before)
        used = (cpu_s(self._gateway.pid) - cpu) / (sent["sent"] - lost) * 1e6
        kept = sent["complete"] and not lost and sent["rate"] >= KEPT * rate and behind <= BEHIND_S * rate
        if self._qos and lost:
            raise TidegateError(f"{lost} of {sent['sent']} acknowledged events did not arrive")
        words = f"{sent['rate']:,}/s came through" + (f", {lost:,} of {sent['sent']:,} were lost on the way" if lost else "")
        return {"asked": rate, "rate": sent["rate"], "seconds": sent["seconds"], "cpu_us": used, "kept": kept, "words": words}

    def _events(self):
        return self._gateway.ask("status")["streams"]["env"]["events"]
