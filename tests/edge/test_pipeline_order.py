"""A replay sees the keys in the order in which they were seen first."""

from pipeline_world import START, World, env, modules

__all__ = ["modules"]


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
