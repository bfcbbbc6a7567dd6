"""Memory stays flat: a gateway with its doors open, in this process, and its receiver, over many events and device connects.

    python memory_run.py --seed 1 --count 100

A unit is 10,000 events through the engine (parsed, journaled and synced, four rules, sent and acknowledged upstream) and one device that connects, publishes and goes,
in one of the ways that devices go. A rule keeps the batches of up to 131,072 rows, from which its state before a trap is made again: memory goes up and down with
that. So what is compared is the most and the least of stretches of 150,000 events. The first part of a run warms up; from then on both stay within 2 MB of their
middle, and the number of Python's objects within a few hundred: a leak of one object a connect shows in a short run too.
"""

import contextlib
import ctypes
import gc
import io
import random
import socket
import statistics
import struct
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from campaign import main  # first: it finds the other folders
import packet_shapes as shapes

from edge.mqtt._mqtt import Flow
from gateway.bench import workload
from gateway.bench.sink import Sink
from gateway.config import reader as config
from gateway.daemon import Daemon

EVENTS = 10_000
WARM = 0.4                               # of the run, at least WARM_UNITS
WARM_UNITS = 30
STRETCH = 15                             # units
NEAR_BYTES = 2 << 20
OBJECTS_MORE_MAX = 30
CONFIG = workload.GATEWAY.replace('"data"', '"data"\ncheckpoint = "200ms"') + workload.STREAM + workload.RULES + """
[listener]
port = 0
connections_max = 3
[rules.once]
input = "env"
module = "dedup"
params = { id = "seq" }
[rules.band]
input = "once"
module = "deadband"
params = { field = "temp", change = 5.0 }
[upstream]
host = "127.0.0.1"
port = %d
[lanes.alerts]
streams = ["hot", "band"]
age = "0s"
priority = 0
quota = "4MiB"
[lanes.telemetry]
streams = ["seconds", "once"]
age = "100ms"
quota = "4MiB"
[journal]
quota = "8MiB"
"""


class Box:
    """A gateway and its receiver, driven in turns."""

    def __init__(self, folder):
        self.sink = Sink("none")
        path = Path(folder) / "tidegate.toml"
        path.write_text(CONFIG % self.sink.port)
        self.said = io.StringIO()
        with contextlib.redirect_stderr(self.said), contextlib.chdir(folder):
            self.daemon = Daemon(config.load(str(path)))
            self.daemon.start()
        self.flow = Flow(server=True)
        self.flow.open = True
        self.port = self.daemon.parts.listener.port
        self.events = self.connects = 0

    def turn(self):
        self.daemon.turn(0)
        self.sink.turn(0)

    def play(self, wire):
        """Packets through the engine, as the listener reads them."""
        view, at = memoryview(wire), 0
        while at < len(wire):
            _, used, events, fault = self.flow.feed(view[at:at + (256 << 10)], self.daemon.intake)
            assert used and not fault, f"the workload's packet at byte {at} is none: fault {fault}"
            at += used
            self.events += events
            self.turn()

    def visit(self, rng):
        """A device connects, publishes, and goes: with DISCONNECT, without, in the middle of a packet, or for a second of its name."""
        v5 = rng.random() < 0.5
        name = b"visitor-%d" % (self.connects if rng.random() < 0.8 else 7)
        self.connects += 1
        client = socket.create_connection(("127.0.0.1", self.port))
        client.setblocking(False)
        client.sendall(shapes.connect(v5, name, flags=0 if rng.random() < 0.5 else 2, properties=b"\x11\0\0\0\x09" if v5 else b""))
        for i in range(5):
            client.sendall(shapes.publish(b"sensors/s/d/env", b"{}" if rng.random() < 0.2 else b'{"seq":1}', 1 + (i & 1), i + 1, v5))
        want = 4 * 5
        for _ in range(200):
            self.turn()
            with contextlib.suppress(BlockingIOError):
                want -= len(client.recv(4096))
            if want <= 0:
                break
        end = rng.randrange(3)
        if end == 0:
            client.sendall(b"\xe0\0")
        elif end == 1:
            client.sendall(b"\x32\x7f\0\1a")
        else:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.turn()
        client.close()
        self.turn()

    def close(self):
        with contextlib.redirect_stderr(self.said):
            self.daemon.close()


def settled():
    """(resident bytes, Python's objects), after what is free was given back. A segment's index (lists) and the batches that a rule keeps come and go: they are
    bounded, and count as bytes alone."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096, sum(type(o) is not list and type(o).__name__ != "Batch" for o in gc.get_objects())


def run(seed, first, count):
    """The figures, and what was broken."""
    broken, samples = [], []
    with tempfile.TemporaryDirectory(prefix="tidegate-memory-") as folder:
        box = Box(folder)
        warm = min(count - 1, max(WARM_UNITS, int(count * WARM)))
        warm = count - max(STRETCH, (count - warm) // STRETCH * STRETCH)
        for i in range(first, first + count):
            box.play(workload.packets(EVENTS, first=i * EVENTS))
            box.visit(random.Random(f"{seed}/{i}"))
            if i - first >= warm:
                samples.append(settled())
        lanes = sum(lane.rows_waiting for _, lane in box.daemon.core.lanes)
        report = box.sink.report()
        box.close()
    sizes, objects = zip(*samples)
    stretches = [sizes[at:at + STRETCH] for at in range(0, len(sizes), STRETCH)]
    away = 0
    for name, ends in (("most", [max(s) for s in stretches]), ("least", [min(s) for s in stretches])):
        middle = statistics.median(ends)
        off = max(abs(end - middle) for end in ends)
        away = max(away, off)
        if off > NEAR_BYTES:
            broken.append(f"seed {seed}: the {name} memory of a stretch was {off / 1e6:.1f} MB from its middle of {middle / 1e6:.1f} MB: {[round(s / 1e6, 1) for s in ends]}")
    more = statistics.median(objects[-STRETCH:]) - statistics.median(objects[:STRETCH])
    if more > OBJECTS_MORE_MAX and len(stretches) > 1:
        broken.append(f"seed {seed}: {more:.0f} Python objects more: {objects}")
    if box.events < count * EVENTS or report["rows"].get("once", 0) < 0.5 * count * EVENTS:
        broken.append(f"only {box.events} events went in and {report['rows']} rows arrived: this run tried too little")
    return {"events": box.events, "connects": box.connects, "rows": report["rows"], "waiting": lanes, "resident_mb": round(max(sizes) / 1e6, 1),
            "away_mb": round(away / 1e6, 2), "objects": objects[-1], "objects_more": more}, broken


if __name__ == "__main__":
    sys.exit(main(run, __doc__, 100))
