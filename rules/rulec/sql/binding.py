"""From sqlglot's expressions to bound ones: names, kinds and functions resolved, everything else refused with what to write instead."""

import difflib
import math
import re
from datetime import datetime, timezone

from sqlglot import exp

from rulec.sql import functions
from rulec.sql.calls import ARGUMENT, ROW, SEE, WINDOW, call, filtered
from rulec.sql.nodes import NULL, NUMBERS, WORDS, Node, common, converted, literal

UNITS_NS = {"NANOSECOND": 1, "MICROSECOND": 10**3, "MILLISECOND": 10**6, "SECOND": 10**9, "MINUTE": 60 * 10**9, "HOUR": 3600 * 10**9,
            "DAY": 86400 * 10**9, "WEEK": 7 * 86400 * 10**9}
SIZE_MAX = 5000                      # nodes of an expression, each name written out: bounds time and code
TYPES = {"DOUBLE": "f64", "BIGINT": "i64", "BOOLEAN": "bool", "VARCHAR": "str", "TEXT": "str", "TIMESTAMP": "time"}
EVENT_TIME = "$time"                 # the input; a stream whose contract names none calls it `time`
_INSTEAD = {
    "IntDiv": "write CAST(trunc(a / b) AS BIGINT)", "AtTimeZone": "times are UTC: add or take away an INTERVAL",
    "Collate": "texts compare by their bytes: leave it out",
    **dict.fromkeys(("Array", "Struct", "JSONExtract", "JSONExtractScalar", "Bracket", "Dot", "Map", "Tuple"),
                    "a field holds one value: give each part a field in the contract"),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitwiseLeftShift", "BitwiseRightShift"),
                    "write / and % with powers of 2, or a C rule"),
    "Parameter": "a parameter is written :name", "Star": "* stands alone in SELECT, or in count(*)",
    "Alias": "AS stands behind a whole expression of SELECT",
    "Window": "LAG(x) and CHANGED(x) work by key without OVER", "Distinct": "DISTINCT is only for count(DISTINCT x)",
    "Any": "write x IN (1, 2, 3)", "All": "write x NOT IN (1, 2, 3)",
}
_PARTS = {                           # of sqlglot's nodes, beside `this`, `expression` and `expressions`: what is looked at
    exp.Like: {"negate"}, exp.Case: {"ifs", "default"}, exp.Between: {"low", "high", "symmetric"}, exp.Cast: {"to"}, exp.Interval: {"unit"},
    exp.Column: {"table"},
    exp.Literal: {"is_string"}, exp.DPipe: {"safe"},
}
_BINARY = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%", exp.DPipe: "||"}
_COMPARE = {exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="}


class Binder:
    """Collects what a query reads: inputs, parameters [names], memories [calls.Memory], slots [aggregates.Slot].

    schema: edge.columns.schema.Schema; parameters: name -> type (of the manifest). windowed: whether there is a window. Raises RuleError through source.refuse.
    """

    def __init__(self, source, schema, parameters, windowed):
        self.source, self.schema, self.windowed = source, schema, windowed
        self.kinds = {f.name: f.kind for f in schema.fields}
        if schema.time is None:
            self.kinds.setdefault("time", "time")
        self._implicit_time = schema.time is None and "time" not in (f.name for f in schema.fields)
        self.parameter_types = parameters
        self.aliases = {}
        self.inputs, self.parameters, self.memories, self.slots = [], [], [], []
        self.place = ROW
        self._in_alias = False
        self.in_memory = False

    def bind(self, tree, place) -> Node:
        before, self.place = self.place, place
        bound = self._bind(tree)
        self.place = before
        return bound

    def condition(self, tree, place, clause) -> Node:
        found = self.bind(tree, place)
        bound = converted(found, "bool")
        if bound is None:
            self.source.refuse(tree, f"{clause} needs a condition, this is {WORDS[found.kind]}: compare it, as in x <> 0")
        return bound

    def _bind(self, tree) -> Node:
        bound = self._bound(tree)
        if bound.size > SIZE_MAX:
            self.source.refuse(tree, "the expression is too long: split it into rules")
        return bound

    def _bound(self, tree):
        kind = type(tree)
        unseen = {name for name, part in tree.args.items() if part} - {"this", "expression", "expressions"} - _PARTS.get(kind, set())
        if unseen:
            self.source.refuse(tree, f"{kind.__name__} with {', '.join(sorted(unseen))} is not supported; {SEE}")
        if kind in _BINARY:
            return self.apply(tree, _BINARY[kind], [self._bind(tree.this), self._bind(tree.expression)])
        if kind in _COMPARE:
            return self.compare(tree, _COMPARE[kind], self._bind(tree.this), self._bind(tree.expression))
        method = getattr(self, f"_{kind.__name__.lower()}", None)
        if method is None:
            self.source.refuse(tree, f"{kind.__name__} is not supported; {_INSTEAD.get(kind.__name__, SEE)}")
        return method(tree)

    def _anonymous(self, tree):
        return call(self, tree)

    def _filter(self, tree):
        return filtered(self, tree)

    # --- leaves

    def _paren(self, tree):
        return self._bind(tree.this)

    def _null(self, tree):
        return NULL

    def _boolean(self, tree):
        return literal("bool", bool(tree.this))

    def _literal(self, tree, sign=1):
        if tree.is_string:
            return literal("str", tree.this.encode())
        try:
            number = sign * (float(tree.this) if re.search(r"[.eE]", tree.this) else int(tree.this))
        except ValueError:
            self.source.refuse(tree, f"{tree.this[:40]} is no number: write one such as 10, 2.5 or 1e3")
        if isinstance(number, int) and not -(2**63) <= number < 2**63:
            self.source.refuse(tree, f"{tree.this[:40]} is no BIGINT: write it as DOUBLE, with .0 behind it")
        if not math.isfinite(number):
            self.source.refuse(tree, f"{tree.this[:40]} is too large for a DOUBLE")
        if number == 0 and sign < 0 and isinstance(number, float):
            return self.apply(tree, "negative", [literal("f64", 0.0)])   # -0.0 is no literal: nodes compare by value
        return literal("i64" if isinstance(number, int) else "f64", number)

    def _placeholder(self, tree):
        name = tree.name
        if name in ("", "?"):
            self.source.refuse(tree, "a parameter has a name: write :limit, and declare it in rule.toml")
        if name not in self.parameter_types:
            near = difflib.get_close_matches(name, self.parameter_types, 1)
            hint = f"did you mean :{near[0]}?" if near else f"declare it in rule.toml: [parameters.{name or 'limit'}] type = \"f64\" default = ..."
            self.source.refuse(tree, f"there is no parameter :{name}; {hint}")
        if name not in self.parameters:
            self.parameters.append(name)
        kind = {"duration": "interval"}.get(self.parameter_types[name], self.parameter_types[name])
        return Node("parameter", kind, (), self.parameters.index(name))

    def _interval(self, tree):
        return literal("interval", self.interval(tree))

    def interval(self, tree) -> int:
        """Of an INTERVAL, in nanoseconds."""
        unit, amount = (tree.args.get("unit").name if tree.args.get("unit") else "").upper().rstrip("S"), tree.this.name if tree.this else ""
        if unit not in UNITS_NS or not re.fullmatch(r"-?\d{1,18}(\.\d{1,9})?", amount):
            self.source.refuse(tree, f"this is no interval that a rule knows; write INTERVAL '10' SECOND, with one of {', '.join(UNITS_NS)} "
                                     "(a month has no length)")
        whole, _, fraction = amount.partition(".")
        value = int(whole + fraction) * UNITS_NS[unit] // 10 ** len(fraction)
        if not -(2**62) < value < 2**62:
            self.source.refuse(tree, "the interval is longer than 146 years")
        return value

    def _column(self, tree):
        name, qualifier = tree.name, tree.table
        if qualifier and qualifier != self.schema.stream or not isinstance(tree.this, exp.Identifier):
            self.source.refuse(tree, f"there is no stream {qualifier} here: write {name}" if qualifier else "* stands alone in SELECT, or in count(*)")
        if self.windowed and name in ("window_start", "window_end"):
            if self.place != WINDOW:
                self.source.refuse(tree, f"{name} is known when the window closes: it can stand in SELECT and HAVING, outside aggregates")
            return Node(name, "time")
        if name in self.kinds:
            if self.place == WINDOW:
                return self._group_field(tree, name)
            read = EVENT_TIME if name == "time" and self._implicit_time else name
            if read not in self.inputs:
                self.inputs.append(read)
            return Node("field", self.kinds[name], (), self.inputs.index(read))
        if name in self.aliases and not self._in_alias and self.place != ARGUMENT:
            self._in_alias = True
            bound = self._bind(self.aliases[name])
            self._in_alias = False
            return bound
        if name in self.aliases and self._in_alias:
            self.source.refuse(tree, f"{name} is an output, used in another output that is used elsewhere: write its expression here")
        near = difflib.get_close_matches(name, self.kinds, 1)
        what = f"did you mean {near[0]}?" if near else \
            "give it a window: GROUP BY ..., TUMBLE(ts, INTERVAL '10' SECOND)" if name.startswith("window_") else \
            f"it has {', '.join(f'{n} {k}' for n, k in self.kinds.items())}"
        self.source.refuse(tree, f"stream {self.schema.stream} has no field {name}; {what}")

    def _group_field(self, tree, name):
        if name == self.schema.key:
            return Node("key", "str")
        self.source.refuse(tree, f"{name} has many values in a window: write an aggregate such as last({name}), max({name}) or count({name})")

    # --- operators

    def apply(self, tree, name, args):
        found = functions.resolve(name, [a.kind for a in args])
        if found is None:
            self.source.refuse(tree, self._mismatch(name, args))
        return Node("call", found.gives, tuple(converted(a, k) for a, k in zip(args, found.takes)), found)

    @staticmethod
    def _mismatch(name, args):
        given = " and ".join(WORDS[a.kind] for a in args) or "nothing"
        forms = functions.FUNCTIONS.get(name, ())
        hint = "write CAST(x AS DOUBLE), BIGINT or VARCHAR" if any(a.kind in ("str", "bool", *NUMBERS) for a in args) else SEE
        takes = " or ".join(dict.fromkeys("(" + ", ".join(WORDS[k].split(" ")[0] for k in f.takes) + ")" for f in forms[:4]))
        return f"{name} does not take {given}{f', only {takes}' if takes else ''}; {hint}"

    def compare(self, tree, name, a, b):
        if "time" in (a.kind, b.kind):
            a, b = self._timed(tree, a), self._timed(tree, b)
        kind = common((a, b))
        if kind is None:
            self.source.refuse(tree, f"{WORDS[a.kind]} and {WORDS[b.kind]} do not compare; write CAST(x AS DOUBLE), BIGINT or VARCHAR")
        if kind == "null":
            return literal("bool", None)
        return Node("compare", "bool", (converted(a, kind), converted(b, kind)), name)

    def _timed(self, tree, node):
        """A text beside a time is a time."""
        return literal("time", self._time(tree, node.value)) if node.op == "literal" and node.kind == "str" and node.value is not None else node

    def _time(self, tree, text):
        match = re.fullmatch(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?)?Z?", text.decode())
        try:
            seconds = int(datetime.fromisoformat(f"{match[1]} {match[2] or '00:00:00'}").replace(tzinfo=timezone.utc).timestamp())
        except (TypeError, ValueError, OverflowError):
            self.source.refuse(tree, "this is no time; write TIMESTAMP '2026-01-31 12:00:00' (UTC)")
        return seconds * 10**9 + int((match[3] or "0").ljust(9, "0"))

    def _neg(self, tree):
        if isinstance(tree.this, exp.Literal) and not tree.this.is_string:
            return self._literal(tree.this, -1)
        return self.apply(tree, "negative", [self._bind(tree.this)])

    def _not(self, tree):
        return Node("not", "bool", (self.condition(tree.this, self.place, "NOT"),))

    def _and(self, tree):
        return Node("and", "bool", tuple(self.condition(t, self.place, "AND") for t in (tree.this, tree.expression)))

    def _or(self, tree):
        return Node("or", "bool", tuple(self.condition(t, self.place, "OR") for t in (tree.this, tree.expression)))

    def _is(self, tree):
        inner = self._bind(tree.this)
        if isinstance(tree.expression, exp.Null):
            return Node("is_null", "bool", (inner,))
        if not isinstance(tree.expression, exp.Boolean) or converted(inner, "bool") is None:
            self.source.refuse(tree, "IS is for NULL, TRUE and FALSE; for other values write =")
        inner = converted(inner, "bool")
        return Node("coalesce", "bool", (inner if tree.expression.this else Node("not", "bool", (inner,)), literal("bool", False)))

    def _nullsafeeq(self, tree):
        a, b = self._bind(tree.this), self._bind(tree.expression)
        same = Node("coalesce", "bool", (self.compare(tree, "=", a, b), literal("bool", False)))
        return Node("or", "bool", (same, Node("and", "bool", (Node("is_null", "bool", (a,)), Node("is_null", "bool", (b,))))))

    def _nullsafeneq(self, tree):
        return Node("not", "bool", (self._nullsafeeq(tree),))

    def _in(self, tree):
        if not tree.expressions:
            self.source.refuse(tree, "IN takes a list of values: x IN (1, 2, 3)")
        value, bound = self._bind(tree.this), None
        for option in tree.expressions:
            same = self.compare(option, "=", value, self._bind(option))
            bound = same if bound is None else Node("or", "bool", (bound, same))
        return bound

    def _between(self, tree):
        if tree.args.get("symmetric"):
            self.source.refuse(tree, "BETWEEN SYMMETRIC is not supported: write least(a, b) and greatest(a, b)")
        value, low, high = (self._bind(tree.args[name]) for name in ("this", "low", "high"))
        return Node("and", "bool", (self.compare(tree, ">=", value, low), self.compare(tree, "<=", value, high)))

    def _like(self, tree, escape=-1):
        plain = self.apply(tree, "like", [self._bind(tree.this), self._bind(tree.expression)])
        bound = Node("call", "bool", plain.args, functions.Function("like", ("str", "str"), "bool", "sql_str_like", extra=(escape,)))
        return Node("not", "bool", (bound,)) if tree.args.get("negate") else bound

    def _escape(self, tree):
        mark = tree.expression
        if not isinstance(tree.this, exp.Like) or not isinstance(mark, exp.Literal) or not mark.is_string or len(mark.this) != 1:
            self.source.refuse(tree, "ESCAPE takes one character: x LIKE '10!%' ESCAPE '!'")
        return self._like(tree.this, ord(mark.this))

    def _case(self, tree):
        args, chosen = [], []
        compared = self._bind(tree.this) if tree.this is not None else None
        for branch in tree.args["ifs"]:
            if compared is None:
                args.append(self.condition(branch.this, self.place, "WHEN"))
            else:
                args.append(self.compare(branch, "=", compared, self._bind(branch.this)))
            chosen.append(self._bind(branch.args["true"]))
        chosen.append(self._bind(tree.args["default"]) if tree.args.get("default") else NULL)
        kind = self.one_kind(tree, chosen, "CASE")
        chosen = [converted(c, kind) for c in chosen]
        return Node("case", kind, (*(a for pair in zip(args, chosen) for a in pair), chosen[-1]))

    def one_kind(self, tree, nodes, what):
        kind = common(nodes)
        if kind is None:
            kinds = " and ".join(dict.fromkeys(WORDS[n.kind] for n in nodes))
            self.source.refuse(tree, f"{what} has values of {kinds}; make them one type with CAST")
        return kind

    def _cast(self, tree):
        target = tree.args["to"]
        name = target.this.name if isinstance(target.this, exp.DataType.Type) else ""
        if name not in TYPES or target.expressions:
            instead = {"INT": "BIGINT", "SMALLINT": "BIGINT", "TINYINT": "BIGINT", "FLOAT": "DOUBLE", "DECIMAL": "DOUBLE"}.get(name)
            self.source.refuse(tree, f"there is no type {target.sql()[:40]} here; "
                               + (f"write {instead}" if instead else "use DOUBLE, BIGINT, BOOLEAN, VARCHAR or TIMESTAMP"))
        inner, kind = self._bind(tree.this), TYPES[name]
        if kind == "time" and inner.op == "literal" and inner.kind == "str":
            return literal("time", self._time(tree, inner.value))
        same = converted(inner, kind)
        return same if same is not None else self.apply(tree, f"cast {kind}", [inner])

    def _extract(self, tree):
        return self.part(tree, "extract", tree.this.name, tree.expression)

    def part(self, tree, function, part, of):
        part = part.lower()
        if f"{function} {part}" not in functions.FUNCTIONS:
            known = [n.split()[1] for n in functions.FUNCTIONS if n.startswith(f"{function} ")]
            self.source.refuse(tree, f"{function} knows no {part}; it knows {', '.join(known)}")
        return self.apply(tree, f"{function} {part}", [self._timed(tree, self._bind(of))])
