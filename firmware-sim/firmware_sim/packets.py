"""MQTT 3.1.1 and 5 packets, the client's side: bytes in, bytes out, no I/O (OASIS MQTT 3.1.1 and 5.0, chapters 2 and 3)."""

import struct

CONNACK, PUBLISH, PUBACK, PUBREC, PUBCOMP, SUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 5, 7, 9, 13, 14
PINGREQ = b"\xc0\x00"
DISCONNECT_PACKET = b"\xe0\x00"
REMAINING_MAX = 268_435_455
REFUSED = 0x80       # MQTT 5 reason codes from here on are failures

_REASONS = {1: "protocol version refused", 2: "client id refused", 3: "server unavailable", 4: "bad user name or password",
            5: "not authorized", 0x85: "client id refused", 0x86: "bad user name or password", 0x87: "not authorized",
            0x88: "server unavailable", 0x89: "server busy", 0x95: "packet too large", 0x97: "quota exceeded"}


def varint(n) -> bytes:
    """Remaining length, 1 to 4 bytes."""
    if n < 128:
        return bytes((n,))
    if n > REMAINING_MAX:
        raise ValueError(f"packet of {n} bytes; MQTT allows {REMAINING_MAX}")
    out = bytearray()
    while True:
        n, low = n >> 7, n & 127
        out.append(low | (128 if n else 0))
        if not n:
            return bytes(out)


def text(s) -> bytes:
    """UTF-8 string with its 16-bit length."""
    raw = s.encode() if isinstance(s, str) else s
    return struct.pack(">H", len(raw)) + raw


def connect(client_id, *, version, keepalive_s, clean, username=None, password=None) -> bytes:
    """CONNECT. version 4 (3.1.1) or 5; with clean=False the session outlives the connection."""
    flags = (2 if clean else 0) | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    body = text("MQTT") + bytes((version, flags)) + struct.pack(">H", keepalive_s)
    if version == 5:
        body += b"\x00" if clean else b"\x05\x11\xff\xff\xff\xff"     # session expiry interval: never
    body += text(client_id)
    for item in (username, password):
        if item is not None:
            body += text(item)
    return b"\x10" + varint(len(body)) + body


def publish(topic_text, payload, *, qos, packet_id=0, version=4, dup=False) -> bytes:
    """PUBLISH; topic_text is text(topic)."""
    middle = struct.pack(">H", packet_id) if qos else b""
    if version == 5:
        middle += b"\x00"
    size = len(topic_text) + len(middle) + len(payload)
    return bytes((0x30 | (8 if dup else 0) | qos << 1,)) + varint(size) + topic_text + middle + payload


def pubrel(packet_id) -> bytes:
    """PUBREL, section 3.6 of MQTT 3.1.1; as short in MQTT 5 when all went well."""
    return b"\x62\x02" + struct.pack(">H", packet_id)


def read_packets(buffer: bytearray) -> list:
    """Take the complete packets off the buffer's front: (type, body). Raises ValueError on a bad length."""
    packets, at, end = [], 0, len(buffer)
    while end - at >= 2:
        size, shift, i = 0, 0, at + 1
        while i < end:
            byte = buffer[i]
            size |= (byte & 127) << shift
            shift += 7
            i += 1
            if byte < 128:
                break
            if shift > 21:
                raise ValueError("remaining length of more than 4 bytes")
        else:
            break
        if end - i < size:
            break
        packets.append((buffer[at] >> 4, bytes(buffer[i:i + size])))
        at = i + size
    del buffer[:at]
    return packets


def read_connack(body, version):
    """(reason text or None, receive maximum) of a CONNACK. Raises ValueError when malformed."""
    if len(body) < 2:
        raise ValueError("CONNACK too short")
    reason = _REASONS.get(body[1], f"reason {body[1]}") if body[1] else None
    return reason, _receive_maximum(body[2:]) if version == 5 and not reason else 65535


# Sizes of the CONNACK properties by identifier (MQTT 5, 2.2.2.2); text properties carry their own.
_FIXED = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2a: 1}
_TEXTS = {0x12: 1, 0x15: 1, 0x16: 1, 0x1a: 1, 0x1c: 1, 0x1f: 1, 0x26: 2}


def _receive_maximum(properties):
    size, at, shift = 0, 0, 0
    while at < len(properties):
        size |= (properties[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if properties[at - 1] < 128:
            break
    end = at + size
    if end > len(properties):
        raise ValueError("CONNACK properties are cut off")
    while at < end:
        kind = properties[at]
        at += 1
        if kind == 0x21:
            return max(1, int.from_bytes(properties[at:at + 2], "big"))
        if kind in _FIXED:
            at += _FIXED[kind]
        elif kind in _TEXTS:
            for _ in range(_TEXTS[kind]):
                at += 2 + int.from_bytes(properties[at:at + 2], "big")
        else:
            raise ValueError(f"CONNACK property 0x{kind:02x} is unknown")
    return 65535
