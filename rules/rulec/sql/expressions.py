"""Code of bound expressions. A value is what pushes it and what pushes whether it is NULL; each node is computed once where it is seen.

What is computed of a NULL is rubbish, and nothing looks at it; only a BOOLEAN is 0 then, so that a condition can be taken as it is. Functions of the
template never see a NULL. DOUBLE compares as in DuckDB: NaN equals NaN and is greater than all numbers.
"""

from contextlib import contextmanager
from dataclasses import dataclass

from rulec.sql import code as wasm
from rulec.sql.code import i32
from rulec.sql.nodes import WASM

ZERO = {"i32": i32(0), "i64": wasm.i64(0), "f64": wasm.f64(0.0)}
ONE = i32(1)


@dataclass(frozen=True)
class Value:
    """Instructions that push it, and that push 1 if it is NULL; null None: it never is."""

    push: bytes
    null: bytes | None = None


class Generator:
    """Writes into `code`. leaf(node) gives the values of fields, keys and the like: rows.py and windows.py say how. texts: the module's Constants."""

    eqz = wasm.op("i32.eqz")

    def __init__(self, code, template, texts):
        self.code, self.template, self.texts = code, template, texts
        self._known = [{}]

    # --- pieces

    @contextmanager
    def scope(self):
        """What is computed inside, in a block that may be skipped, is not known behind it."""
        self._known.append({})
        yield
        self._known.pop()

    def know(self, node, value):
        self._known[-1][node] = value

    def got(self, local) -> bytes:
        return wasm.get(local)

    def kept(self, kind, null=None) -> Value:
        """What is on the stack, as a value."""
        return Value(wasm.get(self.code.set(kind)), null)

    def made(self, kind, *parts, null=None) -> Value:
        self.code.emit(*parts)
        return self.kept(kind, null)

    def loaded(self, kind, base, offset, null) -> Value:
        self.code.emit(base)
        self.code.memory(f"{kind}.load", offset)
        return self.kept(kind, null)

    def call(self, name):
        self.code.call(self.template.functions[name])

    def called(self, name, kind, *, partial) -> Value:
        """A template's function whose arguments are on the stack."""
        if not partial:
            self.call(name)
            return self.kept(WASM[kind])
        if kind == "str":
            self.call(name)
            value = self.code.set("i64")
            return Value(wasm.get(value), wasm.get(self.code.set("i32", wasm.get(value), "i64.eqz")))
        out = self.template.constants["sql_out_at"]
        self.code.emit(i32(out))
        self.call(name)
        null = wasm.get(self.code.set("i32", self.eqz))
        value = self.loaded(WASM[kind], i32(out), 0, null)
        return self.made("i32", value.push, null, self.eqz, "i32.and", null=null) if kind == "bool" else value

    def either(self, *nulls) -> bytes | None:
        """What pushes whether one of them is."""
        nulls = [n for n in dict.fromkeys(nulls) if n is not None]
        if len(nulls) < 2:
            return nulls[0] if nulls else None
        self.code.emit(*nulls, *["i32.or"] * (len(nulls) - 1))
        return wasm.get(self.code.set("i32"))

    # --- expressions

    def value(self, node) -> Value:
        for known in reversed(self._known):
            if node in known:
                return known[node]
        made = getattr(self, f"_{node.op}", self.leaf)(node)
        self.know(node, made)
        return made

    def condition(self, node) -> bytes:
        """What pushes 1 if the node is true, 0 if it is false or NULL."""
        return self.value(node).push

    def _literal(self, node):
        if node.value is None:
            return Value(ZERO[WASM[node.kind]], ONE)
        if node.kind == "str":
            return Value(wasm.i64(self.texts.packed(node.value)))
        return Value({"f64": wasm.f64, "i64": wasm.i64, "i32": i32}[WASM[node.kind]](node.value))

    def _convert(self, node):
        inner = self.value(node.args[0])
        return self.made("f64", inner.push, "f64.convert_i64_s", null=inner.null)

    def _is_null(self, node):
        return Value(self.value(node.args[0]).null or ZERO["i32"])

    def _not(self, node):
        a = self.value(node.args[0])
        return self.made("i32", a.push, *([a.null, "i32.or"] if a.null else []), "i32.eqz", null=a.null)

    def _and(self, node):
        return self._connect(node, stops=lambda a: [a.push, *([a.null, "i32.or"] if a.null else [])])

    def _or(self, node):
        return self._connect(node, stops=lambda a: [a.push, "i32.eqz"])

    def _connect(self, node, stops):
        """AND, OR by three-valued logic. The right side is passed over where the left decides and the right is dear."""
        a = self.value(node.args[0])
        if not dear(node.args[1]):
            return self._connected(node.op, a, self.value(node.args[1]))
        result = self.code.set("i32", a.push)
        null = self.code.set("i32", a.null or ZERO["i32"])
        with self.scope(), self.code.when(*stops(a)):
            both = self._connected(node.op, a, self.value(node.args[1]))
            self._assign(both, result, null)
        return Value(wasm.get(result), wasm.get(null))

    def _connected(self, name, a, b):
        result = wasm.get(self.code.set("i32", a.push, b.push, f"i32.{name}"))
        if a.null is None and b.null is None:
            return Value(result)
        an, bn = a.null or ZERO["i32"], b.null or ZERO["i32"]
        if name == "or":
            parts = [an, bn, "i32.or", result, "i32.eqz", "i32.and"]
        else:                        # NULL: neither is false, and one is NULL
            parts = [an, bn, "i32.or", a.push, an, "i32.or", "i32.and", b.push, bn, "i32.or", "i32.and"]
        return Value(result, wasm.get(self.code.set("i32", *parts)))

    def _assign(self, value, result, null):
        self.code.emit(value.push)
        self.code.put(result)
        self.code.emit(value.null or ZERO["i32"])
        self.code.put(null)

    def _compare(self, node):
        a, b = map(self.value, node.args)
        null = self.either(a.null, b.null)
        kind = node.args[0].kind
        if kind == "str" and null:
            return self._guarded("bool", null, lambda: self._compared(node, a, b))
        made = self._compared(node, a, b)
        return self.made("i32", made.push, null, "i32.eqz", "i32.and", null=null) if null else made

    def _compared(self, node, a, b):
        kind, name = node.args[0].kind, node.value
        if kind == "str":
            self.code.emit(a.push, b.push)
            self.call("sql_str_equal" if name in ("=", "<>") else "sql_str_compare")
            tail = {"=": [], "<>": ["i32.eqz"], "<": [ZERO["i32"], "i32.lt_s"], "<=": [ZERO["i32"], "i32.le_s"], ">": [ZERO["i32"], "i32.gt_s"],
                    ">=": [ZERO["i32"], "i32.ge_s"]}
            return self.made("i32", *tail[name])
        if WASM[kind] != "f64":
            word = {"=": "eq", "<>": "ne", "<": "lt_s", "<=": "le_s", ">": "gt_s", ">=": "ge_s"}[name]
            return self.made("i32", a.push, b.push, f"{WASM[kind]}.{word}")
        sure = [never_nan(arg) for arg in node.args]
        if name in ("=", "<>"):
            both = [] if any(sure) else [a.push, a.push, "f64.ne", b.push, b.push, "f64.ne", "i32.and", "i32.or"]
            return self.made("i32", a.push, b.push, "f64.eq", *both, *(["i32.eqz"] if name == "<>" else []))
        if name in (">", "<="):
            a, b, sure = b, a, sure[::-1]
        return self.made("i32", *less(a.push, b.push, *sure), *(["i32.eqz"] if name in ("<=", ">=") else []))

    def less(self, kind, a, b) -> bytes:
        """What pushes a < b, for two locals."""
        a, b = wasm.get(a), wasm.get(b)
        return joined(less(a, b, False, False) if kind == "f64" else [a, b, f"{kind}.lt_s"])

    def _guarded(self, kind, null, compute):
        """compute() where `null` is not; the result is NULL then, or where it is NULL itself."""
        result = self.code.set(WASM[kind], ZERO[WASM[kind]])
        missing = None
        with self.scope(), self.code.when(null, "i32.eqz"):
            made = compute()
            self.code.emit(made.push)
            self.code.put(result)
            if made.null:
                missing = self.code.set("i32", made.null)
        if missing is None:
            return Value(wasm.get(result), null)
        return Value(wasm.get(result), wasm.get(self.code.set("i32", ONE, wasm.get(missing), null, "select")))

    def _call(self, node):
        function, args = node.value, [self.value(a) for a in node.args]
        null = self.either(*(a.null for a in args))
        if not function.does.startswith("sql_"):
            only = [null, "i32.eqz", "i32.and"] if null and node.kind == "bool" else []
            return self.made(WASM[node.kind], *instructions(function, [a.push for a in args]), *only, null=null)

        def compute():
            self.code.emit(*(a.push for a in args), *map(i32, function.extra))
            return self.called(function.does, node.kind, partial=function.partial)

        return self._guarded(node.kind, null, compute) if null else compute()

    def _case(self, node):
        result, null = self.code.local(WASM[node.kind]), self.code.local("i32")
        with self.scope(), self.code.block() as done:
            for condition, chosen in zip(node.args[:-1:2], node.args[1::2]):
                with self.scope(), self.code.when(self.condition(condition)):
                    self._assign(self.value(chosen), result, null)
                    self.code.branch(done)
            self._assign(self.value(node.args[-1]), result, null)
        return Value(wasm.get(result), wasm.get(null))

    def _coalesce(self, node):
        first = self.value(node.args[0])
        if first.null is None or len(node.args) == 1:
            return first
        result, null = self.code.set(WASM[node.kind], first.push), self.code.set("i32", first.null)
        for arg in node.args[1:]:
            with self.scope(), self.code.when(wasm.get(null)):
                self._assign(self.value(arg), result, null)
        return Value(wasm.get(result), wasm.get(null))

    def _greatest(self, node):
        return self._best(node, lambda best, new: self.less(WASM[node.kind], best, new))

    def _least(self, node):
        return self._best(node, lambda best, new: self.less(WASM[node.kind], new, best))

    def _best(self, node, better):
        first = self.value(node.args[0])
        best, null = self.code.set(WASM[node.kind], first.push), self.code.set("i32", first.null or ZERO["i32"])
        for arg in node.args[1:]:
            value = self.value(arg)
            new = self.code.set(WASM[node.kind], value.push)
            with self.scope(), self.code.when(*([value.null, "i32.eqz"] if value.null else [ONE])):
                take = self.code.set("i32", ONE)
                with self.code.when(wasm.get(null), "i32.eqz"):
                    if node.kind == "str":
                        self.code.emit(*map(wasm.get, (best, new)))
                        self.call("sql_str_compare")
                        self.code.emit(ZERO["i32"], "i32.lt_s" if node.op == "greatest" else "i32.gt_s")
                    else:
                        self.code.emit(better(best, new))
                    self.code.put(take)
                with self.code.when(wasm.get(take)):
                    self._assign(Value(wasm.get(new)), best, null)
        return Value(wasm.get(best), wasm.get(null))

    def _nullif(self, node):
        a, same = self.value(node.args[0]), self.condition(node.args[2])
        null = self.either(a.null, same)
        return self.made("i32", a.push, null, "i32.eqz", "i32.and", null=null) if node.kind == "bool" else Value(a.push, null)

    def _concat(self, node):
        text = self.code.set("i64", wasm.i64(self.texts.packed(b"")))
        for arg in node.args:
            value = self.value(arg)
            with self.scope(), self.code.when(*([value.null, "i32.eqz"] if value.null else [ONE])):
                self.code.emit(wasm.get(text), value.push)
                self.call("sql_str_concat")
                self.code.put(text)
        return Value(wasm.get(text))


def instructions(function, args) -> list:
    """Of a function that needs no call."""
    if function.does == "same":
        return args
    if function.does == "sign":
        zero = ZERO["f64"]
        return [args[0], zero, "f64.gt", args[0], zero, "f64.lt", "i32.sub", "i64.extend_i32_s"]
    if function.does.endswith(" as bool"):
        kind = function.does[:3]
        return [args[0], ZERO[kind], f"{kind}.ne"]
    return [*args, "f64.convert_i32_u" if function.does == "bool as f64" else function.does]


def less(a, b, a_sure, b_sure) -> list:
    """a < b of DOUBLEs, NaN being the greatest. sure: it is never NaN."""
    if b_sure:
        return [a, b, "f64.lt"]
    if a_sure:
        return [b, a, "f64.le", "i32.eqz"]
    return [a, b, "f64.lt", b, b, "f64.ne", a, a, "f64.eq", "i32.and", "i32.or"]


def joined(parts) -> bytes:
    return b"".join(wasm.op(p) if isinstance(p, str) else p for p in parts)


def never_nan(node) -> bool:
    return node.op in ("literal", "parameter", "convert")


def dear(node) -> bool:
    """Whether it calls a function, or branches: worth a jump around."""
    return any(n.op in ("case", "concat") or n.op == "compare" and n.args[0].kind == "str" or n.op == "call" and n.value.does.startswith("sql_")
               for n in node.walk())


def makes_text(nodes) -> bool:
    """Whether the arena is needed."""
    return any(n.op == "concat" or n.op == "call" and n.value.makes_text for node in nodes for n in node.walk())
