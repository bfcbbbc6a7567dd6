"""A shadow sees what the active rule sees, says how they differ, and changes nothing, whatever its module does."""

import random
from collections import Counter

import pytest
import rule_module as m
from pipeline_world import modules

from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.host.compile import Cache
from edge.host.rule import Rule
from edge.shadow import CHUNK, SAMPLES, TEXT_MAX, TRAPS_MAX, VALUES_MAX, WINDOW_CALLS, WINDOW_ROWS, Shadow, common, spelled

__all__ = ["modules"]

S2 = Schema("r", (Field("k", "str"), Field("v", "f64")), key="k")
LATE = Schema("r.late", S2.fields, key="k")


class Answer:
    """A rule's Result, made by hand."""

    def __init__(self, out=(), late=(), ignored=0, schema=S2):
        self._out, self._late, self.ignored = Batch.from_rows(schema, out), Batch.from_rows(LATE, late), ignored
        self.out_count, self.late_count = len(self._out), len(self._late)

    def out(self, batch):
        return self._out

    def late(self, batch):
        return self._late


class Scripted:
    """Stands in for a Rule: its answers are given one by one."""

    digest, memory_bytes, run_ns = "d" * 64, 0, 0

    def __init__(self):
        self.answer = None

    def process(self, batch):
        return self.answer


def row(v, k="a"):
    return {"k": k, "v": v}


class Pair:
    """A shadow, and what is told to both sides."""

    def __init__(self):
        self.rule = Scripted()
        self.shadow = Shadow(self.rule)
        self.batch = Batch.from_rows(S2, [row(1.0)], received_ns=5)

    def call(self, active, shadow):
        self.rule.answer = shadow
        self.shadow.observe(self.batch, active)
        return self.shadow.report()

    def outs(self, active, shadow):
        return self.call(Answer(active), Answer(shadow))

    def settle(self):
        for _ in range(WINDOW_CALLS):
            self.outs([], [])
        return self.shadow.report()


def test_equal_answers_are_the_same_in_any_order_and_a_few_calls_apart():
    pair = Pair()
    pair.outs([row(1.0), row(2.0)], [row(1.0), row(2.0)])
    pair.outs([row(1.0), row(2.0), row(2.0)], [row(2.0), row(1.0), row(2.0)])
    pair.outs([row(float("nan")), row(7.0)], [row(7.0)])
    assert pair.shadow.report()["waiting"] == {"active": 1, "shadow": 0}
    for _ in range(WINDOW_CALLS - 2):
        pair.outs([], [])
    report = pair.outs([], [row(float("nan"))])
    assert report["same"] == 7 and pair.settle()["only_active"] == pair.settle()["only_shadow"] == 0


def test_what_one_side_alone_says_is_counted_and_shown():
    pair = Pair()
    pair.outs([row(1.0)] * 3, [row(1.0), row(2.0)])
    pair.call(Answer(late=[row(5.0)]), Answer(ignored=2))
    report = pair.settle()
    assert (report["same"], report["only_active"], report["only_shadow"]) == (1, 3, 1)
    assert [(s["stream"], s["row"], s["times"], s["call"]) for s in report["samples"]["active"]] == [
        ("out", '{"k": "a", "v": 1.0}', 2, 1), ("late", '{"k": "a", "v": 5.0}', 1, 2)]
    assert report["samples"]["shadow"][0]["row"] == '{"k": "a", "v": 2.0}'
    assert report["late"] == {"active": 1, "shadow": 0} and report["ignored"] == {"active": 0, "shadow": 2}


def test_fields_are_compared_by_name():
    pair = Pair()
    other = Schema("r", (Field("v", "f64", "C"), Field("k", "str")), key="k")
    report = pair.call(Answer([row(1.0)]), Answer([row(1.0)], schema=other))
    assert report["same"] == 1
    more = Schema("r", (*S2.fields, Field("n", "i64")), key="k")
    pair.call(Answer([row(1.0)]), Answer([row(1.0)], schema=more))
    report = pair.settle()
    assert report["only_active"] == report["only_shadow"] == 1 and report["samples"]["shadow"][0]["row"] == '{"k": "a", "n": null, "v": 1.0}'


@pytest.mark.parametrize("seed", range(10))
def test_counts_are_those_of_a_comparison_of_everything_at_once(seed):
    rng, pair = random.Random(seed), Pair()
    sides = [Counter(), Counter()]
    for _ in range(WINDOW_CALLS - 1):
        base = [float(rng.randrange(12)) for _ in range(rng.choice([0, 1, 5, 2 * CHUNK + 3]))]
        given = [base, [v for v in base if rng.random() > 0.02] + [float(rng.randrange(12))] * rng.randrange(2)]
        if rng.random() < 0.3:
            rng.shuffle(given[1])
        for side, values in zip(sides, given):
            side.update(values)
        pair.outs(*[[row(v) for v in values] for values in given])
    report = pair.settle()
    assert report["same"] == (sides[0] & sides[1]).total(), f"seed {seed}"
    assert report["only_active"] == (sides[0] - sides[1]).total() and report["only_shadow"] == (sides[1] - sides[0]).total(), f"seed {seed}"


@pytest.mark.parametrize("gap", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK, 4 * CHUNK + 9])
def test_a_row_that_is_missing_in_thousands_is_found_from_both_ends(gap):
    rows = [row(float(i)) for i in range(4 * CHUNK + 10)]
    a, b = Batch.from_rows(S2, rows), Batch.from_rows(S2, rows[:gap] + rows[gap + 1:])
    start, stop = common(a, b)
    assert start + stop <= len(b) < start + stop + 2 * CHUNK
    left = Counter(spelled(r, {}) for r in a.rows()[start:len(a) - stop])
    left.subtract(spelled(r, {}) for r in b.rows()[start:len(b) - stop])
    assert +left == {spelled(rows[gap], {}): 1} and not -left


def test_everything_that_is_kept_is_bounded():
    pair = Pair()
    for i in range(6):
        pair.outs([row(float(1000 * i + j), "x" * 10 * TEXT_MAX) for j in range(900)], [])
    shadow = pair.shadow
    assert len(shadow._open) <= WINDOW_ROWS and shadow.different[0] == 5400 - len(shadow._open)
    assert all(len(key[1]) < 2 * TEXT_MAX for key in shadow._open)
    report = pair.outs([row(float(j)) for j in range(VALUES_MAX)], [row(-float(j)) for j in range(1, VALUES_MAX)])
    assert report["unexamined"] == {"active": VALUES_MAX, "shadow": VALUES_MAX - 1}, "not one by one: too many"
    report = pair.settle()
    assert len(report["samples"]["active"]) == SAMPLES and report["waiting"] == {"active": 0, "shadow": 0}


def test_long_rows_are_told_apart_by_all_of_them():
    long = "x" * 5 * TEXT_MAX
    pair = Pair()
    pair.outs([row(1.0, long + "a")], [row(1.0, long + "b")])
    assert pair.settle()["only_active"] == 1


def test_a_shadow_without_room_skips_and_says_so():
    pair = Pair()
    pair.shadow.observe(pair.batch, Answer([row(1.0)]), spare=False)
    report = pair.shadow.report()
    assert report["shed"] == {"calls": 1, "rows": 1} and report["calls"] == 0 and pair.settle()["only_active"] == 0


TRAPS_ABOVE_100 = """(local $v f64)
  (if (i32.eqz (i32.load (local.get $batch))) (then (return (i32.const 0))))
  (i32.store (i32.const 0x900) (i32.add (i32.load (i32.const 0x900)) (i32.const 1)))
  (local.set $v (f64.load (i32.load offset=4 (i32.load offset=48 (local.get $batch)))))
  (if (f64.gt (local.get $v) (f64.const 100)) (then unreachable))
  (i32.store (i32.const 0x410) (i32.load (i32.const 0x900)))
  (i32.store (i32.const 0x400) (i32.const 0x410))
  (i32.const 0x400)"""


def test_a_trap_begins_anew_and_the_third_one_stops_it(modules):
    rule = Rule("r", m.checked(m.module(process=TRAPS_ABOVE_100)), {}, m.STREAM, cache=Cache(modules))
    shadow = Shadow(rule)

    def selected(value):
        shadow.observe(m.batch(8, t=value), None)
        return shadow.report()

    for trap in range(1, TRAPS_MAX):
        assert selected(1.0)["traps"] == trap - 1 and selected(1.0)["stopped"] == ""
        assert selected(101.0)["traps"] == trap
    before = Counter(key[1] for key in shadow._open)
    assert selected(101.0)["traps"] == TRAPS_MAX and "trapped 3 times" in shadow.stopped
    calls = shadow.calls
    assert selected(1.0)["calls"] == calls and Counter(key[1] for key in shadow._open) == before
    assert sum(surplus for surplus, _ in shadow._open.values()) == -4, "1 row for the first call of an instance and 1 for the second, each time"
