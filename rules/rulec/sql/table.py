"""The table that stands at sql_table_at in a query's module: struct sql_query of rules/sql/sql_rule.c, names, and the texts of the query behind it."""

import struct

from edge.columns.schema import KINDS

HEADER = 64
FIELD = 16
NONE = 0xFFFFFFFF
OPTIONAL = 1
PARAMETER_KINDS = {"f64": 1, "i64": 2, "bool": 2, "duration": 2, "str": 4}


class Table:
    """Texts get their addresses while code is generated; encode() then gives all bytes."""

    def __init__(self, template, query):
        self.address = template.constants["sql_table_at"]
        self._query = query
        self._texts = bytearray()
        self._known = {}
        self._texts_at = self.address + HEADER + FIELD * (len(query.inputs) + len(query.outputs) + len(query.parameters))

    def text(self, data: bytes) -> int:
        """Its address; never 0, even of an empty one."""
        if data not in self._known:
            self._known[data] = self._texts_at + len(self._texts)
            self._texts += data or b"\0"
        return self._known[data]

    def packed(self, data: bytes) -> int:
        """A text as a value: size and address."""
        return len(data) << 32 | self.text(data)

    def encode(self, kinds, optional, parameters, state_bytes, state) -> bytes:
        """kinds: field -> kind; optional: inputs that the stream may lack; parameters: name -> type;
        state: version of what is kept."""
        q = self._query
        inputs = [self._field(n, KINDS[kinds[n]], OPTIONAL if n in optional else 0) for n in q.inputs]
        outputs = [self._field(n, KINDS[kind], 0 if (of := q.unit_of(node, kinds, optional)) is None else of + 1) for n, kind, node in q.outputs]
        given = [self._field(n, PARAMETER_KINDS[parameters[n]], 0) for n in q.parameters]
        at = self.address + HEADER
        header = struct.pack("<12Iqq", q.form, len(inputs), at, len(outputs), at + FIELD * len(inputs), NONE if q.key is None else q.key,
                             NONE if q.time is None else q.time, len(given), at + FIELD * (len(inputs) + len(outputs)), state_bytes, q.from_parameter,
                             state, q.length, q.hop)
        return header + b"".join(inputs + outputs + given) + bytes(self._texts)

    @property
    def end(self):
        """Where the heap may begin: a multiple of 16."""
        return (self._texts_at + len(self._texts) + 15) // 16 * 16

    def _field(self, name, kind, flags):
        data = name.encode()
        return struct.pack("<4I", self.text(data), len(data), kind, flags)
