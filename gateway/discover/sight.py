"""What was seen at each place of a stream's payloads, in bounded memory.

A place is a path as edge/decoding/contract.py has it: a tuple of member names and element indexes; () is a bare payload. At PATHS_MAX further places are counted in
`beyond`; what lies deeper than DEPTH_MAX, or behind the first ELEMENTS_MAX elements of an array, is not looked at.
"""

import json
import math
import re

import msgpack

PATHS_MAX = 256
DEPTH_MAX = 8
ELEMENTS_MAX = 8
DISTINCT_MAX = 1000
TEXT_MAX = 200                           # characters of a text that are compared
EXAMPLES_MAX = 3
UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
DAY_NS = 86_400 * 10**9
I64 = range(-(2**63), 2**63)
EARLIEST_NS, LATEST_NS = 946_684_800 * 10**9, 4_102_444_800 * 10**9        # 2000 to 2100: what a number may be that is a time
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Sight:
    """One place. kinds: kind -> how often; kinds are integer, number, boolean, text, null, object, array, timestamp, and those that no field takes:
    huge (an integer beyond 64 bits), not finite, bytes."""

    __slots__ = ("path", "kinds", "least", "most", "distinct", "repeats", "moments", "units", "near", "lengths")

    def __init__(self, path):
        self.path = path
        self.kinds = {}
        self.least, self.most = math.inf, -math.inf
        self.distinct = {}           # value -> None, the first DISTINCT_MAX of them, in order
        self.repeats = 0             # values that were there before, as far as that is remembered
        self.moments = 0             # texts that are RFC 3339
        self.units = dict.fromkeys(UNITS, 0)     # numbers that are a time between 2000 and 2100 in that unit
        self.near = dict.fromkeys(UNITS, 0)      # and within a day of when they came
        self.lengths = set()

    @property
    def present(self):
        """Messages that have something there that is not null."""
        return sum(self.kinds.values()) - self.kinds.get("null", 0)

    def count(self, *kinds):
        return sum(self.kinds.get(kind, 0) for kind in kinds)

    def add(self, value, received_ns):
        """A value that was found there."""
        kind = kind_of(value)
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if kind in ("integer", "number"):
            self.least, self.most = min(self.least, value), max(self.most, value)
            for unit, ns in UNITS.items():
                self.units[unit] += EARLIEST_NS <= value * ns < LATEST_NS
                self.near[unit] += abs(value * ns - received_ns) < DAY_NS
        elif kind == "text":
            self.moments += RFC3339.fullmatch(value) is not None
            value = value[:TEXT_MAX]
        elif kind == "array":
            self.lengths.add(min(len(value), ELEMENTS_MAX + 1))
        if kind in ("integer", "number", "boolean", "text"):
            if value in self.distinct:
                self.repeats += 1
            elif len(self.distinct) < DISTINCT_MAX:
                self.distinct[value] = None

    def examples(self):
        """The first values."""
        return list(self.distinct)[:EXAMPLES_MAX]

    def said(self):
        """The kinds that were found, for people."""
        return ", ".join(f"{kind} in {count:,}" for kind, count in sorted(self.kinds.items(), key=lambda item: -item[1]))


def kind_of(value):
    """The kind of a parsed value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if value in I64 else "huge"
    if isinstance(value, float):
        return "number" if math.isfinite(value) else "not finite"
    if isinstance(value, msgpack.Timestamp):
        return "timestamp"
    return {str: "text", dict: "object", list: "array"}.get(type(value), "bytes")


class Sights:
    """All places of a stream's payloads. of: path -> Sight, as they came."""

    def __init__(self):
        self.of = {}
        self.messages = self.beyond = 0

    def add(self, value, received_ns):
        """A message's value."""
        self.messages += 1
        self._look((), value, received_ns)

    def _look(self, path, value, received_ns):
        if path or not isinstance(value, (dict, list)):
            sight = self.of.get(path)
            if sight is None:
                if len(self.of) >= PATHS_MAX:
                    self.beyond += 1
                    return
                sight = self.of[path] = Sight(path)
            sight.add(value, received_ns)
        if len(path) >= DEPTH_MAX:
            return
        if isinstance(value, dict):
            for name, item in value.items():
                if spellable(name):
                    self._look((*path, name), item, received_ns)
        elif isinstance(value, list):
            for index, item in enumerate(value[:ELEMENTS_MAX]):
                self._look((*path, index), item, received_ns)


def spellable(name):
    """Whether a path can name this member: half a surrogate pair is not printable, and what is that long is no name."""
    return len(name) <= TEXT_MAX and name.isprintable()


def lookup(value, path):
    """What is at a path, None if nothing is."""
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                return None
        elif not isinstance(value, dict) or step not in value:
            return None
        value = value[step]
    return value


def spelled(path):
    """A path as a contract spells it."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[A-Za-z_][\w-]*", step, re.ASCII) and (text or step != "topic"):
            text += f".{step}" if text else step
        else:
            text += f"[{json.dumps(step, ensure_ascii=False)}]"
    return text
