"""Each scalar function of rules/sql gives what DuckDB gives, on extremes and random values. DuckDB's errors are NULL, as TRY(...) makes them there."""

import os
import random
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from values import STR, random_value, same, ulps

duckdb = pytest.importorskip("duckdb", reason="the oracle: pip install duckdb")
from sql_library import Library  # noqa: E402

SEED = int(os.environ.get("TIDEGATE_SQL_SEED", "1"))
ROWS = int(os.environ.get("TIDEGATE_SQL_ROWS", "400"))
TYPES = {"i64": "bigint", "f64": "double", "str": "varchar", "bool": "boolean", "time": "bigint"}


@pytest.fixture(scope="module")
def library():
    return Library()


@pytest.fixture(scope="module")
def oracle():
    return duckdb.connect()


def ask(oracle, expression, rows, kinds):
    """The expression's value for each row, columns a, b, c; an error is None."""
    names = "abc"[: len(kinds)]
    columns = [[row[i] for row in rows] for i in range(len(kinds))]
    lists = ", ".join(f"unnest(?::{TYPES[k]}[]) {n}" for n, k in zip(names, kinds, strict=True))
    try:
        return [v for (v,) in oracle.execute(f"select {expression} from (select {lists})", columns).fetchall()]
    except duckdb.Error:
        if len(rows) == 1:
            return [None]
    half = len(rows) // 2
    return ask(oracle, expression, rows[:half], kinds) + ask(oracle, expression, rows[half:], kinds)


EXACT = [  # our function, its arguments, what it gives, DuckDB's expression
    ("i64_add", "i64 i64", "i64", "try(a + b)"), ("i64_sub", "i64 i64", "i64", "try(a - b)"), ("i64_mul", "i64 i64", "i64", "try(a * b)"),
    ("i64_div", "i64 i64", "i64", "try(a // b)"), ("i64_mod", "i64 i64", "i64", "try(a % b)"),
    ("i64_abs", "i64", "i64", "try(abs(a))"), ("i64_neg", "i64", "i64", "try(0 - a)"),
    ("f64_mod", "f64 f64", None, "a % b"), ("f64_round", "f64", None, "round(a)"), ("f64_to_i64", "f64", "i64", "try_cast(a as bigint)"),
    ("i64_to_str", "i64", "str", "a::varchar"), ("f64_to_str", "f64", "str", "if(isnan(a), 'nan', a::varchar)"), ("bool_to_str", "bool", "str", "a::varchar"),
    ("time_to_str", "time", "str", "make_timestamp_ns(a)::varchar"),
    ("str_length", "str", None, "length(a)"), ("str_lower", "str", "str", "lower(a)"), ("str_upper", "str", "str", "upper(a)"), ("str_concat", "str str", "str", "a || b"),
    ("str_trim", "str", "str", "trim(a)"), ("str_ltrim", "str", "str", "ltrim(a)"), ("str_rtrim", "str", "str", "rtrim(a)"), ("str_replace", "str str str", "str", "replace(a, b, c)"),
    ("str_contains", "str str", "bool?", "contains(a, b)"), ("str_starts_with", "str str", "bool?", "starts_with(a, b)"), ("str_ends_with", "str str", "bool?", "ends_with(a, b)"),
    ("str_equal", "str str", "bool?", "a = b"), ("str_substring", "str small", "str", "try(substring(a, b))"), ("str_substring_n", "str small small", "str", "try(substring(a, b, c))"),
    ("str_substring_n", "str i64 i64", "str", "try(substring(a, b, c))"), ("str_to_bool", "word", "bool", "try_cast(a as boolean)"),
    ("str_to_f64", "word", "f64", "try_cast(a as double)"), ("str_to_i64", "word", "i64", "try_cast(a as bigint)"),
]


def random_word(rng):
    """Text that is nearly a number; without what DuckDB alone reads or refuses: +-1, 1e2., more than 18 digits scaled down, exponents of thousands."""
    while True:
        word = random_pieces(rng)
        if not re.search(r"\+ *-|[eE][-+]?\d[\d_]*\.|\d{19}|[eE][-+]?[\d_]{4}", word):
            return word


def random_pieces(rng):
    pieces = ["1", "2", "5", "0", "9", "49", "123456789012345678", ".", "e", "-", "+", "e-3", "E2", " ", "_", "inf", "nan", "true", "F", "y"]
    return "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 6)))


def draw(kind, rng):
    if kind == "tiny":
        return rng.choice([5e-324, 1e-320, 2.2250738585072014e-308 * rng.random(), rng.random(), 1 + rng.random() * 1e-9])
    return rng.randint(-9, 9) if kind == "small" else random_word(rng) if kind == "word" else random_value(kind, rng)


def cases(kinds, label):
    rng = random.Random(f"{SEED} {label}")
    return [tuple(draw(k, rng) for k in kinds) for _ in range(ROWS)]


def check(library, oracle, name, kinds, out, expression, equal):
    rows = cases(kinds, name)
    want = ask(oracle, expression, rows, [{"small": "i64", "word": "str", "tiny": "f64"}.get(k, k) for k in kinds])
    got = [library.call(f"sql_{name}", *row, out=None if out == "bool?" else out) for row in rows]
    if out == "bool?":
        got = [bool(g) for g in got]
    wrong = [(row, g, w) for row, g, w in zip(rows, got, want, strict=True) if not equal(g, w)]
    assert not wrong, f"seed {SEED}: {expression}: {len(wrong)} rows, first (arguments, ours, DuckDB's): {wrong[0]}"


@pytest.mark.parametrize(("name", "kinds", "out", "expression"), EXACT, ids=lambda v: v if isinstance(v, str) and "(" in v else "")
def test_a_function_gives_exactly_what_duckdb_gives(library, oracle, name, kinds, out, expression):
    check(library, oracle, name, kinds.split(), out, expression, same)


CLOSE = [("f64_exp", "f64", "exp(a)"), ("f64_ln", "f64", "ln(a)"), ("f64_log10", "f64", "log10(a)"), ("f64_log2", "f64", "log2(a)"),
         ("f64_ln", "tiny", "ln(a + 0)"), ("f64_log10", "tiny", "log10(a + 0)"), ("f64_log2", "tiny", "log2(a + 0)"), ("f64_pow", "f64 f64", "power(a, b)"),
         ("f64_round_to", "f64 small", "round(a, b::int)")]


@pytest.mark.parametrize(("name", "kinds", "expression"), CLOSE, ids=lambda v: v if "(" in v else "")
def test_a_transcendental_function_is_within_one_ulp_of_duckdbs_and_log10_within_two(library, oracle, name, kinds, expression):
    check(library, oracle, name, kinds.split(), None, expression, lambda a, b: ulps(a, b) <= {"f64_log10": 2, "f64_round_to": 0}.get(name, 1))


def test_round_of_integers_is_half_away_from_zero(library, oracle):
    rows = [(a, d) for a, _ in cases(["i64", "i64"], "round") for d in (0, 1, -1, -2, -17, -18)]
    for digits in {d for _, d in rows}:
        some = [row for row in rows if row[1] == digits]
        want = ask(oracle, f"try(round(a, {digits}))", some, ["i64", "i64"])
        assert [library.call("sql_i64_round_to", *row, out="i64") for row in some] == want, digits
    for a, digits, want in [(5 * 10**18, -19, None), (5 * 10**18 - 1, -19, 0), (-5 * 10**18, -19, None), (2**63 - 1, -20, 0), (2**63 - 1, -1000, 0)]:
        assert library.call("sql_i64_round_to", a, digits, out="i64") == want


def test_logarithms_of_zero_and_below_are_as_ieee_says(library, oracle):
    for x in (0.0, -0.0, -1.0):
        assert same(library.call("sql_f64_ln", x), ask(oracle, "ln(a)", [(x,)], ["f64"])[0])


PATTERNS = ["", "%", "_", "a%", "%b", "%a%b%", "a_b", "__", "%_", "_%", "日%", "%😀%", "!%", "a!_b", "!!", "a!%%", "%é", "%%", "_é_"]


@pytest.mark.parametrize("escape", ["", "!"])
def test_like_matches_as_in_duckdb(library, oracle, escape):
    rng = random.Random(SEED)
    rows = [(t, p) for t in STR + ["a!b", "!", "a!", "!%"] for p in PATTERNS + ["".join(rng.choice("ab%_é") for _ in range(rng.randrange(6))) for _ in range(30)]]
    want = ask(oracle, f"a like b escape '{escape}'", rows, ["str", "str"])
    got = [bool(library.call("sql_str_like", t, p, ord(escape) if escape else -1)) for t, p in rows]
    assert got == want


def test_a_like_pattern_that_ends_in_its_escape_matches_nothing(library):
    assert not any(library.call("sql_str_like", t, p, ord("!")) for t, p in [("a", "a!"), ("a!", "a!"), ("", "!"), ("x", "%!")])


def test_like_is_not_exponential(library):
    assert not library.call("sql_str_like", "a" * 3000, "%a" * 500 + "%b", -1)


def test_strings_compare_by_bytes(library, oracle):
    rows = cases(["str", "str"], "compare")
    want = ask(oracle, "case when a < b then -1 when a > b then 1 else 0 end", rows, ["str", "str"])
    assert [library.call("sql_str_compare", *row) for row in rows] == want


def test_case_mapping_is_duckdbs_for_every_character(library, oracle):
    text = "".join(chr(c) for c in range(1, 0x30000) if not 0xD800 <= c < 0xE000)
    for name in ("lower", "upper"):
        for part in (text[i : i + 50_000] for i in range(0, len(text), 50_000)):
            want = oracle.execute(f"select {name}(?)", [part]).fetchone()[0]
            got = library.call(f"sql_str_{name}", part, out="str")
            wrong = [(hex(ord(c)), g, w) for c, g, w in zip(part, got, want, strict=True) if g != w]
            assert not wrong, wrong[:5]
    assert unicodedata.category("\u1e9e") == "Lu" and library.call("sql_str_upper", "ß", out="str") == "\u1e9e"


PARTS = ["year", "month", "day", "hour", "minute", "second", "dow", "doy"]


@pytest.mark.parametrize("part", range(8))
def test_parts_of_a_time_are_utc(library, oracle, part):
    rows = [(a // 1000 * 1000,) for (a,) in cases(["time"], "extract")] + [(random.Random(i).randint(-(2**52), 2**52) * 1000,) for i in range(200)]   # DuckDB rounds to us
    want = ask(oracle, f"extract({PARTS[part]} from make_timestamp_ns(a))", rows, ["time"])
    assert [library.call("sql_time_extract", *row, part) for row in rows] == want
    if part < 6:
        want = ask(oracle, f"epoch_ns(date_trunc('{PARTS[part]}', make_timestamp_ns(a)))", rows, ["time"])
        assert [library.call("sql_time_trunc", *row, part) for row in rows] == want


def test_text_is_read_as_a_time_in_utc(library, oracle):
    texts = ["2024-01-02", "2024-01-02 03:04:05", "2024-01-02T03:04:05Z", "2024-01-02T03:04:05.123456789Z", "2024-01-02 03:04", "2024-02-29", "2023-02-29", "2000-02-29", "1900-02-29",
             "2024-13-01", "2024-00-01", "2024-01-00", "2024-01-32", "2024-01-02 24:00:00", "2024-01-02 23:59:60", "2024-01-02 25:00:00", "2024-01-02 03", "2024-01-02x", "", "x", "2024-01",
             "0001-01-01", "2262-04-12", "1969-12-31 23:59:59.999999999", "2024-1-2", "2024-01-02 03:04:05.1"]
    want = ask(oracle, "epoch_ns(try_cast(a as timestamp_ns))", [(t,) for t in texts], ["str"])
    assert {t: library.call("sql_str_to_time", t, out="i64") for t in texts} == dict(zip(texts, want, strict=True))
    for text, hours in [("2024-01-02T03:00:00+02", 2), ("2024-01-02T03:00:00+02:00", 2), ("2024-01-02T03:00:00-0500", -5)]:     # DuckDB drops the distance from UTC
        assert library.call("sql_str_to_time", text, out="i64") == 1704164400000000000 - hours * 3600 * 10**9
    for t in (0, -1, 1704164645123456789):
        assert library.call("sql_str_to_time", library.call("sql_time_to_str", t, out="str"), out="i64") == t


def test_doubles_print_as_the_shortest_text_that_reads_back(library):
    rng = random.Random(SEED)
    for _ in range(ROWS):
        x = random_value("f64", rng)
        text = library.call("sql_f64_to_str", x, out="str")
        assert text == repr(x)
        assert same(library.call("sql_str_to_f64", text, out="f64"), x)
        long = f"{x:.{rng.randrange(38)}e}"
        assert same(library.call("sql_str_to_f64", long, out="f64"), float(long))


def test_a_row_may_make_more_text_than_a_block_holds(library):
    made = "".join("x" * 1000 for _ in range(40))
    assert library.call("sql_str_upper", made, out="str") == made.upper()
    assert library.call("sql_str_replace", made, "x", "日本", out="str") == "日本" * 40_000


TEXT = st.text(alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("aA%_!0123456789+-.eE: TZé")), max_size=60)


@settings(max_examples=300, deadline=None)
@given(TEXT, TEXT, st.integers(-70, 70), st.integers(-70, 70))
def test_any_text_is_read_without_a_trap_and_gives_text(library, s, t, start, n):
    for kind, out in (("f64", "f64"), ("i64", "i64"), ("bool", "bool"), ("time", "i64")):
        library.call(f"sql_str_to_{kind}", s, out=out)
    assert library.call("sql_str_length", s) == len(s)
    assert library.call("sql_str_replace", s, t, "x", out="str") == (s.replace(t, "x") if t else s)
    assert bool(library.call("sql_str_contains", s, t)) == (t in s)
    assert library.call("sql_str_substring_n", s, start, n, out="str") == sliced(s, start, n)
    for name in ("lower", "upper", "trim"):
        assert len(library.call(f"sql_str_{name}", s, out="str")) <= len(s)
    pattern = "".join(".*" if c == "%" else "." if c == "_" else re.escape(c) for c in t)
    assert bool(library.call("sql_str_like", s, t, -1)) == bool(re.fullmatch(pattern, s, re.S))


def sliced(s, start, n):
    """SQL's substring of a text: n characters from place `start`, or the n before it."""
    at = start - 1 if start > 0 else len(s) + start if start < 0 else -1
    low, high = (at, at + n) if n >= 0 else (at + n, at)
    return s[max(low, 0) : max(high, 0)] if high > low else ""
