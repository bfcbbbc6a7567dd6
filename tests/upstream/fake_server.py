"""A scripted MQTT server on the same reactor: it does with each PUBLISH what the test says."""

import socket
import ssl


class Connection:
    def __init__(self, server, sock):
        self.server, self.sock = server, sock
        self.data = bytearray()
        self.version = 4

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            pass

    def ack(self, mid, reason=None):
        body = mid.to_bytes(2, "big") + (b"" if reason is None or self.version != 5 else bytes([reason, 0]))
        self.send(bytes([0x40, len(body)]) + body)

    def close(self):
        if self.sock is not None:
            self.server.reactor.forget(self.sock.fileno())
            self.sock.close()
            self.sock = None
            self.server.connections.remove(self)

    def readable(self):
        try:
            data = self.sock.recv(1 << 16)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self.data += data
        while self.sock is not None and (packet := self.take()) is not None:
            self.handle(*packet)

    def take(self):
        size = shift = 0
        for i in range(1, len(self.data)):
            size |= (self.data[i] & 127) << shift
            shift += 7
            if self.data[i] < 128:
                if len(self.data) < i + 1 + size:
                    return None
                first, body = self.data[0], bytes(self.data[i + 1:i + 1 + size])
                del self.data[:i + 1 + size]
                return first, body
        return None

    def handle(self, first, body):
        kind = first >> 4
        if kind == 1:
            self.version = body[6]
            self.server.connects += 1
            limits = self.server.limits
            self.send(bytes([0x20, 3 + len(limits), 0, 0, len(limits)]) + limits if self.version == 5 else b"\x20\x02\x00\x00")
        elif kind == 12:
            self.send(b"\xd0\x00")
        elif kind == 3:
            n = int.from_bytes(body[:2], "big")
            topic, at = body[2:2 + n].decode(), 2 + n
            mid = int.from_bytes(body[at:at + 2], "big")
            at += 2
            if self.version == 5:
                at += 1 + body[at]
            self.server.on_publish(self, mid, topic, body[at:], bool(first & 1))


class FakeServer:
    """on_publish(connection, mid, topic, payload, retain) decides; by default it notes the message and acknowledges."""

    def __init__(self, reactor, on_publish=None, limits=b"", port=0):
        self.reactor = reactor
        self.on_publish = on_publish or self.accept
        self.limits = limits         # CONNACK properties, MQTT 5
        self.messages = []
        self.connections = []
        self.connects = 0
        self.listening = socket.create_server(("127.0.0.1", port))
        self.listening.setblocking(False)
        self.port = self.listening.getsockname()[1]
        reactor.watch(self.listening.fileno(), self._accept)

    def _accept(self):
        sock, _ = self.listening.accept()
        sock.setblocking(True)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, sock)
        self.connections.append(connection)
        self.reactor.watch(sock.fileno(), connection.readable)

    def accept(self, connection, mid, topic, payload, retain):
        self.messages.append((topic, payload, retain))
        connection.ack(mid)

    def close(self):
        for connection in list(self.connections):
            connection.close()
        self.reactor.forget(self.listening.fileno())
        self.listening.close()
