"""What a device that floods costs the others: honest devices' PUBACK times with and without it, in turns, so that whatever else the machine does is in both.

What is judged is the same in virtual time (flood_world.py): the time of a loaded machine says more about the machine. This here is what it comes to on a real one.
"""

import socket
import subprocess
import sys
import time

import packet_shapes as shapes
from flood_world import FloodWorld, p99

HONEST = 4
ROUND_S = 0.5
EVERY_S = 0.002                          # an honest event, by one of them
RATIO_MAX = 1.10
VIRTUAL_S = 12.0

FLOOD = """
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(bytes.fromhex(sys.argv[2]))
block = bytes.fromhex(sys.argv[3]) * 500
print("floods", flush=True)
while True:
    s.sendall(block)
"""


class Flooded:
    """Against the gateway at `port`."""

    def __init__(self, port):
        self._port, self._number = port, 0
        self._devices = [self._device(f"honest-{i}".encode()) for i in range(HONEST)]

    def _device(self, name):
        s = socket.create_connection(("127.0.0.1", self._port), 5)
        s.settimeout(5)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(shapes.connect(False, name))
        assert s.recv(4) == b"\x20\x02\0\0"
        return s

    def _times(self, seconds):
        """PUBACK times for some seconds, ns."""
        times, end, due = [], time.monotonic() + seconds, time.monotonic()
        while (now := time.monotonic()) < end:
            if now < due:
                time.sleep(due - now)
            due = max(due + EVERY_S, now)
            self._number += 1
            device = self._devices[self._number % HONEST]
            began = time.perf_counter_ns()
            device.sendall(shapes.publish(b"sensors/h/env", b'{"seq":%d,"temp":21.5}' % self._number, 1, 1))
            assert device.recv(4) == b"\x40\x02\0\x01"
            times.append(time.perf_counter_ns() - began)
        return times

    def measure(self, rounds):
        """Figures of so many rounds, microseconds."""
        packet = shapes.publish(b"sensors/f/env", b'{"seq":1,"temp":99}')
        quiet, beside = [], []
        for _ in range(rounds):
            self._times(0.05)
            quiet += self._times(ROUND_S)
            flood = subprocess.Popen([sys.executable, "-c", FLOOD, str(self._port), shapes.connect(False, b"flood").hex(), packet.hex()], stdout=subprocess.PIPE)
            try:
                flood.stdout.readline()
                self._times(0.3)                 # its burst
                beside += self._times(ROUND_S)
            finally:
                flood.kill()
                flood.wait()
                flood.stdout.close()
        for device in self._devices:
            device.close()
        quiet.sort()
        beside.sort()
        p99, p99_beside, median, median_beside = (times[int(len(times) * part)] / 1e3 for part in (0.99, 0.5) for times in (quiet, beside))
        return {"p99_us": round(p99), "p99_flooded_us": round(p99_beside), "p99_ratio": round(p99_beside / p99, 3), "median_us": round(median),
                "median_flooded_us": round(median_beside), "flood_samples": len(quiet) + len(beside)}


def judge(seed, broken):
    """The ratio of the 99th percentiles in virtual time; adds to `broken` when a flood costs too much, or costs nothing where nothing is done about it."""
    ratios = []
    for sparing, seconds in ((True, VIRTUAL_S), (False, 1.0)):
        quiet, beside = FloodWorld(floods=0, seed=seed, sparing=sparing), FloodWorld(seed=seed, sparing=sparing)
        try:
            beside.run(1.0)
            ratios.append(p99(beside.run(seconds)) / p99(quiet.run(seconds)))
        finally:
            quiet.close()
            beside.close()
    if ratios[0] > RATIO_MAX:
        broken.append(f"seed {seed}: a device that floods costs the others {ratios[0]:.2f} times their p99")
    if ratios[1] < 2:
        broken.append(f"a flood that nothing holds back costs {ratios[1]:.2f} times the p99: this run tried nothing")
    return {"virtual_p99_ratio": round(ratios[0], 3), "virtual_p99_ratio_unspared": round(ratios[1], 1)}
