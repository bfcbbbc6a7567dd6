"""A start: from a checkpoint, from none, from another configuration, over records that cannot be played."""

import errno

import msgpack
import pytest
from memory_disk import FaultyDisk, MemoryDisk
from pipeline_world import CONFIG, RULES, START, S, World, env, modules, plain, records

from edge.errors import DiskError
from edge.recovery import FAILED_MAX, META_VERSION, Recovered, capture, deployed, journal_position
from edge.storage.records import BATCH, GAP, SCHEMA

__all__ = ["modules"]

ONE = CONFIG + """
[rules.once]
input = "env"
module = "dedup"
params = { id = "seq", within = "1m" }
[lanes.all]
streams = ["env", "once", "plain"]
age = "0s"
"""
REPEATS = ONE.replace('idle = "5s"', 'idle = "5s"\nid = "seq"')


def run(world, turns, first=0):
    for i in range(first, first + turns):
        world.now_ns = START + i * S
        assert world.put(*(env(f"d{k}", i, world.now_ns // 10**6, 20.0 + k) for k in range(3)), plain(i))


def without(world, part):
    """The disk as it is, but for a directory."""
    world.disk.kill()
    world.disk = MemoryDisk({p: bytes(n.data) for p, n in world.disk.files.items() if f"/{part}/" not in p})
    return world


def saved(world, **changes):
    meta, images = capture(world.pipeline, world.core.cursors())
    meta = msgpack.unpackb(meta, strict_map_key=False)
    return msgpack.packb(meta | changes), images


def test_a_checkpoint_of_a_newer_version_is_refused_and_nothing_is_touched(modules):
    world = World(modules, ONE).start()
    run(world, 3)
    meta, images = saved(world, version=META_VERSION + 1)
    world.core.checkpoints.save(meta, images)
    world.disk.kill()
    before = {p: bytes(n.data) for p, n in world.disk.files.items() if p.endswith(".seg")}
    with pytest.raises(DiskError, match=f"of version {META_VERSION + 1}, this program reads up to {META_VERSION}: install the newer version again"):
        world.start()
    assert {p: bytes(n.data) for p, n in world.disk.files.items() if p.endswith(".seg")} == before
    with pytest.raises(DiskError):
        deployed((meta, images))


def test_what_a_checkpoint_says_of_deployments_and_of_the_journal(modules):
    world = World(modules, ONE).start()
    run(world, 3)
    meta, images = saved(world, generation=7, deployments=[{"rule": "x"}])
    assert deployed(None) == (0, []) and deployed((meta, images)) == (7, [{"rule": "x"}])
    assert deployed(saved(world)) == (0, []), "of a version that had none"
    assert Recovered() == Recovered(False, False, 0, 0, (), (), 0)
    assert journal_position(meta) == world.pipeline.journal.head
    world.close()


def test_a_lane_that_is_new_begins_at_nothing_and_the_others_go_on(modules):
    world = World(modules, ONE).start()
    run(world, 5)
    world.drain()
    world.checkpoint()
    run(world, 2, 5)
    world.config = ONE + '[lanes.more]\nstreams = ["env"]\nage = "0s"\n'
    world.crash(0)
    assert (world.recovered.checkpoint, world.recovered.lost, world.recovered.fresh) == (True, False, ())
    assert world.account("all/env").into == 21 and world.account("more/env").into == 6, "only what is played again goes to the new lane"
    run(world, 3, 7)
    world.drain()
    world.assert_balanced()
    assert not world.missing() and len(world.of("env")) == 30


def test_what_upstream_has_is_not_evicted_by_what_a_replay_puts_out(modules):
    world = World(modules, ONE).start()
    run(world, 5)
    world.drain()
    world.checkpoint()
    log = world.core.outboxes["all"].log
    head = log.head
    world.crash(0)
    assert world.core.outboxes["all"].log._floor == head


# --- without a checkpoint

def test_without_a_checkpoint_numbers_go_on_behind_all_that_an_outbox_shows(modules):
    world = World(modules, ONE).start()
    run(world, 5)
    after = world.stream("once").next_sequence
    world.core.outboxes["all"].write()
    world.core.outboxes["all"].writer.append(GAP, world.stream("once").number, after, 20, msgpack.packb(0))
    world.core.outboxes["all"].writer.append(BATCH, 77, 1000, 20, b"of a stream that nobody has named")
    world.pipeline.journal.append(BATCH, 77, 1000, 20, b"of a stream that nobody has named")
    for outbox in world.pipeline.outboxes:
        outbox.write()
        outbox.writer.sync()
    run(world, 2, 5)
    without(world, "checkpoints").start()
    assert not world.recovered.checkpoint and world.recovered.lost and world.recovered.fresh == ("once",)
    assert world.stream("once").next_sequence >= after + 20
    assert world.core.outboxes["all"].appended[world.stream("once").number] >= 15
    finish(world)


def test_without_a_checkpoint_a_stream_of_a_rule_that_is_not_here_keeps_its_numbers_for_when_it_comes_back(modules):
    world = World(modules, ONE).start()
    run(world, 5)
    for outbox in world.pipeline.outboxes:
        outbox.write()
        outbox.writer.sync()
    before = world.stream("once").next_sequence
    world.config = CONFIG + '[lanes.all]\nstreams = ["env", "plain"]\nage = "0s"\n'
    without(world, "checkpoints").start()
    assert world.pipeline.absent["streams"]["once"] == {"next": before, "since": before, "arrived": 0, "rejected": 0, "damaged": 0, "jump": True}
    world.checkpoint()
    world.close()
    world.config = ONE
    world.start()
    assert world.stream("once").next_sequence > before
    finish(world)


def test_without_a_checkpoint_the_journal_is_played_from_behind_what_the_outboxes_show(modules):
    world = World(modules, ONE).start()
    run(world, 5)
    world.tick(0.5)
    for outbox in world.pipeline.outboxes:
        outbox.write()
        outbox.writer.sync()
    shown = world.pipeline.journal.head
    assert [r for r in records(world.pipeline.journal.log) if r.kind not in (BATCH, SCHEMA)], "a record that is no batch stands among them"
    run(world, 3, 5)
    world.disk = world.disk.after_cut(0)
    without(world, "checkpoints").start()
    assert world.recovered.replayed == world.pipeline.journal.log.head - shown
    assert world.recovered.received_ns == START + 7 * S
    world.drain()
    assert [row for _, row in sorted(world.of("plain").items())] == [repr({"n": i}) for i in range(8)], "what is in the journal alone was acknowledged"
    assert len(world.of("env")) == 24
    finish(world)


def test_without_a_checkpoint_what_a_device_sent_is_not_taken_again(modules):
    world = World(modules, REPEATS).start()
    run(world, 5)
    for outbox in world.pipeline.outboxes:
        outbox.write()
        outbox.writer.sync()
    without(world, "checkpoints").start()
    arrived = world.stream("env").next_sequence
    world.now_ns = START + 6 * S
    assert world.put(*(env(f"d{k}", 4, (START + 4 * S) // 10**6, 20.0 + k) for k in range(3)), env("d0", 99, world.now_ns // 10**6, 1.0))
    assert world.stream("env").next_sequence - arrived == 1 and world.account("env").out["duplicates"] == 3


def test_without_a_checkpoint_what_gave_way_on_a_full_disk_is_announced_and_its_numbers_are_not_given_again(modules):
    world = World(modules, ONE, FaultyDisk(lambda number, name: None)).start()
    log = world.core.outboxes["all"].log
    run(world, 3)
    world.core.outboxes["all"].writer.sync()
    log.roll()
    world.disk.fault = lambda number, name: errno.ENOSPC if name in ("create", "pwrite") else None
    assert log.give_way() is False       # the last segment stays
    world.disk.fault = lambda number, name: None
    run(world, 1, 3)
    world.core.outboxes["all"].writer.sync()
    faults = [errno.ENOSPC]              # when the gap is synced, and not when the notice is
    world.disk.fault = lambda number, name: faults.pop() if name == "fdatasync" and faults else None
    assert log.give_way()
    rows = world.stream("env").next_sequence
    world.disk.fault = lambda number, name: None
    world.disk = world.disk.after_cut(0)
    without(world, "checkpoints").start()
    assert world.stream("env").next_sequence >= rows
    world.drain()
    assert ("env", 0, 9) in world.gaps and len(world.of("env")) == 3
    finish(world)


def test_an_empty_directory_is_no_loss(modules):
    world = World(modules, ONE).start()
    assert (world.recovered.checkpoint, world.recovered.lost, world.recovered.replayed, world.recovered.fresh) == (False, False, 0, ())
    assert all(s.next_sequence == 0 for s in world.pipeline.streams)


def finish(world):
    """Live on; all that is put out now is new to the receiver, and what it lacks is announced."""
    before = {s.name: s.next_sequence for s in world.pipeline.streams}
    run(world, 5, 100)
    world.drain()
    world.assert_balanced()
    for name in ("env", "plain"):
        assert all((name, n) in world.rows for n in range(before[name], world.stream(name).next_sequence)), name
    assert not world.missing()
    world.close()


# --- records that cannot be played

def test_records_that_cannot_be_played_are_told_and_the_start_goes_on(modules):
    """A mistake of ours that a record brings to light would stop every start."""
    world = World(modules, ONE).start()
    world.checkpoint()
    run(world, FAILED_MAX + 5)
    log = world.pipeline.journal.log
    positions = [r.position for r in records(log) if r.kind == BATCH]
    world.disk.kill()
    import edge.pipeline

    replay = edge.pipeline.Pipeline.replay

    def failing(pipeline, record, schemas):
        if record.kind == BATCH:
            raise RuntimeError("a mistake")
        return replay(pipeline, record, schemas)

    edge.pipeline.Pipeline.replay = failing
    try:
        world.start()
    finally:
        edge.pipeline.Pipeline.replay = replay
    assert len(world.recovered.failed) == FAILED_MAX and world.recovered.failed[:FAILED_MAX - 1] == tuple((p, "RuntimeError('a mistake')") for p in positions[:FAILED_MAX - 1])
    assert world.recovered.failed[-1] == (positions[-1], "RuntimeError('a mistake')"), "the last of them"
    assert world.recovered.replayed >= len(positions)
    world.close()


def test_calls_that_waited_and_cannot_be_made_again_are_told_and_the_start_goes_on(modules, monkeypatch):
    import edge.pipeline

    world = World(modules, ONE).start()
    run(world, 3)
    world.checkpoint()
    position = world.pipeline.journal.head
    world.disk.kill()
    waiting = list(range(FAILED_MAX + 5))
    monkeypatch.setattr(edge.pipeline.Pipeline, "deferred", property(lambda pipeline: waiting, lambda pipeline, value: None), raising=False)

    def replay_deferred(pipeline):
        raise RuntimeError(f"a mistake {waiting.pop()}")

    monkeypatch.setattr(edge.pipeline.Pipeline, "replay_deferred", replay_deferred)
    world.start()
    told = [*range(FAILED_MAX + 4, 5, -1), 0]
    assert len(told) == FAILED_MAX and world.recovered.failed == tuple((position, f"RuntimeError('a mistake {n}')") for n in told), "the first, and the last of them"


def test_rules_in_a_chain_come_back_with_their_state(modules):
    world = World(modules, RULES).start()
    run(world, 8)
    world.checkpoint()
    run(world, 3, 8)
    world.crash(0)
    assert (world.recovered.lost, world.recovered.fresh, world.recovered.failed, world.recovered.damaged) == (False, (), (), 0)
    assert world.recovered.replayed >= 6 and world.recovered.received_ns == START + 10 * S
    assert [r.kind for r in records(world.pipeline.journal.log)][0] == SCHEMA
    finish(world)
