"""While upstream is away small batches become large records: an outage takes little disk, and nothing of it is lost, doubled or out of order."""

import random

import pytest
from memory_disk import MemoryDisk
from pipeline_world import CONFIG, World, env, modules  # noqa: F401 (a fixture)

PLAIN = CONFIG + """
[rules.hot]
input = "env"
module = "threshold"
params = { field = "temp", op = ">", value = 25.0 }
[lanes.alerts]
streams = ["hot", "plain"]
age = "0s"
priority = 0
[lanes.telemetry]
streams = ["env", "plain"]
age = "0s"
"""


class Away(World):
    """A world whose upstream is away until back()."""

    def start(self):
        super().start()
        for _, lane in self.core.lanes:
            lane.disconnected()
        return self

    def back(self):
        for _, lane in self.core.lanes:
            lane.connected()
        self.drain()

    def take(self, rng, events):
        """Events one by one, as at a low rate; returns [(device, seq)]."""
        made = []
        for _ in range(events):
            self.now_ns += 2 * 10**6
            self.sent = getattr(self, "sent", 0) + 1
            device = f"d{rng.randrange(5)}"
            self.put(env(device, self.sent, self.now_ns // 10**6, round(rng.uniform(20, 30), 1)))
            made.append((device, self.sent))
        return made


def upstream(world, stream):
    """[(device, seq)] of the stream, by sequence."""
    return [row for (name, _), row in sorted(world.rows.items()) if name == stream]


@pytest.fixture
def world(modules):  # noqa: F811
    world = Away(modules, PLAIN, MemoryDisk()).start()
    yield world
    world.close()


def test_an_outage_takes_a_few_bytes_an_event(world):
    rng = random.Random(1)
    outbox = world.core.outboxes["telemetry"]
    before = outbox.log.size_bytes
    world.take(rng, 1000)
    world.checkpoint()
    assert outbox.log.size_bytes - before < 15 * 1000
    assert world.account("telemetry/env").out["pending"] == 1000
    world.assert_balanced()


def test_what_gathered_arrives_in_order_and_once_with_crashes_and_without(world):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    made = []
    for _ in range(8):
        made += world.take(rng, rng.randint(1, 80))
        fate = rng.randrange(5)
        if fate == 0:
            world.checkpoint()
        elif fate == 1:
            world.crash(rng.random())
        elif fate == 2:
            world.tick(1.0)
        elif fate == 3:                              # upstream is there for a moment
            world.back()
            made += world.take(rng, 20)
            world.drain()
            for _, lane in world.core.lanes:
                lane.disconnected()
        world.assert_balanced()
    world.back()
    world.assert_balanced()
    rows = upstream(world, "env")
    assert len(rows) == len(made) and [f"'seq': {seq}," in row for (_, seq), row in zip(made, rows)] == [True] * len(made)
    assert all(lane.rows_waiting == 0 for _, lane in world.core.lanes)
    assert len(upstream(world, "hot")) == sum(float(row.split("'temp': ")[1].strip("}")) > 25 for row in rows)


def test_rows_that_gather_are_not_let_go_by_a_crash_without_a_checkpoint(world):
    made = world.take(random.Random(3), 60)
    world.crash(0.0)
    world.back()
    assert len(upstream(world, "env")) == len(made)
