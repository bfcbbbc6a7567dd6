"""A rule that traps costs its batch and nothing else, is put aside when it goes on, and all that is the same after a crash."""

import json

import pytest
import rule_module as m
from memory_disk import MemoryDisk, PowerCut
from pipeline_world import START, S, World, modules
from settings import GATEWAY

from edge.codec.batches import decode_columns
from edge.errors import RuleError
from edge.storage.records import SKIP

__all__ = ["modules"]

TRAP, LOOP, GROW, NONSENSE = 666.0, 667.0, 668.0, 669.0

PROCESS = """(local $r i32) (local $at i32) (local $rows i32) (local $values i32) (local $v f64)
  (local.set $rows (i32.load (local.get $batch)))
  (if (i32.eqz (local.get $rows)) (then (return (i32.const 0))))
  (local.set $values (i32.load offset=4 (i32.load offset=48 (local.get $batch))))
  (memory.fill (i32.const 0x600) (i32.const 0) (i32.const 512))
  (loop $next
    (local.set $v (f64.load (i32.add (local.get $values) (i32.shl (local.get $r) (i32.const 3)))))
    (i32.store (i32.const 0x900) (i32.add (i32.load (i32.const 0x900)) (i32.const 1)))
    (if (f64.eq (local.get $v) (f64.const 666)) (then unreachable))
    (if (f64.eq (local.get $v) (f64.const 667)) (then (loop $ever (br $ever))))
    (if (f64.eq (local.get $v) (f64.const 668)) (then (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable))
    (if (f64.eq (local.get $v) (f64.const 669)) (then (return (i32.const 0x7ffffff0))))
    (local.set $at (i32.add (i32.const 0x600) (i32.shr_u (local.get $r) (i32.const 3))))
    (i32.store8 (local.get $at) (i32.or (i32.load8_u (local.get $at))
      (i32.shl (i32.eqz (i32.rem_u (i32.load (i32.const 0x900)) (i32.const 3))) (i32.and (local.get $r) (i32.const 7)))))
    (local.set $r (i32.add (local.get $r) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $r) (local.get $rows))))
  (i32.store (i32.const 0x400) (i32.const 0x600))
  (i32.const 0x400)"""

CONFIG = GATEWAY + """
[streams.s]
topics = ["s"]
key = "id"
[streams.s.fields]
id = "str"
t = "f64"
[rules.third]
input = "s"
module = "$PATH"
limits = { memory = "1MiB" }
[rules.after]
input = "third"
module = "window"
params = { length = "5s", fields = ["t"], functions = ["count", "sum"] }
[rules.beside]
input = "s"
module = "window"
params = { length = "5s", fields = ["t"], functions = ["count", "sum"] }
[lanes.all]
streams = ["s", "third", "after", "beside"]
age = "0s"
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("rule") / "third.wasm"
    path.write_bytes(m.module(process=PROCESS))
    return CONFIG.replace("$PATH", str(path))


def events(*values):
    return [(b"s", json.dumps({"id": f"d{i % 2}", "t": v}).encode()) for i, v in enumerate(values)]


def play(world, poison, turns=80, first=0, gap_s=1):
    """poison: turn -> value that stands in the middle of its batch."""
    for i in range(first, first + turns):
        world.now_ns = START + i * gap_s * S
        values = [float(i), *([poison[i]] if i in poison else []), i + 0.5, i + 0.25, 1.0]
        world.put(*events(*values))
        if i % 7 == 3:
            world.tick(0.5)
        world.assert_balanced()


@pytest.mark.parametrize("value", [TRAP, LOOP, GROW, NONSENSE])
def test_a_trap_costs_its_batch_and_leaves_the_state_before_it(modules, config, value):
    world = World(modules, config).start()
    play(world, {70: value})
    world.drain()
    other = World(modules, config).start()
    for i in range(80):
        if i != 70:
            play(other, {}, 1, i)
    other.drain()
    assert list(world.of("third").values()) == list(other.of("third").values())
    assert world.stage("third").dead == 5 and len(world.of("s")) == 4 * 80 + 1
    (letter,) = world.letters()
    stage = world.stage("third")
    assert letter["rule"] == "third" and letter["module"] == stage.rule.digest and letter["received_ns"] == START + 70 * S
    assert letter["backtrace"] if value != NONSENSE else letter["backtrace"] is None if "backtrace" in letter else True
    assert [row["t"] for row in decode_columns(letter["columns"], world.stream("s").schema).rows()] == [70.0, value, 70.5, 70.25, 1.0]
    assert not stage.rule.quarantined and len(world.of("beside")) > 20


@pytest.mark.parametrize("value", [TRAP, LOOP])
def test_quarantine_after_three_traps_and_it_outlives_crash_and_restart(modules, config, value):
    world = World(modules, config).start()
    play(world, {5: value, 9: value, 30: value}, 40)
    stage = world.stage("third")
    assert stage.rule.quarantined and stage.dead == 15 and stage.unprocessed == 4 * 9
    account = world.account("third")
    world.drain()
    rows = dict(world.rows)
    for restart in (lambda: world.crash(0), lambda: world.crash(1), lambda: (world.close(), world.start())):
        restart()
        assert world.stage("third").rule.quarantined and world.account("third") == account
        world.assert_balanced()
        world.drain()
        assert world.rows == rows and not world.announced()
    play(world, {}, 10, 40)
    assert world.stage("third").dead == 15 and world.stage("third").unprocessed == 4 * 19
    assert len(world.letters()) == 3 and len(world.journaled(SKIP)) == 3


def test_traps_far_apart_are_no_reason_for_quarantine(modules, config):
    world = World(modules, config).start()
    play(world, {1: TRAP, 4: TRAP, 8: TRAP, 11: TRAP}, 15, gap_s=301)
    assert not world.stage("third").rule.quarantined and world.stage("third").rule.traps == 4


def test_a_power_cut_around_a_trap_changes_nothing(modules, config):
    def script(world):
        play(world, {4: TRAP, 8: TRAP}, 6, 3)
        world.drain()

    clean = World(modules, config).start()
    begun = clean.disk.operations
    script(clean)
    ended, letters = clean.disk.operations, len(clean.letters())
    for cut in range(begun, ended, 2):
        world = World(modules, config, MemoryDisk(seed=cut, cut_at=cut)).start()
        try:
            script(world)
            raise AssertionError(f"no cut at {cut}")
        except PowerCut:
            world.crash((0, 0.5, 1)[cut % 3])
        n = world.stream("s").next_sequence
        turns = next(i for i, end in enumerate([0, 4, 9, 13, 17, 21, 26]) if end == n)
        world.assert_balanced()
        for i in range(3 + turns, 9):
            play(world, {4: TRAP, 8: TRAP}, 1, i)
        world.drain()
        for stream in ("s", "third"):
            assert list(world.of(stream).values()) == list(clean.of(stream).values()), cut
        assert letters <= len(world.letters()) <= letters + 1, cut
        assert not world.missing() and set(world.announced()) <= {"third", "after"}, (cut, "a skipped number is announced, at most")


def test_a_trap_that_only_replay_meets_gives_no_number_twice(modules, config):
    world = World(modules, config).start()
    play(world, {}, 20)
    world.drain()
    before = world.stream("third").next_sequence
    process, calls = type(world.stage("third")).process, []

    def trap_once(stage, batch):
        if stage.name == "third" and stage.calls == 10 and not calls:
            calls.append(1)
            stage.dead += len(batch)         # a call that took a little longer than the first time
            raise RuleError("too long", code="limit", rule="third")
        return process(stage, batch)

    type(world.stage("third")).process = trap_once
    try:
        world.crash(0)
    finally:
        type(world.stage("third")).process = process
    assert calls and len(world.letters()) == 1 and len(world.journaled(SKIP)) == 1
    assert world.stream("third").next_sequence > 1 << 29
    world.rows = {k: v for k, v in world.rows.items() if k[0] != "third"}
    world.assert_balanced()
    play(world, {}, 20, 20)
    world.drain()
    new = world.stream("third").next_sequence
    assert ("third", new - 1) in world.rows and not world.missing() and "third" in world.announced()
    world.assert_balanced()
