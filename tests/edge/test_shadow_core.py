"""Shadows in a gateway: nothing that leaves it, or that it writes down, tells that there is one; and a promoted one goes on where it stood."""

import random

import pytest
import rule_module as m
from pipeline_script import SCRIPTS
from pipeline_world import START, S, Script, World, modules, records
from test_deferral import Whim
from test_pipeline_traps import CONFIG, PROCESS, TRAP, events
from test_swap import LONGER, uninterrupted

from edge.errors import ConfigError, RuleError
from edge.shadow import TRAPS_MAX
from edge.storage.records import DEAD, SCHEMA

__all__ = ["modules"]

ENDLESS = "(loop $ever (br $ever)) (i32.const 0)"
HOSTILE = {
    "traps": "unreachable",
    "loops": ENDLESS,
    "grows": "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable",
    "nonsense": "(i32.const 0x7ffffff0)",
    "selects what is not there": "(i32.store (i32.const 0x400) (i32.const -4)) (i32.const 0x400)",
    "writes over its input": "(memory.fill (local.get $batch) (i32.const 0xff) (i32.const 4096)) (i32.const 0)",
    "selects everything": "(memory.fill (i32.const 0x600) (i32.const 0xff) (i32.const 512)) (i32.store (i32.const 0x400) (i32.const 0x600)) (i32.const 0x400)",
    "all late": "(memory.fill (i32.const 0x600) (i32.const 0xff) (i32.const 512)) (i32.store offset=4 (i32.const 0x400) (i32.const 0x600)) (i32.const 0x400)",
    "the same": PROCESS,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("rule") / "third.wasm"
    path.write_bytes(m.module(process=PROCESS))
    return CONFIG.replace("$PATH", str(path))


def put(world, wasm):
    """A module for a shadow. Returns its digest."""
    return world.core.store.put(wasm, who="test", when_ns=0, force=True).digest


def beside(world, rule, digest, params):
    """Put a version beside the active one, warm."""
    swap = world.carry_out(world.core.shadow(rule, digest, params, who="test"))
    assert (swap.state, swap.error) == ("done", "")
    while world.core.shadows.busy:
        world.core.advance(0.01)
    world.forward()


def play(world, turns=range(40), poison=()):
    for i in turns:
        world.now_ns = START + i * S
        world.put(*events(float(i), *([TRAP] if i in poison else []), i + 0.5, 1.0))
        if i % 7 == 3:
            world.tick(0.5)
        world.assert_balanced()


def written(world):
    """All that a gateway wrote for others or for its next start, but for what streams' numbers mean."""
    return ([(r.kind, r.stream, r.first, r.count, r.payload) for r in records(world.pipeline.journal.log) if r.kind != SCHEMA],
            [(r.stream, r.count, r.payload) for r in records(world.pipeline.dead.log) if r.kind == DEAD],
            {o.name: [(r.kind, r.stream, r.first, r.count, r.payload) for r in records(o.log) if r.kind != SCHEMA] for o in world.pipeline.outboxes},
            [(a.kind, a.name, a.into, a.out) for a in world.ledger])


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("at", [0, 5])
def test_nothing_tells_that_there_is_a_shadow_whatever_it_does(modules, config, name, at):
    plain, world = World(modules, config).start(), World(modules, config).start()
    play(plain, poison=(2, 20))
    play(world, range(at), poison=(2, 20))
    beside(world, "third", put(world, m.module(process=HOSTILE[name], manifest={**m.MANIFEST, "version": 2})), {})
    play(world, range(at, 40), poison=(2, 20))
    diff = world.core.diff("third")
    assert written(world) == written(plain)
    world.drain()
    plain.drain()
    assert world.rows == plain.rows and world.account("third") == plain.account("third")
    if name in ("traps", "loops", "grows", "nonsense", "selects what is not there"):
        assert diff["state"] == ("refused" if at else "stopped") and f"trapped {TRAPS_MAX} times" in diff["error" if at else "stopped"]
    else:
        assert diff["state"] == "runs" and diff["calls"] >= 40 - at and diff["active_failed"] == (1 if at else 2)
    if name == "selects everything":
        assert diff["only_shadow"] + diff["waiting"]["shadow"] > 20 and diff["only_active"] + diff["waiting"]["active"] == 0


def test_the_third_trap_on_live_events_stops_it(modules, config):
    world = World(modules, config).start()
    play(world, range(3))
    beside(world, "third", put(world, m.module(process=PROCESS.replace("f64.const 666", "f64.const 7.5"), manifest={**m.MANIFEST, "version": 2})), {})
    for n in range(1, TRAPS_MAX + 1):
        for i in (0, 1):
            world.put(*events(7.5 if i else 0.25))
        assert world.core.diff("third")["traps"] == n
    diff = world.core.diff("third")
    assert diff["state"] == "stopped" and "3 times" in diff["stopped"] and world.stage("third").rule.traps == 0
    with pytest.raises(ConfigError, match="stopped"):
        world.core.promote("third")
    assert world.carry_out(world.core.unshadow("third")).state == "done" and world.stage("third").shadow is None
    with pytest.raises(ConfigError, match="no shadow"):
        world.core.diff("third")


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("rule", ["tumble", "band", "slopes"])
def test_a_warm_shadow_of_the_same_version_never_differs(modules, seed, rule):
    world, plain = World(modules).start(), uninterrupted(modules, seed)[0]
    script, rng = Script(SCRIPTS[seed]), random.Random(seed)
    at = rng.randrange(5, 30)
    world.pipeline.share = Whim(rng, 0.2)

    def on_step():
        if script.done == at:
            now = world.core.deployments[rule]
            beside(world, rule, now.digest, now.params)
        world.pipeline.serve(1)
        world.forward()
        world.assert_balanced()

    script.play(world, on_step)
    world.pipeline.catch_up()
    world.forward()
    world.drain()
    diff = world.core.diff(rule)
    assert world.rows == plain.rows, f"seed {seed}, at {at}"
    assert diff["same"] > 0 and diff["calls"] > 0 and diff["gaps"] == ""
    assert (diff["only_active"], diff["only_shadow"], diff["waiting"], diff["traps"]) == (0, 0, {"active": 0, "shadow": 0}, 0), (seed, at, diff)


@pytest.mark.parametrize("seed", [1, 3])
def test_a_promoted_shadow_says_what_it_would_have_said_had_it_always_run(modules, seed):
    new, counts = uninterrupted(modules, seed, LONGER)
    world, script, begun = World(modules).start(), Script(SCRIPTS[seed]), {}

    def on_step():
        if script.done == 10:
            now = world.core.deployments["tumble"]
            beside(world, "tumble", now.digest, now.params | {"length": "7s"})
        if script.done == 30:
            begun[30] = world.stream("tumble").next_sequence
            was, diff = world.core.deployments["tumble"], world.core.diff("tumble")
            assert diff["only_active"] or diff["only_shadow"] or diff["waiting"] != {"active": 0, "shadow": 0}
            swap = world.carry_out(world.core.promote("tumble", who="test"))
            assert (swap.state, swap.policy, swap.notes) == ("done", "keep", [])
            now = world.core.deployments["tumble"]
            assert now.previous == was.kept and now.version == was.shadow and now.shadow is None and world.stage("tumble").shadow is None
        world.assert_balanced()

    script.play(world, on_step)
    world.drain()
    assert not world.missing()
    after = [row for sequence, row in world.of("tumble").items() if sequence >= begun[30]]
    assert after == [row for sequence, row in new.of("tumble").items() if sequence >= counts[29]["tumble"]] != []


def test_after_a_restart_a_shadow_is_warmed_up_again(modules):
    world, script = World(modules).start(), Script(SCRIPTS[2][:25])
    script.play(world)
    now = world.core.deployments["tumble"]
    beside(world, "tumble", now.digest, now.params)
    calls = world.core.diff("tumble")["calls"]
    world.crash(1)
    assert world.core.deployments["tumble"].shadow == now.version and world.core.diff("tumble")["state"] == "waiting"
    while world.core.busy:
        world.core.advance(0.01)
    diff = world.core.diff("tumble")
    assert diff["state"] == "runs" and diff["calls"] == 0 <= calls and diff["only_active"] == diff["only_shadow"] == 0


def test_a_shadow_that_left_calls_out_is_promoted_without_its_state(modules, config):
    world = World(modules, config).start()
    play(world, range(5))
    beside(world, "third", put(world, m.module(process=PROCESS, manifest={**m.MANIFEST, "version": 2})), {})
    whim = world.pipeline.share = Whim(random.Random(0), 0)
    whim.spare = False
    play(world, range(5, 8))
    whim.spare = True
    play(world, range(8, 10))
    assert world.core.diff("third")["shed"] == {"calls": 3, "rows": 9}
    swap = world.carry_out(world.core.promote("third"))
    assert swap.state == "done" and swap.policy == "replay" and "left out 3 calls" in swap.notes[0]


def test_another_active_rule_begins_the_comparison_anew(modules):
    world, script = World(modules).start(), Script(SCRIPTS[2])
    for _ in range(20):
        script._step(world, *SCRIPTS[2][script.done])
        script._finished(world, script.done + 1)
    now = world.core.deployments["tumble"]
    beside(world, "tumble", now.digest, now.params | {"length": "7s"})
    shadow = world.stage("tumble").shadow
    world.deploy("tumble", params=now.params | {"length": "6s"}, policy="replay")
    world.core.advance(0.01)
    again = world.stage("tumble").shadow
    assert again is not shadow and again.rule is shadow.rule and world.core.deployments["tumble"].shadow["params"]["length"] == "7s"
    script.play(world, world.assert_balanced)
    assert world.core.diff("tumble")["calls"] > 0


def test_what_cannot_run_beside_a_rule_is_refused_at_once(modules):
    world = World(modules).start()
    now = world.core.deployments["tumble"]
    with pytest.raises((ConfigError, RuleError)):
        world.core.shadow("tumble", now.digest, {"length": "no"})
    with pytest.raises((ConfigError, RuleError)):
        world.core.shadow("tumble", "0" * 64, {})
    with pytest.raises(ConfigError):
        world.core.shadow("nobody", now.digest, {})
    for ask in (world.core.promote, world.core.unshadow, world.core.diff):
        with pytest.raises(ConfigError, match="no shadow"):
            ask("tumble")
