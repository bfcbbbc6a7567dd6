"""A filter's WHERE, eight rows at a time: comparisons of numbers as vectors of two, whose outcomes make a byte of the bitmap; AND, OR, NOT and NULL on
such bytes."""

from rulec.sql import code as wasm
from rulec.sql.code import i32
from rulec.sql.expressions import less, never_nan

PAIRS = range(4)                     # of eight rows
BYTE = i32(0xFF)
GATHER = 0x0102040810204080          # times eight bytes of 0 or 1: their bits, in the top byte
ARITHMETIC = {f"f64.{name}" for name in ("add", "sub", "mul", "div", "abs", "neg", "sqrt", "ceil", "floor", "trunc")}
INTEGERS = ("i64", "time", "interval")


def possible(node) -> bool:
    """Whether the condition is made of what vectors can do."""
    if node.op in ("and", "or", "not"):
        return all(map(possible, node.args))
    if node.op == "is_null":
        return node.args[0].op == "field"
    if node.op == "field":
        return node.kind == "bool"
    if node.op != "compare":
        return False
    kinds = {a.kind for a in node.args}
    return kinds == {"f64"} and all(map(_arithmetic, node.args)) or kinds <= set(INTEGERS) and all(a.op in ("field",
        "parameter") or _constant(a) for a in node.args)


def _constant(node):
    return node.op == "literal" and node.value is not None


def _arithmetic(node):
    return node.op in ("field", "parameter") or _constant(node) or node.op == "call" and node.value.does in ARITHMETIC and all(map(_arithmetic,
        node.args))


def filter_rows(gen, query, row):
    """Fills the bitmap for all whole eights; `row` is then the first of the rest."""
    code = gen.code
    gen.prelude([query.where])
    gen.look()
    selected, end = gen.batch(8), wasm.get(code.set("i32", gen.batch(4), i32(~7), "i32.and"))
    eights = _Eights(gen, query.where)
    with code.block() as done, code.loop() as again:
        code.branch(done, gen.row, end, "i32.ge_u")
        code.emit(selected, gen.row, i32(3), "i32.shr_u", "i32.add", eights.byte(query.where))
        code.memory("i32.store8")
        code.emit(gen.row, i32(8), "i32.add")
        code.put(row)
        code.branch(again)


class _Eights:
    """Code for the eight rows from gen.row on: a condition is two bytes, which rows are true and which are NULL."""

    def __init__(self, gen, where):
        self.gen, self.code = gen, gen.code
        self._splats = {n: self._splat(n) for n in dict.fromkeys(where.walk()) if n.op == "parameter" or _constant(n) and n.kind != "bool"}
        self._vectors = {}

    def _splat(self, node):
        value = self.gen.value(node)
        return wasm.get(self.code.set("v128", value.push, f"{'f64x2' if node.kind == 'f64' else 'i64x2'}.splat"))

    def byte(self, where) -> bytes:
        """What pushes the byte of the rows that pass."""
        code = self.code
        self._eight = wasm.get(code.set("i32", self.gen.row, i32(3), "i32.shl"))
        self._byte = wasm.get(code.set("i32", self.gen.row, i32(3), "i32.shr_u"))
        return self._condition(where)[0]

    def _kept(self, *parts) -> bytes:
        return wasm.get(self.code.set("i32", *parts))

    def _condition(self, node):
        if node.op == "not":
            true, null = self._condition(node.args[0])
            return self._kept(true, *([null, "i32.or"] if null else []), BYTE, "i32.xor"), null
        if node.op in ("and", "or"):
            return self._connected(node.op, *map(self._condition, node.args))
        if node.op == "is_null":
            return self._null([node.args[0]]), None
        null = self._null([n for n in node.walk() if n.op == "field"])
        true = self._field(node) if node.op == "field" else self._compared(node)
        return (true, None) if null is None else (self._kept(true, null, BYTE, "i32.xor", "i32.and"), null)

    def _connected(self, name, a, b):
        true = self._kept(a[0], b[0], f"i32.{name}")
        nulls = [n for n in (a[1], b[1]) if n is not None]
        if not nulls:
            return true, None
        either = [*nulls, *["i32.or"] * (len(nulls) - 1)]
        if name == "or":
            return true, self._kept(*either, true, BYTE, "i32.xor", "i32.and")
        for side in (a, b):
            either += [side[0], *([side[1], "i32.or"] if side[1] else []), "i32.and"]
        return true, self._kept(*either)

    def _null(self, fields):
        """What pushes the byte of rows where one of the fields is NULL; None: of no fields."""
        fields = dict.fromkeys(fields)
        for i, field in enumerate(fields):
            self.code.emit(self.gen.valid(field), self._byte, "i32.add")
            self.code.memory("i32.load8_u")
            self.code.emit(*["i32.and"] * (i > 0))
        return self._kept(BYTE, "i32.xor") if fields else None

    def _field(self, node):
        self.code.emit(self.gen.values(node), self.gen.row, "i32.add")
        self.code.memory("i64.load")
        return self._kept(wasm.i64(GATHER), "i64.mul", wasm.i64(56), "i64.shr_u", "i32.wrap_i64")

    def _compared(self, node):
        byte = []
        for pair in PAIRS:
            a, b = (self._vector(n, pair) for n in node.args)
            self.code.emit(*_mask(node, a, b), "i64x2.bitmask")
            byte.append(self._kept(*([i32(2 * pair), "i32.shl"] if pair else [])))
        return self._kept(*byte, *["i32.or"] * 3)

    def _vector(self, node, pair) -> bytes:
        """What pushes the values of two rows."""
        if node in self._splats:
            return self._splats[node]
        if (node, pair) not in self._vectors:
            if node.op == "field":
                self.code.emit(self.gen.values(node), self._eight, "i32.add")
                self.code.memory("v128.load", 16 * pair)
            else:
                args = [self._vector(a, pair) for a in node.args]
                self.code.emit(*args, node.value.does.replace("f64.", "f64x2."))
            self._vectors[node, pair] = wasm.get(self.code.set("v128"))
        return self._vectors[node, pair]


def _mask(node, a, b) -> list:
    """Instructions that push the outcome of a comparison of two vectors, all bits of a lane being set or not."""
    name = node.value
    if node.args[0].kind != "f64":
        return [a, b, "i64x2." + {"=": "eq", "<>": "ne", "<": "lt_s", "<=": "le_s", ">": "gt_s", ">=": "ge_s"}[name]]
    sure = [never_nan(arg) for arg in node.args]
    if name in ("=", "<>"):
        both = [] if any(sure) else [a, a, "f64.ne", b, b, "f64.ne", "v128.and", "v128.or"]
        parts = [a, b, "f64.eq", *both, *(["v128.not"] if name == "<>" else [])]
    else:
        if name in (">", "<="):
            a, b, sure = b, a, sure[::-1]
        parts = [*less(a, b, *sure), *(["v128.not"] if name in ("<=", ">=") else [])]
    words = {"i32.and": "v128.and", "i32.or": "v128.or", "i32.eqz": "v128.not"}
    return [p if not isinstance(p, str) else words.get(p, p.replace("f64.", "f64x2.")) for p in parts]
