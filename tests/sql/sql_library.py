"""The library of rules/sql as Python calls, over wasmtime: the functions that a compiled query calls, one by one, as they are in the compiler's template."""

import re
import struct
from pathlib import Path

import wasmtime

TEMPLATE = Path(__file__).parents[2] / "rules" / "rulec" / "sql" / "template.wasm"
OUT = {"i64": "<q", "f64": "<d", "bool": "<i"}
HEAP = 1 << 20
ROOM = 4 << 20


class Library:
    """call(name, *arguments, out=kind): str arguments are written into memory, the answer is a Python value or None for NULL."""

    def __init__(self):
        engine = wasmtime.Engine()
        self.module = wasmtime.Module.from_file(engine, str(TEMPLATE))
        self.store = wasmtime.Store(engine)
        own = [wasmtime.Func(self.store, i.type, lambda *_: HEAP) for i in self.module.imports]     # a query's own functions; only the heap's begin is asked for
        self.exports = wasmtime.Instance(self.store, self.module, own).exports(self.store)
        self.memory = self.exports["memory"]
        self.names = {e.name for e in self.module.exports if re.match("sql_", e.name)}
        self.area = self.exports["tg_alloc"](self.store, ROOM)
        self.top = self.area + 16

    def put(self, data):
        if self.top + len(data) + 8 > self.area + ROOM:
            self.top = self.area + 16
        at = self.top
        self.memory.write(self.store, data, at)
        self.top += len(data) + 8 & ~7
        return at

    def pack(self, text):
        data = text.encode()
        packed = len(data) << 32 | self.put(data)
        return packed - (packed >> 63 << 64)

    def unpack(self, packed):
        at, size = packed & 0xFFFFFFFF, packed >> 32 & 0xFFFFFFFF
        return self.memory.read(self.store, at, at + size).decode() if packed else None

    def call(self, name, *arguments, out=None):
        given = [self.pack(a) if isinstance(a, str) else int(a) if isinstance(a, bool) else a for a in arguments]
        if out in OUT:
            if not self.exports[name](self.store, *given, self.area):
                return None
            value = struct.unpack(OUT[out], self.memory.read(self.store, self.area, self.area + struct.calcsize(OUT[out])))[0]
            return bool(value) if out == "bool" else value
        answer = self.exports[name](self.store, *given)
        if out == "str":
            answer = self.unpack(answer)
            self.exports["sql_arena_reset"](self.store)
        return answer

    def slot(self, name):
        """Address of an empty slot of the aggregate `name`."""
        return self.put(bytes(self.exports[f"sql_{name}_size"](self.store)))

    def bytes(self, at, size):
        return bytes(self.memory.read(self.store, at, at + size))
