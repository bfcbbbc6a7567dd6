"""The reactor: one thread, one epoll, timers. All of the gateway's sockets and its clock ticks go through it."""

import heapq
import os
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from itertools import count


class Timer:
    """A callback to come; cancel() takes it back."""

    __slots__ = ("_fn",)

    def __init__(self, fn):
        self._fn = fn

    def cancel(self):
        self._fn = None

    def fire(self):
        fn, self._fn = self._fn, None
        if fn is not None:
            fn()


class Reactor:
    """Level-triggered epoll. Not thread-safe but for soon(). `now` is monotonic() of the current turn, seconds."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self):
        self._epoll = select.epoll()
        self._handlers = {}          # fd -> (on_readable, on_writable)
        self._timers = []            # heap of (due, number, Timer)
        self._number = count()
        self._soon = deque()
        self._at_work = None         # the loop's thread, while it does not wait
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._closing = threading.RLock()         # a signal may come within
        self.now = self.monotonic()
        self.watch(self._wake_read, self._drain_wake)

    def watch(self, fd, on_readable=None, on_writable=None):
        """Set both callbacks of a descriptor; None means no interest. Errors and hang-ups go to on_readable, else on_writable."""
        events = (select.EPOLLIN if on_readable else 0) | (select.EPOLLOUT if on_writable else 0)
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = (on_readable, on_writable)

    def forget(self, fd):
        """Stop watching; call before the descriptor is closed. Unknown descriptors are ignored."""
        if self._handlers.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            except (OSError, ValueError):
                pass                 # closed already: the kernel has dropped it

    def later(self, delay_s, fn) -> Timer:
        """Run fn once, delay_s seconds from now or later."""
        timer = Timer(fn)
        heapq.heappush(self._timers, (self.monotonic() + delay_s, next(self._number), timer))
        return timer

    def soon(self, fn):
        """Run fn in the loop's thread at its next turn; never, after close(). The one method for other threads."""
        self._soon.append(fn)
        if self._at_work == threading.get_ident():
            return                   # it looks before it waits again
        with self._closing, suppress(BlockingIOError):       # the pipe is full: the loop is about to wake anyway
            if self._wake_write is not None:
                os.write(self._wake_write, b"\0")

    def turn(self, timeout_s):
        """Wait for events, timers or soon() for timeout_s at most, then run what is due."""
        if self._timers:
            timeout_s = max(0.0, min(timeout_s, self._timers[0][0] - self.monotonic()))
        if self._soon:
            timeout_s = 0.0
        self._at_work = None
        ready = self._wait(timeout_s)
        self._at_work = threading.get_ident()
        self.now = self.monotonic()
        for fd, events in ready:
            handlers = self._handlers.get(fd)
            if handlers is None:
                continue             # forgotten by an earlier callback of this turn
            on_readable, on_writable = handlers
            if on_readable and events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                on_readable()
            elif on_writable and events & (select.EPOLLHUP | select.EPOLLERR) and not events & select.EPOLLOUT:
                on_writable()
            if on_writable and events & select.EPOLLOUT and self._handlers.get(fd) is handlers:
                on_writable()
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2].fire()
        for _ in range(len(self._soon)):
            self._soon.popleft()()

    def _wait(self, timeout_s):
        """(descriptor, events) of those that are ready, after timeout_s at most."""
        return self._epoll.poll(timeout_s)

    # --- the network

    def listen(self, host, port):
        """A listening socket. OSError, OverflowError."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(256)
        except (OSError, OverflowError):
            sock.close()
            raise
        return sock

    def connect(self, host, port, timeout_s):
        """A connected socket; blocks, so call it aside. OSError."""
        host = host.encode() if host.isascii() else host     # as bytes it needs no IDNA, which is half a megabyte
        return socket.create_connection((host, port), timeout=timeout_s)

    def aside(self, fn, name):
        """Run what blocks in a short-lived thread; it comes back with soon()."""
        threading.Thread(target=fn, name=name, daemon=True).start()

    @property
    def wake_fd(self):
        """For signal.set_wakeup_fd: a byte written here ends the wait."""
        return self._wake_write

    def close(self):
        """Release the loop's own descriptors."""
        with self._closing:          # whoever calls soon() now must not write to what has that number next
            wake_write, self._wake_write = self._wake_write, None
        self._epoll.close()
        os.close(self._wake_read)
        os.close(wake_write)

    def _drain_wake(self):
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass
