"""Packets of MQTT, valid and mutated with a sense for their structure; and what a server has to say to them, by a second reading of the standard."""

import struct

PROPERTIES = {1: "1", 2: "4", 3: "s", 8: "s", 9: "b", 11: "v", 35: "2", 38: "p"}      # of PUBLISH, MQTT 5.0 section 3.3.2.3
REASONS = {31: "s", 38: "p"}                                                           # of PUBREL, section 3.6.2.2
FIXED = {"1": 1, "2": 2, "4": 4}


def text(data):
    return struct.pack(">H", len(data)) + data


def varint(n):
    out = b""
    while True:
        n, low = n >> 7, n & 127
        out += bytes([low | 128 if n else low])
        if not n:
            return out


def packet(first, *parts):
    body = b"".join(parts)
    return bytes([first]) + varint(len(body)) + body


def publish(topic, payload, qos=0, number=1, v5=False, properties=b"", flags=0):
    return packet(0x30 | qos << 1 | flags, text(topic), struct.pack(">H", number) if qos else b"", varint(len(properties)) + properties if v5 else b"", payload)


def connect(v5, client=b"c", flags=2, tail=b"", properties=b""):
    return packet(0x10, b"\x00\x04MQTT", bytes([5 if v5 else 4, flags]), b"\x00\x3c", varint(len(properties)) + properties if v5 else b"", text(client), tail)


USER = b"\x26" + text(b"a") + text(b"b")
SOME_PROPERTIES = (b"", USER, b"\x02\0\0\0\1\x03" + text(b"t"), USER * 3, b"\x01\x01\x09" + text(b"\0\xff"), b"\x08" + text(b"x/y"), b"\x08" + text(b"x/+"), b"\x23\0\1", b"\x0b\x01", b"\x0b\xff\xff\xff\x7f")


def seeds(v5):
    """Valid packets of a client, and those of Mosquitto's CVEs: allocation before CONNECT (2023-0809), properties that leak (2023-3592), SUBACK and SUBSCRIBE
    without codes (2024-10525), the same session twice and acknowledgements of nothing (2024-3935)."""
    found = [publish(topic, payload, qos, 7, v5, p, flags) for qos in range(3) for topic in (b"a/b", b"sensors/dev-1/env", "ü/€/😀".encode())
             for payload in (b"", b'{"seq":1,"temp":20}', bytes(300)) for p in (SOME_PROPERTIES if v5 else (b"",)) for flags in ((0, 1, 8) if qos else (0, 1))]
    found += [b"\x62\x02\0\x07", b"\x40\x02\0\x07", b"\x50\x02\0\x07", b"\x70\x02\0\x07", b"\xc0\0", b"\xd0\0", b"\xe0\0"]
    found += [packet(0x82, b"\0\1", b"\0" if v5 else b"", text(b"a/b"), b"\1"), packet(0xA2, b"\0\1", b"\0" if v5 else b"", text(b"a/b")), packet(0x82, b"\0\1"),
              packet(0x82, b"\0\1", b"\0" if v5 else b"", text(b"$tidegate/#"), b"\0"), packet(0x90, b"\0\1"), packet(0xB0, b"\0\1"), packet(0x90, b"\0\1\0\0")]
    found += [connect(v5), connect(v5, b""), connect(v5, b"w", 0xEE, (b"\0" if v5 else b"") + text(b"gone/w") + text(b"x") + text(b"u") + text(b"p"))]
    if v5:
        found += [packet(0xF0), packet(0xF0, b"\x18\0"), packet(0x62, b"\0\x07\0\0"), packet(0x62, b"\0\x07\x92", varint(len(USER)), USER), packet(0xE0, b"\4\5\x11\0\0\0\1"),
                  connect(v5, properties=b"\x11\0\0\0\x0a\x21\0\x01\x27\0\0\1\0" + USER), connect(v5, properties=b"\x15" + text(b"SCRAM") + b"\x16" + text(b"x" * 900))]
    return found


EDGES = (0, 1, 2, 0x2B, 0x23, 0x7F, 0x80, 0xC0, 0xED, 0xF4, 0xFF)
LENGTHS = (b"\x00", b"\x01", b"\x7f", b"\x80\x01", b"\x80\x00", b"\x80\x80\x00", b"\x80\x80\x80\x00", b"\xff\xff\xff\x7f", b"\x80\x80\x80\x80\x01", b"\xff\xff\xff\xff\xff", b"\x80")


def mutate(data, draw, seeds):
    """A packet with something about it changed; draw(): 0 <= n < 2^32."""
    kind, at = draw() % 12, draw() % len(data)
    if kind < 3:
        return data[:at] + bytes([EDGES[draw() % len(EDGES)] if kind else data[at] ^ 1 << draw() % 8]) + data[at + 1:]
    if kind == 3:                                        # another remaining length over the same bytes
        return data[:1] + LENGTHS[draw() % len(LENGTHS)] + body(data)
    if kind == 4:                                        # another first byte
        return bytes([draw() & 255]) + data[1:]
    if kind == 5:                                        # cut, with a length that is right
        rest = body(data)[:at]
        return data[:1] + varint(len(rest)) + rest
    if kind == 6:                                        # longer, with a length that is right
        rest = body(data)
        at = min(at, len(rest))
        rest = rest[:at] + bytes(EDGES[draw() % len(EDGES)] for _ in range(1 + draw() % 4)) + rest[at:]
        return data[:1] + varint(len(rest)) + rest
    if kind == 7:                                        # one length of a string off by a little or a lot
        rest = bytearray(body(data))
        if len(rest) > 1:
            at %= len(rest) - 1
            rest[at:at + 2] = struct.pack(">H", (struct.unpack_from(">H", rest, at)[0] + (1, -1, 255, 0x8000)[draw() % 4]) & 0xFFFF)
        return data[:1] + varint(len(rest)) + bytes(rest)
    if kind == 8:                                        # a piece of another packet inside
        other = seeds[draw() % len(seeds)]
        rest = body(data)[:at] + other[draw() % len(other):] + body(data)[at:]
        return data[:1] + varint(len(rest)) + rest
    if kind == 9:
        return data[:at]                                 # the beginning alone
    if kind == 10:
        return data + seeds[draw() % len(seeds)]
    return mutate(mutate(data, draw, seeds) or data, draw, seeds)


def body(data):
    at = 1
    while at < len(data) and at < 5 and data[at] & 128:
        at += 1
    return data[at + 1:]


# --- the second reading: what a server with an open connection does

MORE, OTHER, FULL, FAULT = range(4)


class Wrong(Exception):
    """The packet breaks the protocol."""


class Reading:
    """What a connection has taken. read(data) -> (stop, consumed, [(topic, payload, qos)])."""

    def __init__(self, v5, bytes_max):
        self.v5, self.bytes_max, self.received = v5, bytes_max, set()

    def read(self, data):
        at, events = 0, []
        while True:
            size = self._size(data, at)
            if size is None:
                return MORE, at, events
            if size < 0 or size > self.bytes_max:
                return FAULT, at, events
            if len(data) - at < size:
                return MORE, at, events
            try:
                stop = self._deal(data[at:at + size], events)
            except Wrong:
                return FAULT, at, events
            if stop != MORE:
                return stop, at, events
            at += size

    @staticmethod
    def _size(data, at):
        """Of the packet; None while its length is not complete; -1 when that is none."""
        value = 0
        for i in range(4):
            if at + 1 + i >= len(data):
                return None
            value |= (data[at + 1 + i] & 127) << 7 * i
            if not data[at + 1 + i] & 128:
                return 2 + i + value
        return -1

    def _deal(self, whole, events):
        first, rest = whole[0], body(whole)
        kind = first >> 4
        if kind == 3:
            self._publish(first, rest, events)
        elif kind == 0 or (kind == 15 and not self.v5):
            raise Wrong
        elif kind == 6:
            self._release(first, rest)
        elif kind == 12:
            if whole != b"\xc0\0":                       # a longer length of nothing is refused too
                raise Wrong
        else:
            return OTHER
        return MORE

    def _publish(self, first, rest, events):
        qos, dup = first >> 1 & 3, first & 8
        topic, rest = self._string(rest, b"\0+#")
        if qos == 3 or (dup and not qos):
            raise Wrong
        number = 0
        if qos:
            if len(rest) < 2 or not (number := rest[0] << 8 | rest[1]):
                raise Wrong
            rest = rest[2:]
        if self.v5:
            found, rest = self._properties(rest, PROPERTIES)
            if 35 in found or 11 in found:               # no alias was offered, and subscription identifiers are a server's
                raise Wrong
        if not topic:
            raise Wrong
        if qos == 2 and number in self.received:
            return
        if topic.startswith(b"$") or any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in topic.decode()):
            if qos and not self.v5:                      # MQTT 5 has a reason code for it
                raise Wrong
            return
        if qos == 2:
            self.received.add(number)
        events.append((topic, rest, qos))

    def _release(self, first, rest):
        if first != 0x62 or len(rest) < 2 or rest[:2] == b"\0\0" or (len(rest) > 2 and not self.v5):
            raise Wrong
        if len(rest) > 3 and self._properties(rest[3:], REASONS)[1]:
            raise Wrong
        self.received.discard(rest[0] << 8 | rest[1])

    @staticmethod
    def _string(data, forbidden=b"\0", binary=False):
        if len(data) < 2 or len(data) < 2 + (size := data[0] << 8 | data[1]):
            raise Wrong
        found = data[2:2 + size]
        try:
            if not binary and (set(found) & set(forbidden) or found.decode() is None):
                raise Wrong
        except UnicodeDecodeError:
            raise Wrong from None
        return found, data[2 + size:]

    def _properties(self, data, kinds):
        """({identifier}, what follows them)."""
        size, data = self._varint(data)
        if size > len(data):
            raise Wrong
        inside, found = data[:size], set()
        while inside:
            key, inside = inside[0], inside[1:]
            if key not in kinds or (key in found and key not in (11, 38)):
                raise Wrong
            found.add(key)
            kind = kinds[key]
            if kind in FIXED:
                if len(inside) < FIXED[kind]:
                    raise Wrong
                inside = inside[FIXED[kind]:]
            elif kind == "v":
                _, inside = self._varint(inside)
            else:
                for _ in range(2 if kind == "p" else 1):
                    _, inside = self._string(inside, b"\0+#" if key == 8 else b"\0", binary=kind == "b")       # 8: a topic name
        return found, data[size:]

    @staticmethod
    def _varint(data):
        value = 0
        for i in range(4):
            if i >= len(data):
                break
            value |= (data[i] & 127) << 7 * i
            if not data[i] & 128:
                return value, data[i + 1:]
        raise Wrong
