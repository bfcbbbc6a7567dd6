"""A warm-up takes what the journal has, says what it lacks, and never holds the gateway up or stops a swap."""

import pytest
from msgspec.structs import replace
from pipeline_world import RULES, START, S, World, env, modules
from test_pipeline_damage import damage

from edge._watermark import FORGOTTEN, Watermarks
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.storage.records import TICK
from edge.warmup import Warmup

__all__ = ["modules"]


def feed(world, turns, first=0, size=3):
    for i in range(first, first + turns):
        world.now_ns = START + i * S
        assert world.put(*(env(f"d{k}", i, world.now_ns // 10**6, 20.0 + i % 5) for k in range(size)))
        world.assert_balanced()


def load(world, turns):
    feed(world, 3, turns, 150)
    world.checkpoint()
    return turns + 3


def warmup(world, horizon_ns, rule="tumble"):
    stage = world.stage(rule)
    return Warmup(world.pipeline, stage.rule.another(), stage.input, world.core.identity.schemas(), horizon_ns)


def run_up(made):
    while not made.level:
        made.step()
    return made


@pytest.mark.parametrize("horizon_s", [10, 100])
def test_it_looks_back_over_the_horizon_and_little_more(modules, horizon_s):
    world = World(modules).start()
    feed(world, 200)
    made = run_up(warmup(world, horizon_s * S))
    rows = made.stage.rule.rows_in
    assert 3 * horizon_s <= rows <= 3 * (horizon_s + 70) and not made.short and not made.missing


@pytest.mark.parametrize("step_s", [86_400 * 365, -7200])
def test_a_step_of_the_clock_is_no_time(modules, step_s):
    world = World(modules).start()
    feed(world, 200)
    world.clock_set(step_s)
    for i in range(20):
        world.now_ns += S
        world.put(env("d0", 1000 + i, START // 10**6 + (200 + i) * 1000, 20.0))
    made = run_up(warmup(world, 100 * S))
    assert made.stage.rule.rows_in >= 20 + 3 * 79, "a hundred seconds, wherever the hands stood"


def test_a_journal_that_is_too_short_or_evicted_meanwhile_is_said(modules):
    world = World(modules, RULES + '[journal]\nquota = "64KiB"\n').start()
    log, turns = world.pipeline.journal.log, 0
    while log.tail == 0:
        turns = load(world, turns)
    made = warmup(world, 1 << 62)
    while made.progress == 0:
        made.step()
    made._records.clear()                # it reads ahead a megabyte, more than this journal has
    position = log.tail
    while log.tail <= position + 60:
        turns = load(world, turns)
    run_up(made)
    assert made.short and made.missing
    swap = world.deploy("tumble", policy="replay")
    assert swap.state == "done" and any("whole horizon" in note for note in swap.notes)
    feed(world, 10, turns)
    world.drain()
    assert not world.missing()


def test_damaged_records_are_passed_over_and_said(modules):
    world = World(modules).start()
    feed(world, 120)
    world.checkpoint()
    path = next(p for p in sorted(world.disk.files) if "/journal/" in p and p.endswith(".seg"))
    damage(world.disk, path, world.pipeline.journal.log._segments[-1].size // 2)
    made = run_up(warmup(world, 1 << 62))
    assert made.missing and 0 < made.stage.rule.rows_in < 360
    swap = world.deploy("tumble", policy="replay")
    assert swap.state == "done" and any("damaged" in note for note in swap.notes)


def test_a_rule_above_that_changes_meanwhile_begins_it_anew(modules):
    world = World(modules).start()
    feed(world, 60)
    swap = world.core.deploy(world.core.deployments["tumble"], policy="replay", horizon_ns=1 << 62)
    for _ in range(20):
        world.core.advance(0)
    assert swap.state == "warming" and swap.progress > 0
    above = world.deploy("once", params={"id": "seq", "within": "2m"}, policy="fresh")
    assert above.state == "done" and swap.state == "waiting"
    assert world.carry_out(swap).state == "done" and swap.policy == "replay"


def test_its_steps_are_small(modules):
    """A step plays one record, so a gateway at work is held up by no more than that."""
    world = World(modules).start()
    feed(world, 100)
    made = warmup(world, 1 << 62)
    steps = 0
    while not made.level:
        made.step()
        steps += 1
    assert steps >= world.pipeline.journal.head // 2


SCHEMA = Schema("s", (Field("k", "str"), Field("t", "time")), key="k", time="t")


def seen(watermarks, *rows):
    for key, at in rows:
        watermarks.observe(Batch.from_rows(SCHEMA, [{"k": key, "t": at}], received_ns=at))
    return watermarks


def test_watermarks_that_follow_others_say_what_that_closes():
    live = seen(Watermarks(0), ("a", 100), ("b", 50), ("c", 10))
    mine = seen(Watermarks(0), ("a", 90), ("b", 50), ("gone", 70))
    (tick,) = mine.follow(SCHEMA, live, 200)
    assert dict(tick.watermarks()) == {b"a": 100, b"gone": FORGOTTEN} and len(tick) == 0 and tick.received_ns == 200
    assert mine.dump() == live.dump() and mine.follow(SCHEMA, live, 200) == []


def test_closing_names_every_key_in_ticks_of_bounded_size_and_changes_nothing():
    live = seen(Watermarks(0), *((f"k{i}", 100 + i) for i in range(2500)))
    before = live.dump()
    ticks = live.closing(SCHEMA, 9000)
    keys = [pair for tick in ticks for pair in tick.watermarks()]
    assert [len(tick.watermarks()) for tick in ticks] == [1024, 1024, 452]
    assert len(dict(keys)) == 2500 and {at for _, at in keys} == {FORGOTTEN} and live.dump() == before


def test_it_waits_for_another_turn_when_the_disk_refuses_what_it_is_to_see(modules):
    """Such a record has a position and cannot be read: to go on until it was seen held the gateway up for ever."""
    world = World(modules).start()
    feed(world, 20)
    made = run_up(warmup(world, 10 * S))
    journal = world.pipeline.journal
    journal.part()
    journal.append(TICK, 0, world.now_ns + S, 0, b"")
    assert journal.waiting and not made.level and not made.near
    swap = world.core.deploy(replace(world.core.deployments["tumble"], params=world.core.deployments["tumble"].params | {"length": "6s"}), policy="replay", horizon_ns=10 * S)
    assert not world.core.busy and not world.core.advance(0.001) and swap.state == "waiting"
    world.pipeline.sync()
    assert made.near
