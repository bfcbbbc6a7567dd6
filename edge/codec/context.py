"""Contexts: what row messages are relative to, published (and retained) before them, so that a row takes few bytes.

A context gives each integer and time column a base, each time column a unit, each float column a number of decimals, and
strings their index in one table. Whatever a context lacks still goes, only longer: strings inline, other doubles as float 64,
and a row that can't be said at all as a batch message. Exactness is checked when a row is written.

A context is named by its content's CRC-32 (from 16 on; lower numbers are message kinds), so that a restarted gateway needs to
remember nothing. Version 1 had 16 bits of it: too few, as a row whose context got lost was read by another of the same name.
"""

import zlib

import msgpack

from edge.codec.wire import Reader, wrap
from edge.columns._batch import Batch
from edge.columns.schema import Schema
from edge.errors import UpstreamError

VERSION = 2
NUMBERS = {1: 1 << 16, VERSION: 1 << 32}         # by version: numbers are below
CONTEXT = 2
STRINGS_MAX = 4096
STRING_BYTES_MAX = 255           # longer ones are not tabled
FIELDS_MAX = 1024
TENS = tuple(float(10**e) for e in range(16))
UNITS = (1, 1_000, 1_000_000, 1_000_000_000)
I64_MIN, I64_MAX = -(1 << 63), (1 << 63) - 1


class Context:
    """What rows are relative to.

    base_sequence, base_received_ns: of the batch it was made for. clock: clock quality of all its rows.
    columns: per column (base, exponent): i64: base, 0; time: base ns, unit as index into UNITS; f64: 0, decimals; else 0, 0.
    strings: the table. number: derived from all this.
    """

    __slots__ = ("base_received_ns", "base_sequence", "clock", "columns", "epoch", "gateway", "number", "schema", "strings")

    def __init__(self, gateway, epoch, schema, base_sequence, base_received_ns, clock, columns, strings):
        self.gateway = gateway
        self.epoch = epoch
        self.schema = schema
        self.base_sequence = base_sequence
        self.base_received_ns = base_received_ns
        self.clock = clock
        self.columns = columns
        self.strings = strings
        self.number = number_of(self._content())

    def _content(self) -> bytes:
        head = [self.gateway, self.epoch, self.schema.to_dict(), self.base_sequence, self.base_received_ns, self.clock]
        return b"".join(map(msgpack.packb, (*head, self.columns, self.strings)))

    def encode(self) -> bytes:
        """The message: [2, 2, gateway, epoch, schema, sequence, received, clock, columns, strings], in a zstd frame if smaller."""
        return wrap(b"\x9a" + bytes((CONTEXT, VERSION)) + self._content())

    @classmethod
    def read(cls, reader: Reader) -> "Context":
        """Reads a message from after its kind. Raises UpstreamError."""
        version = read_version(reader, NUMBERS)
        start = reader.at
        gateway, epoch, schema = reader.text(), reader.integer(), read_schema(reader)
        sequence, received, clock = reader.integer(), reader.integer(I64_MIN, I64_MAX), reader.integer(0, 2)
        columns = []
        if reader.array(FIELDS_MAX) != len(schema.fields):
            raise UpstreamError(f"a context of {schema.stream} has not one entry a column")
        for field in schema.fields:
            if reader.array(2) != 2:
                raise UpstreamError(f"a context of {schema.stream} has a bad entry for {field.name}")
            exponent_max = {"f64": len(TENS) - 1, "time": len(UNITS) - 1}.get(field.kind, 0)
            columns.append((reader.integer(I64_MIN, I64_MAX), reader.integer(0, exponent_max)))
        strings = [reader.text(STRING_BYTES_MAX) for _ in range(reader.array(STRINGS_MAX))]
        context = cls(gateway, epoch, schema, sequence, received, clock, columns, strings)
        context.number = number_of(reader.data[start : reader.at], version)        # another encoder's bytes may differ from ours
        return context

    def read_row(self, reader: Reader) -> Batch:
        """The one row of a message, read from after its number. Raises UpstreamError.

        received_ns is 0 if the schema has a time column: then the row does not carry it."""
        first = (self.base_sequence + reader.integer(I64_MIN)) % (1 << 64)
        received = 0
        if self.schema.time is None:
            received = self.base_received_ns + reader.integer(I64_MIN, I64_MAX)
        row = {f.name: self._value(f, place, reader.scalar()) for f, place in zip(self.schema.fields, self.columns)}
        reader.end()
        try:
            batch = Batch.from_rows(self.schema, [row], first_sequence=first, received_ns=received)
        except OverflowError:
            raise UpstreamError(f"a row of {self.schema.stream} has an integer past 64 bits") from None
        batch.clock = self.clock
        return batch

    def _value(self, field, place, value):
        kind, given = field.kind, type(value)
        if value is None:
            return None
        if kind == "f64" and given is int:
            return value / TENS[place[1]]
        if kind == "f64" and given is float or kind == "bool" and given is bool or kind == "str" and given is str:
            return value
        if kind == "str" and given is int and 0 <= value < len(self.strings):
            return self.strings[value]
        if kind == "i64" and given is int:
            return place[0] + value
        if kind == "time" and given is int:
            return place[0] + value * UNITS[place[1]]
        raise UpstreamError(f"a row of {self.schema.stream} has {value!r} for {field.name}, which is {kind}")


def number_of(content, version=VERSION) -> int:
    """The number of the context with this content: its bytes after the version."""
    return 16 + zlib.crc32(content) % (NUMBERS[version] - 16)


def read_version(reader: Reader, known) -> int:
    """Raises UpstreamError if it is none that is known."""
    version = reader.integer()
    if version not in known:
        raise UpstreamError(f"a message has format version {version}; this receiver knows {max(known)}: update it")
    return version


def read_schema(reader: Reader) -> Schema:
    """Schema.to_dict's form. Raises UpstreamError."""
    data = {}
    for _ in range(reader.map(5)):
        name = reader.text()
        if name == "fields":
            fields = []
            for _ in range(reader.array(FIELDS_MAX)):
                if reader.array(3) != 3:
                    raise UpstreamError("a schema's field is not name, kind and unit")
                fields.append((reader.text(), reader.text(), reader.text()))
            data[name] = fields
        else:
            data[name] = reader.scalar(1024)
    try:
        return Schema.from_dict(data)
    except (ValueError, TypeError, KeyError) as error:
        raise UpstreamError(f"a message has no valid schema: {error}") from None
