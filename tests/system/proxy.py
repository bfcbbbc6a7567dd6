"""A TCP proxy between two real programs, in a thread of its own: it passes bytes on, and can cut, truncate, delay, swallow and refuse."""

import contextlib
import selectors
import socket
import struct
import threading
import time

CHUNK = 65536


class Proxy:
    """Listens on .port and connects to `target`. The faults may be asked for from another thread; each returns when it is over."""

    def __init__(self, target):
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peer = {}                  # socket -> the one on the other side
        self._until, self._swallow, self._refuse, self._truncate = 0.0, False, False, False
        self._closed = False
        self._lock = threading.Lock()
        self.passed = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # --- faults

    def cut(self):
        """Every connection ends, without a word."""
        with self._lock:
            for one in list(self._peer):
                self._end(one, reset=True)

    def truncate(self, within_s=0.5):
        """The next bytes are passed on in part, and then that connection ends; cut() where none come."""
        self._truncate = True
        end = time.monotonic() + within_s
        while self._truncate and time.monotonic() < end:
            time.sleep(0.005)
        if self._truncate:
            self._truncate = False
            self.cut()

    def delay(self, seconds):
        """Nothing passes for a while; nothing is lost."""
        self._until = time.monotonic() + seconds
        time.sleep(seconds)

    def swallow(self, seconds):
        """A dead link: what is sent is taken and goes nowhere; then the connections end."""
        self._swallow = True
        time.sleep(seconds)
        self._swallow = False
        self.cut()

    def refuse(self, seconds):
        """Nobody is there."""
        self._refuse = True
        self.cut()
        time.sleep(seconds)
        self._refuse = False

    def close(self):
        self._closed = True
        self._thread.join(5)
        self.cut()
        self._listener.close()

    # --- the thread

    def _run(self):
        while not self._closed:
            ready = self._selector.select(0.05)
            if time.monotonic() < self._until:
                time.sleep(0.002)
                continue
            with self._lock:
                for key, _ in ready:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj in self._peer:
                        self._pass(key.fileobj)

    def _accept(self):
        try:
            here, _ = self._listener.accept()
        except OSError:
            return
        there = socket.socket()
        try:
            if self._refuse:
                raise ConnectionRefusedError
            there.settimeout(1)
            there.connect(("127.0.0.1", self.target))
        except OSError:
            there.close()
            here.close()
            return
        for one, other in ((here, there), (there, here)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.settimeout(2)            # a peer that does not read: its connection ends
            self._peer[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass(self, one):
        other = self._peer[one]
        try:
            data = one.recv(CHUNK)
            if data and self._swallow:
                return
            if data and self._truncate:
                self._truncate = False
                other.sendall(data[:max(1, len(data) * 2 // 3)])
                data = b""
            if data:
                other.sendall(data)
                self.passed += len(data)
                return
        except OSError:
            pass
        self._end(one)

    def _end(self, one, reset=False):
        for s in (one, self._peer.get(one)):
            if s is None:
                continue
            self._peer.pop(s, None)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(s)
            if reset:
                with contextlib.suppress(OSError):
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
