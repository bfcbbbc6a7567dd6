"""Devices of bytes: numbered events at QoS 1, what is not acknowledged sent again after each loss of the connection. One thread, no library: a load that
costs little beside what is tested, and an account of its own of what was acknowledged."""

import select
import socket
import struct
import time

BACK_S = 0.01                        # between two tries to connect
HOT = 27


def temperature(seq):
    """What the event with this number says."""
    return 20 + seq * 7919 % 10


class Numbered:
    """One device. acknowledged: seq -> the mark that stood when its PUBACK was read; `published` events have the numbers 0, 1, ..."""

    def __init__(self, name, window):
        self.name, self.window = name, window
        self.acknowledged, self.published = {}, 0
        self.open = {}                   # packet id -> seq, in the order of sending
        self.socket, self._in, self._out, self._greeted, self._tried = None, b"", b"", False, 0.0
        self._topic = f"sensors/{name}/env".encode()

    def packet(self, seq, dup=False):
        body = b'{"seq":%d,"temp":%d}' % (seq, temperature(seq))
        rest = struct.pack(">H", len(self._topic)) + self._topic + struct.pack(">H", seq % 65535 + 1) + body
        return bytes([0x3A if dup else 0x32, len(rest)]) + rest      # shorter than 128 bytes

    def connect(self, port, now):
        """A new connection, with CONNECT under way; False when there is none yet."""
        if now - self._tried < BACK_S:
            return False
        self._tried = now
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), 1)
        except OSError:
            return False
        self.socket.setblocking(False)
        name = self.name.encode()
        self._out = bytes([0x10, 12 + len(name)]) + b"\x00\x04MQTT\x04\x00\x00\x00" + struct.pack(">H", len(name)) + name
        self._in, self._greeted = b"", False
        return True

    def lost(self):
        self.socket.close()
        self.socket = None

    def fill(self, publish):
        """Put what the window allows on its way. Raises OSError when the connection is gone."""
        if self._greeted and publish:
            more = []
            while len(self.open) < self.window:
                self.open[self.published % 65535 + 1] = self.published
                more.append(self.packet(self.published))
                self.published += 1
            self._out += b"".join(more)
        if self._out:
            try:
                self._out = self._out[self.socket.send(self._out):]
            except BlockingIOError:
                pass

    def read(self, mark):
        """Note what was acknowledged. Raises OSError when the connection is gone."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("closed")
        data = self._in + data
        at = 0
        while len(data) - at >= 4:       # CONNACK and PUBACK have four bytes
            if data[at] == 0x20:
                self._greeted = True
                self._out += b"".join(self.packet(seq, dup=True) for seq in self.open.values())
            elif (seq := self.open.pop(data[at + 2] << 8 | data[at + 3], None)) is not None:
                self.acknowledged[seq] = mark
            at += 4
        self._in = data[at:]


class Load:
    """Some devices against one port; pump() is all that happens. mark: what acknowledgements are noted with."""

    def __init__(self, port, devices=4, window=40, rate=4000):
        self.port, self.mark, self.rate = port, None, rate
        self.devices = [Numbered(f"dev-{i}", window) for i in range(devices)]
        self._began, self._due = time.monotonic(), 0.0

    def pump(self, seconds, publish=True, until=lambda: False):
        """Go on for some seconds, or until something is so; whether it is."""
        end = time.monotonic() + seconds
        while not (done := until()) and time.monotonic() < end:
            self._turn(publish)
        return done or until()

    def _turn(self, publish):
        now = time.monotonic()
        self._due = min(self._due + (now - self._began) * self.rate, 200.0)
        self._began = now
        poll = select.poll()
        by_fd = {}
        for device in self.devices:
            if device.socket is None and not device.connect(self.port, now):
                continue
            before = device.published
            try:
                device.fill(publish and self._due > 0)
            except OSError:
                device.lost()
                continue
            finally:
                self._due -= device.published - before
            poll.register(device.socket, select.POLLIN)
            by_fd[device.socket.fileno()] = device
        for fd, _ in poll.poll(1):
            try:
                by_fd[fd].read(self.mark)
            except OSError:
                by_fd[fd].lost()

    @property
    def acknowledged(self):
        """How many events."""
        return sum(len(device.acknowledged) for device in self.devices)

    @property
    def settled(self):
        return not any(device.open for device in self.devices)

    def close(self):
        for device in self.devices:
            if device.socket is not None:
                device.lost()
