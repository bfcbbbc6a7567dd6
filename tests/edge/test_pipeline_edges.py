"""Keys and times at their edges, through the whole core."""

import json
from ast import literal_eval

from pipeline_world import RULES, S, World, env, modules, plain

__all__ = ["modules"]

UNKEYED = RULES + """
[rules.total]
input = "plain"
module = "window"
params = { length = "5s", fields = ["n"], functions = ["count", "sum"] }
"""


def test_a_window_over_a_stream_without_a_key_closes_by_receive_time(modules):
    world = World(modules, UNKEYED.replace('"slope.late", "plain"', '"slope.late", "plain", "total"')).start()
    assert not world.core.refused
    for i in range(12):
        world.put(plain(i), plain(i))
        world.now_ns += S
    world.crash(0)
    world.tick(60)
    world.drain()
    world.assert_balanced()
    counts = [literal_eval(row)["count"] for row in world.of("total").values()]
    assert sum(counts) == 24 and counts[0] == 10


def test_empty_and_null_keys_and_batches_of_dead_letters(modules):
    config = RULES.replace('device = "str"', 'device = { type = "str", required = false }')
    world = World(modules, config).start()
    for i in range(10):
        at = world.now_ns // 10**6
        world.put(env("", i, at, 1.0), (b"env/x", json.dumps({"device": None, "seq": i, "ts": at, "temp": 2.0}).encode()))
        world.put((b"env/x", b"no"), (b"env/x", b"{}"))
        world.now_ns += S
        world.assert_balanced()
    world.crash(0.5)
    world.tick(60)
    world.drain()
    world.assert_balanced()
    windows = [literal_eval(row) for row in world.of("tumble").values()]
    assert sum(w["count"] for w in windows if w["device"] == "") == 10
    assert len(world.letters()) == 20 and world.account("env").out == {"stored": 20, "dead_lettered": 20}


def test_a_clock_in_the_far_future_closes_only_its_own_windows(modules):
    world = World(modules).start()
    for i in range(10):
        at = world.now_ns // 10**6
        world.put(env("mad", i, at + 10**11, 1.0), env("good", i, at, 2.0))
        world.now_ns += S
    world.tick(60)
    world.drain()
    world.assert_balanced()
    assert sum(w["count"] for w in map(literal_eval, world.of("tumble").values()) if w["device"] == "good") == 10
    assert not world.of("tumble.late")


def test_more_keys_than_the_table_holds_lose_no_event(modules):
    keys = 70_000
    world = World(modules, RULES).start()
    for first in range(0, keys, 14_000):
        at = world.now_ns // 10**6
        world.put(*((b"env/all", env(f"k{k}", 1, at, 1.0)[1]) for k in range(first, first + 14_000)))
        world.assert_balanced()
        world.now_ns += S // 10
    assert len(world.stream("env").watermarks) <= 65_536
    world.crash(0)
    world.tick(90)
    world.assert_balanced()
    assert world.stream("env").next_sequence == keys and not world.stage("tumble").rule.quarantined
    world.drain()
    windows = [literal_eval(row)["count"] for row in world.of("tumble").values()]
    assert sum(windows) + len(world.of("tumble.late")) == keys
