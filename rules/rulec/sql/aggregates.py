"""Aggregates: which there are, the slots of a window's tally that they are kept in, and the code that adds to a slot, merges two and reads one.

A slot is zeroed when its window opens. Aggregates of the same slot, argument and FILTER share it: avg(x) and sum(x) are one.
"""

from dataclasses import dataclass

from rulec.sql.code import i32
from rulec.sql.nodes import Node


@dataclass(frozen=True)
class Aggregate:
    """slot: of SLOTS, or a NAME of the template's sql_NAME_add, _merge and _result. result: which of the slot's results, of RESULTS or a number passed on."""

    name: str
    takes: str                       # kind of the argument; "*": none
    gives: str
    slot: str
    result: object
    summary: str = ""


def _all():
    yield Aggregate("count", "*", "i64", "count", "count", "rows; of x: where x is not NULL")
    for kind in ("f64", "i64", "bool", "str", "time"):
        yield Aggregate("count", kind, "i64", "count", "count")
    yield Aggregate("sum", "f64", "f64", "sum_f64", "sum", "sum; of BIGINT exact, and NULL where it is no BIGINT")
    yield Aggregate("sum", "i64", "i64", "sum_i64", "call")
    yield Aggregate("avg", "f64", "f64", "sum_f64", "avg", "sum / count")
    yield Aggregate("avg", "i64", "f64", "avg_i64", "call")
    for name, summary in (("min", "least; NaN is greater than all numbers"), ("max", "greatest")):
        for kind in ("f64", "i64", "time", "interval", "bool"):
            yield Aggregate(name, kind, kind, f"{name}_{'f64' if kind == 'f64' else 'i64'}", "value", summary)
        yield Aggregate(name, "str", "str", f"{name}_str", "call")
    for n, (name, summary) in enumerate((("var_samp", "sample variance; NULL of one value"), ("var_pop", "variance of the population"),
                                         ("stddev_samp", "sample standard deviation"), ("stddev_pop", "standard deviation of the population"))):
        yield Aggregate(name, "f64", "f64", "variance", n, summary)
    for name, summary in (("first", "value at the least event time; NULLs are passed over"), ("last", "value at the greatest event time; of equal times the last to come")):
        yield Aggregate(name, "f64", "f64", f"{name}_f64", "call", summary)
        for kind in ("i64", "time", "bool"):
            yield Aggregate(name, kind, kind, f"{name}_i64", "call")
        yield Aggregate(name, "str", "str", f"{name}_str", "call")
    for kind in ("f64", "i64", "str", "time", "bool"):
        yield Aggregate("count distinct", kind, "i64", "distinct", "distinct", "different values: exact while they are few, see below")
    yield Aggregate("percentile", "f64", "f64", "percentile", "percentile", "the value below which the share p of the values lies, p from 0 to 1; see below")


ALIASES = {"mean": "avg", "stddev": "stddev_samp", "variance": "var_samp", "first_value": "first", "last_value": "last", "quantile": "percentile",
           "quantile_cont": "percentile", "approx_quantile": "percentile", "percentile_cont": "percentile", "approx_percentile": "percentile", "median": "percentile"}
AGGREGATES = {}
for _aggregate in _all():
    AGGREGATES.setdefault(_aggregate.name, {})[_aggregate.takes] = _aggregate
SLOTS = {"count": 8, "sum_f64": 16, "min_f64": 16, "max_f64": 16, "min_i64": 16, "max_i64": 16}     # bytes; the first word of all but count is the value, the second n


@dataclass(frozen=True)
class Slot:
    """name as in Aggregate.slot. argument: bound in the row, or None for count(*). where: its FILTER, or None."""

    name: str
    argument: Node | None
    where: Node | None


def size(slot, template) -> int:
    """Of a slot, in bytes."""
    return SLOTS.get(slot.name) or template.constants[f"sql_{slot.name}_size"]


def add(gen, slot, tally, offset):
    """The code that adds the row at hand to the slot at this offset of the tally (a local). gen: expressions.Generator of the row."""
    code = gen.code
    value = gen.value(slot.argument) if slot.argument else None
    conditions = []
    if slot.where:
        conditions.append(gen.value(slot.where).push)
    if value and value.null is not None:
        conditions.append(value.null + gen.eqz)
    if not conditions:
        return _add(gen, slot, value, tally, offset)
    code.emit(*conditions, *["i32.and"] * (len(conditions) - 1))
    with gen.scope(), code.when():
        _add(gen, slot, value, tally, offset)


def _add(gen, slot, value, tally, offset):
    code = gen.code
    if slot.name == "count":
        code.emit(tally, tally)
        code.memory("i64.load", offset)
        code.emit(b"\x42\x01", "i64.add")
        code.memory("i64.store", offset)
    elif slot.name == "sum_f64":
        code.emit(tally, tally)
        code.memory("f64.load", offset)
        code.emit(value.push, "f64.add")
        code.memory("f64.store", offset)
        _count(code, tally, offset + 8)
    elif slot.name in SLOTS:
        _extreme(gen, slot, value, tally, offset)
    else:
        kind = slot.argument.kind
        code.emit(tally, i32(offset), "i32.add", _widened(slot, value, kind))
        if slot.name.startswith(("first", "last")):
            code.emit(gen.time())
        name = f"distinct_{_carrier(kind)}" if slot.name == "distinct" else slot.name
        gen.call(f"sql_{name}_add")


def _carrier(kind):
    return kind if kind in ("f64", "str") else "i64"


def _widened(slot, value, kind):
    """What pushes the value as the slot holds it: a bool as i64."""
    return value.push + (b"\xad" if kind == "bool" else b"")


def _count(code, tally, offset):
    code.emit(tally, tally)
    code.memory("i64.load", offset)
    code.emit(b"\x42\x01", "i64.add")
    code.memory("i64.store", offset)


def _extreme(gen, slot, value, tally, offset):
    """min and max in the order where NaN is the greatest."""
    code, kind = gen.code, slot.name[4:]
    new = code.set(kind, _widened(slot, value, slot.argument.kind))
    code.emit(tally)
    code.memory(f"{kind}.load", offset)
    old = code.local(kind)
    code.put(old)
    code.emit(tally)
    code.memory("i64.load", offset + 8)
    code.emit("i64.eqz", gen.less(kind, new, old) if slot.name[:3] == "min" else gen.less(kind, old, new), "i32.or")
    with code.when():
        code.emit(tally, gen.got(new))
        code.memory(f"{kind}.store", offset)
    _count(code, tally, offset + 8)


def merge(gen, slot, into, source, offset):
    """The code that adds the slot of another tally (both locals) to this one's."""
    code = gen.code
    if slot.name not in SLOTS:
        code.emit(into, i32(offset), "i32.add", source, i32(offset), "i32.add")
        return gen.call(f"sql_{slot.name}_merge")
    n = offset if slot.name == "count" else offset + 8
    if slot.name == "sum_f64":
        code.emit(into, into)
        code.memory("f64.load", offset)
        code.emit(source)
        code.memory("f64.load", offset)
        code.emit("f64.add")
        code.memory("f64.store", offset)
    elif slot.name != "count":
        _merge_extreme(gen, slot, into, source, offset)
    code.emit(into, into)
    code.memory("i64.load", n)
    code.emit(source)
    code.memory("i64.load", n)
    code.emit("i64.add")
    code.memory("i64.store", n)


def _merge_extreme(gen, slot, into, source, offset):
    code, kind = gen.code, slot.name[4:]
    values = []
    for tally in (source, into):
        code.emit(tally)
        code.memory(f"{kind}.load", offset)
        values.append(code.local(kind))
        code.put(values[-1])
    new, old = values
    code.emit(into)
    code.memory("i64.load", offset + 8)
    code.emit("i64.eqz", gen.less(kind, new, old) if slot.name[:3] == "min" else gen.less(kind, old, new), "i32.or", source)
    code.memory("i64.load", offset + 8)
    code.emit("i64.eqz", "i32.eqz", "i32.and")
    with code.when():
        code.emit(into, gen.got(new))
        code.memory(f"{kind}.store", offset)


def read(gen, node, tally, offset, slot):
    """The Value of an aggregate node, from a tally (a local). gen: of the window."""
    code, result = gen.code, node.value[1]
    if result == "count":
        return gen.loaded("i64", tally, offset, None)
    if result == "distinct":
        code.emit(tally, i32(offset), "i32.add")
        gen.call("sql_distinct_result")
        return gen.kept("i64")
    if result in ("sum", "avg", "value"):
        code.emit(tally)
        code.memory("i64.load", offset + 8)
        n = code.set("i64")
        null = gen.got(code.set("i32", gen.got(n), "i64.eqz"))
        value = gen.loaded(slot.name[4:], tally, offset, null)
        if result == "avg":
            return gen.made("f64", value.push, gen.got(n), "f64.convert_i64_s", "f64.div", null=null)
        return gen.made("i32", value.push, "i32.wrap_i64", null=null) if node.kind == "bool" else value
    code.emit(tally, i32(offset), "i32.add")
    if isinstance(result, int):
        code.emit(i32(result))
    elif result == "percentile":
        code.emit(gen.value(node.args[0]).push)
    value = gen.called(f"sql_{slot.name}_result", "i64" if node.kind in ("bool", "time", "interval") else node.kind, partial=True)
    if node.kind != "bool":
        return value
    return gen.made("i32", value.push, "i32.wrap_i64", value.null, gen.eqz, "i32.and", null=value.null)      # a bool that is NULL is 0: conditions look no further
