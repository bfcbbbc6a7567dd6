"""A device that floods costs the others at most a tenth of their 99th percentile, and is held back only where there is somebody to spare."""

import pytest
from flood_world import EVENT_S, LOOK_S, TURN_S, FloodWorld, p99
from raw_client import publish

from gateway.ingest import floods as floods_module

SECONDS = 12.0


@pytest.fixture
def flooded():
    made = []

    def make(**settings):
        made.append(FloodWorld(**{"sparing": True, **settings}))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.mark.parametrize("size, qos", [(11, 0), (2000, 0), (200_000, 0), (11, 1), (2000, 1)])
def test_a_flood_costs_the_others_at_most_a_tenth_of_their_p99(flooded, size, qos):
    quiet, beside = flooded(floods=0), flooded(flood=publish(b"x" * size, qos, 7))
    beside.run(1.0)                                                      # until it is known for what it is
    before, alone = beside.taken, p99(quiet.run(SECONDS))
    waits = beside.run(SECONDS)
    assert len(waits) > 2000 and TURN_S <= alone <= TURN_S + EVENT_S + 2 * LOOK_S
    assert p99(waits) <= 1.1 * alone
    assert beside.listener.floods.begun == 1 and "'flood-0'" in beside.log[-1][1] and beside.log[-1][0] == "flood"
    assert beside.taken > before                                         # held back, not shut out


def test_without_sparing_a_flood_costs_the_others_more(flooded):
    assert p99(flooded(sparing=False).run(2.0)) > 2 * (TURN_S + EVENT_S)


def test_a_flood_with_nobody_to_spare_is_not_held_back(flooded):
    free, spared = flooded(honest=0, floods=1), flooded(honest=0, floods=1, sparing=False)
    free.run(1.0)
    spared.run(1.0)
    assert free.taken > 0.7 * spared.taken and not free.listener.floods._resting


def test_what_most_devices_do_is_the_load_and_no_flood(flooded):
    load, free = flooded(honest=1, floods=3), flooded(honest=1, floods=3, sparing=False)
    load.run(2.0)
    free.run(2.0)
    assert load.taken > 0.7 * free.taken and len(load.listener.floods) == 3


def test_a_device_that_waits_for_its_acknowledgements_is_never_a_flood(flooded):
    world = flooded(floods=0, every_s=1e-4)                              # at once again: 2,500 a second, of four devices
    assert len(world.run(3.0)) > 6000 and world.listener.floods.begun == 0


@pytest.mark.parametrize("window", [1, 20, 100])
def test_a_device_that_waits_for_its_acknowledgements_costs_the_others_a_turn_at_most(flooded, window):
    quiet, beside = flooded(floods=0), flooded(flood=publish(b"{}", 1, 7), window=window)
    waits = beside.run(3.0)
    assert len(waits) > 400 and p99(waits) <= p99(quiet.run(3.0)) + TURN_S + 2 * window * EVENT_S + 2 * LOOK_S
    assert beside.listener.floods.begun == 0 and beside.taken > 3000


def test_a_device_of_two_thousand_events_a_second_is_no_flood(flooded):
    world = flooded(floods=0)
    device = world._device("fast")
    for _ in range(500):
        device.send(publish(b"{}") * 20)
        world.run(0.0105)
    assert world.taken == 10_000 and world.listener.floods.begun == 0


def test_a_device_of_large_messages_that_waits_for_each_is_no_flood(flooded):
    world = flooded(floods=0)
    device, large = world._device("large"), publish(bytes(100_000), 1, 3)
    for _ in range(100):
        rest = large
        while rest:
            try:
                rest = rest[device.send(rest):]
            except BlockingIOError:
                pass
            world.run(0.001)
        world.run(0.01)
        assert device.recv(4) == b"\x40\x02\x00\x03"
    assert world.listener.floods.begun == 0


def test_a_flood_that_ends_is_forgotten(flooded):
    world = flooded(floods=0)
    device = world._device("fast")
    device.setblocking(True)
    for _ in range(8):
        device.send(publish(b"{}") * 1000)
        world.run(0.01)
    assert world.listener.floods.begun == 1 and len(world.listener.floods) == 1
    world.run(2 * floods_module.REST_S_MAX)
    for _ in range(5):
        device.send(publish(b"{}"))
        world.run(1.0)
    assert len(world.listener.floods) == 0 and world.taken == 8005
    device.send(publish(b"{}", 1, 5))
    world.run(0.01)
    assert device.recv(4) == b"\x40\x02\x00\x05"                         # at once
    device.close()


def test_a_device_may_go_while_it_rests(flooded):
    world = flooded()
    world.run(0.5)
    assert world.listener.floods._resting
    for device in list(world.listener.devices):
        device.close("shown the door")
    world.every_s = world._due_s = 1e9
    world.run(3.0)
    assert len(world.listener.floods) == 0 and not world.listener.floods._resting and world.listener.connected == 0
