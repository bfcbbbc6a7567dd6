"""The aggregates of rules/sql: what DuckDB gives where it has the same, and what the seam of saving and merging needs."""

import math
import os
import random

import pytest
from values import STR, random_value, same, ulps

duckdb = pytest.importorskip("duckdb", reason="the oracle: pip install duckdb")
from sql_library import Library  # noqa: E402

SEED = int(os.environ.get("TIDEGATE_SQL_SEED", "1"))


@pytest.fixture(scope="module")
def library():
    return Library()


def fill(library, name, rows, add=None):
    slot = library.slot(name)
    for row in rows:
        library.call(f"sql_{add or name}_add", slot, *row)
    return slot


def columns(rng, kind, n):
    return [random_value(kind, rng) for _ in range(n)]


def samples(kind):
    rng = random.Random(f"{SEED} {kind}")
    return [columns(rng, kind, n) for n in (0, 1, 2, 3, 10, 50) for _ in range(6)]


def ask(expression, kind, values):
    kind = {"i64": "bigint", "f64": "double", "str": "varchar"}[kind]
    try:
        return duckdb.execute(f"select {expression} from (select unnest(?::{kind}[]) v, unnest(?::bigint[]) t)", [values, list(range(len(values)))]).fetchone()[0]
    except duckdb.Error:
        return None


def test_a_sum_of_integers_is_exact_and_null_where_it_is_no_i64(library):
    for values in samples("i64"):
        total = sum(values)
        want = total if values and -(2**63) <= total < 2**63 else None
        assert library.call("sql_sum_i64_result", fill(library, "sum_i64", zip(values)), out="i64") == want
        assert ask("sum(v)", "i64", values) == (total if values else None)


def test_an_average_of_integers_is_within_one_ulp_of_duckdbs(library):
    for values in samples("i64"):
        got, want = library.call("sql_avg_i64_result", fill(library, "avg_i64", zip(values)), out="f64"), ask("avg(v)", "i64", values)
        assert got == want if got is None or want is None else ulps(got, want) <= 1, values


@pytest.mark.parametrize(("which", "function"), list(enumerate(["var_samp", "var_pop", "stddev_samp", "stddev_pop"])))
def test_variance_is_exactly_duckdbs(library, which, function):
    for values in samples("f64") + [[1e9 + 0.1 * i for i in range(100)]]:
        got = library.call("sql_variance_result", fill(library, "variance", zip(values)), which, out="f64")
        want = ask(f"{function}(v)", "f64", values)
        assert same(got, want), (function, values, got, want)


@pytest.mark.parametrize("kind", ["i64", "f64", "str"])
def test_first_and_last_go_by_time_then_by_arrival(library, kind):
    rng = random.Random(SEED)
    for values in samples(kind):
        rows = [(v, rng.randint(0, 5)) for v in values]
        for name, pick in (("first", min), ("last", lambda r, key: max(reversed(r), key=key))):
            want = pick(rows, key=lambda row: row[1])[0] if rows else None
            got = library.call(f"sql_{name}_{kind}_result", fill(library, f"{name}_{kind}", rows), out=kind)
            assert same(got, cut(want) if kind == "str" else want), (name, rows)


def cut(text, size=248):
    return text if text is None else text.encode()[:size].decode(errors="ignore")


def test_least_and_greatest_string_go_by_bytes_and_248_of_them(library):
    for values in samples("str"):
        for name, pick in (("min", min), ("max", max)):
            want = pick((cut(v) for v in values), key=str.encode) if values else None
            assert library.call(f"sql_{name}_str_result", fill(library, f"{name}_str", zip(values)), out="str") == want
            if all(len(v.encode()) <= 248 for v in values):
                assert ask(f"{name}(v)", "str", values) == want


def test_a_kept_string_is_cut_but_compared_whole(library):
    slot = library.slot("kept")
    assert library.call("sql_kept_get", slot, out="str") is None and not library.call("sql_kept_same", slot, "")
    for text in STR:
        library.call("sql_kept_set", slot, text)
        assert library.call("sql_kept_get", slot, out="str") == cut(text)
        assert library.call("sql_kept_same", slot, text) and not library.call("sql_kept_same", slot, text + "x")
    assert not library.call("sql_kept_same", slot, "z" * 299)


@pytest.mark.parametrize("kind", ["i64", "f64", "str"])
def test_count_distinct_is_exact_up_to_128(library, kind):
    rng = random.Random(SEED)
    for values in [*samples(kind), [{"i64": i, "f64": i / 3, "str": str(i)}[kind] for i in range(128)] * 2]:
        rng.shuffle(values)
        slot = fill(library, "distinct", zip(values), f"distinct_{kind}")
        assert library.call("sql_distinct_result", slot) == ask("count(distinct v)", kind, values)


@pytest.mark.parametrize("n", [129, 200, 500, 1000, 4000])
def test_count_distinct_beyond_128_is_within_10_percent(library, n):
    """Standard error 3.3 %: three of these."""
    off = []
    for kind, value in (("i64", lambda i: i), ("f64", lambda i: i * 0.25), ("str", lambda i: f"sensor-{i}")):
        slot = fill(library, "distinct", ((value(i),) for i in range(n)), f"distinct_{kind}")
        off.append(library.call("sql_distinct_result", slot) / n - 1)
    assert all(abs(o) <= 0.1 for o in off), off


def merged(library, name, parts, kind):
    slots = [fill(library, name, part, f"distinct_{kind}" if name == "distinct" else None) for part in parts]
    for other in slots[1:]:
        library.call(f"sql_{name}_merge", slots[0], other)
    return slots[0]


@pytest.mark.parametrize("name", ["sum_i64", "avg_i64", "first_f64", "last_f64", "first_i64", "last_i64", "first_str", "last_str", "min_str", "max_str"])
def test_merging_gives_the_bytes_of_adding_all(library, name):
    rng, kind = random.Random(SEED), name.split("_")[1]
    size = library.exports[f"sql_{name}_size"](library.store)
    for values in samples(kind):
        rows = [(v, i) if name.startswith(("first", "last")) else (v,) for i, v in enumerate(values)]
        at = sorted(rng.randint(0, len(rows)) for _ in range(2))
        whole, parts = fill(library, name, rows), merged(library, name, [rows[: at[0]], rows[at[0] : at[1]], rows[at[1] :]], kind)
        result = [library.call(f"sql_{name}_result", s, out={"avg": "f64"}.get(name[:3], kind)) for s in (whole, parts)]
        assert same(*result), (name, rows)
        assert "str" in name or library.bytes(whole, size) == library.bytes(parts, size)


def test_merged_distinct_and_variance(library):
    for n in (0, 5, 100, 128, 300, 1500):
        whole = library.call("sql_distinct_result", fill(library, "distinct", ((i,) for i in range(n)), "distinct_i64"))
        for step in (1, 2, 7):
            parts = [[(i,) for i in range(n) if i % 10 < step], [(i,) for i in range(n) if i % 10 >= step - 1]]
            assert library.call("sql_distinct_result", merged(library, "distinct", parts, "i64")) == whole
    rng = random.Random(SEED)
    values = [(rng.gauss(1000, 3),) for _ in range(500)]
    a, b = (library.call("sql_variance_result", s, 0, out="f64") for s in (fill(library, "variance", values), merged(library, "variance", [[], values[:200], values[200:]], "f64")))
    assert math.isclose(a, b, rel_tol=1e-12)


def test_every_slot_is_a_multiple_of_8_bytes_and_empty_gives_null(library):
    results = {"distinct": 0}
    for name in sorted(n for n in library.names if n.endswith("_size")):
        name = name[4:-5]
        assert library.exports[f"sql_{name}_size"](library.store) % 8 == 0
        if name in ("kept", "percentile", "variance", "distinct"):
            continue
        out = "f64" if name.startswith("avg") else name.split("_")[1]
        assert library.call(f"sql_{name}_result", library.slot(name), out=out) is None
    assert library.call("sql_distinct_result", library.slot("distinct")) == results["distinct"]
