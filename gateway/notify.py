"""systemd's notification protocol (sd_notify(3)): readiness, status and the watchdog. Nothing happens outside systemd."""

import os
import socket


class Notifier:
    """Sends to NOTIFY_SOCKET if there is one. watchdog_s: how often alive() is wanted, None when it is not."""

    def __init__(self, environment=os.environ):
        address = environment.get("NOTIFY_SOCKET")
        self._socket = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.connect("\0" + address[1:] if address.startswith("@") else address)
        micros = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(micros) / 2e6 if micros.isdigit() and mine else None

    def ready(self, status):
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self):
        self._send("WATCHDOG=1")

    def stopping(self):
        self._send("STOPPING=1")

    def _send(self, text):
        if self._socket is not None:
            try:
                self._socket.send(text.encode())
            except OSError:
                pass                     # the manager is gone or slow; the watchdog will tell
