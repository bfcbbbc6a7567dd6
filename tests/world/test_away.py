"""Time in which the gateway did not listen is nobody's silence. docs/adr/0013, in a simulated world."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from simulation import World

import oracle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("w")
    (folder / "data").mkdir()
    return str(folder)


@pytest.fixture
def world(folder):
    world = World("away", folder)
    world.start()
    for name in ("a", "b"):
        world.add_device(name).plug()
    yield world
    world.close()


def speak(world, seconds):
    for _ in range(seconds):
        for device in world.devices:
            device.measure()
        world.run(1)


def silent(world):
    """Who was said to be silent, by the rule of 12 s."""
    return [row["device"] for _, row in oracle.by_stream(world.broker.rows)["gone"] if row["silent"]]


def late(world):
    return len(oracle.by_stream(world.broker.rows)["tumble.late"])


@pytest.mark.parametrize("away", ["asleep", "off", "off without a clock"])
def test_what_devices_kept_while_the_gateway_was_away_is_not_late(world, away):
    speak(world, 8)
    for device in world.devices:
        device.unplug()
        device.measure(3)                    # it is made now, and can be sent when the gateway listens again
    if away == "asleep":
        world.skip(3600)
    else:
        world.lose_power(3600, unset=away != "off")
    world.run(2)
    world.wall_error_ns = 0
    world.run(2)
    for device in world.devices:
        device.plug()
    world.run(4)
    assert silent(world) == [] and late(world) == 0
    world.settle()
    assert late(world) == 0 and oracle.problems(world) == []


def test_a_silence_that_was_listened_to_is_one(world):
    speak(world, 8)
    for device in world.devices:
        device.unplug()
        device.measure(3)
    world.run(25)
    assert sorted(silent(world)) == ["a", "b"]
    for device in world.devices:
        device.plug()
    world.settle()
    assert late(world) > 0 and oracle.problems(world) == []


def test_time_away_is_no_part_of_a_silence(world):
    """6 s of silence, an hour off, 6 s of silence: nobody was silent for 12 s and the allowed lateness."""
    speak(world, 8)
    for device in world.devices:
        device.unplug()
    world.run(6)
    world.lose_power(3600)
    world.run(6)
    assert silent(world) == []
    world.run(15)
    assert sorted(silent(world)) == ["a", "b"]
