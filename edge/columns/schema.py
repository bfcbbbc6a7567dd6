"""A schema: the names and kinds of a stream's columns. What decoders produce, rules read and receivers get back.

Kinds and their one representation everywhere (host batch, linear memory, journal):
f64 IEEE 754 binary64 - i64 two's complement - bool one byte, 0 or 1 - str UTF-8, dictionary-coded -
time nanoseconds since 1970-01-01T00:00:00Z as i64.
"""

import zlib
from functools import cached_property

from msgspec import Struct

KINDS = {"f64": 1, "i64": 2, "bool": 3, "str": 4, "time": 5}
KIND_NAMES = {number: name for name, number in KINDS.items()}


class Field(Struct, frozen=True):
    """One column: its name, its kind (a key of KINDS) and its unit, free text for people."""

    name: str
    kind: str
    unit: str = ""


class Schema(Struct, frozen=True, dict=True):
    """A stream's columns in order, its contract version, and which columns are key and event time.

    key names a str column, time a time column; either may be None.
    Raises ValueError on an unknown kind, a doubled name, or a key or time that is not such a column.
    """

    stream: str
    fields: tuple[Field, ...]
    version: int = 1
    key: str | None = None
    time: str | None = None

    def __post_init__(self):
        names = [f.name for f in self.fields]
        if len(set(names)) != len(names):
            raise ValueError(f"schema {self.stream}: a field name stands twice in {names}")
        for f in self.fields:
            if f.kind not in KINDS:
                raise ValueError(f"schema {self.stream}: field {f.name}: unknown kind {f.kind!r}, use one of {', '.join(KINDS)}")
        for role, kind in (("key", "str"), ("time", "time")):
            name = getattr(self, role)
            if name is not None and (name not in names or self.fields[names.index(name)].kind != kind):
                raise ValueError(f"schema {self.stream}: {role} {name!r} is not a {kind} field")

    def index(self, name: str) -> int:
        """Position of the column; KeyError if there is none."""
        try:
            return self._positions[name]
        except KeyError:
            raise KeyError(f"stream {self.stream} has no field {name!r}; it has {', '.join(self._positions)}") from None

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {f.name: i for i, f in enumerate(self.fields)}

    def to_dict(self) -> dict:
        """Plain data for MessagePack and JSON; from_dict reads it back."""
        return {
            "stream": self.stream,
            "version": self.version,
            "key": self.key,
            "time": self.time,
            "fields": [[f.name, f.kind, f.unit] for f in self.fields],
        }

    @classmethod
    def from_dict(cls, data: dict) -> "Schema":
        """Reads to_dict's form. Raises ValueError (TypeError, KeyError for missing parts) on anything else."""
        fields = tuple(Field(str(n), str(k), str(u)) for n, k, u in data["fields"])
        return cls(str(data["stream"]), fields, int(data["version"]), data["key"], data["time"])

    @cached_property
    def fingerprint(self) -> int:
        """32 bits that differ between schemas that differ in anything but units."""
        text = repr((self.stream, self.version, self.key, self.time, [(f.name, f.kind) for f in self.fields]))
        return zlib.crc32(text.encode())
