"""The percentile of rules/sql: exact while every value fits, and a bounded error in rank beyond, whatever the distribution and the order."""

import bisect
import math
import os
import random

import pytest
from sql_library import Library

SEED = int(os.environ.get("TIDEGATE_SQL_SEED", "1"))
SUMMARY = 119
QUANTILES = [0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1]


@pytest.fixture(scope="module")
def library():
    return Library()


def exact(values, p):
    """percentile_cont of a sorted list."""
    at = p * (len(values) - 1)
    low = math.floor(at)
    return values[low] * (1 - (at - low)) + values[low + 1] * (at - low) if at > low else values[low]


def fill(library, values):
    slot = library.slot("percentile")
    for v in values:
        library.call("sql_percentile_add", slot, v)
    return slot


def result(library, slot, p):
    return library.call("sql_percentile_result", slot, float(p), out="f64")


def rank_error(values, estimate, p):
    """How far the estimate's rank is from p (n - 1), as a share of n; equal values share their ranks."""
    low, high = bisect.bisect_left(values, estimate), bisect.bisect_right(values, estimate)
    at = p * (len(values) - 1)
    return max(0.0, low - 1 - at, at - high) / len(values)


BOUND = 0.02                 # of the rows, as docs/rules/sql-semantics.md states


def adversaries(rng, n):
    tiny = [2.0 ** rng.uniform(-1000, 1000) for _ in range(n)]
    zigzag = [i if i % 2 else n - i for i in range(n)]
    return {
        "uniform": [rng.random() for _ in range(n)], "normal": [rng.gauss(1013, 5) for _ in range(n)], "exponential": [rng.expovariate(1) for _ in range(n)],
        "pareto": [rng.paretovariate(0.5) for _ in range(n)], "rising": list(range(n)), "falling": list(range(n, 0, -1)), "zigzag": zigzag,
        "inwards": [i // 2 if i % 2 else n - i // 2 for i in range(n)], "outwards": [n / 2 + (i if i % 2 else -i) for i in range(n)],
        "two places": [rng.gauss(0, 0.01) + (1000 if rng.random() < 0.5 else 0) for _ in range(n)], "one outlier": [1.0] * (n - 1) + [1e9],
        "few values": [float(rng.randrange(5)) for _ in range(n)], "all magnitudes": tiny, "all magnitudes, rising": sorted(tiny), "signs": [rng.choice([-1, 1]) * v for v in tiny],
        "steps": [float(i // 100 % 7 * 100 + rng.random()) for i in range(n)], "a drift after a calm": [5.0] * (n // 2) + [5.0 + i for i in range(n // 2)],
        "blocks falling": [float(n - i // 300 * 300 + i % 300) for i in range(n)], "growing swing": [math.sin(i / 7) * i for i in range(n)],
    }


N = int(os.environ.get("TIDEGATE_SQL_PERCENTILE_N", "6000"))
NAMES = list(adversaries(random.Random(0), 4))


@pytest.mark.parametrize("name", NAMES)
def test_the_rank_error_of_a_percentile_is_bounded(library, name):
    values = [float(v) for v in adversaries(random.Random(SEED), N)[name]]
    slot, ordered = fill(library, values), sorted(values)
    wrong = {p: rank_error(ordered, result(library, slot, p), p) for p in QUANTILES}
    assert all(error <= BOUND for error in wrong.values()), (name, SEED, wrong)
    assert result(library, slot, 0) == ordered[0] and result(library, slot, 1) == ordered[-1]


@pytest.mark.parametrize("n", [1, 2, 3, 10, SUMMARY])
def test_a_percentile_is_exact_up_to_119_values(library, n):
    rng = random.Random(SEED + n)
    for _ in range(5):
        values = [rng.choice([0.0, -1.5, 7.0, rng.uniform(-9, 9)]) for _ in range(n)]
        slot = fill(library, values)
        assert [result(library, slot, p) for p in QUANTILES] == pytest.approx([exact(sorted(values), p) for p in QUANTILES], rel=1e-15, abs=1e-15)


def test_a_percentile_outside_0_to_1_or_of_nothing_is_null(library):
    slot = library.slot("percentile")
    assert result(library, slot, 0.5) is None
    library.call("sql_percentile_add", slot, 1.0)
    assert all(result(library, slot, p) is None for p in (-0.1, 1.1, math.nan))


def test_merged_summaries_keep_the_bound(library):
    rng = random.Random(SEED)
    values = [rng.lognormvariate(0, 2) for _ in range(N)]
    for parts in (2, 5, 20):
        slots = [fill(library, values[i::parts]) for i in range(parts)]
        for other in slots[1:]:
            library.call("sql_percentile_merge", slots[0], other)
        ordered = sorted(values)
        wrong = {p: rank_error(ordered, result(library, slots[0], p), p) for p in QUANTILES}
        assert all(error <= BOUND for error in wrong.values()), (parts, SEED, wrong)


def test_a_merge_of_small_sessions_is_exact(library):
    a, b = [1.0, 5.0, 9.0], [2.0, 5.0, 100.0, -3.0]
    into = fill(library, a)
    library.call("sql_percentile_merge", into, fill(library, b))
    assert [result(library, into, p) for p in QUANTILES] == pytest.approx([exact(sorted(a + b), p) for p in QUANTILES], rel=1e-15)
