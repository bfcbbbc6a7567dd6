"""Damage, deletions, changes of the configuration, quotas: the start is never refused, and what is lost is announced."""

import random

import pytest
from memory_disk import MemoryDisk
from pipeline_world import DATA, RULES, START, S, World, env, modules, plain

from edge.recovery import capture
from edge.storage.mending import Mending
from edge.storage.records import CLOCK, GAP, TICK, between

__all__ = ["modules"]


def run(world, turns, first=0, checkpoint_at=None, at=0):
    """Turns of 3 devices, 1 s apart, an event each; sequences from `first` on."""
    for i in range(first, first + turns):
        world.now_ns = START + i * S
        assert world.put(*(env(f"d{k}", i, world.now_ns // 10**6, 20.0 + (i * (k + 3)) % 17) for k in range(3)), plain(i))
        if i == checkpoint_at:
            world.checkpoint()


def finish(world, turns=12, first=1000):
    """Live on for a while; everything that is put out now must reach the receiver, and what it lacks is announced."""
    before = {s.name: s.next_sequence for s in world.pipeline.streams}
    run(world, turns, first)
    world.tick(60)
    world.drain()
    world.assert_balanced()
    for name in ("env", "once", "tumble", "hop", "plain"):
        assert world.stream(name).next_sequence > before[name], name
        for sequence in range(before[name], world.stream(name).next_sequence):
            assert (name, sequence) in world.rows, (name, sequence, "was taken for a duplicate")
    assert not world.missing()


def paths(world, part):
    return sorted(p for p in world.disk.files if f"/{part}/" in p and p.endswith(".seg"))


def damage(disk, path, offset, size=40):
    node = disk.files[path]
    node.data[offset:offset + size] = bytes(b ^ 0x5A for b in node.data[offset:offset + size])
    node.stable = bytes(node.data)


@pytest.mark.parametrize("where", [0.7, 0.8, 0.97])
@pytest.mark.parametrize("drained", [False, True])
def test_damaged_journal_records_cost_themselves_and_are_announced(modules, where, drained):
    world = World(modules).start()
    run(world, 30, checkpoint_at=1)
    if drained:
        world.drain()
    path = paths(world, "journal")[-1]
    damage(world.disk, path, int(world.pipeline.journal.log._segments[-1].size * where))
    world.crash(0)
    assert world.recovered.lost
    finish(world)
    assert world.announced()


def test_what_a_power_cut_tears_is_no_damage(modules):
    world = World(modules).start()
    run(world, 10)
    world.crash(0.5)
    assert not world.recovered.lost and not world.announced()
    finish(world)


def test_a_step_of_the_clock_is_durable_before_the_tick_that_rests_on_it(modules):
    """A power cut that kept the tick alone would make the time away everybody's silence, and close windows twice."""
    world = World(modules).start()
    run(world, 10)
    world.pipeline.clock_set(3600 * S, away=True)
    world.pipeline.tick(world.now_ns + 3600 * S)
    world.crash(0)
    journal = world.pipeline.journal.log
    assert [r.kind for r in between(journal, journal.tail) if r.kind in (CLOCK, TICK)][-1:] == [CLOCK]


@pytest.mark.parametrize("part", ["journal", "dead", "checkpoints", "outbox/alerts", "outbox/telemetry", "identity.json", "*"])
@pytest.mark.parametrize("clean", [False, True])
def test_a_directory_that_is_gone_stops_nothing(modules, part, clean):
    world = World(modules).start()
    run(world, 20, checkpoint_at=12)
    world.drain(most=6)
    run(world, 10, 20)
    world.drain()
    if clean:
        world.checkpoint()
        world.close()
    disk = world.disk.after_cut(0)
    world.disk = MemoryDisk({p: bytes(n.data) for p, n in disk.files.items() if f"{DATA}/{part}" not in p and part != "*"}, seed=99)
    world.start()
    world.assert_balanced()
    finish(world)


@pytest.mark.parametrize("seed", [*range(30), 73, 119, 165, 190, 299, 1199])
def test_files_cut_short_or_overwritten_stop_nothing(modules, seed):
    rng = random.Random(seed)
    world = World(modules).start()
    run(world, 15, checkpoint_at=8)
    world.drain()
    run(world, 15, 15)
    world.disk = world.disk.after_cut(0)
    for path in sorted(world.disk.files):
        node = world.disk.files[path]
        if rng.random() < 0.4 and node.data:
            if rng.random() < 0.5:
                del node.data[int(rng.random() * len(node.data)):]       # sizes differ by a few bytes, as costs are measured: the seed alone says what is hit
            else:
                at = int(rng.random() * min(len(node.data), 4000))
                node.data[at:at + 200] = rng.randbytes(200)[:len(node.data) - at]
            node.stable = bytes(node.data)
    world.start()
    finish(world)


def test_a_lost_checkpoint_gives_no_sequence_twice(modules):
    world = World(modules).start()
    run(world, 20, checkpoint_at=12)
    world.drain()
    world.disk = world.disk.after_cut(0)
    world.disk = MemoryDisk({p: bytes(n.data) for p, n in world.disk.files.items() if "/checkpoints/" not in p})
    world.start()
    finish(world)
    assert world.announced()


def test_the_receive_clock_goes_on_from_what_was_journaled(modules):
    world = World(modules).start()
    run(world, 20, checkpoint_at=5)
    world.crash(0)
    assert world.recovered.received_ns == START + 19 * S
    world.close()
    world.start()
    assert world.recovered.received_ns == START + 19 * S


def test_dead_letters_are_counted_once_over_a_crash(modules):
    world = World(modules).start()
    world.checkpoint()
    world.put((b"env/a", b"{"), (b"env/a", b"[]"), (b"who/knows", b"1"), plain(1))
    world.crash(0)
    assert (world.account("env").out["dead_lettered"], world.account("(no stream)").into, world.account("plain").into) == (2, 1, 1)
    assert len(world.letters()) == 3
    world.assert_balanced()


# --- changes of the configuration

def changed(old, new):
    assert old in RULES
    return RULES.replace(old, new)


def test_a_new_version_of_the_contract_plays_the_old_journal(modules):
    world = World(modules).start()
    run(world, 10, checkpoint_at=4)
    world.drain()
    world.rows = {(name, n): row for (name, n), row in world.rows.items() if name != "env"}      # they get a column more
    world.config = changed('[streams.env.fields]', 'version = 2\n[streams.env.fields]\nvolts = { type = "f64", required = false }')
    world.crash(0)
    world.assert_balanced()
    assert world.stream("env").next_sequence == 30
    finish(world)
    assert "'volts': None" in world.rows["env", world.stream("env").next_sequence - 1]


def test_a_changed_rule_takes_no_number_that_the_old_one_gave(modules):
    world = World(modules).start()
    run(world, 10, checkpoint_at=2)
    world.drain()
    old = len(world.of("tumble"))
    assert old
    world.config = changed('length = "5s"', 'length = "2s"')
    world.crash(0)
    assert world.recovered.fresh == ("tumble",)
    finish(world)
    assert "once" not in world.announced() and "tumble" in world.announced()


def test_a_rule_that_comes_back_goes_on_counting(modules):
    world = World(modules).start()
    run(world, 20)
    world.drain()
    before = world.stream("slopes").next_sequence, world.stream("tumble").next_sequence
    assert before[1]
    world.checkpoint()
    world.close()
    world.config = RULES.replace('[rules.tumble]', '[rules.other]').replace('"tumble", "tumble.late", ', "")
    world.start()
    run(world, 5, 20)
    world.drain()
    world.checkpoint()
    world.close()
    world.config = RULES
    world.start()
    assert world.stream("tumble").next_sequence == before[1]
    finish(world)


def test_a_stream_that_loses_its_key_forgets_its_keys(modules):
    world = World(modules).start()
    run(world, 10)
    world.checkpoint()
    world.close()
    world.config = changed('key = "device"\n', "")
    world.start()
    run(world, 10, 10)
    world.tick(60)
    world.assert_balanced()
    assert len(world.stream("env").watermarks) <= 1


# --- quotas

def small(quota="64KiB", full="evict-oldest"):
    return RULES.replace('[lanes.telemetry]', f'[lanes.telemetry]\nquota = "{quota}"\nfull = "{full}"')


@pytest.mark.parametrize("crash", [None, 0, 0.5, 1])
def test_what_is_evicted_is_announced_to_the_row(modules, crash):
    world = World(modules, small()).start()
    run(world, 30)
    world.drain()
    world.checkpoint()
    run(world, 250, 30, checkpoint_at=180)
    world.assert_balanced()
    if crash is not None:
        world.crash(crash)
        world.assert_balanced()
    evicted = sum(world.core.outboxes["telemetry"].evicted.values())
    assert evicted
    world.drain()
    world.assert_balanced()
    assert not world.missing()
    announced = sum(count for ranges in world.announced().values() for _, count in ranges)
    assert announced == evicted
    finish(world)


def test_rows_acknowledged_before_they_are_evicted_count_as_acknowledged(modules):
    world = World(modules, small()).start()
    for i in range(20):
        run(world, 20, 20 * i)
        world.drain()
        world.assert_balanced()
    assert not world.missing() and not world.announced()


def test_backpressure_says_so_and_evicts_nothing(modules):
    world = World(modules, small(full="backpressure")).start()
    turns = 0
    while not world.pipeline.blocked:
        run(world, 1, turns)
        turns += 1
    assert "lanes.telemetry.full" in world.pipeline.blocked
    assert not world.core.outboxes["telemetry"].evicted
    world.drain()
    world.checkpoint()
    assert not world.pipeline.blocked
    finish(world)
    assert not world.announced()


def test_the_journals_quota_never_takes_what_a_restart_needs(modules):
    world = World(modules, RULES + '[journal]\nquota = "64KiB"\n').start()
    run(world, 20, checkpoint_at=19)
    run(world, 300, 20)
    rows = dict(world.rows)
    world.crash(0)
    assert not world.recovered.lost and world.recovered.damaged == 0
    world.drain()
    assert not world.announced() and rows.items() <= world.rows.items()
    assert len(world.of("env")) == 960
    world.assert_balanced()
    for i in range(200):
        run(world, 3, 1000 + 3 * i)
        world.checkpoint()
    assert world.pipeline.journal.log.tail > 0, "what no restart needs goes"
    assert not [r for r in world.journaled(GAP)]


def test_a_rules_state_that_cannot_be_read_is_begun_anew(modules):
    world = World(modules).start()
    run(world, 10)
    meta, images = capture(world.pipeline, world.core.cursors())
    world.core.checkpoints.save(meta, {name: b"\xff" * 20 if name.startswith("globals/") else image for name, image in images.items()})
    world.crash(0)
    assert world.recovered.lost and "once" in world.recovered.fresh
    finish(world)


@pytest.mark.parametrize("part", ["journal", "outbox/telemetry", "checkpoints"])
@pytest.mark.parametrize("where", [0.3, 0.9])
def test_a_repaired_directory_starts_as_the_damaged_one_would_have(modules, part, where):
    """`tidegate buffer repair` before the start: the same is announced, the same is missing, and all that was readable arrives."""
    left = []
    for mended in (False, True):
        world = World(modules).start()
        run(world, 30, checkpoint_at=8)
        path = paths(world, part)[-1]
        log = world.core.checkpoints.log if part == "checkpoints" else next(log for log in world.core._logs if log.directory.endswith(part))
        for outbox in world.pipeline.outboxes:
            outbox.writer.sync()
        damage(world.disk, path, int(log._segments[-1].size * where))
        world.disk.kill()
        world.disk = MemoryDisk({path: bytes(node.data) for path, node in world.disk.files.items()})
        if mended:
            mending = Mending(world.disk, path.rpartition("/")[0])
            assert mending.actions or part != "journal"             # a last group counts as torn
            mending.apply()
            assert not Mending(world.disk, path.rpartition("/")[0]).actions
        world.start()
        left.append((world.recovered.lost, world.recovered.damaged, world.recovered.replayed, world.recovered.received_ns))
        finish(world)
        left.append((sorted(world.rows), world.announced()))
    assert left[:2] == left[2:]
