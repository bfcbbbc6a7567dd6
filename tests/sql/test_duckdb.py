"""Compiled queries give what DuckDB gives on the same random rows: filters, projections, windows. A failure prints the seed; TIDEGATE_SQL_SEED takes it,
TIDEGATE_SQL_QUERIES asks for more queries."""

import os
import random

import pytest

pytest.importorskip("duckdb", reason="the oracle: pip install duckdb")
from oracle import STREAM, Duck, Generator, fields, rows  # noqa: E402
from query_world import World  # noqa: E402
from values import same, ulps  # noqa: E402

SEED = int(os.environ.get("TIDEGATE_SQL_SEED", "1"))
QUERIES = int(os.environ.get("TIDEGATE_SQL_QUERIES", "12"))
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
