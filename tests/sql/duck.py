"""Random typed queries, each in two spellings: ours, and DuckDB's with the stated differences written out (TRY where DuckDB gives an error, literals cast to
their kind, a time as BIGINT nanoseconds). DuckDB runs the second one over the same rows.
"""

from typing import NamedTuple

import duckdb
from values import random_value

from edge.columns.schema import Field, Schema

SECOND = 10**9
STREAM = Schema("env", (Field("device", "str"), Field("ts", "time"), Field("seq", "i64"), Field("a", "f64"), Field("b", "f64"), Field("i", "i64"), Field("j", "i64"),
                        Field("s", "str"), Field("t", "str"), Field("p", "bool"), Field("q", "bool"), Field("u", "time")), key="device", time="ts")
FIELDS = {"f64": "ab", "i64": "ij", "str": "st", "bool": "pq", "time": "u"}
DUCK = {"f64": "DOUBLE", "i64": "BIGINT", "str": "VARCHAR", "bool": "BOOLEAN", "time": "BIGINT"}
OURS = {"f64": "DOUBLE", "i64": "BIGINT", "str": "VARCHAR", "bool": "BOOLEAN"}
PATTERNS = ["%", "_", "a%", "%b", "%a%", "a_b", "__", "%_%", "日%", "%é%", "A%b"]
PARTS = ["year", "month", "day", "hour", "minute", "second", "dow", "doy"]


class Pair(NamedTuple):
    ours: str
    duck: str


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def number(value):
    """A float as both read it."""
    text = repr(value)
    return text if any(c in text for c in ".e") else text + ".0"


def both(template, *pairs):
    """The template with {0}, {1} ... as each side spells them."""
    return Pair(template.format(*(p.ours for p in pairs)), template.format(*(p.duck for p in pairs)))


def differing(ours, duck, *pairs):
    return Pair(ours.format(*(p.ours for p in pairs)), duck.format(*(p.duck for p in pairs)))


class Generator:
    """leaves: kind -> list of Pairs that stand for values: fields, or aggregates of a window."""

    def __init__(self, rng, leaves):
        self.rng, self.leaves = rng, leaves

    def value(self, kind, depth):
        if depth <= 0 or self.rng.random() < 0.15:
            return self.leaf(kind)
        return self._chosen(kind, depth - 1) if self.rng.random() < 0.25 else getattr(self, "_" + kind)(depth - 1)

    def leaf(self, kind):
        if self.leaves.get(kind) and self.rng.random() < 0.75 or kind == "time":
            return self.rng.choice(self.leaves[kind]) if self.leaves.get(kind) else Pair("TIMESTAMP '2024-01-02 03:04:05'", "1704164645000000000")
        return self.literal(kind)

    def literal(self, kind):
        if self.rng.random() < 0.06:
            return differing(f"CAST(NULL AS {OURS[kind]})", f"NULL::{DUCK[kind]}")
        value = random_value(kind, self.rng)
        value = value[:20] if kind == "str" else value
        if kind == "bool":
            return Pair(str(value).upper(), str(value).upper())
        if kind == "str":
            return Pair(quoted(value), quoted(value))
        if kind == "i64":
            return Pair(f"({value})", f"'{value}'::BIGINT")
        if value != value or value in (float("inf"), float("-inf")):
            return Pair(f"CAST('{value}' AS DOUBLE)", f"'{value}'::DOUBLE")
        return Pair(f"({number(value)})", f"'{value!r}'::DOUBLE")

    def values(self, kinds, depth):
        return [self.value(k, depth) for k in kinds]

    def _chosen(self, kind, depth):
        """What works for all kinds."""
        form = self.rng.randrange(5)
        if form == 0:
            conditions = [self.value("bool", depth) for _ in range(self.rng.randint(1, 3))]
            results = [self.value(kind, depth) for _ in range(len(conditions) + 1)]
            text = "(CASE" + "".join(f" WHEN {{{2 * n}}} THEN {{{2 * n + 1}}}" for n in range(len(conditions)))
            last = self.rng.random() < 0.7
            pairs = [p for pair in zip(conditions, results, strict=False) for p in pair]
            return both(text + (f" ELSE {{{2 * len(conditions)}}}" if last else "") + " END)", *pairs, *([results[-1]] if last else []))
        if form == 1:
            return both("(CASE {0} WHEN {1} THEN {2} WHEN {3} THEN {4} ELSE {5} END)", *self.values(("i64", "i64", kind, "i64", kind, kind), depth))
        if form == 2:
            return both("coalesce({0}, {1}, {2})", *self.values((kind, kind, kind), depth))
        if form == 3:
            return both("nullif({0}, {1})", *self.values((kind, kind), depth))
        return both(self.rng.choice(["greatest", "least"]) + "({0}, {1}, {2})", *self.values((kind, kind, kind), depth))

    def _f64(self, depth):
        rng, form = self.rng, self.rng.randrange(12)
        if form < 4:
            kinds = rng.choice([("f64", "f64"), ("f64", "i64"), ("i64", "f64")])
            return both(f"({{0}} {rng.choice('+-*/%')} {{1}})", *self.values(kinds, depth))
        if form == 4:
            return both("({0} / {1})", *self.values(("i64", "i64"), depth))
        if form < 8:
            return both(rng.choice(["abs", "floor", "ceil", "sqrt", "round", "trunc"]) + "({0})", self.value("f64", depth))
        if form == 8:
            digits = rng.randint(-4, 6)
            return both(f"round({{0}}, {digits})", self.value("f64", depth))
        if form == 9:
            return both("(-{0})", self.value("f64", depth))
        if form == 10:
            return both("CAST({0} AS DOUBLE)", self.value(rng.choice(["i64", "bool"]), depth))
        return differing("CAST({0} AS DOUBLE)", "TRY_CAST({0} AS DOUBLE)", self.leaf("str"))

    def _i64(self, depth):
        rng, form = self.rng, self.rng.randrange(13)
        if form == 12:
            return differing("CAST(({0} - {1}) AS BIGINT)", "TRY({0} - {1})", *self.values(("time", "time"), depth))
        if form < 4:
            return differing(f"({{0}} {(op := rng.choice('+-*%'))} {{1}})", f"TRY({{0}} {op} {{1}})", *self.values(("i64", "i64"), depth))
        if form == 4:
            return differing("abs({0})", "TRY(abs({0}))", self.value("i64", depth))
        if form == 5:
            return differing("(-{0})", "TRY(0::BIGINT - {0})", self.value("i64", depth))
        if form == 6:
            return differing("CAST({0} AS BIGINT)", "TRY_CAST({0} AS BIGINT)", self.value(rng.choice(["f64", "bool"]), depth))
        if form == 7:
            return differing("CAST({0} AS BIGINT)", "TRY_CAST({0} AS BIGINT)", self.leaf("str"))
        if form == 8:
            digits = rng.randint(-19, 2)
            return differing(f"round({{0}}, {digits})", f"TRY(round({{0}}, {digits}))", self.value("i64", depth))
        if form == 9:
            return both("length({0})", self.value("str", depth))
        if form == 10:
            part = rng.choice(PARTS)
            return differing(f"extract({part.upper()} FROM {{0}})", f"TRY(extract({part} FROM make_timestamp_ns({{0}})))", self.value("time", 0))
        return differing("sign({0})", "CAST(sign({0}) AS BIGINT)", self.value("f64", depth))

    def _str(self, depth):
        rng, form = self.rng, self.rng.randrange(11)
        if form == 10:
            return differing("CAST({0} AS VARCHAR)", "CAST(make_timestamp_ns({0}) AS VARCHAR)", self.leaf("time"))
        if form < 2:
            return both("({0} || {1})", *self.values(("str", "str"), depth))
        if form == 2:
            return both("concat({0}, {1}, {2})", *self.values(("str", "str", "str"), depth))
        if form < 5:
            return both(rng.choice(["lower", "upper", "trim", "ltrim", "rtrim"]) + "({0})", self.value("str", depth))
        if form == 5:
            start, n = rng.randint(-6, 6), rng.randint(-6, 6)
            return both(f"substring({{0}}, {start}, {n})", self.value("str", depth))
        if form == 6:
            return differing("substring({0}, {1})", "TRY(substring({0}, {1}))", *self.values(("str", "i64"), depth))
        if form == 7:
            return both("replace({0}, {1}, {2})", self.value("str", depth), *self.values(("str", "str"), 0))
        if form == 8:
            return both("CAST({0} AS VARCHAR)", self.value(rng.choice(["i64", "bool"]), depth))
        return differing("CAST({0} AS VARCHAR)", "(CASE WHEN isnan({0}) THEN 'nan' ELSE CAST({0} AS VARCHAR) END)", self.leaf("f64"))

    def _bool(self, depth):
        rng, form = self.rng, self.rng.randrange(18)
        kind = rng.choice(["f64", "f64", "i64", "i64", "str", "time", "bool"])
        if form < 4:
            kinds = rng.choice([("f64", "i64"), ("i64", "f64")]) if kind == "f64" and rng.random() < 0.3 else (kind, kind)
            return both(f"({{0}} {rng.choice(['=', '<>', '<', '<=', '>', '>='])} {{1}})", *self.values(kinds, depth))
        if form < 7:
            return both(f"({{0}} {rng.choice(['AND', 'OR'])} {{1}})", *self.values(("bool", "bool"), depth))
        if form == 7:
            return both("(NOT {0})", self.value("bool", depth))
        if form == 8:
            return both("({0} IS " + rng.choice(["NULL", "NOT NULL"]) + ")", self.value(kind, depth))
        if form == 9:
            negated = rng.choice(["", "NOT "])
            return both(f"({{0}} {negated}IN ({{1}}, {{2}}, {{3}}))", *self.values([kind] * 4, depth))
        if form == 10:
            return both(f"({{0}} {rng.choice(['', 'NOT '])}BETWEEN {{1}} AND {{2}})", *self.values([kind] * 3, depth))
        if form == 11:
            return both(f"({{0}} {rng.choice(['', 'NOT '])}LIKE {quoted(rng.choice(PATTERNS))})", self.value("str", depth))
        if form == 12:
            return both(f"({{0}} IS {rng.choice(['', 'NOT '])}{rng.choice(['TRUE', 'FALSE'])})", self.value("bool", depth))
        if form == 13:
            return both(rng.choice(["contains", "starts_with", "ends_with"]) + "({0}, {1})", *self.values(("str", "str"), depth))
        if form == 14:
            return both("CAST({0} AS BOOLEAN)", self.value(rng.choice(["f64", "i64"]), depth))
        if form == 15:
            return differing("CAST({0} AS BOOLEAN)", "TRY_CAST({0} AS BOOLEAN)", self.value("str", depth))
        if form == 16:
            op, seconds = rng.choice(["<", ">="]), rng.randint(-60, 60)
            return differing(f"(({{0}} - {{1}}) {op} INTERVAL '{seconds}' SECOND)", f"(TRY({{0}} - {{1}}) {op} {seconds * SECOND})", *self.values(("time", "time"), depth))
        return both(f"({{0}} IS {rng.choice(['', 'NOT '])}DISTINCT FROM {{1}})", *self.values((kind, kind), depth))

    def _time(self, depth):
        seconds = self.rng.randint(0, 100)
        sign = self.rng.choice("+-")
        if self.rng.random() < 0.7:
            return differing(f"({{0}} {sign} INTERVAL '{seconds}' SECOND)", f"TRY({{0}} {sign} {seconds * SECOND})", self.value("time", depth))
        part = self.rng.choice(PARTS[:6])
        return differing(f"date_trunc('{part}', {{0}})", f"TRY(epoch_ns(date_trunc('{part}', make_timestamp_ns({{0}}))))", self.leaf("time"))


def fields():
    """The leaves of a row."""
    return {kind: [Pair(name, name) for name in names] for kind, names in FIELDS.items()} | {"time": [Pair("u", "u"), Pair("ts", "ts")]}


def rows(rng, n, devices=("x", "y", "z")):
    """Events without long strings, which windows cut; each field null in a tenth; times in whole microseconds, because DuckDB's calendar has no finer ones; ts within a minute."""
    made = []
    for seq in range(n):
        row = {"device": rng.choice(devices), "ts": rng.randint(0, 60_000) * 1_000_000, "seq": seq}
        for kind, names in FIELDS.items():
            for name in names:
                value = random_value(kind, rng)
                if rng.random() >= 0.1 and not (kind == "str" and len(value) > 20):
                    row[name] = value // 1000 * 1000 if kind == "time" else value
        made.append(row)
    return made


class Duck:
    """DuckDB with the rows of the stream as table env, in order of arrival: ask() gives dicts."""

    def __init__(self, events):
        self.connection = duckdb.connect(config={"threads": 1})
        self.connection.execute("SET TimeZone = 'UTC'")
        columns = ", ".join(f"unnest(?::{DUCK[f.kind]}[]) {f.name}" for f in STREAM.fields)
        self.connection.execute(f"CREATE TABLE env AS SELECT {columns}", [[e.get(f.name) for e in events] for f in STREAM.fields])

    def ask(self, query):
        answer = self.connection.execute(query)
        names = [c[0] for c in answer.description]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def aggregate(rng, ordered=True, depth=1):
    """A random aggregate of a window: its kind, its Pair, and in how many ulps it may differ (1 where 0.0 and -0.0 may stand for each other, too).
    ordered: both sides add the rows in the same order, so that sums of doubles are equal."""
    row, form = Generator(rng, fields()), rng.choice([*range(9), 11] if not ordered else range(12))
    kind = rng.choice(["f64", "i64", "str", "bool", "time"])
    where = row.value("bool", depth) if rng.random() < 0.3 else None
    inner, real, whole = (row.value(k, depth) for k in (kind, "f64", "i64"))
    if form == 0:
        return "i64", filtered("count(*)", None, where), 0
    if form == 1:
        return "i64", filtered("count({0})", inner, where), 0
    if form == 2:
        return "i64", filtered("count(DISTINCT {0})", inner, where), 0
    if form in (3, 4):
        return kind, filtered(rng.choice(["min", "max"]) + "({0})", inner, where), int(kind == "f64")
    if form in (5, 6):
        name = rng.choice(["first", "last"])
        return kind, filtered(f"{name}({{0}})", inner, where, f"{name}({{0}} ORDER BY ts, seq)", "{0} IS NOT NULL"), 0
    if form == 7:
        return "i64", filtered("sum({0})", whole, where, "TRY_CAST((sum({0}){1}) AS BIGINT)"), 0
    if form == 8:
        return "f64", filtered("avg({0})", whole, where), 1
    if form == 9:
        return "f64", filtered(rng.choice(["sum", "avg"]) + "({0})", real, where), 0
    if form == 10:
        return "f64", filtered(rng.choice(["stddev_samp", "stddev_pop", "var_samp", "var_pop", "stddev", "variance"]) + "({0})", real, where), 0
    share = rng.choice([0, 0.25, 0.5, 0.9, 0.95, 1])
    return "f64", filtered(f"percentile({{0}}, {share})", real, where, f"quantile_cont({{0}}, {share})"), 1


def filtered(ours, argument, where, duck=None, also=None):
    """The aggregate with FILTER, which stands at {1} or at the end. duck: its spelling there; also: a condition that only DuckDB needs."""
    duck = duck or ours
    conditions = [c for c in (where and where.duck, also and also.format(argument.duck)) if c]
    condition = f" FILTER (WHERE {' AND '.join(conditions)})" if conditions else ""
    theirs = duck.format(argument.duck if argument else "", condition) + (condition if "{1}" not in duck else "")
    return Pair(ours.format(argument.ours if argument else "") + (f" FILTER (WHERE {where.ours})" if where else ""), theirs)
