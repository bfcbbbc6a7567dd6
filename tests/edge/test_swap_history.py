"""Histories at random: rules come, change, rest and go between events, ticks, checkpoints and power cuts. The accounts balance at every moment, and
the receiver has each row that was put out, once."""

import os
import random
from pathlib import Path

import pytest
import tidegate_rules
from memory_disk import PowerCut
from msgspec.structs import replace
from pipeline_world import CONFIG, S, World, env, modules
from settings import ONCE

from edge.deployment import Deployment
from edge.errors import ConfigError
from edge.host.module import Module

__all__ = ["modules"]

RULES = CONFIG + ONCE + """
[rules.tumble]
input = "once"
module = "window"
params = { length = "5s", fields = ["temp"], functions = ["count", "sum"] }
[lanes.all]
streams = ["env", "once", "tumble", "tumble.late"]
age = "0s"
"""
WASM = {name: Path(tidegate_rules.path(name)).read_bytes() for name in ("dedup", "window", "rate", "deadband")}
DIGESTS = {name: Module(wasm).digest for name, wasm in WASM.items()}
PARAMS = {
    "dedup": lambda rng: {"id": "seq", "within": rng.choice(["10s", "1m"])},
    "window": lambda rng: {"length": rng.choice(["3s", "5s", "8s"]), "fields": ["temp"], "functions": rng.choice([["count", "sum"], ["count", "mean"]])},
    "rate": lambda rng: {"field": "temp"},
    "deadband": lambda rng: {"field": "temp", "change": rng.choice([0.5, 2.0])},
}
NAMES = ("once", "tumble", "a", "b", "c")


class History:
    def __init__(self, modules, seed):
        self.rng, self.world, self.sent = random.Random(seed), World(modules, RULES).start(), 0
        self.unrouted = set()
        self.prepare()

    def prepare(self):
        for wasm in WASM.values():
            self.world.core.store.put(wasm, who="test", when_ns=1)

    def change(self):
        """Ask for something, sensible or not."""
        core, rng, rule = self.world.core, self.rng, self.rng.choice(NAMES)
        now = core.deployments.get(rule)
        kind = rng.choice(["deploy"] * 4 + ["remove", "rollback", "disable", "enable"])
        try:
            if kind == "deploy":
                module = rng.choice(sorted(PARAMS))
                source = now.input if now and rng.random() < 0.8 else rng.choice(["env", "env", *NAMES, "tumble.late"])
                then = Deployment(rule, source, DIGESTS[module], PARAMS[module](rng), lanes=rng.choice([[], ["all"]]))
                if now and rng.random() < 0.3:
                    then = replace(now, limits={"time_ns": rng.choice([20, 30]) * 10**6})
                return core.deploy(then, policy=rng.choice(["auto", "keep", "replay", "fresh"]), horizon_ns=rng.choice([5 * S, 60 * S, 1 << 62]))
            if kind == "remove":
                return core.remove(rule)
            if kind == "rollback":
                return core.rollback(rule)
            return core.set_enabled(rule, kind == "enable")
        except ConfigError:
            return None

    def step(self):
        world, rng = self.world, self.rng
        self.unrouted |= {stage.name for stage in world.pipeline.stages if not stage.output.outboxes}
        what = rng.random()
        world.now_ns += rng.randrange(S // 10, 3 * S)
        if what < 0.5:
            self.sent += 1
            at = world.now_ns // 10**6
            world.put(*(env(d, self.sent - rng.choice([0, 0, 0, 1]), at - rng.choice([0, 0, 500, 4000]), rng.gauss(20, 2)) for d in rng.sample("abcd", 3)))
        elif what < 0.65:
            world.tick(rng.choice([0, 4, 9]))
        elif what < 0.7:
            world.checkpoint()
        elif what < 0.85:
            swap = self.change()
            if swap is not None and rng.random() < 0.7:
                world.carry_out(swap)
        elif what < 0.9:
            for _ in range(rng.randrange(30)):
                world.core.advance(0)
            world.forward()
        else:
            world.drain(most=rng.randrange(1, 30))

    def crash(self):
        self.world.crash(self.rng.choice([0, 0.5, 1]))
        self.prepare()


@pytest.mark.parametrize("seed", range(int(os.environ.get("TIDEGATE_HISTORIES", 6))))
def test_whatever_happens_to_rules_no_row_is_lost_or_doubled(modules, seed):
    history = History(modules, seed)
    rng = history.rng
    for _ in range(120):
        world = history.world
        if rng.random() < 0.03:
            world.disk.cut_at = world.disk.operations + rng.randrange(40)
        try:
            history.step()
        except PowerCut:
            history.crash()
        history.world.assert_balanced()
    world = history.world
    world.disk.cut_at = None
    world.tick(60)
    world.drain()
    world.assert_balanced()
    assert not world.missing(), seed
    assert {name.partition(".")[0] for name in world.announced()} <= history.unrouted, "only what went to no lane for a while is left out"
