"""Each ready-made rule against its model, over generated batches: nulls, ticks, late events, few and many keys, limits, hostile values."""

import pytest
import rule_models as models
import wasmtime
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rule_harness import FOREVER, LEAST, Answer, Rows, Rule, same

S = 1_000_000_000
WORDS = ["a", "b", "ä", "key-4", "", "a longer key of some 40 bytes, to be sure"]
PLAIN = dict(temp=st.floats(-50, 50), n=st.integers(-9, 9), at=st.integers(-20 * S, 40 * S) | st.integers(0, 40).map(lambda s: s * S))
HOSTILE = dict(
    temp=st.floats(), n=st.integers(-(2**63), 2**63 - 1), at=st.integers(-(2**63), 2**63 - 1) | st.sampled_from([LEAST, FOREVER, 2**62, -(2**62)])
)


def row_of(world):
    return st.fixed_dictionaries(
        {"device": st.sampled_from(WORDS), "at": world["at"]},
        optional={"temp": world["temp"], "n": world["n"], "tag": st.sampled_from(WORDS), "on": st.booleans()},
    ).flatmap(lambda row: st.sampled_from([row] * 20 + [row | {"device": None}, row | {"at": None}]))


@st.composite
def histories(draw, world):
    """Batches and ticks whose watermarks, per key and merged, never go back, except that a key may be forgotten."""
    batches, marks, merged = [], {}, LEAST
    for _ in range(draw(st.integers(1, 5))):
        tick = draw(st.sampled_from([False, False, True]))
        rows = [] if tick else draw(st.lists(row_of(world), max_size=40))
        keys = {w: None for w in (r["device"] for r in rows) if w is not None}
        extra = draw(st.lists(st.sampled_from(WORDS), max_size=3, unique=True))
        for key in [*keys, *extra]:
            keys[key] = draw(st.sampled_from([marks.get(key, LEAST), max(marks.get(key, LEAST), draw(world["at"])), FOREVER]))
            marks[key] = keys[key] if keys[key] != FOREVER else LEAST
        merged = max(merged, draw(st.just(merged) | world["at"]))
        batches.append(Rows(rows, keys, merged, tick, received=draw(world["at"])))
    return batches


def cases():
    yield "threshold", models.Threshold, {"field": "temp", "value": 3.5}, {}
    for op in (">", ">=", "<", "<=", "==", "!="):
        yield "threshold", models.Threshold, {"field": "n", "value": 2.0, "op": op}, {}
    for op in (">", ">=", "<", "<="):
        yield "threshold", models.Threshold, {"field": "temp", "value": 2.0, "op": op, "hysteresis": 5.0, "max_keys": 3}, {}
    yield "deadband", models.Deadband, {"field": "temp", "change": 4.0}, {}
    yield "deadband", models.Deadband, {"field": "n", "change": 3.0, "every": 5 * S, "max_keys": 2}, {}
    yield "rate", models.Rate, {"field": "temp"}, {}
    yield "rate", models.Rate, {"field": "n", "limit": 0.5, "max_keys": 2}, {}
    yield "sample", models.Sample, {"nth": 3}, {}
    yield "sample", models.Sample, {"interval": 7 * S, "max_keys": 2}, {}
    yield "missing", models.Missing, {"after": 3 * S}, {}
    yield "missing", models.Missing, {"after": 2**62, "max_keys": 2}, {}
    for field in ("n", "tag", "on", "temp", "at"):
        yield "dedup", models.Dedup, {"id": field}, {}
    yield "dedup", models.Dedup, {"id": "n", "count": 3, "within": 4 * S}, {}
    yield "dedup", models.Dedup, {"id": "tag", "max_ids": 4, "max_keys": 3}, {}
    yield "dedup", models.Dedup, {"id": "n", "mode": "sequence", "count": 5}, {}
    every = ["count", "sum", "min", "max", "mean", "stddev", "first", "last"]
    yield "window", models.Window, {"length": 10 * S, "fields": ["temp"]}, {}
    yield "window", models.Window, {"length": 10 * S, "fields": ["temp", "n"], "functions": every}, {}
    yield "window", models.Window, {"length": 10 * S, "hop": 4 * S, "fields": ["n"], "functions": every, "decimals": 2}, {}
    yield "window", models.Window, {"length": 3 * S, "functions": ["count"], "max_keys": 2}, {}
    yield "window", models.Window, {"length": 2 * S, "fields": ["temp"], "max_windows": 4}, {}
    yield "window", models.Window, {"length": 4 * S, "hop": S, "functions": ["count"], "max_windows": 5, "max_keys": 3}, {}
    keep = ["temp * 1.8 + 32 as f", "n as number", "tag", "n - 0.5 as half", "on", "temp * -2"]
    columns = [("temp", 1.8, 32.0, "f"), ("n", None, 0, "number"), ("tag", None, 0, "tag"), ("n", 1.0, -0.5, "half"), ("on", None, 0, "on")]
    yield "project", models.Project, {"keep": keep}, {"columns": [*columns, ("temp", -2.0, 0.0, "temp")]}


CASES = [pytest.param(*c, id=f"{c[0]}-{i}") for i, c in enumerate(cases())]


def compare(name, model, params, more, history, key):
    rule = Rule(name, models.FIELDS, params, key, "at")
    oracle = model(**({"key": key} | params | more))
    for batch in history:
        got, want = rule.process(batch), oracle.process(batch)
        assert same(vars(got), vars(want)), (params, batch, got, want)


# A failure prints the blob that repeats it; shrinking whole histories would take minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
QUICK = settings(max_examples=20, deadline=None, print_blob=True, phases=PHASES, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(("name", "model", "params", "more"), CASES)
@QUICK
@given(history=histories(PLAIN), key=st.sampled_from(["device", "device", None]))
def test_rule_agrees_with_its_model(name, model, params, more, history, key):
    compare(name, model, params, more, history, key)


@pytest.mark.parametrize(("name", "model", "params", "more"), CASES)
@QUICK
@given(history=histories(HOSTILE), key=st.sampled_from(["device", None]))
def test_hostile_values_neither_trap_nor_mislead(name, model, params, more, history, key):
    compare(name, model, params, more, history, key)


@pytest.mark.parametrize(("name", "model", "params", "more"), CASES)
@settings(QUICK, max_examples=5)
@given(before=histories(PLAIN), after=histories(PLAIN))
def test_state_survives_snapshot_and_restore(name, model, params, more, before, after):
    going, restored = (Rule(name, models.FIELDS, params, "device", "at") for _ in range(2))
    for batch in before:
        going.process(batch)
    restored.restore(going.snapshot())
    for batch in after:
        assert same(vars(going.process(batch)), vars(restored.process(batch)))
    assert going.snapshot() == restored.snapshot()


@pytest.mark.parametrize(("name", "model", "params", "more"), CASES)
def test_nothing_in_nothing_out(name, model, params, more):
    rule = Rule(name, models.FIELDS, params, "device", "at")
    assert rule.process(Rows()) == Answer() == rule.process(Rows(watermarks={"never seen": 5}, tick=True))


@pytest.mark.parametrize(
    ("name", "params", "more"),
    [
        ("threshold", {"field": "temp", "value": 1.0, "hysteresis": 0.5}, {}),
        ("sample", {"nth": 7}, {}),
        ("dedup", {"id": "n", "within": 30 * S}, {}),
        ("rate", {"field": "temp"}, {}),
    ],
)
@settings(QUICK, max_examples=10)
@given(rows=st.lists(row_of(PLAIN), max_size=60), cut=st.integers(0, 60))
def test_where_batches_are_cut_does_not_matter(name, params, more, rows, cut):
    whole, parts = (Rule(name, models.FIELDS, params, "device", "at") for _ in range(2))
    want, head, tail = whole.process(Rows(rows)), parts.process(Rows(rows[:cut])), parts.process(Rows(rows[cut:]))
    assert want.selected == head.selected + [r + len(rows[:cut]) for r in tail.selected]
    assert same(want.rows, head.rows + tail.rows)
    assert want.ignored == head.ignored + tail.ignored


def test_many_keys_and_rows_in_one_batch():
    rows = [{"device": f"device-{i * 7 % 2000}", "at": i * S // 40, "temp": i / 7} for i in range(8000)]
    marks = {f"device-{i}": 100 * S for i in range(2000)}
    compare("window", models.Window, {"length": 20 * S, "fields": ["temp"], "max_keys": 1500}, {}, [Rows(rows, marks), Rows(rows, marks)], "device")


def test_memory_at_every_limit_stays_within_16_mib():
    rule = Rule("window", models.FIELDS, {"length": S, "fields": ["temp"]}, "device", "at")
    for batch in range(40):
        rule.process(Rows([{"device": f"{batch:04}-{i:04}-some-long-device-name", "at": (i % 3) * S, "temp": 1.0} for i in range(1000)]))
    assert rule.memory.data_len(rule.store) <= 16 << 20
    held = rule.memory.data_len(rule.store)
    for batch in range(20):
        rule.process(Rows([{"device": f"{batch:04}+{i:04}-some-long-device-name", "at": (i % 3) * S, "temp": 1.0} for i in range(1000)]))
    assert rule.memory.data_len(rule.store) == held


def test_a_full_memory_traps_and_the_state_before_goes_on():
    rule = Rule("window", models.FIELDS, {"length": S, "fields": ["temp"]}, "device", "at", memory_bytes=256 << 10)
    with pytest.raises(wasmtime.Trap) as trap:
        for batch in range(40):
            before = rule.snapshot()
            rule.process(Rows([{"device": f"{batch}-{i}", "at": 0, "temp": 1.0} for i in range(500)]))
    assert "tg_new" in str(trap.value)          # the backtrace has names
    rule.restore(before)
    assert rule.process(Rows([{"device": "0-0", "at": 0, "temp": 2.0}], {"0-0": S})).rows == [
        {"device": "0-0", "window_start": 0, "window_end": S, "count": 2, "temp_mean": 1.5}
    ]
