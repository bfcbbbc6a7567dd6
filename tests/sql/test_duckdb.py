"""Compiled queries give what DuckDB gives on the same random rows: filters, projections, windows. A failure prints the seed; TIDEGATE_SQL_SEED takes it,
TIDEGATE_SQL_QUERIES asks for more queries."""

import os
import random

import pytest

pytest.importorskip("duckdb", reason="the oracle: pip install duckdb")
from duck import SECOND, STREAM, Duck, Generator, Pair, aggregate, fields, rows  # noqa: E402
from query_world import World  # noqa: E402
from values import same, ulps  # noqa: E402

from edge._watermark import Watermarks  # noqa: E402

SEED = int(os.environ.get("TIDEGATE_SQL_SEED", "1"))
QUERIES = int(os.environ.get("TIDEGATE_SQL_QUERIES", "8"))
SEEDS = range(SEED, SEED + QUERIES)
ROWS = 60



def compared(ours, theirs, what, tolerance=None):
    """Row for row, in order; tolerance: output -> ulps."""
    assert len(ours) == len(theirs), f"{what}: {len(ours)} rows, DuckDB {len(theirs)}"
    for mine, other in zip(ours, theirs, strict=True):
        for name, value in other.items():
            allowed = (tolerance or {}).get(name, 0)
            near = allowed and value is not None and mine[name] is not None and ulps(mine[name], value) <= allowed
            assert same(mine[name], value) or near, f"{what}: {name} is {mine[name]!r}, DuckDB {value!r}, in {other}"


def by_window(row):
    return row["device"], row["window_end"], row.get("window_start")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_projection_gives_duckdbs_values(seed):
    rng = random.Random(f"projection {seed}")
    events = rows(rng, ROWS)
    made = [Generator(rng, fields()).value(rng.choice(["f64", "i64", "str", "bool", "time"]), rng.randint(1, 3)) for _ in range(10)]
    duck = Duck(events)
    theirs = duck.ask("SELECT seq" + "".join(f", {e.duck} AS x{n}" for n, e in enumerate(made)) + " FROM env ORDER BY seq")
    ours = World("SELECT seq" + "".join(f", {e.ours} AS x{n}" for n, e in enumerate(made)) + " FROM env", schema=STREAM).send(*events)
    for n, e in enumerate(made):
        compared([{"x": r[f"x{n}"]} for r in ours], [{"x": r[f"x{n}"]} for r in theirs], f"seed {seed}: {e.ours} against {e.duck}")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_filter_selects_duckdbs_rows(seed):
    rng = random.Random(f"filter {seed}")
    events = rows(rng, ROWS)
    duck = Duck(events)
    for _ in range(3):
        where = Generator(rng, fields()).value("bool", rng.randint(1, 3))
        theirs = duck.ask(f"SELECT seq FROM env WHERE {where.duck} ORDER BY seq")
        ours = World(f"SELECT * FROM env WHERE {where.ours}", schema=STREAM).send(*events)
        assert [r["seq"] for r in ours] == [r["seq"] for r in theirs], f"seed {seed}: {where.ours} against {where.duck}"


def windows(rng):
    """GROUP BY's window, and DuckDB's FROM: env with start_ and end_ of each window that an event is in."""
    length, form = rng.choice([1, 5, 7, 20]), rng.choice(["tumble", "tumble", "hop", "session"])
    span = length * SECOND
    if form == "tumble":
        return f"TUMBLE(ts, INTERVAL '{length}' SECOND)", f"(SELECT *, ts - ts % {span} start_, ts - ts % {span} + {span} end_ FROM env)"
    if form == "hop":
        hop = rng.choice([h for h in (1, 2, 5) if h <= length]) * SECOND
        starts = f"SELECT *, unnest(range(ts - ts % {hop}, ts - {span}, -{hop})) start_ FROM env"
        return f"HOP(ts, INTERVAL '{hop // SECOND}' SECOND, INTERVAL '{length}' SECOND)", f"(SELECT *, start_ + {span} end_ FROM ({starts}))"
    by = "PARTITION BY device ORDER BY ts, seq"
    new = f"SELECT *, ts - lag(ts) OVER ({by}) >= {span} IS NOT FALSE new_ FROM env WHERE WHERE_"
    number = f"SELECT *, sum(new_::INT) OVER ({by}) session_ FROM ({new})"
    bounds = "min(ts) OVER (PARTITION BY device, session_) start_, max(ts) OVER (PARTITION BY device, session_)"
    return f"SESSION(ts, INTERVAL '{length}' SECOND)", f"(SELECT *, {bounds} + {span} end_ FROM ({number}) ORDER BY seq)"


def everything(world, *batches):
    """Rows of all windows: the batches, then a tick that forgets the keys."""
    world.marks = Watermarks(lateness_ns=10**15)
    out = [row for batch in batches for row in world.send(*batch)]
    assert not world.late
    return out + world.process(world.marks.tick(STREAM, 10**18))


@pytest.mark.parametrize("seed", SEEDS)
def test_windows_give_duckdbs_groups(seed):
    rng = random.Random(f"windows {seed}")
    events = rows(rng, ROWS, devices=("x", "y", "é", None))
    group, source = windows(rng)
    made = [aggregate(rng, ordered=not group.startswith("SESSION")) for _ in range(5)]
    leaves = {kind: [Pair(pair.ours, f"x{n}") for n, (k, pair, near) in enumerate(made) if k == kind and not near] for kind in ("f64", "i64", "str", "bool", "time")}
    window = Generator(rng, leaves | {"time": [*leaves["time"], Pair("window_end", "window_end")]})
    more = [window.value(rng.choice(["f64", "i64", "str", "bool"]), 2) for _ in range(2)]
    always = Pair("TRUE", "TRUE")
    having = window.value("bool", 2) if rng.random() < 0.5 else always
    where = Generator(rng, fields()).value("bool", 2) if rng.random() < 0.5 else always
    ours_text = "SELECT device, window_start, window_end" + "".join(f", {p.ours} AS x{n}" for n, p in enumerate([p for _, p, _ in made] + more)) + \
        f" FROM env WHERE {where.ours} GROUP BY device, {group} HAVING {having.ours}"
    groups = "SELECT device, start_ window_start, end_ window_end" + "".join(f", {p.duck} AS x{n}" for n, (_, p, _) in enumerate(made)) + \
        f" FROM {source.replace('WHERE_', where.duck)} WHERE device IS NOT NULL AND {where.duck} GROUP BY device, start_, end_"
    theirs_text = "SELECT *" + "".join(f", {p.duck} AS x{n}" for n, p in enumerate(more, len(made))) + f" FROM ({groups}) WHERE {having.duck}"
    cut = rng.randint(0, ROWS)
    ours = everything(World(ours_text, schema=STREAM), events[:cut], events[cut:])
    what = f"seed {seed}:\n{ours_text}\n{theirs_text}\n"
    compared(sorted(ours, key=by_window), sorted(Duck(events).ask(theirs_text), key=by_window), what, {f"x{n}": near for n, (_, _, near) in enumerate(made)})


@pytest.mark.parametrize("seed", SEEDS[:8])
def test_late_rows_are_in_no_window_and_in_the_late_output(seed):
    rng = random.Random(f"late {seed}")
    events = rows(rng, ROWS)
    world = World("SELECT device, window_end, count(*) AS n, sum(seq) AS s FROM env GROUP BY device, TUMBLE(ts, INTERVAL '5' SECOND)", schema=STREAM)
    ours, late = [], []
    for batch in (events[at : at + 7] for at in range(0, ROWS, 7)):
        ours += world.send(*batch)
        late += [row["seq"] for row in world.late]
    ours += world.process(world.marks.tick(STREAM, 10**18))
    theirs = Duck([e for e in events if e["seq"] not in late]).ask("SELECT device, ts - ts % 5000000000 + 5000000000 window_end, count(*) n, sum(seq)::BIGINT s FROM env GROUP BY 1, 2")
    assert late
    compared(sorted(ours, key=by_window), sorted(theirs, key=by_window), f"seed {seed}")


@pytest.mark.parametrize("seed", SEEDS)
def test_lag_and_changed_give_what_duckdbs_lag_gives(seed):
    rng = random.Random(f"lag {seed}")
    events = rows(rng, ROWS)
    of = [(kind, Generator(rng, fields()).value(kind, 1)) for kind in ("f64", "i64", "str", "bool", "time")]
    before = "".join(f", {e.duck} now{n}, lag({e.duck}) OVER w lag{n}, row_number() OVER w n" for n, (_, e) in enumerate(of))
    source = f"(SELECT *{before} FROM env WINDOW w AS (PARTITION BY device ORDER BY seq))"
    leaves = fields()
    for n, (kind, e) in enumerate(of):
        leaves[kind] = [*leaves[kind], Pair(f"LAG({e.ours})", f"lag{n}"), Pair(f"LAG({e.ours})", f"lag{n}")]
        leaves["bool"] = [*leaves["bool"], Pair(f"CHANGED({e.ours})", f"(now{n} IS DISTINCT FROM lag{n} OR n = 1)")]
    made = [Generator(rng, leaves).value(kind, 1) for kind in ("f64", "i64", "str", "bool", "time", "bool")]
    where = Generator(rng, leaves).value("bool", 1)
    ours = World("SELECT seq" + "".join(f", {e.ours} AS x{n}" for n, e in enumerate(made)) + f" FROM env WHERE {where.ours}", schema=STREAM)
    theirs = Duck(events).ask("SELECT seq" + "".join(f", {e.duck} AS x{n}" for n, e in enumerate(made)) + f" FROM {source} WHERE {where.duck} ORDER BY seq")
    compared(ours.send(*events[:20]) + ours.send(*events[20:]), theirs, f"seed {seed}: {[e.ours for e in made]} WHERE {where.ours}")


@pytest.mark.parametrize("expression", ["exp(a / 10)", "ln(abs(a))", "log10(abs(i))", "log2(abs(b))", "power(abs(a), b / 20)", "power(i, 2)"])
def test_transcendental_functions_are_within_two_ulps(expression):
    rng = random.Random(SEED)
    events = rows(rng, 200)
    ours = World(f"SELECT seq, {expression} AS x FROM env", schema=STREAM).send(*events)
    compared(ours, Duck(events).ask(f"SELECT seq, {expression.replace('abs(i)', 'TRY(abs(i))')} AS x FROM env"), expression, {"x": 2})


@pytest.mark.parametrize("seed", SEEDS[:1])
def test_a_parameter_is_worth_its_value(seed):
    rng = random.Random(f"parameter {seed}")
    events = rows(rng, ROWS)
    values = {"x": round(rng.uniform(-20, 20), 2), "k": rng.randint(-20, 20), "word": rng.choice(["a", "é", "", "日本"]), "flag": rng.random() < 0.5}
    spelt = [("a > :x", f"a > {values['x']}::DOUBLE"), ("i % 7 <= :k", f"i % 7 <= {values['k']}"), ("s >= :word", f"s >= '{values['word']}'"), ("p = :flag", f"p = {values['flag']}"),
             ("concat(s, :word) LIKE '%a%' OR j < :k", f"concat(s, '{values['word']}') LIKE '%a%' OR j < {values['k']}")]
    for ours, theirs in spelt:
        world = World(f"SELECT * FROM env WHERE {ours}", schema=STREAM, parameters={"x": "f64", "k": "i64", "word": "str", "flag": "bool"}, given=values)
        assert [r["seq"] for r in world.send(*events)] == [r["seq"] for r in Duck(events).ask(f"SELECT seq FROM env WHERE {theirs} ORDER BY seq")], (seed, ours, values)


def test_a_rule_with_as_many_windows_as_it_may_have_does_not_run_out_of_memory():
    world = World("SELECT device, window_end, count(*) AS n, percentile(a, 0.5) AS p, count(DISTINCT s) AS d FROM env GROUP BY device, TUMBLE(ts, INTERVAL '1' HOUR)", schema=STREAM)
    out = []
    for start in range(0, 6000, 500):
        out += world.send(*({"device": f"d{k}", "ts": 1, "seq": k, "a": float(k), "s": "x"} for k in range(start, start + 500)))
    assert 0 < len(out) < 6000 and world.rule.memory_bytes <= 8 << 20
    out += world.process(world.marks.tick(STREAM, 10**18))
    assert sorted(row["device"] for row in out) == sorted(f"d{k}" for k in range(6000)) and all(row["n"] == row["d"] == 1 for row in out)
