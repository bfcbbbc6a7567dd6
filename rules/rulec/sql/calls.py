"""Calls: functions, aggregates, LAG and CHANGED, resolved by name and by the kinds of their arguments."""

import difflib
from dataclasses import dataclass

from sqlglot import exp

from rulec.sql import aggregates, functions
from rulec.sql.aggregates import AGGREGATES, Slot
from rulec.sql.nodes import WORDS, Node, converted, literal

ROW, WINDOW, ARGUMENT = "row", "window", "argument"      # where an expression stands: of one row; in SELECT or HAVING of a window; inside an aggregate
SEE = "see docs/rules/sql.md for what there is"
SPECIAL = ("coalesce", "nullif", "greatest", "least", "concat", "date_trunc", "lag", "changed")
ALIASES = {**functions.ALIASES, **aggregates.ALIASES, "ifnull": "coalesce", "nvl": "coalesce"}
_INSTEAD = {
    "if": "write CASE WHEN a THEN b ELSE c END", "iif": "write CASE WHEN a THEN b ELSE c END", "decode": "write CASE x WHEN a THEN b ELSE c END",
    "try_cast": "write CAST: it gives NULL where it cannot", "convert": "write CAST(x AS type)",
    "safe_cast": "write CAST: it gives NULL where it cannot",
    "position": "write contains(text, part)", "date_part": "write EXTRACT(HOUR FROM ts)", "now": "a rule has no clock: use the event time",
    "random": "a rule has no randomness: the same events give the same output",
    "rand": "a rule has no randomness: the same events give the same output",
    "lead": "a rule does not know the future: write LAG(x)", "row_number": "write count(*) in a window", "rank": "write max or min in a window",
    "any_value": "write first(x)", "mode": "write count(*) and a group of its own, or a C rule",
    "array_agg": "a field holds one value: write first(x), last(x) or count(*)",
    "string_agg": "a field holds one value: write first(x) or last(x)", "list": "a field holds one value: write first(x) or last(x)",
    "tumble": "a window stands in GROUP BY", "hop": "a window stands in GROUP BY", "session": "a window stands in GROUP BY",
    **{f"{w}_{end}": f"write window_{end}" for w in ("tumble", "hop", "session") for end in ("start", "end")},
    "tumble_rowtime": "write window_end", "reverse": "write a C rule", "regexp_matches": "write LIKE, starts_with or contains",
    "regexp_like": "write LIKE, starts_with or contains",
}


def call(binder, tree) -> Node:
    """Of an exp.Anonymous."""
    name = tree.name.lower()
    known = ALIASES.get(name, name)
    if known in AGGREGATES:
        return _aggregate(binder, tree, known, name, None)
    if known in SPECIAL:
        return globals()[f"_{known}"](binder, tree, known)
    if known in functions.FUNCTIONS and known.isidentifier() and known not in ("negative", "like"):
        return binder.apply(tree, known, [binder.bind(a, binder.place) for a in tree.expressions])
    names = [*AGGREGATES, *SPECIAL, *(f for f in functions.FUNCTIONS if f.isidentifier())]
    near = difflib.get_close_matches(name, names, 1)
    binder.source.refuse(tree, f"there is no function {name[:60]}; {_INSTEAD.get(name) or (f'did you mean {near[0]}?' if near else SEE)}")


@dataclass(frozen=True)
class Memory:
    """What is kept of a key's events: the argument's value at the last one, or at the last one where the condition held. kind: of the argument."""

    argument: Node
    where: Node | None

    @property
    def kind(self):
        return self.argument.kind


def filtered(binder, tree) -> Node:
    """aggregate(x) FILTER (WHERE condition), or LAG(x) FILTER."""
    inner, where = tree.this, tree.expression
    name = inner.name.lower() if isinstance(inner, exp.Anonymous) else ""
    if name == "lag" and isinstance(where, exp.Where):
        return _lag(binder, inner, name, where.this)
    if ALIASES.get(name, name) not in AGGREGATES or not isinstance(where, exp.Where):
        binder.source.refuse(tree, "FILTER (WHERE ...) stands behind an aggregate or LAG(x)")
    return _aggregate(binder, inner, ALIASES.get(name, name), name, where.this)


def _aggregate(binder, tree, name, written, where):
    if binder.place != WINDOW:
        key = f"{binder.schema.key}, " if binder.schema.key else ""
        why = "stands inside another aggregate" if binder.place == ARGUMENT else \
            "stands in WHERE, which sees single events: write it in HAVING" if binder.windowed else \
            f"needs a window: add GROUP BY {key}TUMBLE({binder.schema.time or 'time'}, INTERVAL '10' SECOND)"
        binder.source.refuse(tree, f"{written} {why}")
    args, more = list(tree.expressions), ()
    if len(args) == 1 and isinstance(args[0], exp.Distinct):
        if name != "count" or len(args[0].expressions) != 1 or args[0].args.get("on"):
            binder.source.refuse(tree, "DISTINCT is only for count(DISTINCT x), of one x")
        name, args = "count distinct", args[0].expressions
    if name == "percentile":
        args, more = _quantile(binder, tree, written, args)
    if len(args) != 1:
        binder.source.refuse(tree, f"{written} takes one argument" + (": count(*) or count(x)" if name == "count" else ""))
    argument = None
    if isinstance(args[0], exp.Star):
        found = AGGREGATES[name].get("*")
    else:
        argument = binder.bind(args[0], ARGUMENT)
        found, argument = _taking(name, argument)
    if found is None:
        takes = ", ".join(WORDS[k].split(" ")[0] for k in AGGREGATES[name] if k != "*")
        given = WORDS[argument.kind] if argument else "*"
        binder.source.refuse(tree, f"{written} does not take {given}, only {takes}; write CAST(x AS DOUBLE) or count(x)")
    slot = Slot(found.slot, argument, binder.condition(where, ARGUMENT, "FILTER") if where is not None else None)
    if slot not in binder.slots:
        binder.slots.append(slot)
    return Node("aggregate", found.gives, more, (binder.slots.index(slot), found.result))


def _taking(name, argument):
    """The aggregate for an argument, and the argument as it takes it."""
    for kind in (argument.kind, "f64"):
        found = AGGREGATES[name].get(kind)
        fitting = found and converted(argument, kind)
        if fitting is not None and found:
            return found, fitting
    return None, argument


def _quantile(binder, tree, written, args):
    if written == "median":
        return args, (literal("f64", 0.5),)
    if len(args) != 2:
        binder.source.refuse(tree, f"{written} takes a value and a share: percentile(x, 0.95)")
    share = converted(binder.bind(args[1], ARGUMENT), "f64")
    if share is None or share.op not in ("literal", "parameter") or share.op == "literal" and not (share.value is not None and 0 <= share.value <= 1):
        binder.source.refuse(args[1], f"the share of {written} is a number from 0 to 1, or a parameter of type f64")
    return args[:1], (share,)


def _memory(binder, tree, name, where=None):
    if binder.windowed:
        binder.source.refuse(tree, f"{name} remembers the event before, and a window has many: write first(x) and last(x), or a rule without a window")
    if binder.in_memory:
        binder.source.refuse(tree, f"{name} stands inside LAG or CHANGED, which remember one event: let a second rule read this one's output")
    args = tree.expressions
    if name == "lag" and len(args) == 2 and isinstance(args[1], exp.Literal) and args[1].this == "1":
        args = args[:1]
    if len(args) != 1:
        more = ": the value one event before; for a default write COALESCE(LAG(x), y)" if name == "lag" else ""
        binder.source.refuse(tree, f"{name} takes one argument{more}")
    binder.in_memory = True
    argument = binder.bind(args[0], binder.place)
    condition = None if where is None else binder.condition(where, binder.place, "FILTER")
    binder.in_memory = False
    if argument.kind == "null":
        binder.source.refuse(tree, f"{name} of NULL is always the same")
    memory = Memory(argument, condition)
    if memory not in binder.memories:
        binder.memories.append(memory)
    return argument.kind, binder.memories.index(memory)


def _lag(binder, tree, name, where=None):
    kind, position = _memory(binder, tree, name, where)
    return Node("previous", kind, (), position)


def _changed(binder, tree, name):
    return Node("changed", "bool", (), _memory(binder, tree, name)[1])


def _coalesce(binder, tree, name):
    args = [binder.bind(a, binder.place) for a in tree.expressions]
    if not args:
        binder.source.refuse(tree, f"{name} takes at least one value")
    kind = binder.one_kind(tree, args, name)
    return Node(name, kind, tuple(converted(a, kind) for a in args)) if kind != "null" else literal("null", None)


_greatest = _least = _coalesce


def _nullif(binder, tree, name):
    if len(tree.expressions) != 2:
        binder.source.refuse(tree, "nullif takes two values")
    a, b = (binder.bind(t, binder.place) for t in tree.expressions)
    return Node(name, a.kind, (a, b, binder.compare(tree, "=", a, b)))


def _concat(binder, tree, name):
    args = [converted(binder.bind(a, binder.place), "str") for a in tree.expressions]
    if not args or None in args:
        binder.source.refuse(tree, "concat takes texts; write CAST(x AS VARCHAR) for other values")
    return Node(name, "str", tuple(args))


def _date_trunc(binder, tree, name):
    args = tree.expressions
    if len(args) != 2 or not isinstance(args[0], exp.Literal) or not args[0].is_string:
        binder.source.refuse(tree, "date_trunc takes a part and a time: date_trunc('hour', ts)")
    return binder.part(tree, name, args[0].this, args[1])
