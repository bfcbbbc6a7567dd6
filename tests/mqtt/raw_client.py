"""A client of bytes, and the packets it sends."""

import socket
import struct

from edge.mqtt import packets as mqtt

CONNECT_4 = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c"


def states(*, v3="", v5=""):
    """The normative statements, [MQTT-...] of 3.1.1 and of 5.0, that a test shows."""
    return lambda test: test


def connect_packet(client_id, version=4, clean=True, keep_alive=0, will=None):
    flags = (2 if clean else 0) | (4 if will else 0)
    body = b"\x00\x04MQTT" + bytes([version, flags]) + struct.pack(">H", keep_alive) + (b"\0" if version == 5 else b"") + mqtt._text(client_id)
    if will:
        body += (b"\0" if version == 5 else b"") + mqtt._text(will[0]) + mqtt._text(will[1])
    return mqtt._packet(0x10, body)


def publish(payload, qos=0, packet_id=1, topic="d/x", dup=False, v5=False):
    body = mqtt._text(topic) + (struct.pack(">H", packet_id) if qos else b"") + (b"\0" if v5 else b"") + payload
    return mqtt._packet(0x30 | qos << 1 | (8 if dup else 0), body)


class Raw:
    """A client of bytes."""

    def __init__(self, world, connect=CONNECT_4, **socket_options):
        self.world = world
        self.socket = socket.create_connection(("127.0.0.1", world.listener.port))
        self.socket.setblocking(False)
        self.received, self.ended = b"", False
        if connect:
            self.send(connect)
            world.until(lambda: self.read()[:1] == b"\x20")
            self.world.until(lambda: len(self.received) >= 2 + self.received[1])
            self.connack, self.received = self.received[:2 + self.received[1]], self.received[2 + self.received[1]:]

    def send(self, data):
        while data:
            try:
                data = data[self.socket.send(data):]
            except BlockingIOError:
                self.world.turn()

    def read(self):
        try:
            while data := self.socket.recv(65536):
                self.received += data
            self.ended = True
        except BlockingIOError:
            pass
        except ConnectionError:
            self.ended = True
        return self.received

    def expect(self, data):
        self.world.until(lambda: len(self.read()) >= len(data))
        assert self.received[:len(data)] == data
        self.received = self.received[len(data):]

    def expect_end(self, timeout_s=60.0):
        self.world.until(lambda: self.read() is None or self.ended, timeout_s)


def payloads(world):
    return [payload for _, payload, _, _ in world.events]


def connect_with(client_id="c", version=4, *, flags=2, keep_alive=0, properties=b"", tail=b"", name="MQTT"):
    body = mqtt._text(name) + bytes([version, flags]) + struct.pack(">H", keep_alive)
    return mqtt._packet(0x10, body + (mqtt._varint(len(properties)) + properties if version == 5 else b"") + mqtt._text(client_id) + tail)


def subscribe(filters, version=4, options=1, properties=b""):
    body = b"\x00\x09" + (mqtt._varint(len(properties)) + properties if version == 5 else b"")
    return mqtt._packet(0x82, body + b"".join(mqtt._text(f) + bytes([options]) for f in filters))


def expiry(seconds):
    return b"\x11" + struct.pack(">I", seconds)


def refused(world, packet, answer, version=4):
    """Send a packet on an open connection: it is answered so, and the connection ends."""
    client = Raw(world, connect_packet("c", version))
    client.send(packet)
    client.expect_end()
    assert client.received == answer
    return client
