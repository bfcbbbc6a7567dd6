"""Compiled queries, run as the gateway runs rules: what passes, what is put out, when windows close, what is late, what is remembered."""

import math
import random
import re

import pytest
from query_world import ENV, PLAIN, SECOND, World, select

from edge._watermark import Watermarks
from edge.columns.schema import Field, Schema
from edge.errors import RuleError
from edge.host.compile import Cache
from edge.host.module import Module
from edge.host.rule import Rule

LIMIT = {"parameters": {"limit": "f64"}, "given": {"limit": 30.0}}


def events(n, **more):
    return [{"device": f"d{i % 3}", "ts": i * SECOND, "temp": float(i * 7 % 50), "hum": None if i % 5 == 0 else i / 2, "n": i,
             "ok": (None, True, False)[i % 3], "site": f"s{i % 4}",
             **{k: f(i) for k, f in more.items()}} for i in range(n)]


def test_a_where_alone_is_a_filter():
    world = World("SELECT * FROM env WHERE temp > :limit AND hum IS NOT NULL", **LIMIT)
    rows = events(100)
    assert world.rule.is_filter and world.send(*rows) == [r for r in rows if r["temp"] > 30 and r["hum"] is not None]
    assert World("SELECT * FROM env").send(*rows) == rows


CONDITIONS = {    # by three-valued logic, in Python: None is NULL
    "temp > 20 AND hum < 30": lambda r: both(r["temp"] > 20, less(r["hum"], 30)),
    "temp > 20 OR hum < 30": lambda r: either(r["temp"] > 20, less(r["hum"], 30)),
    "NOT (temp > 20 OR hum < 30)": lambda r: no(either(r["temp"] > 20, less(r["hum"], 30))),
    "NOT (hum >= 30 AND ok)": lambda r: no(both(no(less(r["hum"], 30)), r["ok"])),
    "ok OR hum IS NULL": lambda r: either(r["ok"], r["hum"] is None),
    "NOT ok AND n <> 7": lambda r: both(no(r["ok"]), r["n"] != 7),
    "hum + temp * 2 > 50 - hum / 3": lambda r: None if r["hum"] is None else r["hum"] + r["temp"] * 2 > 50 - r["hum"] / 3,
    "n BETWEEN 10 AND 20 OR n >= 90": lambda r: 10 <= r["n"] <= 20 or r["n"] >= 90,
    "hum = hum": lambda r: None if r["hum"] is None else True,
    "ok IS NULL": lambda r: r["ok"] is None,
    "abs(temp - 25) <= sqrt(hum)": lambda r: None if r["hum"] is None else abs(r["temp"] - 25) <= math.sqrt(r["hum"]),
}


def both(a, b):
    return False if a is False or b is False else None if a is None or b is None else True


def either(a, b):
    return no(both(no(a), no(b)))


def no(a):
    return None if a is None else not a


def less(a, b):
    return None if a is None else a < b


@pytest.mark.parametrize("where", CONDITIONS)
@pytest.mark.parametrize("by", ["vectors", "rows"])
def test_a_condition_is_three_valued_by_vectors_and_by_rows(where, by):
    text = f"SELECT * FROM env WHERE {where}" + (" AND site <> 'none'" if by == "rows" else "")
    world = World(text)
    for rows in (*map(events, (0, 1, 7, 8, 9, 64, 99)), events(50, hum=lambda i: i / 2, ok=lambda i: i % 2 == 0)):
        assert world.send(*rows) == [r for r in rows if CONDITIONS[where](r) is True]


def test_a_null_condition_lets_nothing_pass_however_it_came_about():
    nulls = ["n + 1 < 0 OR CAST(n % 0 AS BOOLEAN)", "CAST(n % 0 AS BOOLEAN)", "CAST(hum AS BOOLEAN)", "CAST(site AS BOOLEAN)", "nullif(ok, TRUE)",
             "CASE WHEN n > 1 THEN CAST(n % 0 AS BOOLEAN) END",
             "coalesce(CAST(n % 0 AS BOOLEAN), ok)", "greatest(CAST(n % 0 AS BOOLEAN), ok)", "LAG(ok) AND LAG(CAST(hum AS BOOLEAN))", "n % 0 < 5",
             "site LIKE NULL"]
    for where in nulls:
        rows = [{"device": "d", "ts": i, "n": i + 7, "hum": None, "ok": True if where.startswith("nullif") else None, "site": "?"} for i in range(9)]
        assert World(f"SELECT * FROM env WHERE {where}").send(*rows) == [], where
    text = "SELECT device, max(ok) AS m FROM env GROUP BY device, TUMBLE(ts, INTERVAL '1' SECOND) HAVING max(ok) OR first(CAST(n % 0 AS BOOLEAN)) OR min(CAST(hum AS BOOLEAN))"
    assert World(text).send({"device": "d", "ts": 0, "n": 3}, {"device": "d", "ts": 9 * SECOND}) == []


def test_nan_is_greater_than_all_numbers_and_equal_to_itself():
    rows = [{"temp": t} for t in (1.0, math.nan, 2.0, -math.inf, math.nan, math.inf, 0.0, 3.0, 4.0)]
    for tail in ("", " AND coalesce(n, 1) > 0"):
        def passing(condition, tail=tail):
            return [repr(r["temp"]) for r in World(f"SELECT * FROM env WHERE {condition}{tail}", schema=PLAIN).send(*rows)]
        assert passing("temp > 2") == ["nan", "nan", "inf", "3.0", "4.0"] and passing("temp = temp") == [repr(r["temp"]) for r in rows]
        assert passing("temp <= 2") == ["1.0", "2.0", "-inf", "0.0"] and passing("temp <> 2 AND 3 < temp") == ["nan", "nan", "inf", "4.0"]
        assert passing("temp < temp") == [] and passing("temp >= temp * 1 AND 4 <= temp") == ["nan", "nan", "inf", "4.0"]


VALUES = [
    ("1 + 2 * 3", 7), ("7 / 2", 3.5), ("7 % 4", 3), ("-7 % 4", -3), ("1 - 2 - 3", -4), ("2 * 1.5", 3.0), ("NULL + 1", None), ("1 / 0", math.inf),
    ("5 % 0", None), ("1 / 0.0 + 1 / -0.0 IS NOT DISTINCT FROM sqrt(-1)", True),
    ("9223372036854775807 + 1", None), ("-9223372036854775808", -(2**63)), ("'a' || 'b'", "ab"), ("'a' || NULL", None),
    ("concat('a', NULL, 'b')", "ab"),
    ("CASE WHEN 1 > 2 THEN 'a' WHEN NULL THEN 'b' ELSE 'c' END", "c"), ("CASE 2 WHEN 1 THEN 10 WHEN 2 THEN 20.5 END", 20.5),
    ("CASE WHEN FALSE THEN 1 END", None),
    ("coalesce(NULL, NULL, 3)", 3), ("nullif(1, 1)", None), ("nullif(1, 2)", 1), ("greatest(1, NULL, 3)", 3), ("least(2.5, 1)", 1.0),
    ("least('b', 'a')", "a"),
    ("1 IN (1, NULL)", True), ("2 IN (1, NULL)", None), ("2 NOT IN (1, 3)", True), ("1 BETWEEN NULL AND 0", False), ("NULL IS NULL", True),
    ("1 IS DISTINCT FROM NULL", True),
    ("NULL AND FALSE", False), ("NULL OR TRUE", True), ("NOT NULL", None), ("NULL IS NOT TRUE", True), ("TRUE > FALSE", True), ("abs(-3)", 3),
    ("round(2.5)", 3.0), ("round(-2.5)", -3.0),
    ("floor(-1.5)", -2.0), ("ceil(1.2)", 2.0), ("sign(-2)", -1), ("power(2, 10)", 1024.0), ("lower('ÄB')", "äb"), ("length('ünder')", 5),
    ("substring('hello', 2, 3)", "ell"),
    ("'abc' LIKE 'a%'", True), ("'a%' LIKE 'a!%' ESCAPE '!'", True), ("'abc' NOT LIKE '_b_'", False), ("CAST('12' AS BIGINT)", 12),
    ("CAST('x' AS DOUBLE)", None),
    ("CAST(2.5 AS BIGINT)", 2), ("CAST(1 AS VARCHAR)", "1"), ("CAST(TRUE AS BIGINT)", 1), ("CAST(0 AS BOOLEAN)", False), ("1::DOUBLE", 1.0),
    ("starts_with('abc', 'ab')", True),
    ("TIMESTAMP '1970-01-01 00:00:01' + INTERVAL '1' MINUTE", 61 * SECOND),
    ("CAST(TIMESTAMP '1970-01-01 00:01:00' - TIMESTAMP '1970-01-01' AS BIGINT)", 60 * SECOND),
    ("EXTRACT(HOUR FROM TIMESTAMP '2026-01-31 13:14:15.5')", 13), ("date_trunc('day', TIMESTAMP '1970-01-02 13:00:00')", 86400 * SECOND),
    ("'2' > '10'", True),
    ("TIMESTAMP '2026-01-31' > '2026-01-30 23:59:59'", True), ("INTERVAL '90' SECOND > INTERVAL '1' MINUTE", True),
    ("upper(substring('abc', 2)) || lower('X')", "BCx"),
]


@pytest.fixture(scope="module")
def values():
    return list(select(", ".join(f"{e} AS x{i}" for i, (e, _) in enumerate(VALUES[:40])), [{}])[0].values()) + list(
        select(", ".join(f"{e} AS x{i}" for i, (e, _) in enumerate(VALUES[40:])), [{}])[0].values())


@pytest.mark.parametrize("position", range(len(VALUES)), ids=[e for e, _ in VALUES])
def test_an_expression_has_its_value(position, values):
    found, wanted = values[position], VALUES[position][1]
    assert (found, type(found)) == (wanted, type(wanted))


def test_fields_are_put_out_as_they_are_and_with_their_roles():
    rows = events(20)
    world = World("SELECT *, temp * 1.8 + 32 AS fahrenheit FROM env WHERE ok IS NOT FALSE")
    assert world.send(*rows) == [{**r, "fahrenheit": r["temp"] * 1.8 + 32} for r in rows if r["ok"] is not False]
    assert (world.rule.output_schema.key, world.rule.output_schema.time) == ("device", "ts")
    world = World("SELECT site AS place, n FROM env")
    assert world.send(*rows) == [{"place": r["site"], "n": r["n"]} for r in rows] and world.rule.output_schema.key is None


def test_an_alias_stands_for_its_expression():
    assert select("temp * 2 AS double, double + 1 AS more", [{"temp": 2.0}]) == [{"double": 4.0, "more": 5.0}]


def test_a_stream_may_lack_an_optional_field():
    fewer = Schema("env", (Field("device", "str"), Field("n", "i64")), key="device")
    rows = [{"device": "a", "n": 1}, {"device": "b", "n": 2}]
    for where in ("site IS NULL AND hum IS NULL", "coalesce(lower(site), 'x') = 'x'"):
        assert World(f"SELECT n, hum, site FROM env WHERE {where}", optional=("hum", "site"),
                     bound=fewer).send(*rows) == [{"n": r["n"], "hum": None, "site": None} for r in rows]
    with pytest.raises(RuleError, match="no field 'site'"):
        World("SELECT site FROM env", bound=fewer)


def test_parameters_of_every_type():
    types = {"f": "f64", "i": "i64", "b": "bool", "s": "str", "d": "duration"}
    given = {"f": 1.5, "i": -3, "b": True, "s": "grün", "d": "90s"}
    found = select(":f AS f, :i AS i, :b AS b, :s AS s, CAST(:d AS BIGINT) AS d, :s || '!' AS t", [{}], parameters=types, given=given)
    assert found == [{"f": 1.5, "i": -3, "b": True, "s": "grün", "d": 90 * SECOND, "t": "grün!"}]


def test_a_parameter_without_default_is_required_and_a_default_holds():
    with pytest.raises(Exception, match="parameter limit is missing"):
        World("SELECT * FROM env WHERE temp > :limit", parameters={"limit": "f64"})


# --- windows


AGGREGATES = ("count(*) AS c, count(hum) AS ch, sum(temp) AS s, avg(hum) AS a, min(hum) AS lo, max(n) AS hi, sum(n) AS sn, avg(n) AS an, first(site) AS f, "
              "last(hum) AS l, stddev(temp) AS sd, count(DISTINCT site) AS d, percentile(temp, 0.5) AS p, min(site) AS ms, max(ok) AS mo, "
              "count(*) FILTER (WHERE ok) AS cf, sum(temp) FILTER (WHERE n < 5) AS sf")


def tally(rows):
    """What AGGREGATES gives for a window's rows, in the order they came."""
    def of(name):
        return [r[name] for r in rows if r[name] is not None]
    temps, hums, numbers = of("temp"), of("hum"), of("n")
    mean = sum(temps) / len(temps)
    ordered = sorted(temps)
    middle = (len(ordered) - 1) / 2
    few = [r["temp"] for r in rows if r["n"] < 5]
    return {"c": len(rows), "ch": len(hums), "s": sum(temps), "a": sum(hums) / len(hums) if hums else None, "lo": min(hums, default=None),
            "hi": max(numbers), "sn": sum(numbers),
            "an": sum(numbers) / len(numbers), "f": min(enumerate(rows), key=lambda e: (e[1]["ts"], e[0]))[1]["site"],
            "l": max(((r["ts"], i, r["hum"]) for i, r in enumerate(rows) if r["hum"] is not None), default=(0, 0, None))[2],
            "sd": math.sqrt(sum((t - mean) ** 2 for t in temps) / (len(temps) - 1)) if len(temps) > 1 else None, "d": len(set(of("site"))),
            "p": (ordered[math.floor(middle)] + ordered[math.ceil(middle)]) / 2, "ms": min(of("site")), "mo": max(of("ok"), default=None),
            "cf": of("ok").count(True),
            "sf": sum(few) if few else None}


def near(found, wanted):
    assert [list(r) for r in found] == [list(r) for r in wanted]
    for a, b in zip(found, wanted):
        assert all(x == pytest.approx(y, rel=1e-9) if isinstance(y, float) else x == y for x, y in zip(a.values(), b.values())), (a, b)


def closed(world, rows, windows_of):
    """Sends the rows, then events that close all windows. windows_of(ts) gives (start, end)s; returns found and wanted, sorted."""
    found = [r for at in range(0, len(rows), 37) for r in world.send(*rows[at : at + 37])]
    found += world.send(*({"device": d, "ts": 10**6 * SECOND} for d in ("d0", "d1", "d2")))
    wanted = {}
    for row in rows:
        for window in windows_of(row["ts"]):
            wanted.setdefault((row["device"], *window), []).append(row)
    return sorted(found, key=place), [{"device": d, "window_start": s, "window_end": e, **tally(of)} for (d, s, e), of in sorted(wanted.items())]


def place(row):
    return row["device"], row["window_start"]


def test_tumbling_windows_hold_what_the_model_says():
    world = World(f"SELECT device, window_start, window_end, {AGGREGATES} FROM env GROUP BY device, TUMBLE(ts, INTERVAL '20' SECOND)")
    near(*closed(world, events(200), lambda t: [(t // (20 * SECOND) * 20 * SECOND, t // (20 * SECOND) * 20 * SECOND + 20 * SECOND)]))
    assert (world.rule.output_schema.key, world.rule.output_schema.time) == ("device", "window_end") and not world.ignored


def test_hopping_windows_hold_what_the_model_says():
    world = World(f"SELECT device, window_start, window_end, {AGGREGATES} FROM env GROUP BY device, HOP(ts, :hop, INTERVAL '25' SECOND)",
                  parameters={"hop": "duration"}, given={"hop": "10s"})
    near(*closed(world, events(200), lambda t: [(s, s + 25 * SECOND) for k in range(3) if (s := (t // (10 * SECOND) - k) * 10 * SECOND) > t - 25 * SECOND]))


def test_sessions_end_a_gap_after_their_last_event_and_grow_together():
    world = World(f"SELECT device, window_start, window_end, {AGGREGATES} FROM env GROUP BY device, SESSION(ts, INTERVAL '5' SECOND)")
    times = [0, 2, 20, 24, 30, 40, 50, 10, 100]             # seconds; d0's come out of order, behind no watermark
    rows = [{**e, "device": "d0", "ts": t * SECOND} for e, t in zip(events(len(times)), times)]
    world.marks = Watermarks(10**6 * SECOND)                    # nothing closes
    assert world.send(*rows) == []
    world.marks = Watermarks()
    found = world.send({"device": "d0", "ts": 10**9 * SECOND})
    by_start = sorted(rows, key=lambda r: r["ts"])
    groups = [[by_start[0]]]
    for row in by_start[1:]:
        if row["ts"] < groups[-1][-1]["ts"] + 5 * SECOND:
            groups[-1].append(row)
        else:
            groups.append([row])
    near(found, [{"device": "d0", "window_start": g[0]["ts"], "window_end": g[-1]["ts"] + 5 * SECOND, **tally(g)} for g in groups])


def test_a_late_event_between_two_sessions_joins_them():
    world = World("SELECT device, window_start, window_end, count(*) AS c, min(n) AS lo, max(temp) AS hi, first(site) AS f, sum(n) AS s "
                  "FROM env GROUP BY device, SESSION(ts, INTERVAL '5' SECOND)")
    world.marks = Watermarks(10**6 * SECOND)                    # nothing closes
    world.send(*({"device": "d0", "ts": t * SECOND, "n": t, "temp": float(t), "site": f"s{t}"} for t in (10, 17, 30)))
    world.send({"device": "d0", "ts": 13 * SECOND, "n": 13, "temp": 13.0, "site": "s13"})
    world.marks = Watermarks(15 * SECOND)
    assert world.send({"device": "d0", "ts": 40 * SECOND, "n": 0}) == [
        {"device": "d0", "window_start": 10 * SECOND, "window_end": 22 * SECOND, "c": 3, "lo": 10, "hi": 17.0, "f": "s10", "s": 40}]
    assert world.send({"device": "d0", "ts": 12 * SECOND}) == [] and len(world.late) == 1


def test_an_event_behind_a_closed_window_is_late():
    world = World("SELECT device, window_end, count(*) AS c FROM env GROUP BY device, TUMBLE(ts, INTERVAL '10' SECOND)")
    world.send(*events(60))
    assert world.send({"device": "d0", "ts": 3 * SECOND, "temp": 1.0}) == [] and [r["ts"] for r in world.late] == [3 * SECOND]
    world.send({"device": None, "ts": 59 * SECOND})
    assert world.ignored == 1


def test_having_sees_aggregates_key_and_aliases():
    text = ("SELECT device, window_end, count(*) AS hits, upper(device) || '!' AS loud "
            "FROM env GROUP BY device, TUMBLE(ts, INTERVAL '10' SECOND) HAVING hits > 3 AND device <> 'd1'")
    found = World(text).send(*events(60))
    assert found and all(r["hits"] > 3 and r["device"] != "d1" and r["loud"] == r["device"].upper() + "!" for r in found)


def test_a_window_that_makes_room_leaves_the_rows_texts_alone():
    text = ("SELECT device, concat(upper(device), '-', upper(max(lower(site)))) AS x, count(*) AS c "
            "FROM env WHERE lower(site) <> 'none' GROUP BY device, TUMBLE(ts, INTERVAL '1' HOUR)")
    world = World(text, given={"max_windows": 1})
    found = world.send(*({"device": f"dev{i % 2}", "ts": SECOND, "site": f"PLACE{i}"} for i in range(6)))
    assert [r["x"] for r in found] == [f"DEV{i % 2}-PLACE{i}" for i in range(5)]


def test_an_empty_aggregate_is_null_and_count_is_0():
    text = ("SELECT device, sum(hum) AS s, avg(n) AS a, min(site) AS m, count(hum) AS c, percentile(hum, 0.9) AS p, last(ok) AS l "
            "FROM env GROUP BY device, TUMBLE(ts, INTERVAL '1' SECOND)")
    assert World(text).send({"device": "d0", "ts": 0}, {"device": "d0", "ts": 9 * SECOND})[0] == {"device": "d0", "s": None, "a": None, "m": None,
        "c": 0, "p": None, "l": None}


# --- memory


def test_lag_and_changed_look_at_the_event_before_of_the_same_key():
    world = World("SELECT device, LAG(temp) AS t, CHANGED(site) AS c, LAG(site) AS s, LAG(ok) AS o, ts - LAG(ts) > INTERVAL '3' SECOND AS gap "
                  "FROM env WHERE n <> 5")
    rows, last, wanted = events(40, ts=lambda i: i * i * SECOND // 10), {}, []
    for r in rows:
        before = last.get(r["device"], {})
        if r["n"] != 5:
            gap = None if not before else r["ts"] - before["ts"] > 3 * SECOND
            wanted.append({"device": r["device"], "t": before.get("temp"), "c": not before or before["site"] != r["site"], "s": before.get("site"),
                           "o": before.get("ok"), "gap": gap})
        last[r["device"]] = r
    assert world.send(*rows[:17]) + world.send(*rows[17:]) == wanted


def test_changed_filters_and_a_null_is_a_value_of_its_own():
    world = World("SELECT * FROM env WHERE CHANGED(temp)")
    temps = [1.0, 1.0, None, None, 2.0, math.nan, math.nan, 2.0, 2.0, None]
    assert [r["ts"] for r in world.send(*({"device": "d", "ts": i, "temp": t} for i, t in enumerate(temps)))] == [0, 2, 4, 5, 7, 9]
    assert world.send({"device": "e", "ts": 1, "temp": None}) and not world.send({"device": "d", "ts": 20, "temp": None})


def test_b_within_a_time_of_a():
    world = World("SELECT ts FROM env WHERE site = 'B' AND ts - LAG(ts) FILTER (WHERE site = 'A') <= INTERVAL '5' SECOND")
    sites = {0: "B", 1: "A", 3: "C", 4: "B", 6: "B", 7: "B", 9: "A", 10: "A", 14: "C", 15: "B", 16: "B"}
    found = world.send(*({"device": "d", "ts": t * SECOND, "site": s} for t, s in sites.items()), {"device": "e", "ts": 11 * SECOND, "site": "B"})
    assert [r["ts"] // SECOND for r in found] == [4, 6, 15]


def test_a_stream_without_a_key_has_one_memory_and_one_window():
    assert [r["d"] for r in World("SELECT n - LAG(n) AS d FROM env", schema=PLAIN).send({"n": 1}, {"n": 5}, {"n": 2})] == [None, 4, -3]
    world = World("SELECT window_start, sum(n) AS s FROM env GROUP BY SESSION(ts, INTERVAL '5' SECOND)",
                  schema=Schema("env", (Field("n", "i64"), Field("ts", "time")), time="ts"))
    assert world.send(*({"n": i, "ts": t * SECOND} for i, t in enumerate((1, 3, 20, 40)))) == [{"window_start": SECOND, "s": 1},
        {"window_start": 20 * SECOND, "s": 2}]


def test_memory_survives_a_restart():
    text, rows = "SELECT device, LAG(site) AS s, LAG(n) AS n FROM env", events(12)
    whole, first, second = World(text), World(text), World(text)
    wanted = whole.send(*rows)
    found = first.send(*rows[:5])
    second.rule.load_image(first.rule.image())
    assert found + second.send(*rows[5:]) == wanted


# --- any query


class Grammar:
    """Random expressions that are allowed, at most so deep."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def number(self, depth=3):
        n, t, c = (lambda: self.number(depth - 1)), (lambda: self.text(depth - 1)), (lambda: self.condition(depth - 1))
        return self._one(depth, ["temp", "hum", "n", "1", "2.5", "0", ":limit", "NULL"], lambda: f"({n()} {self.random.choice('+-*/%')} {n()})",
                         lambda: f"length({t()})",
                         lambda: f"{self.random.choice(['abs', 'round', 'floor', 'sqrt', 'exp', 'sign'])}({n()})",
                         lambda: f"CASE WHEN {c()} THEN {n()} WHEN {c()} THEN {n()} END",
                         lambda: f"{self.random.choice(['coalesce', 'greatest', 'least', 'nullif'])}({n()}, {n()})")

    def text(self, depth=3):
        t = lambda: self.text(depth - 1)
        return self._one(depth, ["site", "device", "'s1'", "''"], lambda: f"{self.random.choice(['lower', 'upper', 'trim'])}({t()})",
                         lambda: f"concat({t()}, {t()})",
                         lambda: f"({t()} || {t()})", lambda: f"substring({t()}, 2)", lambda: f"coalesce({t()}, {t()})")

    def condition(self, depth=3):
        n, t, c = (lambda: self.number(depth - 1)), (lambda: self.text(depth - 1)), (lambda: self.condition(depth - 1))
        return self._one(depth, ["ok", "hum IS NULL", "site LIKE 's%'", "n IN (1, 2, NULL)", "temp BETWEEN 3 AND n", "TRUE"],
                         lambda: f"{n()} {self.random.choice(['<', '<=', '=', '<>', '>', '>='])} {n()}",
                         lambda: f"({c()} AND {c()})", lambda: f"({c()} OR {c()})", lambda: f"NOT ({c()})", lambda: f"{t()} < {t()}",
                         lambda: f"({c()}) IS NOT TRUE")

    def _one(self, depth, leaves, *branches):
        return self.random.choice(branches)() if depth > 0 and self.random.random() < 0.8 else self.random.choice(leaves)


FORMS = ["SELECT * FROM env WHERE {c}", "SELECT device, {n} AS a, {t} AS b, {c} AS c FROM env WHERE {c}",
         "SELECT device, LAG({n}) AS a, CHANGED({t}) AS b, LAG({c}) AS c FROM env WHERE {c}",
         "SELECT device, sum({n}) AS a, max({t}) AS b, count(*) FILTER (WHERE {c}) AS c "
         "FROM env WHERE {c} GROUP BY device, HOP(ts, INTERVAL '5' SECOND, INTERVAL '9' SECOND)",
         "SELECT device, avg({n}) AS a, first({t}) AS b FROM env WHERE {c} GROUP BY device, SESSION(ts, INTERVAL '2' SECOND)",
         "SELECT device, min({n}) AS a, last({t}) AS b FROM env WHERE {c} GROUP BY device, TUMBLE(ts, INTERVAL '7' SECOND) HAVING max({n}) > 0 OR TRUE"]


@pytest.mark.parametrize("seed", range(24))
def test_any_query_that_is_allowed_runs_and_does_not_depend_on_how_batches_are_cut(seed):
    grammar = Grammar(seed)
    form = FORMS[seed % len(FORMS)]
    text = re.sub(r"\{(\w)\}", lambda m: {"n": grammar.number, "t": grammar.text, "c": grammar.condition}[m[1]](), form)
    rows = events(30)
    whole, cut = World(text, **LIMIT), World(text, **LIMIT)
    whole.marks, cut.marks = Watermarks(10**6 * SECOND), Watermarks(10**6 * SECOND)
    end = [{"device": f"d{i}", "ts": 2 * 10**6 * SECOND} for i in range(3)]
    found = [whole.send(*rows), cut.send(*rows[:13]) + cut.send(*rows[13:])]
    assert repr(found[0] + whole.send(*end)) == repr(found[1] + cut.send(*end)), text


def test_a_module_is_small_and_goes_the_gateways_way(tmp_path):
    world = World("SELECT * FROM env WHERE temp > :limit", **LIMIT)
    assert len(world.wasm) < 40_000 and b"sql_" not in world.wasm
    assert Rule("again", Module(world.wasm), {"limit": 1.0}, ENV, cache=Cache(tmp_path)).is_filter


@pytest.mark.parametrize("text, other", [
    ("SELECT device, window_start, window_end, count(*) AS c, sum(temp) AS s, last(site) AS l, percentile(hum, 0.5) AS p "
     "FROM env WHERE n > 1 GROUP BY device, HOP(ts, INTERVAL '4' SECOND, "
     "INTERVAL '9' SECOND)", ("n > 1", "n > 1 AND temp > -1")),
    ("SELECT device, window_start, window_end, count(*) AS c, sum(n) AS s FROM env GROUP BY device, SESSION(ts, INTERVAL '5' SECOND)", ("", "")),
    ("SELECT device, LAG(site) AS s, CHANGED(temp) AS t FROM env WHERE n > 0", ("n > 0", "n > -1")),
])
def test_a_new_version_that_keeps_the_same_takes_over(text, other):
    rows = events(40)
    whole, old, new = World(text), World(text), World(text.replace(*other) if other[0] else text)
    old.send(*rows[:20])
    whole.send(*rows[:20])
    new.rule.take_over(old.rule.saved(), old.rule.module.manifest.state)
    assert new.send(*rows[20:]) == whole.send(*rows[20:])
    stranger = World(text.replace("sum(temp)", "sum(hum)").replace("sum(n)", "sum(n + 1)").replace("LAG(site)", "LAG(lower(site))"))
    with pytest.raises(RuleError):
        stranger.rule.take_over(old.rule.saved(), old.rule.module.manifest.state)
