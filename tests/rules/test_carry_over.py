"""State goes from one instance to another: each ready-made rule, in the middle of generated histories, and what refuses to."""

import random

import pytest
import rule_models as models
from hypothesis import given, settings
from rule_harness import RULES, Rows, Rule, same
from test_ready_rules import CASES, PLAIN, QUICK, S, histories

ROOM = {"max_keys": 20_000, "max_windows": 30_000, "max_ids": 60_000}        # none of the histories comes near
SOME = [Rows([{"device": f"d{i % 5}", "at": i * S, "temp": i * 0.7 % 9, "n": i % 11, "tag": "x" * (i % 4), "on": i % 2 == 0} for i in range(40)],
             {f"d{k}": 30 * S for k in range(5)})]


def fed(name, params, batches=SOME):
    rule = Rule(name, models.FIELDS, params, "device", "at")
    for batch in batches:
        rule.process(batch)
    return rule


def goes_on_as_before(name, params, changed, before, after):
    going = fed(name, params, before)
    follower = Rule(name, models.FIELDS, changed, "device", "at")
    assert follower.take_over(going.saved())
    for batch in after:
        want, got = going.process(batch), follower.process(batch)
        assert same(vars(want), vars(got)), (params, changed, batch, want, got)


@pytest.mark.parametrize(("name", "model", "params", "more"), CASES)
@settings(QUICK, max_examples=8)
@given(before=histories(PLAIN), after=histories(PLAIN))
def test_a_new_instance_goes_on_where_the_old_one_stopped(name, model, params, more, before, after):
    """At the limits too: which key is the longest unused, and which window the oldest, is part of the state."""
    goes_on_as_before(name, params, params, before, after)


@pytest.mark.parametrize(("name", "model", "params", "more"), [c for c in CASES if not ROOM.keys() & c.values[2].keys()])
@settings(QUICK, max_examples=5)
@given(before=histories(PLAIN), after=histories(PLAIN))
def test_other_parameters_that_do_not_touch_the_state_may_change(name, model, params, more, before, after):
    known = {p["name"] for p in Rule(name, models.FIELDS, params, "device", "at").manifest["parameters"]}
    goes_on_as_before(name, params, params | {k: v for k, v in ROOM.items() if k in known}, before, after)


@pytest.mark.parametrize(("name", "params", "changed"), [
    ("window", {"length": 10 * S, "fields": ["temp"]}, {"decimals": 2}),
    ("deadband", {"field": "temp", "change": 4.0}, {"change": 1.0, "every": 9 * S}),
    ("missing", {"after": 3 * S}, {"after": 5 * S}),
    ("rate", {"field": "temp"}, {"limit": 2.0}),
    ("threshold", {"field": "temp", "value": 2.0, "hysteresis": 1.0}, {"value": 3.0}),
    ("dedup", {"id": "n"}, {"count": 3, "within": 4 * S}),
    ("project", {"keep": ["temp"]}, {"keep": ["temp * 2 as double", "n"]}),
    ("threshold", {"field": "temp", "value": 2.0}, {"field": "n", "op": "<"}),
])
def test_a_changed_parameter_works_on_the_old_state(name, params, changed):
    follower = Rule(name, models.FIELDS, params | changed, "device", "at")
    assert follower.take_over(fed(name, params).saved())
    follower.process(SOME[0])


@pytest.mark.parametrize(("name", "params", "changed"), [
    ("window", {"length": 10 * S, "fields": ["temp"]}, {"length": 9 * S}),
    ("window", {"length": 10 * S, "fields": ["temp"]}, {"hop": 5 * S}),
    ("window", {"length": 10 * S, "fields": ["temp"]}, {"fields": ["n"]}),
    ("window", {"length": 10 * S, "fields": ["temp"]}, {"fields": ["temp", "n"]}),
    ("window", {"length": 10 * S, "fields": ["temp"]}, {"functions": ["max"]}),
    ("deadband", {"field": "temp"}, {"field": "n"}),
    ("rate", {"field": "temp"}, {"field": "n"}),
    ("sample", {"nth": 5}, {"nth": 3}),
    ("sample", {"nth": 5}, {"nth": 0, "interval": S}),
    ("dedup", {"id": "n"}, {"mode": "sequence"}),
    ("dedup", {"id": "n"}, {"id": "tag"}),
    ("threshold", {"field": "temp", "value": 2.0, "hysteresis": 1.0}, {"op": "<"}),
    ("threshold", {"field": "temp", "value": 2.0, "hysteresis": 1.0}, {"hysteresis": 0.0}),
    ("threshold", {"field": "temp", "value": 2.0}, {"hysteresis": 1.0}),
])
def test_a_state_of_another_shape_or_meaning_is_refused(name, params, changed):
    assert not Rule(name, models.FIELDS, params | changed, "device", "at").take_over(fed(name, params).saved())


def test_a_state_of_another_rule_or_state_version_is_refused():
    saved = fed("rate", {"field": "temp"}).saved()
    assert not Rule("deadband", models.FIELDS, {"field": "temp"}, "device", "at").take_over(saved)
    assert not Rule("rate", models.FIELDS, {"field": "temp"}, "device", "at").take_over(saved, from_state=2)


def test_fewer_keys_than_were_taken_over_are_closed_at_the_next_new_key():
    params = {"length": 1000 * S, "functions": ["count"]}
    follower = Rule("window", models.FIELDS, params | {"max_keys": 2}, "device", "at")
    assert follower.take_over(fed("window", params).saved())
    answer = follower.process(Rows([{"device": "new", "at": 50 * S}]))
    assert [row["device"] for row in answer.rows] == ["d0", "d1", "d2", "d3"]


@pytest.mark.parametrize("path", sorted((RULES / "ready").glob("*/*.wasm")), ids=lambda p: p.stem)
def test_every_ready_made_rule_can_be_taken_over(path):
    assert b"\7tg_save" in path.read_bytes() and b"\x0atg_migrate" in path.read_bytes()


@pytest.mark.parametrize(("name", "params"), [
    ("window", {"length": 10 * S, "hop": 4 * S, "fields": ["temp"]}),
    ("dedup", {"id": "tag"}),
    ("missing", {"after": S}),
])
def test_bytes_that_were_damaged_neither_trap_nor_loop(name, params):
    saved = fed(name, params).saved()
    chance = random.Random(7)
    for size in (*range(0, min(len(saved), 60)), len(saved) - 1):
        assert not Rule(name, models.FIELDS, params, "device", "at").take_over(saved[:size])
    for _ in range(150):
        hurt = bytearray(saved)
        hurt[chance.randrange(len(hurt))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
        rule = Rule(name, models.FIELDS, params, "device", "at")
        if rule.take_over(bytes(hurt)):
            rule.process(SOME[0])


def test_saving_is_repeatable_and_what_was_taken_over_saves_the_same():
    params = {"length": 10 * S, "hop": 4 * S, "fields": ["temp"]}
    rule = fed("window", params)
    saved = rule.saved()
    follower = Rule("window", models.FIELDS, params, "device", "at")
    assert follower.take_over(saved) and follower.saved() == saved == rule.saved()
