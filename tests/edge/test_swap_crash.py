"""The power goes, or the disk refuses, at any operation of a swap: afterwards the old version runs or the new one, with the state that it should have.

What the receiver has in the end is what it has after a run without swap, or after one with it. Never a mixture.
"""

import errno
import functools
from contextlib import suppress
from pathlib import Path

import pytest
import tidegate_rules
from memory_disk import FaultyDisk, MemoryDisk, PowerCut
from msgspec.structs import replace
from pipeline_world import CONFIG, START, S, World, env, modules

from edge.deployment import Deployment
from edge.module import Module

__all__ = ["modules"]

RULES = CONFIG + """
[rules.once]
input = "env"
module = "dedup"
params = { id = "seq", within = "1m" }
[rules.tumble]
input = "once"
module = "window"
params = { length = "5s", fields = ["temp"], functions = ["count", "sum"] }
[lanes.all]
streams = ["once", "tumble", "tumble.late"]
age = "0s"
"""
RATE = Path(tidegate_rules.path("rate")).read_bytes()
TURNS, AT = 14, 8                        # turns in all, and before the swap

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


def feed(world, first, stop):
    for i in range(first, stop):
        world.now_ns = START + i * S
        assert world.put(*(env(f"d{k}", i, world.now_ns // 10**6, 20.0 + (i * (k + 3)) % 17) for k in range(2)))
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


def after(world):
    feed(world, AT, TURNS)
    world.tick(60)
    world.drain()
    world.assert_balanced()


@functools.cache
def reference(modules, change):
    """(rows that the receiver has in the end, deployments) of a run with a change, or without (None); the operations of the swap."""
    world = World(modules, RULES).start()
    before(world)
    begun = world.disk.operations
    if change:
        assert world.carry_out(CHANGES[change](world, world.core.deployments["tumble"])).state == "done"
    ended = world.disk.operations
    after(world)
    assert not world.missing() and not world.announced()
    return dict(world.rows), dict(world.core.deployments), (begun, ended)


def check(world, modules, change, where):
    """The world goes on to the end; it must be one of the two."""
    swapped = world.core.deployments == reference(modules, change)[1]
    expected = reference(modules, change if swapped else None)
    assert world.core.deployments == expected[1], where
    after(world)
    assert not world.missing() and not world.announced(), where
    assert world.rows == expected[0], (where, swapped)
    return swapped


EVERY = [pytest.param(3, id="sampled"), pytest.param(1, id="every", marks=pytest.mark.slow)]


@pytest.mark.parametrize("step", EVERY)
@pytest.mark.parametrize("change", CHANGES)
def test_a_power_cut_at_any_operation_leaves_the_old_version_or_the_new(modules, change, step):
    begun, ended = reference(modules, change)[2]
    outcomes = set()
    for cut in (*range(begun + len(change) % step, ended, step), ended):
        world = World(modules, RULES, MemoryDisk(seed=cut, cut_at=cut)).start()
        before(world)
        survival, swap = (0, 0.5, 1)[cut // step % 3], None
        try:
            swap = CHANGES[change](world, world.core.deployments["tumble"])
            world.carry_out(swap)
            world.drain()
        except PowerCut:
            pass
        done = swap is not None and swap.state == "done"
        world.crash(survival)
        world.assert_balanced()
        swapped = check(world, modules, change, f"cut {cut} of {begun}..{ended}, survival {survival}")
        assert swapped or not done, "what was reported as done stays"
        outcomes.add(swapped)
    assert outcomes == {True, False}


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC, FaultyDisk.LIE], ids=str)
@pytest.mark.parametrize("step", EVERY)
@pytest.mark.parametrize("change", ["keep", "fresh", "add", "remove"])
def test_a_refusing_disk_at_any_operation_leaves_the_old_version_or_the_new(modules, change, fault, step):
    begun, ended = reference(modules, change)[2]
    passed = ("open", "pread", "lock", "listdir", "mkdir")
    for n in range(begun, ended):
        for times in (1, 9):
            if (n + times // 3) % (2 * step - 1):
                continue
            world = World(modules, RULES, FaultyDisk(lambda i, name: fault if n <= i < n + times and name not in passed else None, seed=n)).start()
            before(world)
            where = f"{fault} x {times} at {n} of {begun}..{ended}"
            swap = world.carry_out(CHANGES[change](world, world.core.deployments["tumble"]))
            world.disk.fault = lambda i, name: None
            if n % 2:                           # and then the power goes as well
                world.crash((n % 3) / 2)
            else:
                world.core.settle()
                world.pipeline.flush()
                assert (swap.state == "done") == (world.core.deployments == reference(modules, change)[1]), where
            swapped = check(world, modules, change, (where, swap.state, swap.error))
            assert swapped or swap.state == "failed", where
            world.crash(0)
            world.drain()
            assert world.rows == reference(modules, change if swapped else None)[0], where
            world.assert_balanced()


@pytest.mark.parametrize("change", ["fresh", "keep"])
@pytest.mark.parametrize("refused", ["pwrite", "fdatasync"])
def test_a_swap_that_was_undone_is_found_by_no_later_start(modules, change, refused):
    """What a save that failed left in memory would reach the disk with the next one, and the power may go between the two."""
    for cut in range(1 + len(refused) % 2, 13, 2):
        refusing = []
        world = World(modules, RULES, FaultyDisk(lambda i, name: None, seed=cut)).start()
        before(world)
        operate = world.disk.operate

        def once(name, path="", disk=world.disk, operate=operate):
            disk.fault = lambda i, n: errno.ENOSPC if name == refused and "/checkpoints/" in path and not refusing and not refusing.append(1) else None
            operate(name, path)

        world.disk.operate = once
        swap = world.carry_out(CHANGES[change](world, world.core.deployments["tumble"]))
        assert swap.state == "failed" and refusing
        world.core.settle()
        feed(world, AT, AT + 3)
        world.drain()
        world.disk.cut_at = world.disk.operations + cut
        with suppress(PowerCut):
            world.checkpoint()
        world.crash((1, 0.5)[cut % 2])
        assert world.core.deployments == reference(modules, None)[1], cut
        feed(world, AT + 3, TURNS)
        world.tick(60)
        world.drain()
        assert world.rows == reference(modules, None)[0] and not world.missing() and not world.announced(), cut
