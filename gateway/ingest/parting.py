"""Parting: the last packet to a device says why its connection ends, and it should get there.

A socket that is closed while bytes of the device wait unread sends a reset, and that may take the packet away before the device has read it. So the socket says that
nothing more comes from here, and what the device still sends is thrown away until it is done, too.

Bounds: PARTING_MAX sockets, the others are closed at once; PARTING_S; PARTING_BYTES_MAX of each.
"""

import socket

PARTING_MAX = 64
PARTING_S = 2.0
PARTING_BYTES_MAX = 1 << 20
READ_BYTES = 16 << 10


class Parting:

    def __init__(self, reactor):
        self._reactor = reactor
        self._leaving = {}           # socket -> bytes that may still come

    def __len__(self):
        return len(self._leaving)

    def see_off(self, sock):
        """Close a socket to which all was written."""
        try:
            if len(self._leaving) < PARTING_MAX:
                sock.shutdown(socket.SHUT_WR)
                self._leaving[sock] = PARTING_BYTES_MAX
                self._reactor.watch(sock.fileno(), lambda: self._read(sock))
                self._reactor.later(PARTING_S, lambda: self._close(sock))
                return
        except OSError:
            pass                     # the device is gone already
        sock.close()

    def _read(self, sock):
        try:
            got = len(sock.recv(READ_BYTES))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            got = 0
        self._leaving[sock] -= got
        if not got or self._leaving[sock] < 0:
            self._close(sock)

    def _close(self, sock):
        if self._leaving.pop(sock, None) is not None:
            self._reactor.forget(sock.fileno())
            sock.close()

    def close(self):
        """Close all of them."""
        for sock in list(self._leaving):
            self._close(sock)
