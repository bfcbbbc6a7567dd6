"""After a power cut at any moment the receiver ends up with what it would have had without."""

import random

import pytest
from memory_disk import MemoryDisk, PowerCut
from pipeline_world import START, S, Script, World, env, modules, plain

__all__ = ["modules"]


def script(seed, steps=50):
    """Devices with clocks of their own, events late, twice and out of order, silences, ticks, clock steps, checkpoints."""
    rng = random.Random(seed)
    now, moves = START, []
    devices = [f"dev-{i}" for i in range(7)] + ["", "ünï"]
    offset = {d: rng.choice([0, 0, 0, -3_600_000, 40_000, 10**9]) for d in devices}
    sequence, last, silent = dict.fromkeys(devices, 0), [], set()
    for _ in range(steps):
        now += rng.randrange(1, 3 * S)
        what = rng.random()
        if what < 0.55:
            events = []
            for _ in range(rng.randrange(1, 25)):
                d = rng.choice([x for x in devices if x not in silent] or devices)
                sequence[d] += 1
                at = now // 10**6 + offset[d] - rng.choice([0, 0, 0, 0, 10, 500, 900, 1500, 3000, 9000])
                events.append(env(d, sequence[d], at, rng.choice([None, 1.5, *(rng.gauss(20, 2) for _ in range(8))])))
            events += rng.sample(last, min(len(last), rng.randrange(4)))
            last = events[-20:]
            events += [plain(rng.randrange(100)) for _ in range(rng.randrange(3))]
            if rng.random() < 0.2:
                events += [(b"env/x", b"{broken"), (b"nowhere", b"1")]
            rng.shuffle(events)
            moves.append((now, "put", events))
        elif what < 0.75:
            now += rng.choice([0, 4 * S, 9 * S, 14 * S])
            moves.append((now, "tick", None))
        elif what < 0.8:
            step = rng.choice([-7200 * S, 5 * S, 3600 * S])
            moves.append((now, "clock", step))
            now += step
        elif what < 0.88:
            moves.append((now, "checkpoint", None))
        else:
            moves.append((now, "drain", rng.randrange(1, 12)))
        if rng.random() < 0.2:
            silent = set(rng.sample(devices, rng.randrange(8)))
    now += 10 * S
    for _ in range(4):
        now += 40 * S
        moves.append((now, "tick", None))
    return moves


def uninterrupted(modules, seed):
    world = World(modules).start()
    begun = world.disk.operations
    script = Script(SCRIPTS[seed])
    script.play(world, world.assert_balanced)
    operations = world.disk.operations
    world.drain()
    world.assert_balanced()
    assert not world.missing() and not world.announced()
    return world, begun, operations


SCRIPTS = {seed: script(seed) for seed in range(6)}


@pytest.mark.parametrize("seed", SCRIPTS)
def test_results_after_crashes_are_those_of_a_run_without(modules, seed):
    plain_run, begun, operations = uninterrupted(modules, seed)
    assert len({name for name, _ in plain_run.rows}) >= 9, "the script reaches most streams"
    rng = random.Random(seed)
    for n in range(20):
        cut = rng.randrange(begun, operations)
        world = World(modules, disk=MemoryDisk(seed=n, cut_at=cut)).start()
        play, survival, cuts, crashed = Script(SCRIPTS[seed]), rng.choice([0, 0.3, 0.5, 0.9, 1]), [cut], False
        while True:
            try:
                if crashed:
                    play.resume(world)
                    crashed = False
                play.play(world, world.assert_balanced)
                break
            except PowerCut:
                crashed = True
                world.crash(survival)
                world.assert_balanced()
                if rng.random() < 0.4:
                    world.disk.cut_at = world.disk.operations + rng.randrange(1, 80)
                    cuts.append(world.disk.cut_at)
        world.disk.cut_at = None
        world.drain()
        world.assert_balanced()
        where = f"seed {seed}, cuts {cuts}, survival {survival}"
        assert not world.missing() and not world.announced(), where
        assert world.rows.keys() == plain_run.rows.keys(), (where, sorted(world.rows.keys() ^ plain_run.rows.keys())[:20])
        assert world.rows == plain_run.rows, where
        for mine, other in zip(world.ledger, plain_run.ledger):
            assert mine == other or mine.kind == "stream", (where, mine, other)


def test_a_malformed_event_does_not_change_the_order_in_which_a_replay_sees_the_devices(modules):
    """Its device came first in memory, and not in the journal: the rows of a tick would be numbered in another order after a crash."""
    world = World(modules).start()
    world.put((b"env/b", b'{"device": "b", "seq": "no number"}'), env("a", 1, START // 10**6, 1.0), env("b", 1, START // 10**6, 2.0))
    world.tick(60)
    world.drain(acknowledge=lambda: False)
    before = dict(world.rows)
    world.crash(survival=1.0)
    world.drain()
    assert {name: world.rows[name] for name in before} == before and {name for name, _ in before} >= {"tumble", "gone"}
