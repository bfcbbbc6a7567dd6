"""The local socket: `tidegate status`, `ledger` and others ask the running daemon here. A JSON object a line, in both directions.

request  {"get": NAME, ...}        answer  {"ok": true, "value": ...} or {"ok": false, "error": text, "fault": whose}
Only the daemon's user may connect (mode 0600). A request is at most REQUEST_BYTES_MAX; at most CONNECTIONS_MAX clients at a time.
A client that does not read its answers is not read either.

request["who"] is for the record: the peer's user, or whom the API's process speaks for (it runs as the daemon's user, who could write the record itself).
"""

import json
import os
import socket
import struct

from edge.errors import ConfigError, TidegateError
from gateway.requests import NoAnswer, error_of, fault_of

REQUEST_BYTES_MAX = 64 << 10
CONNECTIONS_MAX = 16
SOCKET = "tidegate.sock"
SPOKEN_FOR = ("token:", "cert:")     # whom the API has let in
WHO_CHARACTERS_MAX = 80


class Control:
    """Answers requests in the reactor's thread. handlers: name -> fn(request) -> plain data."""

    def __init__(self, reactor, directory, handlers):
        self._reactor = reactor
        self._handlers = handlers
        self._path = os.path.join(directory, SOCKET)
        self._clients = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            if os.path.exists(self._path):
                os.unlink(self._path)        # the directory's lock says that no other daemon has it
            previous = os.umask(0o177)
            try:
                self._socket.bind(self._path)
            finally:
                os.umask(previous)
            self._socket.listen(CONNECTIONS_MAX)
        except OSError as error:
            raise ConfigError(f"{self._path}: no local socket: {error.strerror}; gateway.data may be a shorter or a writable path") from None
        reactor.watch(self._socket.fileno(), self._accept)

    def _accept(self):
        try:
            client, _ = self._socket.accept()
        except OSError:
            return
        if len(self._clients) >= CONNECTIONS_MAX:
            client.close()
            return
        client.setblocking(False)
        self._clients[client.fileno()] = [client, b"", b""]
        self._watch(client.fileno())

    def _watch(self, fd):
        writing = bool(self._clients[fd][2])
        if writing:
            self._reactor.watch(fd, None, lambda: self._write(fd))
        else:
            self._reactor.watch(fd, lambda: self._read(fd))

    def _read(self, fd):
        client, buffered, _ = self._clients[fd]
        try:
            data = client.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        buffered += data
        if not data or len(buffered) > REQUEST_BYTES_MAX:
            self._drop(fd)
            return
        self._clients[fd][1] = buffered
        self._next(fd)

    def _next(self, fd):
        """Answer one request; the next one has its turn when this answer is sent, so that only one is in memory."""
        line, end, rest = self._clients[fd][1].partition(b"\n")
        if end:
            self._clients[fd][1:] = [rest, self._answer(line, self._clients[fd][0]) + b"\n"]
            self._write(fd)

    def _answer(self, line, client):
        try:
            request = json.loads(line)
            handler = self._handlers[request["get"]]
            request["who"] = _who(client, request.get("who"))
        except (ValueError, KeyError, TypeError, RecursionError):
            return json.dumps({"ok": False, "error": f"unknown request; known are {', '.join(self._handlers)}"}).encode()
        try:
            return json.dumps({"ok": True, "value": handler(request)}, default=str).encode()
        except TidegateError as error:
            return json.dumps({"ok": False, "error": str(error), "fault": fault_of(error)}).encode()
        except Exception as error:           # a question must not stop the gateway
            return json.dumps({"ok": False, "error": f"a mistake in the gateway: {error!r}", "fault": "gateway"}).encode()

    def _write(self, fd):
        client, _, out = self._clients[fd]
        try:
            sent = client.send(out) if out else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(fd)
            return
        self._clients[fd][2] = out[sent:]
        self._watch(fd)
        if not out[sent:] and b"\n" in self._clients[fd][1]:
            self._reactor.soon(lambda: self._go_on(client, fd))

    def _go_on(self, client, fd):
        if fd in self._clients and self._clients[fd][0] is client and not self._clients[fd][2]:
            self._next(fd)

    def _drop(self, fd):
        self._reactor.forget(fd)
        self._clients.pop(fd)[0].close()

    def close(self):
        for fd in list(self._clients):
            self._drop(fd)
        self._reactor.forget(self._socket.fileno())
        self._socket.close()
        try:
            os.unlink(self._path)
        except OSError:
            pass


def _who(client, claimed):
    if isinstance(claimed, str) and claimed.startswith(SPOKEN_FOR) and len(claimed) <= WHO_CHARACTERS_MAX:
        return claimed
    _, uid, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"local:{uid}"


def ask(directory, name, timeout_s=10.0, **request):
    """Ask the daemon that runs on a data directory. Raises NoAnswer when none does, TidegateError with its error."""
    path = os.path.join(directory, SOCKET)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout_s)
    try:
        client.connect(path)
        client.sendall(json.dumps({"get": name, **request}).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            data = client.recv(1 << 20)
            if not data:
                raise ConnectionResetError("closed")
            answer += data
    except OSError as error:
        raise NoAnswer(f"{path}: no gateway answers ({error.strerror or error}); is it running, as this user, on this data directory?") from None
    finally:
        client.close()
    reply = json.loads(answer)
    if not reply["ok"]:
        raise error_of(reply.get("fault"), reply["error"])
    return reply["value"]
