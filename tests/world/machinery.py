"""A machine that is simulated: virtual time, a disk that loses what a power cut would lose, pipes for a network. One thread, one seed; nothing waits.

Time goes on only in `Universe.run_until` and in SimReactor's wait: to the next thing that is to happen. What the daemon does in a turn costs TURN_NS.
"""

import errno
import hashlib
import heapq
import io
import math
import random
import select
import socket

import paho.mqtt.client as paho
from memory_disk import BLOCK, MemoryDisk, Node

from edge.storage.memory import resize, write
from gateway.deploy import shadows, swap
from gateway.forward import lane, track, upstream
from gateway.logs import Log
from gateway.reactor import Reactor

S = 10**9
TURN_NS = 50_000                         # of virtual time for a turn that had something to do
CHUNK = 1 << 16
BLANK = bytes(BLOCK)
START_NS = 1_800_000_000 * S             # true time when a world begins: 2027


class Cut(BaseException):
    """The power went. Nothing under test may catch it."""


def blocks(size):
    return -(-size // BLOCK)


def used(data):
    """Blocks up to the last that is not blank."""
    last = blocks(len(data))
    while last and BLANK.startswith(bytes(data[(last - 1) * BLOCK:last * BLOCK])):
        last -= 1
    return last


class SimNode(Node):
    """A file that nobody keeps an old state of: what is stable is changed in its place."""

    def __init__(self, data=b""):
        super().__init__(data)
        self.stable = bytearray(data)
        self.blocks = used(data)            # that it has been given: what is written into these needs no room

    def sync(self):
        for kind, offset, piece in self.changes:
            resize(self.stable, offset) if kind == "truncate" else write(self.stable, offset, piece)
        self.changes = []


class SimDisk(MemoryDisk):
    """Raises Cut where the power goes. `faults`: fn(name) -> errno or None, asked before each operation. `full`: fn() -> errno or None, asked when a write needs
    more than the `room` blocks that there are."""

    file = SimNode
    faults = staticmethod(lambda name: None)
    full = staticmethod(lambda: None)
    room = 0

    def used(self):
        """Blocks."""
        return sum(node.blocks for node in self.files.values())

    def pwrite(self, fd, data, offset):
        path, node = self.open_files[fd]
        wanted = max(node.blocks, blocks(offset + len(data)))
        if wanted > node.blocks and (code := self.full()) and self.used() + wanted - node.blocks > self.room:
            raise OSError(code, errno.errorcode[code], path)
        node.blocks = wanted
        return super().pwrite(fd, data, offset)

    def truncate(self, fd, size):
        super().truncate(fd, size)
        node = self.open_files[fd][1]
        node.blocks = min(node.blocks, blocks(size))

    def operate(self, name, path=""):
        if self.cut_at is not None and self.operations >= self.cut_at:
            raise Cut
        self.operations += 1
        refused = self.faults(name)
        if refused:
            raise OSError(refused, errno.errorcode[refused], path)

    def _next(self, files):
        return SimDisk(files, self.seed + 1)

    def fdatasync(self, fd):
        path, node = self.open_files[fd]
        self.operate("fdatasync", path)
        node.sync()


class Universe:
    """The clock and what is to happen. Randomness comes from `random`; `trace` is a digest of all that went over a wire."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.now_ns = 0
        self._events, self._number = [], 0
        self._hash = hashlib.blake2b(digest_size=16)
        self.links, self.links_made = {}, 0      # far descriptor -> Link
        self._far = select.epoll()
        self.ranks = {}                  # near descriptor -> number of its link: the order in which the ready ones have their turn
        self.spent_s = 0.0
        for module in (lane, shadows, swap, track, upstream):      # budgets of CPU time: a machine on which everything takes as long each time
            module.perf_counter = self.perf_counter
        paho.time_func = self.monotonic
        random.seed(seed)                # the client's back-off

    def monotonic(self) -> float:
        return 1000 + self.now_ns / S

    def perf_counter(self) -> float:
        self.spent_s += 20e-6
        return self.spent_s

    def note(self, what, data=b""):
        self._hash.update(f"{self.now_ns} {what} {len(data)} ".encode() + bytes(data))

    @property
    def trace(self) -> str:
        return self._hash.hexdigest()

    def at(self, ns, fn):
        self._number += 1
        heapq.heappush(self._events, (max(ns, self.now_ns), self._number, fn))

    def after(self, seconds, fn):
        self.at(self.now_ns + int(seconds * S), fn)

    def step(self, until_ns) -> bool:
        """Go to the next event, if it is not after until_ns, and let it happen."""
        if not self._events or self._events[0][0] > until_ns:
            return False
        at, _, fn = heapq.heappop(self._events)
        self.now_ns = max(self.now_ns, at)
        fn()
        return True

    def pump(self):
        """Take what the gateway has written since."""
        for fd, _ in sorted(self._far.poll(0), key=lambda ready: self.links[ready[0]].number):
            if fd in self.links:
                self.links[fd].drain()

    def link(self, peer, delay_s):
        link = Link(self, peer, delay_s, self.random.randrange(1 << 62))
        self.links[link.fd] = link
        self.ranks[link.near.fileno()] = link.number
        self._far.register(link.fd, select.EPOLLIN)
        return link

    def unlink(self, link):
        if self.links.pop(link.fd, None) is not None:
            self._far.unregister(link.fd)

    def close(self):
        for link in list(self.links.values()):
            link.close()
        self._far.close()


class Near(socket.socket):
    """The gateway's end of a link."""

    def setsockopt(self, level, *rest):
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *rest)


class Link:
    """One connection. peer: has received(data) and lost(), called when that reaches it. Bytes keep their order and come in any pieces, each after its delay."""

    def __init__(self, universe, peer, delay_s, seed):
        universe.links_made += 1
        self.number = universe.links_made
        self.universe, self.peer, self.delay_s = universe, peer, delay_s
        self.random = random.Random(seed)
        near, self._far = socket.socketpair()
        self._far.setblocking(False)
        self.near = Near(fileno=near.detach())
        self.fd = self._far.fileno()
        self.open, self.silent = True, False
        self._waiting = bytearray()      # that the gateway's socket has no room for
        self._in_at = self._out_at = 0

    def _delay(self):
        return int(self.delay_s * S * self.random.uniform(0.5, 2.0))

    def send(self, data):
        """To the gateway."""
        while data and self.open and not self.silent:
            n = len(data) if self.random.random() < 0.8 else self.random.randint(1, len(data))
            piece, data = data[:n], data[n:]
            self._in_at = max(self._in_at, self.universe.now_ns + self._delay())
            self.universe.at(self._in_at, lambda piece=piece: self._arrive(piece))

    def _arrive(self, piece):
        if self.open and not self.silent:
            self._waiting += piece
            self._flush()

    def _flush(self):
        try:
            while self._waiting:
                del self._waiting[:self._far.send(self._waiting)]
        except BlockingIOError:
            self.universe.after(0.05, lambda: self.open and self._flush())
        except OSError:
            self.close()

    def drain(self):
        """From the gateway."""
        while self.open:
            try:
                data = self._far.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close(max(self._delay(), self._out_at - self.universe.now_ns + 1))
                return
            if self.silent:
                continue
            self._out_at = max(self._out_at, self.universe.now_ns + self._delay())
            self.universe.at(self._out_at, lambda data=data: self._leave(data))

    def _leave(self, data):
        if self.peer is not None and not self.silent:
            self.universe.note(f"out {self.peer.name}", data)
            self.peer.received(data)

    def hang(self):
        """The network loses everything from now on and tells nobody."""
        self.silent = True

    def close(self, after_ns=0):
        """The connection is gone, with what is under way to the gateway; what is under way to the peer is lost too, unless after_ns is later."""
        if self.open:
            self.open = False
            self.universe.unlink(self)
            self._far.close()
            self.universe.at(self.universe.now_ns + after_ns, self._ended)

    def _ended(self):
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.lost()


class Door:
    """The listening socket of a simulated machine."""

    def __init__(self, universe, port):
        self._port = port
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._queue = []
        universe.ranks[self._near.fileno()] = 0

    def knock(self, link):
        self._queue.append(link)
        self._far.send(b".")

    def fileno(self):
        return self._near.fileno()

    def getsockname(self):
        return "10.0.0.1", self._port

    def accept(self):
        self._near.recv(1)
        link = self._queue.pop(0)
        return link.near, (f"10.0.1.{link.number}", 1)

    def close(self):
        self._near.close()
        self._far.close()
        for link in self._queue:
            link.near.close()


class SimReactor(Reactor):
    """The gateway's reactor in virtual time. dial: fn(host) -> Link, or raises OSError."""

    def __init__(self, universe, dial):
        self._universe, self._dial = universe, dial
        self.monotonic = universe.monotonic
        self.door, self.closed = None, False
        self.turns = 0
        super().__init__()

    def _wait(self, timeout_s):
        universe, until_ns = self._universe, self._universe.now_ns + max(TURN_NS, math.ceil(timeout_s * S))
        self.turns += 1
        while True:
            universe.pump()
            ready = self._epoll.poll(0)
            if ready:
                universe.now_ns += TURN_NS
                return sorted(ready, key=lambda r: universe.ranks.get(r[0], -1))
            if not universe.step(until_ns):
                universe.now_ns = max(universe.now_ns, until_ns)
                return []

    def listen(self, host, port):
        self.door = Door(self._universe, port)
        return self.door

    def connect(self, host, port, timeout_s):
        return self._dial(host).near

    def aside(self, fn, name):
        self._universe.after(0.02, lambda: self.closed or fn())

    def close(self):
        if not self.closed:
            self.closed = True
            super().close()


class SimMachine:
    """In the place of gateway.machine.Machine. The wall clock is what `set_wall` made of it; the boot clock starts anew with each start."""

    def __init__(self, universe, disk, dial, wall):
        self.universe, self.disk, self._wall = universe, disk, wall
        self.reactor = SimReactor(universe, dial)
        self._booted_ns = universe.now_ns
        self.said = io.StringIO()

    def wall_ns(self):
        return self._wall()

    def boot_ns(self):
        return self.universe.now_ns - self._booted_ns

    def wall_s(self):
        return self.wall_ns() / S

    def place(self, isolation, log):
        return None

    def sleep(self, seconds):
        until_ns = self.universe.now_ns + int(seconds * S)
        while self.universe.step(until_ns):
            pass
        self.universe.now_ns = until_ns

    def log(self, format):
        return Log(format, self.said, self.universe.monotonic, self.wall_s)
