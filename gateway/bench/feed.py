"""A broker for one subscriber: sends it a stream of PUBLISH packets as fast as it reads, then closes. For the baseline script alone."""

import socket
import threading
import time


class Feed:
    """Listens on .port; feeds the first subscriber `data` and, linger_s later, closes its side. What the subscriber publishes is read and dropped.

    answered: time.monotonic() when the first of it came.
    """

    def __init__(self, data, linger_s=0.0):
        self._data = data
        self._linger_s = linger_s
        self.answered = None
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        client, _ = self._socket.accept()
        buffered = b""
        while not self._subscribed(buffered):
            data = client.recv(4096)
            if not data:
                return
            if not buffered:
                client.sendall(b"\x20\x02\x00\x00")
            buffered += data
        at = 2 + buffered[1]
        client.sendall(b"\x90\x03" + buffered[at + 2:at + 4] + b"\x00")
        threading.Thread(target=self._discard, args=(client,), daemon=True).start()
        client.sendall(self._data)
        time.sleep(self._linger_s)
        client.shutdown(socket.SHUT_WR)

    @staticmethod
    def _subscribed(data):
        """A whole SUBSCRIBE stands after the CONNECT."""
        if len(data) < 2:
            return False
        connect = 2 + data[1]
        return len(data) > connect + 1 and data[connect] == 0x82 and len(data) >= connect + 2 + data[connect + 1]

    def _discard(self, client):
        try:
            while client.recv(65536):
                if self.answered is None:
                    self.answered = time.monotonic()
        except OSError:
            pass

    def join(self, timeout_s):
        self._thread.join(timeout_s)
        self._socket.close()
