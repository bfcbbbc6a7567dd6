"""Upstream is away for 72 hours at 500 events a second: what waits fits 4 GB of disk, and drains fast while live alerts hardly notice.

    python outage_run.py --seed 1 --count 4320 [--folder DIRECTORY]

A unit is a minute of the outage. The engine takes it as fast as it goes, with virtual receive times, in turns of a few events as at 500 events a second: so each
record is as small as it would be. Then a gateway starts on that disk, upstream is there, a load of 500 events a second goes on, and the waiting drains. One in ten
of the events of the outage is an alert that waits too; of the load's each is one, so that a short outage tells something. Their latency is measured while it drains
and afterwards for as long. Of a shorter outage the disk's part is judged by the bytes an event.
"""

import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from campaign import main  # first: it finds the other folders
from memory_run import settled

from edge.mqtt._intake import Intake, Topics
from edge.storage.disk import Disk
from gateway.bench import rig, workload
from gateway.config.reader import parse
from gateway.core import Core

RATE, MINUTE = 500, 30_000               # events a second, a minute
TURN = 5                                 # events: 10 ms, which is an fdatasync of a card
HOURS = 72
DISK_BYTES_MAX = 4e9
DRAIN_MIN = 50_000                       # events a second
DRAIN_LEAST = 80_000                     # events a second: the load goes on for as long as such a drain takes at most; on two idle cores it is thrice as fast
LATENCY_RATIO_MAX = 2.0
ALERTS_MIN, ALERTS_P99_MIN = 100, 2000   # while it drains: for a median, and for the slowest in a hundred
NEAR_BYTES = 2 << 20
USUAL_S, DRAIN_S_MIN = 3.0, 1.0
CONFIG = workload.GATEWAY.replace('"data"', '"%s"') + workload.STREAM + workload.RULES + """
[rules.alarm]
input = "hot"
module = "project"
params = { keep = ["temp", "seq"] }
[rules.live]
input = "env"
module = "threshold"
params = { field = "seq", op = "<", value = 100000000 }
[rules.probe]
input = "live"
module = "project"
params = { keep = ["temp", "seq"] }
[listener]
port = 0
[upstream]
host = "127.0.0.1"
port = %d
[lanes.alerts]
streams = ["alarm", "probe"]
age = "0s"
priority = 0
[lanes.telemetry]
streams = ["env", "seconds", "seconds.late"]
age = "1s"
quota = "3GiB"
"""


class Unsynced(Disk):
    """The disk without its syncs: an outage is no power cut."""

    def fdatasync(self, fd):
        pass

    def fsync_directory(self, path):
        pass


def take(core, seed, minutes, start_ms):
    """The outage. (events, bytes on disk at most, resident memory after each tenth)."""
    workload.START_MS, workload.FIRST_SEQ = start_ms, 200_000_000      # not the numbers of the load that comes after
    pipeline, intake, now_ns = core.pipeline, Intake(Topics()), start_ms * 10**6
    events, memory, most = 0, [], 0
    step_ns, seconds, tenth = TURN * 10**9 // RATE, 0, max(1, minutes // 10)
    for topic, payload, _ in workload.events(minutes * MINUTE, rate=RATE, seed=seed):
        intake.add(topic, payload)
        events += 1
        if events % TURN:
            continue
        now_ns += step_ns
        stored = pipeline.store(intake, now_ns)
        pipeline.sync()
        intake.clear()
        pipeline.run(stored)
        if events % RATE == 0:
            seconds += 1
            pipeline.tick(now_ns)
            for outbox, lane in core.lanes:
                lane.wake(outbox.take_fresh())
            if seconds % 10 == 0:
                core.checkpoint()
                most = max(most, on_disk(core))
            if seconds % (60 * tenth) == 0:
                memory.append(settled()[0])
    core.checkpoint()
    return events, max(most, on_disk(core)), memory


def on_disk(core):
    """Bytes of all logs."""
    return sum(log.size_bytes for log in core._logs)


class Silent:
    """No log."""

    def __call__(self, *words, **details):
        pass

    warning = error = __call__


def outage(folder, seed, first, count, broken):
    """The first part, in this process. Figures."""
    core = Core(parse(CONFIG % (folder / "data", 1)), Unsynced(), str(folder / "data/modules"), Silent())
    core.recover()
    began = time.monotonic()
    start_ms = int(time.time() * 1000) - (count + 1) * 60_000
    events, size, memory = take(core, f"{seed}/{first}", count, start_ms)
    took = time.monotonic() - began
    evicted = sum(sum(outbox.evicted.values()) for outbox, _ in core.lanes)
    parts = {outbox.name: outbox.log.size_bytes for outbox, _ in core.lanes}
    journal = core.pipeline.journal.log.size_bytes
    core.close()
    whole = journal_at_most(journal) + sum(parts.values()) * HOURS * 60 / count + (size - journal - sum(parts.values()))
    if whole > DISK_BYTES_MAX:
        broken.append(f"seed {seed}: {HOURS} h take {whole / 1e9:.2f} GB of disk: {parts} of {events} events")
    if evicted:
        broken.append(f"seed {seed}: {evicted} rows were evicted")
    middle = statistics.median(memory[2:]) if len(memory) > 4 else 0
    away = max((abs(m - middle) for m in memory[2:]), default=0) if middle else 0
    if away > NEAR_BYTES and count >= 400:
        broken.append(f"seed {seed}: memory was {away / 1e6:.1f} MB from its middle: {memory}")
    return {"events": events, "gb": round(size / 1e9, 4), "gb_of_72_h": round(whole / 1e9, 3), "outbox_bytes_an_event": round(sum(parts.values()) / events, 2),
            "memory_away_mb": round(away / 1e6, 2), "taken_per_s": round(events / took)}


def journal_at_most(size):
    """The journal's quota: what it comes to in a long outage."""
    return max(size, 512 << 20)


class Gateway(rig.Gateway):
    """On a data directory that is there."""

    def __init__(self, folder, text):
        (folder / "tidegate.toml").write_text(text)
        rig.Process.__init__(self, folder, "gateway", [sys.executable, "-m", "gateway.cli", "run", "-c", "tidegate.toml"])
        self.data = str(folder / "data")
        self.wait_for(lambda: self.ask("status", quiet=True))

    def waiting(self):
        return sum(lane["rows_waiting"] for lane in self.ask("status")["lanes"].values())

    def drain(self):
        """Until all that waits has left, twice."""
        until = time.monotonic() + 60
        while (self.waiting() or time.sleep(1.2) or self.waiting()) and time.monotonic() < until:
            time.sleep(0.05)


def drain(folder, events, broken):
    """The second part: a gateway, a receiver and a load that goes on. Figures."""
    signal.signal(signal.SIGINT, signal.default_int_handler)     # or the load would ignore it where this process does
    with rig.Sink(folder, "probe") as sink, Gateway(folder, CONFIG % (folder / "data", sink.port)) as gateway:
        began, first = time.monotonic_ns(), gateway.waiting()
        with rig.load(folder, gateway.port, rate=RATE, seconds=USUAL_S + DRAIN_S_MIN + events / DRAIN_LEAST, qos=1, extra=("--stamps", "stamps")) as generator:
            ended = None
            while generator.running and not (ended and time.monotonic_ns() - ended > max(USUAL_S * 10**9, ended - began)):
                waiting = gateway.waiting()          # asked for afterwards, too: an answer takes a millisecond of the gateway's
                ended = ended or (time.monotonic_ns() if waiting < RATE else None)
                time.sleep(0.2)
            generator.stop(signal.SIGINT)
            sent = generator.last_json()
        gateway.drain()
        ledger = gateway.ask("ledger")
        gateway.stop()
        sink.stop()
        report, received = sink.last_json(), sink.receipts()
    if ended is None:
        broken.append(f"{first} rows did not drain while the load went on")
        return {"rows": first}
    rate = first / (ended - began) * 1e9
    made = rig.stamps(folder / "stamps")
    times = [(made[seq], received[seq] - made[seq]) for seq in received if seq in made]
    during, usual = Latency(took for at, took in times if at < ended), Latency(took for at, took in times if at > ended + 10**8)
    if rate < DRAIN_MIN:
        broken.append(f"it drained at {rate:.0f} rows a second")
    broken += during.slower_than(usual)
    if report["missing"] or report["duplicates"] or report["rows"]["env"] != events + sent["sent"] or not ledger["balanced"]:
        broken.append(f"{events} and {sent['sent']} events, and upstream has {report}; {ledger['problems']}")
    if len(received) != sent["sent"]:
        broken.append(f"{sent['sent']} live alerts, and {len(received)} arrived")
    return {"rows": first, "drained_per_s": round(rate), "alerts_during": during.count, "during_ms": during.ms, "usual_ms": usual.ms,
            "median_ratio": round(during.ms[0] / usual.ms[0], 2), "p99_ratio": round(during.ms[2] / usual.ms[2], 2)}


class Latency:
    """times: ns. ms: the median, the slowest in ten and in a hundred."""

    def __init__(self, times):
        times = sorted(times)
        self.count = len(times)
        self.ms = [round(times[len(times) * part // 100] / 1e6, 3) if times else 0.001 for part in (50, 90, 99)]

    def slower_than(self, usual):
        """What is broken. On a machine with other work some take long anyway: a median is within the usual if one in ten usual ones takes as long."""
        if self.count >= ALERTS_MIN and self.ms[0] > max(LATENCY_RATIO_MAX * usual.ms[0], usual.ms[1]):
            yield f"alerts took {self.ms} ms while draining and {usual.ms} ms afterwards: median, one in ten, one in a hundred"
        if self.count >= ALERTS_P99_MIN and self.ms[2] > LATENCY_RATIO_MAX * usual.ms[2]:
            yield f"one alert in a hundred took {self.ms[2]} ms while draining and {usual.ms[2]} ms afterwards"


def run(seed, first, count, folder):
    """The figures, and what was broken. folder: on which disk; "": the one for temporary files."""
    broken = []
    with tempfile.TemporaryDirectory(prefix="tidegate-outage-", dir=folder or None) as made:
        free, need = shutil.disk_usage(made).free, DISK_BYTES_MAX * count / (60 * HOURS) + 2e9
        if free < need:
            return {}, [f"{made}: {free / 1e9:.1f} GB are free and {need / 1e9:.1f} are needed: take another --folder"]
        figures = outage(Path(made), seed, first, count, broken)
        figures |= drain(Path(made), figures["events"], broken)
    return figures, broken


if __name__ == "__main__":
    sys.exit(main(run, __doc__, 22, folder=""))
