"""MQTT control packets of a server, versions 3.1.1 (4) and 5: what a client sends is read, what a server answers is built.

Packets in bulk (PUBLISH and its acknowledgements) are in _mqtt.pyx. Here a packet is a bytes object, whole.
Readers raise Malformed, which names the section. Sources: OASIS MQTT 3.1.1 and MQTT 5.0.
"""

from edge.errors import DeviceError
from edge.mqtt._mqtt import FAULTS, PROPERTY_TYPES

CONNECT, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT = 0x10, 0x82, 0xA2, 0xE0

# Property identifiers, MQTT 5.0 section 2.2.2.2.
RESPONSE_TOPIC, SUBSCRIPTION_ID, SESSION_EXPIRY, ASSIGNED_ID, AUTH_METHOD, AUTH_DATA = 8, 11, 17, 18, 21, 22
PROBLEM_INFORMATION, WILL_DELAY, RESPONSE_INFORMATION = 23, 24, 25
RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM, USER_PROPERTY, PACKET_MAXIMUM = 33, 34, 38, 39
SUBSCRIPTION_IDS_AVAILABLE, SHARED_AVAILABLE = 41, 42

_CONNECT_PROPERTIES = {17, 21, 22, 23, 25, 33, 34, 38, 39}
_WILL_PROPERTIES = {1, 2, 3, 8, 9, 24, 38}
_DISCONNECT_PROPERTIES = {17, 28, 31, 38}
_REPEATABLE = {USER_PROPERTY}


class Malformed(DeviceError):
    """A packet breaks the protocol. `reason`: the MQTT 5 reason code to answer with."""

    def __init__(self, what, section, reason=0x81):
        super().__init__(f"{what} (MQTT section {section})")
        self.reason = reason

    @classmethod
    def of_fault(cls, fault, version):
        """The error for a fault of _mqtt.FAULTS, with the section of that version."""
        what, section_4, section_5, reason = FAULTS[fault]
        return cls(what, f"{section_5} of 5.0" if version == 5 else f"{section_4} of 3.1.1", reason)


class Unsupported(DeviceError):
    """A CONNECT in a protocol version that is not spoken here. `level`: the one asked for."""

    def __init__(self, level):
        super().__init__(f"protocol level {level} is not spoken here: use MQTT 3.1.1 (4) or MQTT 5 (5)")
        self.level = level


class Connect:
    """A CONNECT packet, section 3.1. will: None or (topic, payload, qos, retain, delay); times in seconds."""

    __slots__ = ("version", "client_id", "clean", "keep_alive_s", "will", "username", "password", "properties")


class Reader:
    """Fields of a packet, one after the other; section is what an error of this packet names."""

    def __init__(self, packet, section):
        self.packet, self.section = packet, section
        self.at = 1
        while packet[self.at] & 128:     # the framing has checked that it ends
            self.at += 1
        self.at += 1

    @property
    def left(self):
        """Bytes not read yet."""
        return len(self.packet) - self.at

    def number(self, size):
        """An unsigned integer of size bytes."""
        return int.from_bytes(self.raw(size), "big")

    def raw(self, size):
        """size bytes."""
        if self.left < size:
            raise Malformed("a field runs past the end of its packet", self.section)
        self.at += size
        return self.packet[self.at - size:self.at]

    def binary(self):
        """Bytes with their two-byte length, section 1.5.6."""
        return self.raw(self.number(2))

    def text(self):
        """UTF-8 with its two-byte length; neither NUL nor surrogates, section 1.5.4 (3.1.1: 1.5.3)."""
        data = self.binary()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("a string is not UTF-8", "1.5.4") from None
        if "\0" in text:
            raise Malformed("a string holds a NUL", "1.5.4")
        return text

    def varint(self):
        """A variable byte integer, section 1.5.5."""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.number(1)
            value |= (byte & 127) << shift
            if not byte & 128:
                return value
        raise Malformed("a variable byte integer takes more than four bytes", "1.5.5")

    def properties(self, allowed):
        """{identifier: value}; user properties are checked and left out. Section 2.2.2."""
        end = self.varint() + self.at
        if end > len(self.packet):
            raise Malformed("the properties run past the end of their packet", "2.2.2")
        found = {}
        while self.at < end:
            key = self.number(1)
            if key not in allowed:
                raise Malformed(f"property {key} is unknown or does not belong in this packet", "2.2.2")
            if key in found and key not in _REPEATABLE:
                raise Malformed(f"property {key} stands twice", "2.2.2.2", 0x82)
            found[key] = self._property(PROPERTY_TYPES[key])
        if self.at != end:
            raise Malformed("a property runs past the property length", "2.2.2")
        found.pop(USER_PROPERTY, None)
        return found

    def _property(self, kind):
        if kind in "124":
            return self.number(int(kind))
        if kind == "p":
            return self.text(), self.text()
        return {"v": self.varint, "s": self.text, "b": self.binary}[kind]()

    def finish(self):
        """Nothing may follow."""
        if self.left:
            raise Malformed("bytes after the last field of a packet", self.section)


def read_connect(packet):
    """Connect of a CONNECT packet. Malformed, or Unsupported for another protocol version. Section 3.1."""
    if packet[0] != CONNECT:
        raise Malformed("this is not CONNECT", "3.1", 0x82)
    r = Reader(packet, "3.1")
    c = Connect()
    name = r.binary()
    c.version = r.number(1)
    if name not in (b"MQTT", b"MQIsdp"):
        raise Malformed("the protocol name is not MQTT", "3.1.2.1", 0x84)
    if name == b"MQIsdp" or c.version not in (4, 5):
        raise Unsupported(c.version)
    flags = r.number(1)
    if flags & 1:
        raise Malformed("the reserved CONNECT flag is set", "3.1.2.3")
    c.clean = bool(flags & 2)
    has_will, qos = flags & 4, flags >> 3 & 3
    if qos == 3 or (not has_will and flags & 0x38):
        raise Malformed("the will flags contradict each other", "3.1.2.6")
    if c.version == 4 and flags & 0xC0 == 0x40:
        raise Malformed("a password without a user name", "3.1.2.9")
    c.keep_alive_s = r.number(2)
    c.properties = r.properties(_CONNECT_PROPERTIES) if c.version == 5 else {}
    _check_values(c.properties)
    c.client_id = r.text()
    c.will = _read_will(r, c.version, qos, bool(flags & 0x20)) if has_will else None
    c.username = r.text() if flags & 0x80 else None
    c.password = r.binary() if flags & 0x40 else None
    r.finish()
    return c


def _check_values(properties):
    """Values that CONNECT's properties may not have, section 3.1.2.11."""
    if properties.get(RECEIVE_MAXIMUM) == 0 or properties.get(PACKET_MAXIMUM) == 0:
        raise Malformed("Receive Maximum or Maximum Packet Size is 0", "3.1.2.11", 0x82)
    if properties.get(PROBLEM_INFORMATION, 0) > 1 or properties.get(RESPONSE_INFORMATION, 0) > 1:
        raise Malformed("Request Problem or Response Information is neither 0 nor 1", "3.1.2.11", 0x82)
    if AUTH_DATA in properties and AUTH_METHOD not in properties:
        raise Malformed("Authentication Data without a method", "3.1.2.11.10", 0x82)


def _read_will(r, version, qos, retain):
    properties = r.properties(_WILL_PROPERTIES) if version == 5 else {}
    topic = r.text()
    if not topic or any("+" in text or "#" in text for text in (topic, properties.get(RESPONSE_TOPIC, ""))):
        raise Malformed("the will's topic or response topic is empty or holds a wildcard", "4.7", 0x90)
    return topic, r.binary(), qos, retain, properties.get(WILL_DELAY, 0)


def read_subscribe(packet, version):
    """(packet id, [(filter, options byte)], subscription identifier or None). Section 3.8."""
    r = Reader(packet, "3.8")
    packet_id, properties = _packet_id(r, packet, SUBSCRIBE, version, {SUBSCRIPTION_ID, USER_PROPERTY})
    if properties.get(SUBSCRIPTION_ID) == 0:
        raise Malformed("subscription identifier 0", "3.8.2.1.2", 0x82)
    filters = []
    while r.left:
        name, options = _filter(r), r.number(1)
        if options & 3 == 3 or options & (0xC0 if version == 5 else 0xFC) or options & 0x30 == 0x30:
            raise Malformed("reserved subscription options are set", "3.8.3.1")
        if options & 4 and name.startswith("$share/"):
            raise Malformed("No Local on a shared subscription", "3.8.3.1", 0x82)
        filters.append((name, options))
    if not filters:
        raise Malformed("SUBSCRIBE without a topic filter", "3.8.3", 0x82)
    return packet_id, filters, properties.get(SUBSCRIPTION_ID)


def read_unsubscribe(packet, version):
    """(packet id, [filter]). Section 3.10."""
    r = Reader(packet, "3.10")
    packet_id, _ = _packet_id(r, packet, UNSUBSCRIBE, version, {USER_PROPERTY})
    filters = []
    while r.left:
        filters.append(_filter(r))
    if not filters:
        raise Malformed("UNSUBSCRIBE without a topic filter", "3.10.3", 0x82)
    return packet_id, filters


def _packet_id(r, packet, first, version, allowed):
    if packet[0] != first:
        raise Malformed("reserved flags of the fixed header are set wrongly", f"{r.section}.1")
    packet_id = r.number(2)
    if packet_id == 0:
        raise Malformed("packet id 0", "2.2.1", 0x82)
    return packet_id, r.properties(allowed) if version == 5 else {}


def _filter(r):
    """A topic filter: + alone in its level, # alone in the last one. Section 4.7.1."""
    name = r.text()
    levels = name.split("/")
    if not name or "#" in name[:-1] or any(("+" in x or "#" in x) and len(x) > 1 for x in levels):
        raise Malformed("a topic filter is empty or its wildcards stand wrongly", "4.7.1", 0x8F)
    return name


def read_disconnect(packet, version):
    """(reason code, session expiry in seconds or None). Reason 0 is a normal end: the will is dropped. Section 3.14."""
    if packet[0] != DISCONNECT:
        raise Malformed("reserved flags of the fixed header are set wrongly", "3.14.1")
    r = Reader(packet, "3.14")
    reason, properties = 0, {}
    if version == 5 and r.left:
        reason = r.number(1)
        if r.left:
            properties = r.properties(_DISCONNECT_PROPERTIES)
    r.finish()
    return reason, properties.get(SESSION_EXPIRY)


def matches(name_filter, topic):
    """Whether the topic filter takes the topic. Section 4.7; a leading wildcard takes no $ topic (4.7.2)."""
    if topic[:1] == "$" and name_filter[:1] in "+#":
        return False
    want, have = name_filter.split("/"), topic.split("/")
    for i, level in enumerate(want):
        if level == "#":
            return True
        if i >= len(have) or level not in ("+", have[i]):
            return False
    return len(want) == len(have)


# what a server answers

def _packet(first, body):
    n, head = len(body), bytearray([first])
    while n > 127:
        head.append(n & 127 | 128)
        n >>= 7
    head.append(n)
    return bytes(head) + body


def _varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _text(text):
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _properties(values):
    body = b""
    for key, value in values.items():
        kind = PROPERTY_TYPES[key]
        body += bytes([key]) + (_varint(value) if kind == "v" else _text(value) if kind == "s" else value.to_bytes(int(kind), "big"))
    return _varint(len(body)) + body


def connack(version, reason, session_present=False, properties=None):
    """CONNACK, section 3.2. reason: a return code at 3.1.1, a reason code at 5."""
    body = bytes([session_present, reason])
    return _packet(0x20, body + _properties(properties or {}) if version == 5 else body)


def suback(version, packet_id, reasons):
    """SUBACK, section 3.9: a code for each filter."""
    return _packet(0x90, packet_id.to_bytes(2, "big") + (b"\0" if version == 5 else b"") + bytes(reasons))


def unsuback(version, packet_id, reasons):
    """UNSUBACK, section 3.11: at 5 a code for each filter."""
    return _packet(0xB0, packet_id.to_bytes(2, "big") + (b"\0" + bytes(reasons) if version == 5 else b""))


def disconnect(reason):
    """DISCONNECT of a server, MQTT 5 only, section 3.14."""
    return bytes([DISCONNECT, 1, reason])


def publish(version, topic, payload, *, retain=False, subscription_ids=()):
    """PUBLISH at QoS 0, section 3.3."""
    properties = b""
    if version == 5:
        body = b"".join(bytes([SUBSCRIPTION_ID]) + _varint(i) for i in subscription_ids)
        properties = _varint(len(body)) + body
    return _packet(0x30 | retain, _text(topic) + properties + payload)
