"""WebAssembly code: a function that is being written, instruction by instruction. Encoding: WebAssembly Core Specification 2.0, chapter 5."""

import struct
from contextlib import contextmanager

from edge.host.module import leb

TYPES = {"i32": b"\x7f", "i64": b"\x7e", "f64": b"\x7c", "v128": b"\x7b"}
EMPTY = b"\x40"                      # a block without result

_COMPARE = ("eq", "ne", "lt_s", "lt_u", "gt_s", "gt_u", "le_s", "le_u", "ge_s", "ge_u")
_INTEGER = ("clz", "ctz", "popcnt", "add", "sub", "mul", "div_s", "div_u", "rem_s", "rem_u", "and", "or", "xor", "shl", "shr_s", "shr_u", "rotl", "rotr")
_FLOAT = ("abs", "neg", "ceil", "floor", "trunc", "nearest", "sqrt", "add", "sub", "mul", "div", "min", "max", "copysign")
OPS = {
    "unreachable": b"\x00", "else": b"\x05", "end": b"\x0b", "return": b"\x0f", "drop": b"\x1a", "select": b"\x1b",
    "i32.eqz": b"\x45", "i64.eqz": b"\x50", "i32.wrap_i64": b"\xa7", "i64.extend_i32_s": b"\xac", "i64.extend_i32_u": b"\xad",
    "f64.convert_i32_u": b"\xb8", "f64.convert_i64_s": b"\xb9",
    **{f"i32.{name}": bytes([0x46 + i]) for i, name in enumerate(_COMPARE)},
    **{f"i64.{name}": bytes([0x51 + i]) for i, name in enumerate(_COMPARE)},
    **{f"f64.{name}": bytes([0x61 + i]) for i, name in enumerate(("eq", "ne", "lt", "gt", "le", "ge"))},
    **{f"i32.{name}": bytes([0x67 + i]) for i, name in enumerate(_INTEGER)},
    **{f"i64.{name}": bytes([0x79 + i]) for i, name in enumerate(_INTEGER)},
    **{f"f64.{name}": bytes([0x99 + i]) for i, name in enumerate(_FLOAT)},
}
VECTOR_OPS = {                       # after the prefix 0xfd
    "i64x2.splat": 18, "f64x2.splat": 20, **{f"f64x2.{name}": 71 + i for i, name in enumerate(("eq", "ne", "lt", "gt", "le", "ge"))},
    "v128.not": 77, "v128.and": 78, "v128.andnot": 79, "v128.or": 80, "v128.xor": 81, "i64x2.bitmask": 196, "f64x2.ceil": 116, "f64x2.floor": 117,
    "f64x2.trunc": 122, **{f"i64x2.{name}": 214 + i for i, name in enumerate(("eq", "ne", "lt_s", "gt_s", "le_s", "ge_s"))},
    "f64x2.abs": 236, "f64x2.neg": 237, "f64x2.sqrt": 239, "f64x2.add": 240, "f64x2.sub": 241, "f64x2.mul": 242, "f64x2.div": 243,
}
MEMORY_OPS = {                       # opcode and natural alignment (log2)
    "i32.load": (b"\x28", 2), "i64.load": (b"\x29", 3), "f64.load": (b"\x2b", 3), "i32.load8_u": (b"\x2d", 0),
    "i32.store": (b"\x36", 2), "i64.store": (b"\x37", 3), "f64.store": (b"\x39", 3), "i32.store8": (b"\x3a", 0),
    "v128.load": (b"\xfd\x00", 3),   # columns are 8-aligned
}


def signed(n) -> bytes:
    """LEB128, two's complement."""
    out = bytearray()
    while not -64 <= n < 64:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n & 0x7F)
    return bytes(out)


def i32(n) -> bytes:
    """The instruction that pushes a 32-bit number."""
    return b"\x41" + signed((n + 2**31) % 2**32 - 2**31)


def i64(n) -> bytes:
    return b"\x42" + signed(n)


def f64(x) -> bytes:
    return b"\x44" + struct.pack("<d", x)


def get(local) -> bytes:
    return b"\x20" + leb(local)


def op(name) -> bytes:
    """An instruction without immediates."""
    return b"\xfd" + leb(VECTOR_OPS[name]) if name in VECTOR_OPS else OPS[name]


class Code:
    """The body of a function with so many i32 parameters and more of other types: emit() appends instructions, blocks nest by `with`."""

    def __init__(self, parameters=()):
        self._parameters = len(parameters)
        self._locals = []
        self._body = bytearray()
        self._depth = 0

    def emit(self, *parts):
        """Bytes as they are; a str names an instruction without immediates."""
        for part in parts:
            self._body += op(part) if isinstance(part, str) else part

    def local(self, kind) -> int:
        self._locals.append(kind)
        return self._parameters + len(self._locals) - 1

    def set(self, kind, *parts) -> int:
        """A new local of the type with the value that the parts push."""
        self.emit(*parts)
        local = self.local(kind)
        self.put(local)
        return local

    def put(self, local):
        self._body += b"\x21" + leb(local)

    def tee(self, local):
        self._body += b"\x22" + leb(local)

    def memory(self, name, offset=0):
        opcode, alignment = MEMORY_OPS[name]
        self._body += opcode + leb(alignment) + leb(offset)

    def call(self, function):
        self._body += b"\x10" + leb(function)

    @contextmanager
    def block(self):
        """Yields the label that leaves it."""
        yield self._open(b"\x02")
        self._close()

    @contextmanager
    def loop(self):
        """Yields the label that goes round."""
        yield self._open(b"\x03")
        self._close()

    @contextmanager
    def when(self, *condition):
        """The block that runs if the i32 that the parts push is not 0."""
        self.emit(*condition)
        yield self._open(b"\x04")
        self._close()

    def branch(self, label, *condition):
        """To a label of block() or loop(); with a condition, if it is not 0."""
        self.emit(*condition)
        self._body += (b"\x0d" if condition else b"\x0c") + leb(self._depth - label)

    def _open(self, opcode):
        self._body += opcode + EMPTY
        self._depth += 1
        return self._depth

    def _close(self):
        self._body += OPS["end"]
        self._depth -= 1

    def encode(self) -> bytes:
        """The entry of the code section, without its size."""
        runs = []
        for kind in self._locals:
            if runs and runs[-1][0] == kind:
                runs[-1][1] += 1
            else:
                runs.append([kind, 1])
        return leb(len(runs)) + b"".join(leb(n) + TYPES[kind] for kind, n in runs) + bytes(self._body) + OPS["end"]
