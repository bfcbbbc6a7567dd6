"""What a gateway recorded, played again on another machine, is byte for byte what it put out."""

import msgpack
import pytest
import tidegate_rules
from pipeline_script import script
from pipeline_world import World, modules
from test_pipeline_traps import GROW, LOOP, NONSENSE, TRAP, config, play

from edge.host.compile import Cache
from edge.rehearsal.recording import Recording, Ruled, Settings, Spans
from edge.rehearsal.replay import Player
from edge.storage.records import BATCH, SCHEMA
from gateway.config.reader import parse

__all__ = ["config", "modules"]


def settings_of(config) -> Settings:
    config = parse(config)
    return Settings(1, config.gateway.name, {name: Spans(s.lateness, s.idle, s.skew, s.keys_max) for name, s in config.streams.items()},
                    [Ruled(name, rule.input, rule.module if "/" in rule.module else str(tidegate_rules.path(rule.module)), rule.params,
                           {"memory_bytes": int(rule.limits.memory)} if rule.limits else {}) for name, rule in config.rules.items()])


def recording_of(world):
    return Recording(world.disk, world.core.config.gateway.data, settings_of(world.config), "memory")


def played(recording, modules, rules=None):
    """(stream, first sequence) -> payload of all that the rules put out."""
    said = {}

    def say(stream, batch, payload):
        assert (stream.name, batch.first_sequence) not in said
        said[stream.name, batch.first_sequence] = payload

    player = Player(recording, [(r, recording.module(r)) for r in rules or recording.settings.rules], Cache(modules), say)
    for record in recording.reader.all():
        player.play(record)
    return said, player


def put_out(core, names):
    """The same of what a gateway's outboxes hold."""
    held = {}
    for outbox, _ in core.lanes:
        outbox.log.sync()
        numbers, position = {}, outbox.log.tail
        while records := outbox.log.read(position, 1 << 20):
            position = records[-1].position + 1
            for r in records:
                if r.kind == SCHEMA:
                    numbers[r.stream] = msgpack.unpackb(r.payload)["stream"]
                elif r.kind == BATCH and numbers[r.stream] in names:
                    held[numbers[r.stream], r.first] = r.payload
    return held


@pytest.mark.parametrize("seed", range(4))
def test_a_replay_is_bit_identical_to_what_the_gateway_put_out(modules, seed):
    """Late events, ticks, clock steps, restarts; eight rules, some reading each other."""
    world = World(modules).start()
    for now, what, argument in script(seed, steps=70):
        world.now_ns = now
        if what == "put":
            world.put(*argument)
        elif what == "tick":
            world.tick()
        elif what == "clock":
            world.pipeline.clock_set(argument)
        elif what == "checkpoint" and seed % 2:
            world.checkpoint()
            world.core.close()
            world.start()
    assert_identical(world, modules)


def assert_identical(world, modules):
    world.pipeline.sync()
    config = parse(world.config)
    names = {s for lane in config.lanes.values() for s in lane.streams} - set(config.streams)
    held = put_out(world.core, names)
    said, player = played(recording_of(world), modules)
    assert len(held) > 50 and player.missing == 0 and not player.traps
    assert {key: payload for key, payload in said.items() if key[0] in names} == held


@pytest.mark.parametrize("value", [TRAP, LOOP, GROW, NONSENSE])
def test_calls_that_failed_on_the_gateway_are_not_made_again(modules, config, value):
    """Nor do those count that failed for want of time, on a machine that is faster."""
    world = World(modules, config).start()
    play(world, {5: value, 30: value})
    assert world.stage("third").dead == 10
    assert_identical(world, modules)
    play(world, {85: value}, 20, first=80)
    assert world.stage("third").rule.quarantined
    assert_identical(world, modules)


@pytest.mark.parametrize("value", [TRAP, GROW, NONSENSE])
def test_a_version_that_traps_in_the_replay_alone_is_told_with_its_reason_and_the_others_go_on(modules, config, value):
    world = World(modules, config).start()
    play(world, {5: value, 30: value})
    world.pipeline.sync()
    recording = recording_of(world)
    recording.skips = []                 # as if the gateway's version had not minded
    said, player = played(recording, modules)
    assert player.trapped == 2 and [(rule, position > 0) for position, rule, _ in player.traps] == [("third", True)] * 2
    assert all(reason for _, _, reason in player.traps)
    assert {name for name, _ in said} >= {"beside", "third", "after"}
