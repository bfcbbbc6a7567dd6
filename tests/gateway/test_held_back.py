"""While the gateway takes no events, its lanes go on: the loop goes round, and a try comes four times a second, or at once when there is room."""

from pipeline_world import CONFIG, World, modules
from turns import Turns

from gateway.daemon import BREATH_S, RETRY_S

LANE = """[lanes.main]
streams = ["plain"]
age = "0s"
quota = "64KiB"
full = "backpressure"
"""


def held_back(modules):
    """A daemon whose lane has used up its quota, and whose devices go on."""
    world = World(modules, CONFIG + LANE).start()
    turns = Turns(world, "ack", [(i / 1000, i, 1) for i in range(60_000)])
    while not turns.blocked:
        turns.turn(1.0)
    return world, turns


def test_a_lane_at_its_quota_does_not_stop_the_loop_that_drains_it(modules):
    world, turns = held_back(modules)
    for _, lane in world.core.lanes:
        lane.connected()
    turns.breaths.clear()
    tries, flush = [], world.pipeline.flush
    world.pipeline.flush = lambda: tries.append(turns.reactor.now) or flush()
    checkpoints, checkpoint = [], world.core.checkpoint
    world.core.checkpoint = lambda: checkpoints.append(turns.reactor.now) or checkpoint()
    began, rounds = turns.reactor.now, 0
    while turns.reactor.now < began + 10:
        turns.turn(1.0)
        rounds += 1
    assert turns.blocked and "lanes.main.full" in turns.blocked
    assert max(turns.breaths) <= BREATH_S and rounds > 1000, f"{rounds} rounds in 10 s: a message of the lane goes in a round"
    assert 10 <= len(tries) <= 10 / RETRY_S + 1 and len(checkpoints) <= 1, "what changes nothing makes no room, and wears the card"
    world.close()


def test_events_come_in_again_as_soon_as_upstream_has_made_room(modules):
    world, turns = held_back(modules)
    world.drain()
    began, stored = turns.reactor.now, len(turns.stored_at)
    while turns.blocked:
        turns.turn(1.0)
    assert turns.reactor.now - began <= 2 * RETRY_S and len(turns.stored_at) > stored
    world.close()
