"""A short run of a whole gateway with a change of what runs in its middle, and what the receiver has in the end with the change and without it."""

import functools
from pathlib import Path

import tidegate_rules
from msgspec.structs import replace
from pipeline_world import CONFIG, START, S, World, env
from settings import ONCE

from edge.deployment import Deployment
from edge.host.module import Module

RULES = CONFIG + ONCE + """
[rules.tumble]
input = "once"
module = "window"
params = { length = "5s", fields = ["temp"], functions = ["count", "sum"] }
[lanes.all]
streams = ["once", "tumble", "tumble.late"]
age = "0s"
"""
RATE = Path(tidegate_rules.path("rate")).read_bytes()
TURNS, AT = 14, 8                        # turns in all, and before the change
ROWS = 2                                 # events a turn

CHANGES = {
    "keep": lambda world, now: world.core.deploy(replace(now, limits={"time_ns": 20_000_000}), policy="keep"),
    "migrate": lambda world, now: world.core.deploy(replace(now, params=now.params | {"max_keys": 500}), policy="keep"),
    "replay": lambda world, now: deploy(world, now, "7s", "replay"),
    "fresh": lambda world, now: deploy(world, now, "7s", "fresh"),
    "schema": lambda world, now: deploy(world, now, "5s", "fresh", "functions"),
    "add": lambda world, now: add(world),
    "remove": lambda world, now: world.core.remove("tumble"),
    "disable": lambda world, now: world.core.set_enabled("tumble", False),
}


def deploy(world, now, length, policy, more=""):
    params = now.params | {"length": length} | ({"functions": ["count", "max", "min"]} if more else {})
    return world.core.deploy(replace(now, params=params), policy=policy, horizon_ns=1 << 62)


def add(world):
    return world.core.deploy(Deployment("slope", "once", Module(RATE).digest, {"field": "temp"}, lanes=["all"]), horizon_ns=1 << 62)


def change(world, name):
    """Carry a change out. Returns its swap."""
    return world.carry_out(CHANGES[name](world, world.core.deployments["tumble"]))


def feed(world, first, stop):
    for i in range(first, stop):
        world.now_ns = START + i * S
        assert world.put(*(env(f"d{k}", i, world.now_ns // 10**6, 20.0 + (i * (k + 3)) % 17) for k in range(ROWS)))
        if i % 3 == 1:
            world.tick()
        world.assert_balanced()


def before(world):
    world.core.store.put(RATE, who="test", when_ns=1)
    feed(world, 0, 4)
    world.checkpoint()
    world.drain()
    feed(world, 4, AT)
    world.drain(most=5)


def after(world, first=AT):
    """From a turn on to the end; nothing is missing then."""
    feed(world, first, TURNS)
    world.tick(60)
    world.drain()
    world.assert_balanced()
    assert not world.missing() and not world.announced(), (world.missing(), world.announced())


@functools.cache
def reference(modules, name):
    """(rows that the receiver has in the end, deployments) of a run with a change, or without (None); the operations of the change."""
    world = World(modules, RULES).start()
    before(world)
    begun = world.disk.operations
    if name:
        assert change(world, name).state == "done"
    ended = world.disk.operations
    after(world)
    return dict(world.rows), dict(world.core.deployments), (begun, ended)


def finish(world, modules, name, where, first=AT):
    """The world goes on to the end; the receiver must have what it has with the change, or without. Returns whether with."""
    swapped = bool(name) and world.core.deployments == reference(modules, name)[1]
    expected = reference(modules, name if swapped else None)
    assert world.core.deployments == expected[1], where
    after(world, first)
    assert world.rows == expected[0], (where, swapped)
    return swapped
