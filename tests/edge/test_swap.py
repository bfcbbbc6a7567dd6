"""Swaps: whatever runs next takes up where the last one stood. No row is lost, none doubled, and the accounts balance at every moment."""

import functools
import random
from ast import literal_eval
from collections import Counter

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pipeline_script import SCRIPTS
from pipeline_world import RULES, START, S, Script, World, env, modules

from edge.errors import ConfigError

__all__ = ["modules"]

RULE_NAMES = ("once", "tumble", "hop", "gone", "band", "slope", "slopes")
QUICK = {"deadline": None, "phases": (Phase.explicit, Phase.reuse, Phase.generate)}
LIMITS = {"time_ns": 20_000_000, "memory_bytes": 8 << 20, "output_bytes": 2 << 20}


@functools.cache
def uninterrupted(modules, seed, config=RULES):
    """The world after the whole script, and how many rows each stream had after each step."""
    world, counts = World(modules, config).start(), []
    Script(SCRIPTS[seed]).play(world, lambda: counts.append({s.name: s.next_sequence for s in world.pipeline.streams}))
    world.drain()
    return world, counts


def interrupted(modules, seed, at, change, config=RULES):
    """The world after the script, in which change(world) was called after the step `at`, and again after each until it returned True."""
    world, script, done = World(modules, config).start(), Script(SCRIPTS[seed]), []

    def on_step():
        if script.done > at and not done and change(world):
            done.append(True)
        world.assert_balanced()

    script.play(world, on_step)
    while not done:
        on_step()
    world.drain()
    assert not world.missing()
    return world


def finished(swap):
    assert (swap.state, swap.error) == ("done", "")
    return True


@settings(max_examples=10, **QUICK)
@given(seed=st.sampled_from(sorted(SCRIPTS)), at=st.integers(0, 40), rule=st.sampled_from(RULE_NAMES), policy=st.sampled_from(["keep", "replay", "auto"]))
def test_an_identical_rule_put_in_at_any_moment_changes_no_output(modules, seed, at, rule, policy):
    plain, _ = uninterrupted(modules, seed)
    world = interrupted(modules, seed, at, lambda world: finished(world.deploy(rule, policy=policy, limits=LIMITS)))
    assert world.rows == plain.rows and not world.announced()


@settings(max_examples=5, **QUICK)
@given(seed=st.sampled_from(sorted(SCRIPTS)), at=st.integers(0, 25), rule=st.sampled_from(("tumble", "slope", "slopes")), pace=st.integers(1, 40))
def test_a_warm_up_beside_live_events_ends_in_the_state_of_the_live_rule(modules, seed, at, rule, pace):
    plain, _ = uninterrupted(modules, seed)
    swaps = []

    def change(world):
        if not swaps:
            swaps.append(world.core.deploy(world.core.deployments[rule], policy="replay", horizon_ns=1 << 62))
        for _ in range(pace):
            world.core.advance(0)
        world.forward()
        return swaps[0].state == "done"

    world = interrupted(modules, seed, at, change)
    assert world.rows == plain.rows


LONGER = RULES.replace('length = "5s"', 'length = "7s"')


@settings(max_examples=5, **QUICK)
@given(seed=st.sampled_from(sorted(SCRIPTS)), at=st.integers(0, 45))
def test_after_a_replay_a_new_version_says_what_it_would_have_said_had_it_always_run(modules, seed, at):
    new, counts = uninterrupted(modules, seed, LONGER)
    begun = []

    def change(world):
        params = world.core.deployments["tumble"].params | {"length": "7s"}
        begun.append(world.stream("tumble").next_sequence)
        return finished(world.deploy("tumble", params=params, policy="replay"))

    world = interrupted(modules, seed, at, change)
    after = [row for sequence, row in world.of("tumble").items() if sequence >= begun[0]]
    assert after == [row for sequence, row in new.of("tumble").items() if sequence >= counts[at]["tumble"]]


@pytest.mark.parametrize("horizon_s", [19])
@pytest.mark.parametrize("at", range(20, 60, 9))
def test_a_horizon_of_windows_lateness_and_silence_is_enough(modules, at, horizon_s):
    rng, worlds = random.Random(at), []
    steps = [[(d, i, START // 10**6 + i * 700 - rng.choice([0, 0, 100, 1900]), 20.0 + i % 7) for d in "abc" if rng.random() < 0.8] for i in range(80)]
    for swapped in (False, True):
        world = World(modules).start()
        worlds.append(world)
        for i, events in enumerate(steps):
            world.now_ns = START + i * 700 * 10**6
            world.put(*(env(*event) for event in events))
            if i % 3 == 0:
                world.tick()
            if swapped and i == at:
                finished(world.deploy("tumble", policy="replay", horizon_ns=horizon_s * S))
        world.tick(60)
        world.drain()
        world.assert_balanced()
    plain, world = worlds
    assert Counter(world.of("tumble").values()) == Counter(plain.of("tumble").values())


@settings(max_examples=8, **QUICK)
@given(seed=st.sampled_from(sorted(SCRIPTS)), at=st.integers(0, 45), same=st.booleans())
def test_fresh_puts_what_was_open_on_the_partial_stream(modules, seed, at, same):
    def change(world):
        params = world.core.deployments["tumble"].params | ({} if same else {"length": "7s"})
        return finished(world.deploy("tumble", params=params, policy="fresh"))

    world = interrupted(modules, seed, at, change)
    account = world.account("tumble").out
    finished(world.carry_out(world.core.remove("tumble")))
    world.drain()
    windows = [literal_eval(row) for name in ("tumble", "tumble.partial") for row in world.of(name).values()]
    assert sum(w["count"] for w in windows) == account["aggregated"], "each row counts in one window, or is accounted for otherwise"
    assert {name for name, _ in world.rows if name.endswith(".partial")} <= {"tumble.partial"}
    world.assert_balanced()


def test_a_pushed_rule_has_no_more_than_the_gateway_allows(modules):
    world = World(modules, RULES + '[rules_limits]\ntime = "5ms"\nmemory = "32MiB"\n').start()
    configured = world.stage("tumble").rule.limits
    assert finished(world.deploy("tumble", params=world.core.deployments["tumble"].params | {"length": "7s"})) and world.stage("tumble").rule.limits == configured
    digest = world.core.deployments["tumble"].digest
    finished(world.deploy("new", input="env", digest=digest, params=world.core.deployments["tumble"].params))
    assert world.stage("new").rule.limits.time_ns == 5_000_000 and world.stage("new").rule.limits.memory_bytes == 16 << 20
    finished(world.deploy("new", limits={"memory_bytes": 32 << 20, "time_ns": 1_000_000}))
    assert world.stage("new").rule.limits.time_ns == 1_000_000
    for limits in ({"time_ns": 6_000_000}, {"memory_bytes": 33 << 20}, {"output_bytes": 17 << 20}, {"table_elements": 5}, {"time_ns": "1"}):
        with pytest.raises(ConfigError, match="limits"):
            world.deploy("new", limits=limits)


def test_the_partial_stream_of_a_rule_that_comes_and_goes_goes_on_counting(modules):
    world, partial = World(modules).start(), []
    tumble = world.core.deployments["tumble"]
    for i in range(3):
        for k in range(4):
            world.now_ns += S
            world.put(*(env(d, 4 * i + k, world.now_ns // 10**6, 20.0 + i) for d in "abc"))
        partial.append(world.stream("tumble.partial").next_sequence)
        finished(world.carry_out(world.core.remove("tumble")))
        if i == 1:
            world.crash(0)
        finished(world.carry_out(world.core.deploy(tumble, policy="fresh")))
    world.drain()
    assert partial == [0, 3, 6] and len(world.of("tumble.partial")) == 9 and not world.missing() and not world.announced()


def test_going_back_takes_the_limits_and_the_stream_of_that_version_along(modules):
    world = World(modules).start()
    before = world.core.deployments["hop"]
    finished(world.deploy("hop", params=before.params | {"length": "12s"}, input="env", limits=LIMITS, policy="fresh"))
    after = world.core.deployments["hop"]
    for then in (before, after, before):
        finished(world.carry_out(world.core.rollback("hop")))
        now = world.core.deployments["hop"]
        assert (now.digest, now.params, now.input, now.limits) == (then.digest, then.params, then.input, then.limits)
        assert world.stage("hop").input.name == then.input
    world = world.crash()
    finished(world.carry_out(world.core.rollback("hop")))
    assert world.core.deployments["hop"].input == "env"


def test_other_limits_or_lanes_for_the_same_version_leave_the_version_before_where_it_is(modules):
    world = World(modules).start()
    first = world.core.deployments["hop"]
    finished(world.deploy("hop", params=first.params | {"length": "12s"}, policy="fresh"))
    finished(world.deploy("hop", limits=LIMITS, policy="keep"))
    finished(world.carry_out(world.core.rollback("hop")))
    assert world.core.deployments["hop"].params == first.params


def test_whoever_watches_the_partial_stream_sees_what_a_swap_closes(modules):
    world, seen = World(modules).start(), []
    world.stream("tumble.partial").tap = lambda batch: seen.extend((batch.first_sequence + i, repr(row)) for i, row in enumerate(batch.rows()))
    for i in range(4):
        world.now_ns = START + i * S
        world.put(*(env(d, i, world.now_ns // 10**6, 20.0) for d in "ab"))
    finished(world.deploy("tumble", params=world.core.deployments["tumble"].params | {"length": "7s"}, policy="fresh"))
    assert len(seen) == 2 and [sequence for sequence, _ in seen] == [0, 1]
