"""A start from checkpoints that say less, or something else, than this program would, and over what it would never write."""

import msgpack
import pytest
from memory_disk import MemoryDisk
from pipeline_world import CONFIG, START, S, World, env, modules, plain, records
from test_recovery import ONE, run, saved, without

from edge.backlog import CLOCK, TICK, Backlog
from edge.codec.batches import decode_columns
from edge.columns._batch import Batch
from edge.recovery import deployed
from edge.storage.records import BATCH, DEAD, GAP, JUMP, read_letter

__all__ = ["modules"]

NONE = CONFIG + '[lanes.all]\nstreams = ["env", "plain"]\nage = "0s"\n'
MORE = ONE.replace("[lanes.all]", '[rules.again]\ninput = "env"\nmodule = "dedup"\nparams = { id = "seq", within = "1m" }\n[lanes.all]')


def again(world, config, crash=True):
    """The next start, with another configuration. crash: records that no checkpoint covers are played."""
    if not crash:
        world.checkpoint()
        world.close()
    world.disk.kill()
    world.config = config
    return world.start()


def restarted_from(world, meta, images):
    world.core.checkpoints.save(meta if isinstance(meta, bytes) else msgpack.packb(meta), images)
    world.disk = world.disk.after_cut(0)
    return world.start()


def test_a_checkpoint_of_an_older_version_is_read_and_nothing_jumps(modules):
    world = World(modules, ONE).start()
    run(world, 5)
    meta, images = saved(world)
    meta = msgpack.unpackb(meta, strict_map_key=False) | {"version": 1}
    for name in ("generation", "deployments", "owed"):
        meta.pop(name, None)
    for kind, unknown in (("streams", ("repeated", "sent")), ("stages", ("enabled", "input")), ("outboxes", ("told_before", "evicted_to", "steps", "since"))):
        for state in meta[kind].values():
            for name in unknown:
                del state[name]
    assert deployed((msgpack.packb(meta), images)) == (0, [])
    run(world, 2, 5)
    path = next(path for path in world.disk.files if path.endswith("/rules/deployments.json"))         # which that version had not
    world.disk.unlink(path)
    world.disk.fsync_directory(path.rpartition("/")[0])
    restarted_from(world, meta, images)
    assert (world.recovered.lost, world.recovered.fresh, world.recovered.failed) == (False, (), ()) and world.recovered.replayed > 0
    world.drain()
    world.assert_balanced()
    assert not world.announced() and len(world.of("once")) == world.stream("once").next_sequence and len(world.of("env")) == 21


@pytest.mark.parametrize("lost", ["memory is missing", "globals are damaged"])
def test_a_rule_whose_state_is_gone_begins_anew_and_those_behind_it_go_on(modules, lost):
    world = World(modules, MORE).start()
    run(world, 5)
    meta, images = saved(world)
    if lost == "memory is missing":
        del images["memory/once"]
    else:
        images["globals/once"] = b"\xff" * 20
    restarted_from(world, meta, images)
    assert world.recovered.fresh == ("once",) and world.account("once").into == 0 and world.account("again").into == 15
    assert world.recovered.lost == (lost == "globals are damaged")
    run(world, 1, 4)                     # what came before comes again
    assert world.account("again").out["duplicate"] == 3 and world.account("once").out["duplicate"] == 0
    world.assert_balanced()


def test_what_waited_for_cpu_goes_to_the_dead_letters_when_its_rule_was_changed(modules):
    world = World(modules, ONE).start()
    run(world, 1)
    stream, backlog = world.stream("env"), Backlog()
    tick = Batch(stream.schema)
    tick.set_watermarks([(b"d0", START)])
    rows = [{"device": "d0", "seq": n, "ts": START, "temp": 1.0} for n in (8, 9)]
    backlog.add_call(7, tick)            # without rows: nothing is lost
    backlog.add_mark(TICK, START)
    backlog.add_call(8, Batch.from_rows(stream.schema, rows, first_sequence=1, received_ns=START))
    backlog.add_mark(CLOCK, S)
    meta, images = saved(world)
    world.config = ONE.replace('within = "1m"', 'within = "2m"')
    restarted_from(world, meta, images | {"deferred/once": backlog.dump()})
    assert world.recovered.fresh == ("once",) and not world.pipeline.deferred
    letter, = [r for r in records(world.pipeline.dead.log) if r.kind == DEAD]
    assert (letter.stream, letter.count) == (stream.number, 2)
    said = read_letter(letter.payload)
    assert (said["reason"], said["rule"]) == ("the rule was changed while these waited for CPU", "once")
    assert [row["seq"] for row in decode_columns(said["columns"], stream.schema).rows()] == [8, 9]


def test_one_journal_record_that_is_gone_is_a_loss(modules):
    world = World(modules, ONE).start()
    world.checkpoint()
    run(world, 4)
    record = [r for r in records(world.pipeline.journal.log) if r.kind == BATCH][2]
    disk = world.disk.after_cut(0)
    world.disk = MemoryDisk({path: bytes(node.data) for path, node in disk.files.items()})
    path = next(path for path in world.disk.files if "/journal/" in path and path.endswith(".seg"))
    world.disk.files[path].data[record.offset + 20] ^= 1
    world.start()
    assert world.recovered.lost and world.recovered.damaged == 3 == world.account("env").into - 9
    run(world, 1, 9)
    world.drain()
    assert not world.missing() and "once" in world.announced()
    world.assert_balanced()


def test_without_a_checkpoint_numbers_of_a_stream_that_no_outbox_has_go_on_as_the_journal_says(modules):
    world = World(modules, ONE.replace('streams = ["env", ', "streams = [")).start()
    run(world, 5)
    for outbox in world.pipeline.outboxes:
        outbox.write()
        outbox.writer.sync()
    run(world, 2, 5)
    world.disk = world.disk.after_cut(0)
    without(world, "checkpoints").start()
    assert (world.recovered.lost, world.recovered.damaged, world.account("env").into) == (True, 0, 6)
    world.drain()
    assert len(world.of("once")) == 21 and not world.missing()
    world.assert_balanced()


def test_without_a_checkpoint_what_one_outbox_lacks_and_another_has_is_announced_and_counted_as_gone(modules):
    world = World(modules, ONE + '[lanes.short]\nstreams = ["env"]\nage = "0s"\n').start()
    run(world, 3)
    world.core.outboxes["short"].write()
    world.core.outboxes["short"].writer.sync()
    run(world, 2, 3)
    world.core.outboxes["all"].write()
    world.core.outboxes["all"].writer.sync()
    world.disk = world.disk.after_cut(0)
    without(world, "checkpoints").start()
    assert world.account("all/env").out["evicted"] == 0 and world.account("short/env").out == {"acknowledged": 0, "dead_lettered": 0, "evicted": 6, "pending": 9}
    gap = [r for r in records(world.core.outboxes["short"].log) if r.kind == GAP][0]
    assert (gap.stream, gap.first, gap.count) == (world.stream("env").number, 9, 6)
    world.assert_balanced()


@pytest.mark.parametrize("config, keys", [(ONE, 3), (ONE.replace('key = "device"\n', ""), 0)])
def test_how_far_event_time_was_comes_back_by_key_unless_the_stream_has_another_key(modules, config, keys):
    world = World(modules, ONE).start()
    run(world, 3)
    again(world, config, crash=False)
    assert world.recovered.replayed == 0 and len(world.stream("env").watermarks) == keys


# --- rules that change, come and go

def test_a_rule_that_was_changed_and_what_is_below_it_take_no_number_that_a_played_record_had(modules):
    below = '[rules.below]\ninput = "once"\nmodule = "threshold"\nparams = { field = "temp", op = ">", value = 1 }\n[lanes.all]'
    config = MORE.replace("[lanes.all]", below).replace('streams = ["env", "once", "plain"]', 'streams = ["env", "once", "below", "again", "plain"]')
    world = World(modules, config).start()
    run(world, 3)
    world.checkpoint()
    run(world, 2, 3)
    world.drain()
    assert len(world.of("once")) == len(world.of("below")) == len(world.of("again")) == 15
    again(world, config.replace('within = "1m"', 'within = "2m"', 1))
    assert world.recovered.fresh == ("once",)
    world.drain()
    world.assert_balanced()
    assert world.announced().keys() == {"once", "below"} and not world.missing()
    assert [world.stream(name).next_sequence for name in ("once", "below", "again")] == [15 + JUMP, 15 + JUMP, 15]



def test_a_rule_that_goes_while_records_are_played_again_jumps_when_it_comes_back_also_after_more_starts(modules):
    """It put something out for these records, under numbers that nobody knows any more."""
    world = World(modules, ONE).start()
    run(world, 3)
    world.checkpoint()
    run(world, 2, 3)
    before = world.stream("once").next_sequence
    again(world, NONE)
    assert world.pipeline.absent["streams"]["once"]["jump"]
    for crash in (False, True):
        run(world, 1, 6)
        again(world, NONE, crash)
        assert world.pipeline.absent["streams"]["once"]["jump"]
    again(world, ONE, crash=False)
    assert world.stream("once").next_sequence >= before - 6 + JUMP
    run(world, 2, 9)
    world.drain()
    assert not world.missing() and "once" in world.announced()
    world.assert_balanced()


def test_a_rule_that_goes_when_all_is_in_the_checkpoint_comes_back_without_a_jump_whatever_is_played_meanwhile(modules):
    world = World(modules, ONE).start()
    run(world, 3)
    before = world.stream("once").next_sequence
    again(world, NONE, crash=False)
    run(world, 2, 3)
    again(world, NONE)                   # records are played, but it was not there when they came
    assert world.recovered.replayed and not world.pipeline.absent["streams"]["once"]["jump"]
    again(world, ONE, crash=False)
    assert world.stream("once").next_sequence == before
    run(world, 2, 9)
    world.drain()
    assert not world.missing() and "once" not in world.announced()
    world.assert_balanced()


def test_a_first_rule_on_a_stream_begins_with_what_is_played(modules):
    world = World(modules, NONE).start()
    run(world, 3)
    world.checkpoint()
    run(world, 2, 3)
    again(world, ONE)
    assert (world.recovered.fresh, world.recovered.lost, world.recovered.failed) == (("once",), False, ())
    assert world.account("once").into == 6 and world.stream("once").next_sequence == 6
    world.drain()
    world.assert_balanced()
    assert not world.announced()


def test_starts_that_find_all_in_the_checkpoint_write_no_more_files(modules):
    world = World(modules, ONE).start()
    world.put(env("d1", 1, START // 10**6, 1.0), plain(1))
    world.checkpoint()
    numbers = []
    for _ in range(3):
        world.close()
        world.start()
        numbers.append(sum("/journal/" in path for path in world.disk.files))
    assert numbers == numbers[:1] * 3
