"""A simulated device: an MQTT 3.1.1 client with a memory. What it has in flight it sends again after each loss, marked DUP, until it is acknowledged."""

import json
from collections import OrderedDict, deque

S = 10**9
WINDOW = 16
KEEP_ALIVE_S = 30
RETRY_S = 3.0


class Event:
    """What a device once said. key: (device, seq); order: of sending on this device."""

    __slots__ = ("acked", "key", "payload", "sent", "temp", "topic", "ts_ms", "whole")

    def __init__(self, key, ts_ms, temp, whole, topic):
        self.key, self.ts_ms, self.temp, self.whole, self.topic = key, ts_ms, temp, whole, topic
        device, seq = key
        self.payload = json.dumps({"device": device, "seq": seq, "ts": ts_ms, "temp": temp} if whole else {"device": device, "broken": seq}).encode()
        self.sent = self.acked = False


class Device:
    """qos 0, 1 or 2; skew_s: of its clock. truth: the world's list of Events, in which all that it says is put down. dial: fn(device) -> Link or None."""

    def __init__(self, universe, name, qos, dial, truth, *, skew_s=0.0, traits=()):
        self.universe, self.name, self.qos, self._dial, self._truth = universe, name, qos, dial, truth
        self.skew_s, self.traits = skew_s, traits
        self.random = __import__("random").Random(f"{name}/{universe.random.random()}")
        self.queue, self.flying, self.released = deque(), OrderedDict(), OrderedDict()
        self._link, self._up, self._wanted = None, False, False
        self._buffer = bytearray()
        self._seq = self._id = 0
        self._temp = 20.0
        self._heard_ns = 0
        self.resent = 0

    # --- what it measures

    def measure(self, n=1, sound=False):
        """n events, by its own clock; a few of them out of order, twice or malformed, as its traits say; sound: none is malformed."""
        for _ in range(n):
            self._seq += 1
            self._temp = round(min(60.0, max(-10.0, self._temp + self.random.uniform(-1.5, 1.5))), 2)
            ts_ms = self.universe.true_ns() // 10**6 + int(self.skew_s * 1000)
            if "disorder" in self.traits and self.random.random() < 0.2:
                ts_ms -= self.random.randrange(8000)
            whole = not ("broken" in self.traits and self.random.random() < 0.05) or sound
            event = Event((self.name, self._seq), ts_ms, self._temp, whole, f"env/{self.name}".encode())
            self._truth.append(event)
            self.queue.append(event)
            if "twice" in self.traits and self.random.random() < 0.1:
                self.queue.append(event)
        if "unplugged" not in self.traits:
            self._flow()

    @property
    def pending(self):
        """Events that it still has to get rid of."""
        return len(self.queue) + len(self.flying) + len(self.released)

    # --- its connection

    def plug(self):
        """Be connected from now on, again and again."""
        if not self._wanted:
            self._wanted = True
            self._connect()

    def unplug(self):
        self._wanted = False
        self._drop()

    def _connect(self):
        if not self._wanted or self._link is not None:
            return
        self._link = self._dial(self)
        if self._link is None:
            self.universe.after(RETRY_S * self.random.uniform(0.3, 1.0), self._connect)
            return
        self._buffer.clear()
        self._heard_ns = self.universe.now_ns
        name = self.name.encode()
        body = b"\0\4MQTT\4" + (b"\0" if self.qos == 2 else b"\2") + KEEP_ALIVE_S.to_bytes(2, "big") + len(name).to_bytes(2, "big") + name
        self._link.send(b"\x10" + bytes([len(body)]) + body)
        link = self._link
        self.universe.after(10.0, lambda: self._check(link))

    def _check(self, link):
        if self._link is not link:
            return
        if self.universe.now_ns - self._heard_ns > 25 * S:
            self._drop()
            return
        link.send(b"\xc0\0")
        self.universe.after(10.0, lambda: self._check(link))

    def _drop(self):
        if self._link is not None:
            link, self._link = self._link, None
            link.peer = None
            link.close()
        self.lost()

    def lost(self):
        """The connection is gone."""
        self._link, self._up = None, False
        if self._wanted:
            self.universe.after(RETRY_S * self.random.uniform(0.1, 1.0), self._connect)

    # --- packets

    def received(self, data):
        self._heard_ns = self.universe.now_ns
        self._buffer += data
        while self._link is not None and len(self._buffer) >= 2 and len(self._buffer) >= 2 + self._buffer[1]:
            kind, body = self._buffer[0] >> 4, bytes(self._buffer[2:2 + self._buffer[1]])
            del self._buffer[:2 + len(body)]
            self._packet(kind, int.from_bytes(body[:2], "big"))

    def _packet(self, kind, number):
        if kind == 2:
            self._up = True
            again = list(self.flying.items())
            for packet_id, event in again:
                self.resent += 1
                self._publish(event, packet_id, dup=True)
            for packet_id in self.released:
                self._link.send(b"\x62\2" + packet_id.to_bytes(2, "big"))
        elif kind == 4 and number in self.flying:
            self.flying.pop(number).acked = True
        elif kind == 5 and (number in self.flying or number in self.released):
            if number in self.flying:
                self.flying.pop(number).acked = True     # it is the gateway's now
                self.released[number] = None
            self._link.send(b"\x62\2" + number.to_bytes(2, "big"))
        elif kind == 7:
            self.released.pop(number, None)
        self._flow()

    def _flow(self):
        while self._up and self.queue and len(self.flying) + len(self.released) < WINDOW:
            event = self.queue.popleft()
            if self.qos == 0:
                self._publish(event, 0)
                continue
            self._id = self._id % 65535 + 1
            self.flying[self._id] = event
            self._publish(event, self._id)

    def _publish(self, event, packet_id, dup=False):
        event.sent = True
        body = len(event.topic).to_bytes(2, "big") + event.topic + (packet_id.to_bytes(2, "big") if self.qos else b"") + event.payload
        size = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
        self._link.send(bytes([0x30 | self.qos << 1 | (8 if dup else 0)]) + size + body)
