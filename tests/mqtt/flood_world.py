"""The listener in virtual time: what a turn costs is set, so that what devices wait for is computed and not measured. Sockets are real, and nothing waits."""

import random
import socket

from raw_client import connect_packet, publish

from edge.mqtt._intake import Intake, Topics
from gateway.ingest.listener import Listener
from gateway.reactor import Reactor

TURN_S = 400e-6                          # of a turn that had something to store: its sync and all that does not depend on how much
LOOK_S = 10e-6                           # of one that had something to look at
EVENT_S = 1e-6                           # more, for each event


class VirtualReactor(Reactor):
    """Time goes on only where nothing is ready, to what comes next, and where the world says so."""

    now_s = 1000.0

    def monotonic(self):
        return self.now_s

    def _wait(self, timeout_s):
        ready = super()._wait(0)
        self.now_s += LOOK_S if ready else timeout_s
        return ready


class FloodWorld:
    """Honest devices, one event after the other, and devices that flood, with a window of unacknowledged messages or none. `taken`: events of the others; `waits`: an honest event's, seconds, until its PUBACK."""

    def __init__(self, *, honest=4, floods=1, flood=publish(b'{"temp":99}'), window=0, every_s=0.005, seed=1, **settings):
        self.random, self.every_s = random.Random(seed), every_s
        self.reactor, self.intake, self.log = VirtualReactor(), Intake(Topics()), []
        self.listener = Listener(self.reactor, self.intake, host="127.0.0.1", port=0, on_event=lambda *event: self.log.append(event), **settings)
        self.waits, self.taken, self.turns = [], 0, 0
        self._due_s, self._asked_s = self.reactor.now_s, None
        self._honest = [self._device(f"honest-{i}") for i in range(honest)]
        self._floods = [self._device(f"flood-{i}") for i in range(floods)]
        self._flood, self._window, self._credit = flood, window, [window] * floods
        self._block, self._rest = flood * (4096 // len(flood) + 1), [b""] * floods

    def _device(self, name):
        device = socket.create_connection(("127.0.0.1", self.listener.port))
        device.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        device.setblocking(False)
        device.sendall(connect_packet(name))
        while True:
            self.reactor.turn(0)
            try:
                assert device.recv(4) == b"\x20\x02\x00\x00"
                return device
            except BlockingIOError:
                pass

    def run(self, seconds):
        """So many seconds of the listener's time. The waits in it."""
        end_s, self.waits = self.reactor.now_s + seconds, []
        while self.reactor.now_s < end_s:
            self._pour()
            self._ask()
            self.reactor.turn(max(0.0, min(end_s, self._due_s) - self.reactor.now_s) if self._asked_s is None else 0)
            if n := len(self.intake):
                self.turns += 1
                self.taken += n
                self.reactor.now_s += TURN_S + n * EVENT_S
                self.listener.acknowledge()
                self.intake.clear()
            self._hear()
        return self.waits

    def _pour(self):
        for i, device in enumerate(self._floods):
            if self._window:
                self._go_on(i, device)
                continue
            try:
                while True:
                    rest = self._rest[i] or self._block
                    self._rest[i] = rest[device.send(rest):]
            except (BlockingIOError, ConnectionError):
                pass

    def _go_on(self, i, device):
        try:
            self._credit[i] += len(device.recv(4 * self._window)) // 4
        except BlockingIOError:
            pass
        device.send(self._flood * self._credit[i])
        self._credit[i] = 0

    def _ask(self):
        if self._honest and self._asked_s is None and self.reactor.now_s >= self._due_s:
            self._honest[0].send(publish(b"honest", 1, 1))
            self._asked_s = self._due_s

    def _hear(self):
        if self._asked_s is None:
            return
        try:
            assert self._honest[0].recv(4) == b"\x40\x02\x00\x01"
        except BlockingIOError:
            return
        self.taken -= 1
        self.waits.append(self.reactor.now_s - self._asked_s)
        self._honest.append(self._honest.pop(0))
        self._asked_s, self._due_s = None, max(self.reactor.now_s, self._due_s + self.every_s * self.random.uniform(0.5, 1.5))

    def close(self):
        for device in self._honest + self._floods:
            device.close()
        self.listener.close()
        self.reactor.close()


def p99(waits):
    return sorted(waits)[int(0.99 * len(waits))]
