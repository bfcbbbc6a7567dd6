"""Long scripts for a gateway: what devices, clock, upstream and the one who pushes rules do, by a seed."""

import random
from pathlib import Path

import tidegate_rules
from pipeline_world import START, S, env, plain

from edge.deployment import Deployment

RATE = Path(tidegate_rules.path("rate")).read_bytes()


def changed(rule, params, policy):
    """A rule gets other parameters."""
    def make(world):
        if {k: world.core.deployments[rule].params.get(k) for k in params} != params:
            assert world.deploy(rule, params=world.core.deployments[rule].params | params, policy=policy).state == "done"

    return make


def enabled(rule, on):
    def make(world):
        if world.core.deployments[rule].enabled != on:
            assert world.carry_out(world.core.set_enabled(rule, on)).state == "done"

    return make


def pushed(rule):
    """A module comes to the rule store and runs as a new rule."""
    def make(world):
        if rule not in world.core.deployments:
            digest = world.core.store.put(RATE, who="test", when_ns=1).digest
            assert world.carry_out(world.core.deploy(Deployment(rule, "once", digest, {"field": "temp"}, lanes=["telemetry"]), horizon_ns=1 << 62)).state == "done"

    return make


def removed(rule):
    def make(world):
        if rule in world.core.deployments:
            assert world.carry_out(world.core.remove(rule)).state == "done"

    return make


def changes_of(rng):
    """Changes of the rules of pipeline_world.RULES, each other than what is there, without end. A rule that was removed does not come back."""
    on, there, n = True, 0, 0
    while True:
        n += 1
        kind = rng.randrange(6)
        if kind == 0:
            yield removed(f"pushed{there}") if there else pushed(f"pushed{n}")
            there = 0 if there else n
        elif kind == 1:
            on = not on
            yield enabled("gone", on)
        elif kind == 2:
            yield changed("band", {"change": 0.5 + n / 10}, "keep")
        elif kind == 3:
            yield changed("hop", {"max_keys": 1000 + n}, "keep")
        else:
            yield changed("tumble", {"length": f"{4 + n}s"}, "fresh" if kind == 4 else "replay")


def script(seed, steps=50, swaps=0.0):
    """Devices with clocks of their own, events late, twice and out of order, silences, ticks, clock steps, checkpoints; swaps: how often a step
    changes what runs: ("swap", a function of the world that makes the change where it is not made yet)."""
    rng = random.Random(seed)
    now, moves = START, []
    devices = [f"dev-{i}" for i in range(7)] + ["", "ünï"]
    offset = {d: rng.choice([0, 0, 0, -3_600_000, 40_000, 10**9]) for d in devices}
    sequence, last, silent = dict.fromkeys(devices, 0), [], set()
    changes = changes_of(rng)
    for _ in range(steps):
        now += rng.randrange(1, 3 * S)
        if swaps and rng.random() < swaps:
            moves.append((now, "swap", next(changes)))
            continue
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


SCRIPTS = {seed: script(seed) for seed in range(6)}
