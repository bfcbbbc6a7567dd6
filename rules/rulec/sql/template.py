"""The template module: what rules/sql/sql_rule.c was compiled to, and how a query's functions and tables are put into it.

The template imports from "sql" what is the query's own. An import and a function count in one index space, imports first: the query's functions take
the places of the imports, so that nothing else changes. Functions that nothing reaches keep their index and lose their code.
"""

from functools import cache
from importlib.resources import files

from edge.host.code import skip
from edge.host.module import Reader, leb, with_section
from rulec.sql.code import signed

CUSTOM, TYPES, IMPORTS, FUNCTIONS, TABLES, MEMORIES, GLOBALS, EXPORTS, START, ELEMENTS, CODE, DATA, DATA_COUNT = range(13)
PAGE = 65536
CALL, REF_FUNC, I32_CONST, END = 0x10, 0xD2, 0x41, 0x0B
UNREACHABLE = b"\x00\x00\x0b"        # a function without locals that traps
VALUE_TYPES = {0x7F: "i32", 0x7E: "i64", 0x7C: "f64"}
HOST_EXPORTS = ("memory", "tg_")


class Template:
    """functions: name -> index, of what the library exports and the query may call; types: name -> (argument types, result type or None).
    constants: name -> value, of the exported functions that only return a number. own: the names that the query must define, in index order."""

    def __init__(self, wasm: bytes):
        self._sections = {}
        r = Reader(wasm, 8)
        while r.at < r.end:
            number, size = r.byte(), r.number()
            if number != CUSTOM:
                self._sections[number] = wasm[r.at : r.at + size]
            r.skip(size)
        self._types = self._read(TYPES, self._type)
        imports = self._read(IMPORTS, self._import)
        self.own = [name for name, _ in imports]
        self._function_types = [t for _, t in imports] + self._read(FUNCTIONS, Reader.number)
        self._bodies = self._read(CODE, lambda r: r.bytes(r.number()))
        exports = self._read(EXPORTS, lambda r: (r.name(), r.byte(), r.number()))
        self._kept_exports = [e for e in exports if e[0].startswith(HOST_EXPORTS)]
        self.functions = {name: index for name, kind, index in exports if kind == 0}
        self.types = {name: self._types[self._function_types[index]][1:] for name, index in self.functions.items()}
        self.constants = {name: value for name, index in self.functions.items() if (value := self._constant(index)) is not None}

    def _read(self, section, one):
        r = Reader(self._sections[section])
        return [one(r) for _ in range(r.number())]

    @staticmethod
    def _type(r):
        start = r.at
        r.byte()
        sides = [[VALUE_TYPES.get(r.byte()) for _ in range(r.number())] for _ in range(2)]
        return r.data[start : r.at], tuple(sides[0]), sides[1][0] if sides[1] else None

    @staticmethod
    def _import(r):
        r.name()
        name = r.name()
        r.byte()
        return name, r.number()

    def _constant(self, index):
        body = self._bodies[index - len(self.own)]
        if body[:2] != bytes([0, I32_CONST]) or body[-1] != END:
            return None
        value = shift = 0
        for byte in body[2:-1]:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 and shift // 7 != len(body) - 3:
                return None                                          # more than the one instruction
        return value - (1 << shift) if body[-2] & 0x40 else value

    def module(self, own: dict, table: bytes, sections) -> bytes:
        """A rule's module. own: the code of each name of `own`, as Code.encode gives it (absent: the query has no use for it). table: the bytes at
        sql_table_at. sections: (name, content) of custom sections."""
        bodies = [own.get(name, UNREACHABLE) for name in self.own] + self._bodies
        live = self._reached(bodies)
        bodies = [body if i in live else UNREACHABLE for i, body in enumerate(bodies)]
        made = {
            **{n: self._sections[n] for n in (TABLES, GLOBALS, ELEMENTS) if n in self._sections},
            TYPES: _vector(t[0] for t in self._types),
            FUNCTIONS: _vector(map(leb, self._function_types)),
            MEMORIES: self._memory(self.constants["sql_table_at"] + len(table)),
            EXPORTS: _vector(_sized(name.encode()) + bytes([kind]) + leb(index) for name, kind, index in self._kept_exports),
            CODE: _vector(_sized(body) for body in bodies),
            DATA: self._data(table),
        }
        wasm = b"\0asm\1\0\0\0" + b"".join(bytes([n]) + _sized(made[n]) for n in sorted(made, key=lambda n: (n, 0)))
        for name, content in sections:
            wasm = with_section(wasm, name, content)
        return wasm

    def _memory(self, end):
        r = Reader(self._sections[MEMORIES])
        r.skip(2)
        return b"\x01\x00" + leb(max(r.number(), (end + PAGE - 1) // PAGE))

    def _data(self, table):
        r = Reader(self._sections[DATA])
        count = r.number()
        return leb(count + 1) + r.data[r.at :] + b"\x00\x41" + signed(self.constants["sql_table_at"]) + b"\x0b" + _sized(table)

    def _reached(self, bodies):
        """Indexes of the functions that the host can get to."""
        todo = [index for _, kind, index in self._kept_exports if kind == 0] + self._elements()
        live = set()
        while todo:
            index = todo.pop()
            if index not in live:
                live.add(index)
                todo += _calls(bodies[index])
        return live

    def _elements(self):
        """Functions that stand in the table: LLVM writes one active segment of them."""
        if ELEMENTS not in self._sections:
            return []
        r = Reader(self._sections[ELEMENTS])
        found = []
        for _ in range(r.number()):
            assert r.number() == 0 and r.byte() == I32_CONST, "an element segment of another form"
            r.skip_number()
            r.skip(1)
            found += [r.number() for _ in range(r.number())]
        return found


def _calls(body):
    r = Reader(body)
    for _ in range(r.number()):
        r.number()
        r.byte()
    found = []
    while r.at < r.end:
        code = r.byte()
        if code in (CALL, REF_FUNC):
            found.append(r.number())
        else:
            assert skip(r, code, r.number() if code in (0xFC, 0xFD) else None), f"instruction {code:#x}"
    return found


def _sized(data) -> bytes:
    return leb(len(data)) + data


def _vector(items) -> bytes:
    items = list(items)
    return leb(len(items)) + b"".join(items)


@cache
def template() -> Template:
    """The one that stands beside this file."""
    return Template((files("rulec.sql") / "template.wasm").read_bytes())
