"""What a device that floods costs the others: honest devices' PUBACK times with and without it, in turns, so that whatever else the machine does is in both."""

import socket
import subprocess
import sys
import time

import packet_shapes as shapes

HONEST = 4
ROUNDS, ROUND_S = 4, 0.5
EVERY_S = 0.002                          # an honest event, by one of them
RATIO_MAX = 1.10
TRIES = 5                                # only what is too much each time is too much: a busy machine shows so now and then

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

    def measure(self):
        """(p99 alone, p99 beside the flood, medians of both), microseconds."""
        packet = shapes.publish(b"sensors/f/env", b'{"seq":1,"temp":99}')
        quiet, beside = [], []
        for _ in range(ROUNDS):
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
        quiet.sort()
        beside.sort()
        return [times[int(len(times) * part)] / 1e3 for part in (0.99, 0.5) for times in (quiet, beside)]

    def judge(self, broken):
        """Figures; adds to `broken` when the flood costs too much each time."""
        ratios = []
        for _ in range(TRIES):
            quiet, beside, median, median_beside = self.measure()
            ratios.append(round(beside / quiet, 3))
            if ratios[-1] <= RATIO_MAX:
                break
        else:
            broken.append(f"a device that floods costs the others {min(ratios)} times their p99, in {TRIES} measurements {ratios}")
        for device in self._devices:
            device.close()
        return {"p99_us": round(quiet), "p99_flooded_us": round(beside), "p99_ratios": ratios, "median_us": round(median), "median_flooded_us": round(median_beside)}
