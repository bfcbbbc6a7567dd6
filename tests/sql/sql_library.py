"""The library of rules/sql as Python calls, over wasmtime: the functions that a compiled query calls, one by one."""

import hashlib
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import wasmtime

RULES = Path(__file__).parents[2] / "rules"
SOURCE = '#include "edge_rule.h"\n#include "sql_functions.h"\n'
FLAGS = ["-target", "wasm32-wasi", "-mexec-model=reactor", "-lm", "-Wl,--strip-debug", "-std=c11", "-O2", "-g0", "-msimd128", "-mbulk-memory", "-ffp-contract=off",
         "-fno-builtin", "-Wl,--no-entry", "-Wl,-z,stack-size=16384", "-Wall", "-Wextra", "-Werror"]
OUT = {"i64": "<q", "f64": "<d", "bool": "<i"}
ROOM = 4 << 20


def build():
    """The library alone as a module, built once per state of its sources."""
    headers = sorted([*(RULES / "sql").glob("*.h"), *(RULES / "c").glob("*.h")])
    digest = hashlib.sha256("".join([*FLAGS, *(h.read_text() for h in headers)]).encode()).hexdigest()[:20]
    path = Path(tempfile.gettempdir()) / f"tidegate-sql-library-{digest}.wasm"
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            source, module = Path(folder, "library.c"), Path(folder, "library.wasm")
            source.write_text(SOURCE)
            subprocess.run([sys.executable, "-m", "ziglang", "cc", *FLAGS, f"-I{RULES / 'c'}", f"-I{RULES / 'sql'}", source, "-o", module], check=True, timeout=100)
            module.replace(path)
    return path


class Library:
    """call(name, *arguments, out=kind): str arguments are written into memory, the answer is a Python value or None for NULL."""

    def __init__(self):
        engine = wasmtime.Engine()
        self.module = wasmtime.Module.from_file(engine, str(build()))
        self.store = wasmtime.Store(engine)
        self.exports = wasmtime.Instance(self.store, self.module, []).exports(self.store)
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
