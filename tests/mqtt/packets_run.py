"""Fuzzed MQTT, and payloads that are bombs: no crash, no hang, bounded memory, and the other devices hardly notice.

    python packets_run.py --seed 1 --first 0 --count 5000

A unit is 100 mutated packets for the parser, whose every verdict is compared with a second reading of the standard; one session of mutated packets for a Listener in
this process; and one mutated packet for a gateway that is a process of its own and has to survive. A run ends with the bombs, and with honest devices' latency beside
a device that floods: judged in virtual time, and measured in real, with the flood and without it in turn.
"""

import random
import select
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from campaign import main  # first: it finds the other folders
import bombs
import packet_shapes as shapes
from flood import Flooded, judge
from site_world import Site

from edge.errors import DeviceError
from edge.mqtt import packets as mqtt
from edge.mqtt._intake import Intake, Topics
from edge.mqtt._mqtt import Flow
from gateway.ingest import device as device_module
from gateway.ingest.listener import Listener
from gateway.reactor import Reactor

PER_UNIT = 100
PACKET_BYTES_MAX = 4096
GROWTH_BYTES_MAX = 4 << 20               # of the gateway's memory, by sessions of fuzz
SESSION_PACKETS = 8
READERS = (lambda data, version: mqtt.read_connect(data), mqtt.read_subscribe, mqtt.read_unsubscribe, mqtt.read_disconnect)
SEEDS = {v5: shapes.seeds(v5) for v5 in (False, True)}


class Parser:
    """Mutated packets to the parser, alone. differences: where it and the second reading disagree."""

    def __init__(self):
        self.intake, self.verdicts, self.differences = Intake(Topics()), Counter(), []

    def unit(self, rng, name):
        v5 = rng.random() < 0.5
        seeds, reading = SEEDS[v5], shapes.Reading(v5, PACKET_BYTES_MAX)
        flow = Flow(server=True, v5=v5, packet_bytes_max=PACKET_BYTES_MAX)
        flow.open = True
        tap = Flow(server=False, v5=v5, packet_bytes_max=PACKET_BYTES_MAX)
        intake, bits = self.intake, rng.getrandbits

        def draw():
            return bits(32)

        for k in range(PER_UNIT):
            data = shapes.mutate(seeds[draw() % len(seeds)], draw, seeds)
            stop, used, _, fault = flow.feed(data, intake)
            found = stop, used, [(topic, payload, flags & 3) for topic, payload, _, flags in (intake[i] for i in range(len(intake)))]
            self.verdicts[stop] += 1
            if found != (wanted := reading.read(data)) or bool(fault) != (stop == shapes.FAULT):
                self.differences.append(f"{name}: MQTT {5 if v5 else 4}, {data.hex()}: {found}, fault {fault}, and not {wanted}")
            intake.clear()
            flow.acknowledged()
            if stop == shapes.OTHER:
                for read in READERS:
                    try:
                        read(data[used:], 5 if v5 else 4)
                    except DeviceError:
                        pass
            if k % 8 == 0:                           # as from a broker: it ends in an answer, and never reads past the end
                if tap.feed(data, intake)[1] > len(data):
                    self.differences.append(f"{name}: the tap read past the end of {data.hex()}")
                intake.clear()
        self.intake.topics.clear()


class Sessions:
    """Mutated sessions to a Listener in this process, with an honest device beside them."""

    def __init__(self):
        self.reactor, self.intake = Reactor(), Intake(Topics(), 4096, 1 << 20)
        self.listener = Listener(self.reactor, self.intake, host="127.0.0.1", port=0, packet_bytes_max=64 << 10, status=lambda: b"{}")
        self.faults, self.honest = [], None
        self.taken = []

    def turn(self):
        self.reactor.turn(0)
        self.taken += [self.intake[i][:2] for i in range(len(self.intake))]
        self.listener.acknowledge()
        self.intake.clear()
        self.intake.topics.clear()

    def unit(self, rng, name):
        v5 = rng.random() < 0.5
        data = session(rng, v5)
        ours = socket.create_connection(("127.0.0.1", self.listener.port))
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ours.setblocking(False)
        at = 0
        while at < len(data):
            try:
                at += ours.send(data[at:at + rng.randint(1, 800)])
            except BlockingIOError:
                pass
            except OSError:
                break
            self.turn()
        self.turn()
        ours.close()
        self.turn()
        if self.listener.pool.held > self.listener.pool.held_max:
            self.faults.append(f"{name}: {self.listener.pool.held} bytes held")
        self.taken.clear()

    def finish(self, count):
        """An honest device is served as ever, and nothing is left of the others."""
        client = socket.create_connection(("127.0.0.1", self.listener.port))
        client.sendall(shapes.connect(True) + shapes.publish(b"d/honest", b"42", 1, 9, True))
        for _ in range(20):
            self.turn()
            time.sleep(0.001)
        client.setblocking(False)
        if (b"d/honest", b"42") not in self.taken or b"\x40\x02\x00\x09" not in client.recv(4096):
            self.faults.append("an honest device is not served after the sessions")
        client.close()
        self.turn()
        found = {"sessions": self.listener.connections, "malformed": self.listener.malformed, "published": self.listener.published}
        if found["sessions"] < count / 2 or min(found.values()) < count / 8:
            self.faults.append(f"{found} of {count} sessions: this run tried too little")
        if self.listener.connected or self.listener.pool.held:
            self.faults.append(f"{self.listener.connected} devices and {self.listener.pool.held} bytes are left of sessions that ended")
        self.listener.close()
        return found


def session(rng, v5):
    """Bytes of a session: CONNECT, perhaps mutated, and packets most of which are."""
    bits, seeds = rng.getrandbits, SEEDS[v5]

    def draw():
        return bits(32)

    hello = shapes.connect(v5, b"f%d" % (draw() % 50), properties=b"\x11\0\0\0\x05" if v5 else b"")
    parts = [shapes.mutate(hello, draw, seeds) if draw() % 3 == 0 else hello]
    for _ in range(SESSION_PACKETS):
        packet = seeds[draw() % len(seeds)]
        parts.append(shapes.mutate(packet, draw, seeds) if draw() % 3 == 0 else packet)
    return b"".join(parts)


CONFIG = """
[gateway]
name = "site"
data = "data"
isolation = "none"
[listener]
port = $PORT
[upstream]
host = "127.0.0.1"
port = $UPSTREAM
[streams.env]
topics = ["sensors/+/env", "a/b"]
[streams.env.fields]
seq = "i64"
temp = "f64"
[streams.packed]
topics = ["packed/#"]
format = "msgpack"
[streams.packed.fields]
seq = "i64"
[journal]
quota = "8MiB"
dead_letters = "1MiB"
[lanes.main]
streams = ["env", "packed"]
quota = "4MiB"
"""


def on_the_wire(site, rng, name):
    """One session of fuzz to the gateway's process. How many packets it had; raises AssertionError when the gateway does not accept it."""
    data = session(rng, rng.random() < 0.5)
    client = socket.create_connection(("127.0.0.1", site.port), 5)
    try:
        client.settimeout(5)
        client.sendall(data)
        client.setblocking(False)
        if rng.random() < 0.1:                       # most do not even listen
            select.select([client], [], [], 0.02)
            client.recv(4096)
    except (BlockingIOError, ConnectionError):
        pass                                         # it was shown the door
    except TimeoutError:
        raise AssertionError(f"{name}: the gateway does not read") from None
    finally:
        client.close()
    return 1 + SESSION_PACKETS


def wire(folder, seed, first, count, broken):
    """Figures of the gateway's process under fuzz, bombs and flood."""
    site = Site(folder, CONFIG, fleet="")
    packets, number = 0, first
    try:
        site.start_gateway()
        pid = site.processes["gateway"].pid
        before, began = bombs.resident(pid), time.monotonic()
        while packets < count:
            packets += on_the_wire(site, random.Random(f"{seed}/{number}/wire"), f"seed {seed}, unit {number}")
            number += 1
            if packets < count / 3:
                before = bombs.resident(pid)         # buffers have their size by then
        seconds = time.monotonic() - began
        growth = bombs.resident(pid) - before
        if growth > GROWTH_BYTES_MAX:
            broken.append(f"seed {seed}: the gateway's memory grew by {growth} bytes under fuzz")
        found = {"wire_packets": packets, "wire_per_s": round(packets / seconds), "wire_growth_mb": round(growth / 1e6, 2)}
        found["bomb_growth_mb"] = round(bombs.at_the_gateway(site, pid, broken) / 1e6, 1)
        found |= Flooded(site.port).measure(max(4, min(40, count // 2500)))
        status = site.ask("status")
        if status is None or site.processes["gateway"].poll() is not None or "Traceback" in site.errors():
            broken.append(f"seed {seed}: the gateway did not survive: {site.errors()[-800:]}")
        elif not status["listener"]["malformed"]:
            broken.append("no packet was found malformed: this run tried nothing")
        if site.stop("gateway") != 0:
            broken.append("the gateway does not end as it should")
    finally:
        site.close()
    return found


def run(seed, first, count):
    """The figures, and what was broken."""
    broken, began = [], time.monotonic()
    device_module.GREETING_S = 3600.0                # time is not what is tested in this process
    parser, sessions = Parser(), Sessions()
    for i in range(first, first + count):
        name, rng = f"seed {seed}, unit {i}", random.Random(f"{seed}/{i}")
        parser.unit(rng, name)
        sessions.unit(rng, name)
    in_process = sessions.finish(count)
    broken += parser.differences + sessions.faults
    figures = {"packets": count * PER_UNIT,
               "verdicts": {name: parser.verdicts[stop] for stop, name in enumerate(("dealt with", "others", "full", "refused"))},
               **in_process, "in_process_s": round(time.monotonic() - began, 1)}
    for verdict in (shapes.MORE, shapes.OTHER, shapes.FAULT):
        if count > 20 and parser.verdicts[verdict] < count * PER_UNIT / 20:
            broken.append(f"only {parser.verdicts[verdict]} packets had the verdict {verdict}: this run tried too little")
    figures |= judge(seed, broken)
    figures["bomb_ratios"] = bombs.at_the_decoders(broken)
    with tempfile.TemporaryDirectory(prefix="tidegate-packets-") as folder:
        figures |= wire(folder, seed, first, count, broken)
    return figures, broken


if __name__ == "__main__":
    sys.exit(main(run, __doc__, 5000))
