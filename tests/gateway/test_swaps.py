"""Swaps that wait, and automatic rollbacks that had to give way or failed."""

from msgspec.structs import replace
from pipeline_world import modules
from test_deployments import DIGESTS, feed, path, spoil, world

from edge.host.rule import Rule

__all__ = ["modules", "path", "world"]


def test_a_rollback_whose_place_a_change_took_that_failed_is_tried_again(world):
    world.deploy("hot", digest=DIGESTS[2])
    world.deploy("hot", digest=DIGESTS[3], policy="fresh")
    feed(world, 4)
    assert world.core.stage("hot").rule.quarantined
    world.core.swaps._fall_back()
    failed = world.carry_out(world.core.deploy(replace(world.core.deployments["hot"], digest="0" * 64)))
    assert failed.state == "failed"
    for _ in range(50):
        world.core.advance(0)
    assert world.core.deployments["hot"].digest == DIGESTS[2] and not world.core.stage("hot").rule.quarantined


def test_a_version_whose_rollback_failed_may_go_back_when_it_is_deployed_again(world):
    world.deploy("hot", digest=DIGESTS[2])
    world.deploy("hot", digest=DIGESTS[3], policy="fresh")
    spoil(world, DIGESTS[2])
    feed(world, 4)
    for _ in range(50):
        world.core.advance(0)
    assert world.core.stage("hot").rule.quarantined
    world.deploy("hot", digest=DIGESTS[1], policy="fresh")
    world.deploy("hot", digest=DIGESTS[3], policy="fresh")
    feed(world, 4)
    for _ in range(50):
        world.core.advance(0)
    assert world.core.deployments["hot"].digest == DIGESTS[1]


def test_what_waits_behind_a_warm_up_is_not_built_again_each_turn(world, monkeypatch):
    feed(world, 60)
    first = world.core.deploy(replace(world.core.deployments["hot"], digest=DIGESTS[2]), policy="replay")
    world.core.advance(0)
    assert first.state == "warming"
    built = []
    monkeypatch.setattr("gateway.deploy.swap.Rule", lambda *given, **more: built.append(given) or Rule(*given, **more))
    second = world.core.deploy(replace(world.core.deployments["tumble"], params=world.core.deployments["tumble"].params | {"length": "6s"}), policy="replay")
    turns = 0
    while first.state == "warming":
        world.core.advance(0)
        turns += 1
    assert turns > 10 and len(built) <= 2
    assert world.carry_out(second).state == "done"
