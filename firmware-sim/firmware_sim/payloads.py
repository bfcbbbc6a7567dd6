"""Payloads: an event's fields in one of four forms, and the ways a payload can be broken."""

import datetime

import msgspec

_UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1, "iso": 10**6}
_json = msgspec.json.Encoder().encode
_msgpack = msgspec.msgpack.Encoder().encode


class Encoder:
    """Encodes one device's events."""

    def __init__(self, group, device):
        self._device = device
        self._names = (group.device_field, group.seq_field, group.time_field)
        self._unit = _UNIT_NS[group.time_unit]
        self._iso = group.time_unit == "iso"
        self._encode = {"json": self._flat, "json-nested": self._nested, "msgpack": self._map, "raw": self._raw}[group.format]
        self._pack = _msgpack if group.format == "msgpack" else _json
        d, s, t = (_json(name) for name in self._names)
        self._head = b"{" + d + b":" + _json(device).replace(b"%", b"%%") + b"," + s + b":%d," + t + b":%b,"

    def stamp(self, time_ns):
        """The time as the payload can say it: (ns since 1970 after rounding down to the unit, the payload's value)."""
        count = time_ns // self._unit
        time_ns = count * self._unit
        if self._iso:
            at = datetime.datetime.fromtimestamp(time_ns // 10**9, datetime.UTC)
            return time_ns, f"{at:%Y-%m-%dT%H:%M:%S}.{time_ns // 10**6 % 1000:03}Z"
        return time_ns, count

    def encode(self, seq, stamp, values, values_json) -> bytes:
        """The payload; values_json is the JSON of values."""
        return self._encode(seq, stamp, values, values_json)

    def broken(self, kind, seq, stamp, values, rng) -> bytes:
        """A payload that no decoder of its form may accept; kind is one of scenario.MALFORMED_KINDS."""
        if kind == "empty":
            return b""
        if kind == "garbage":      # 0xc1: never used in msgpack, and no JSON begins with it
            return b"\xc1" + rng.randbytes(rng.randint(1, 64))
        if kind == "array":
            return self._pack([1, 2, 3])
        if kind == "wrong_type":
            values = {**values, next(iter(values)): {}}
        payload = self._encode(seq, stamp, values, _json(values))
        if kind == "not_utf8":     # the same length, so that msgpack's length bytes stay right
            name = self._device.encode()
            at = payload.rindex(name)
            payload = payload[:at] + b"\xff" + payload[at + 1:]
        elif kind == "truncated":
            payload = payload[:rng.randint(1, len(payload) - 1)]
        return payload

    def _flat(self, seq, stamp, values, values_json):
        return self._head % (seq, b'"%b"' % stamp.encode() if self._iso else b"%d" % stamp) + values_json[1:]

    def _all(self, seq, stamp, values):
        d, s, t = self._names
        return {d: self._device, s: seq, t: stamp, **values}

    def _map(self, seq, stamp, values, values_json):
        return _msgpack(self._all(seq, stamp, values))

    def _nested(self, seq, stamp, values, values_json):
        root = {}
        for path, value in self._all(seq, stamp, values).items():
            *parents, last = path.split(".")
            table = root
            for parent in parents:
                table = table.setdefault(parent, {})
            table[last] = value
        return _json(root)

    def _raw(self, seq, stamp, values, values_json):
        return ",".join(map(str, (self._device, seq, stamp, *values.values()))).encode()
