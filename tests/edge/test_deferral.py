"""Stages that wait for CPU do what they would have done at once: the same bytes, numbers and accounts, over checkpoints and power cuts too."""

import random

import pytest
import rule_module as m
from memory_disk import MemoryDisk, PowerCut
from pipeline_script import SCRIPTS
from pipeline_world import START, S, Script, World, modules
from test_pipeline_traps import CONFIG, PROCESS, TRAP, events

from edge import backlog
from edge.deferral import Deferral
from edge.share import BURST_NS, Share
from edge.storage.records import SKIP

__all__ = ["modules"]


class Whim:
    """Stands in for a Share: whether a stage waits, and who goes on, is a matter of chance."""

    spare = True

    def __init__(self, rng, often):
        self.rng, self.often, self.left_ns, self.held = rng, often, 0, 0

    def holds(self, stage):
        held = self.rng.random() < self.often
        self.held += held
        return held

    def charge(self, account, ns):
        pass

    def next(self, waiting):
        return self.rng.choice(waiting) if waiting and self.rng.random() < 0.7 else None


class Waiting(World):
    """A gateway whose stages wait at random. served: how often what waits may go on."""

    rng, often, served = random.Random(0), 0.3, 0.5

    def start(self):
        super().start()
        assert not self.pipeline.deferred, "a start runs what waited"
        self.pipeline.share = Whim(self.rng, self.often)
        return self

    def forward(self):
        if self.rng.random() < self.served:
            self.pipeline.serve(1)
        super().forward()

    def settle(self):
        self.pipeline.catch_up()
        super().forward()
        self.drain()


def waiting(modules, rng, *args, **kwargs):
    world = Waiting(modules, *args, **kwargs)
    world.rng, world.often, world.served = rng, rng.choice([0.05, 0.3, 0.9]), rng.choice([0.2, 0.7])
    return world


def undeferred(modules, seed):
    world = World(modules).start()
    Script(SCRIPTS[seed]).play(world)
    world.drain()
    return world


def assert_same(world, other, where):
    assert not world.missing() and not world.announced(), where
    assert world.rows.keys() == other.rows.keys(), (where, sorted(world.rows.keys() ^ other.rows.keys())[:20])
    assert world.rows == other.rows, where
    for mine, theirs in zip(*(sorted(w.ledger, key=lambda account: (account.kind, account.name)) for w in (world, other))):
        assert mine == theirs or mine.kind == "stream", (where, mine, theirs)


@pytest.mark.parametrize("seed", [0, 2])
def test_what_comes_out_is_what_comes_without_waiting(modules, seed):
    plain = undeferred(modules, seed)
    waited = 0
    for n in range(3):
        rng = random.Random(100 * seed + n)
        world = waiting(modules, rng).start()
        longest = []
        Script(SCRIPTS[seed]).play(world, lambda w=world, longest=longest: (w.assert_balanced(), longest.append(len(w.pipeline.deferred))))
        waited += max(longest)
        pending = {s.name: s.backlog.rows for s in world.pipeline.deferred}
        assert all(world.account(name).out["pending"] == rows for name, rows in pending.items())
        world.settle()
        assert_same(world, plain, f"seed {seed}, {n}")
    assert waited > 4, "stages have waited"


@pytest.mark.parametrize("seed", [3, 4])
def test_and_so_it_is_after_power_cuts_at_any_moment(modules, seed, monkeypatch):
    plain, taken_up, take_up = undeferred(modules, seed), [], Deferral.take_up
    monkeypatch.setattr(Deferral, "take_up", lambda flow, stage, waited: (taken_up.append(len(waited)), take_up(flow, stage, waited)))
    for n in range(6):
        rng = random.Random(100 * seed + n)
        world = waiting(modules, rng, disk=MemoryDisk(seed=n)).start()
        play, survival, crashed = Script(SCRIPTS[seed]), rng.choice([0, 0.5, 1]), False
        world.disk.cut_at = world.disk.operations + rng.randrange(1, 250)
        cuts = [world.disk.cut_at]
        while True:
            try:
                if crashed:
                    play.resume(world)
                    crashed = False
                play.play(world, lambda w=world, rng=rng: (w.assert_balanced(), rng.random() < 0.2 and w.checkpoint()))
                break
            except PowerCut:
                crashed = True
                world.crash(survival)
                world.assert_balanced()
                world.disk.cut_at = world.disk.operations + rng.randrange(1, 250)
                cuts.append(world.disk.cut_at)
        world.disk.cut_at = None
        world.settle()
        assert_same(world, plain, f"seed {seed}, {n}, cuts {cuts}, survival {survival}")
    assert len(taken_up) > 3, "checkpoints had what waited"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("rule") / "third.wasm"
    path.write_bytes(m.module(process=PROCESS))
    return CONFIG.replace("$PATH", str(path))


class Never(Whim):
    """`third` waits, and nobody goes on."""

    def __init__(self):
        super().__init__(random.Random(0), 0)

    def holds(self, stage):
        return stage.name == "third"

    def next(self, waiting):
        return None


def held(modules, config, turns, values=lambda i: [float(i), i + 0.5]):
    world = World(modules, config).start()
    world.pipeline.share = Never()
    for i in range(turns):
        world.now_ns = START + i * S
        world.put(*events(*values(i)))
        world.tick(0.5)
        world.assert_balanced()
    return world


def free(modules, config, turns, values=lambda i: [float(i), i + 0.5]):
    world = World(modules, config).start()
    for i in range(turns):
        world.now_ns = START + i * S
        world.put(*events(*values(i)))
        world.tick(0.5)
    return world


def test_a_checkpoint_has_what_waits_and_a_start_runs_it_first(modules, config):
    world, other = held(modules, config, 30), free(modules, config, 30)
    assert world.account("third").out["pending"] == 60 and world.stage("third").backlog.lag_ns >= 29 * S
    assert world.stage("third").cost["lag_rows"] == 60
    world.checkpoint()
    for survival in (0, 1):
        world.crash(survival)
        assert world.recovered.replayed <= 1 and not world.pipeline.deferred
        world.assert_balanced()
        world.drain()
        other.drain()
        assert world.rows == other.rows and not world.announced()


def test_a_trap_while_it_waited_is_the_same_trap(modules, config):
    def values(i):
        return [float(i), TRAP if i in (4, 8) else 1.0]

    world, other = held(modules, config, 12, values), free(modules, config, 12, values)
    world.checkpoint()
    world.pipeline.catch_up()
    world.forward()
    assert [(r.first, r.payload) for r in world.journaled(SKIP)] == [(r.first, r.payload) for r in other.journaled(SKIP)] != []
    world.crash(1)
    for w in (world, other):
        w.drain()
        w.assert_balanced()
    assert world.rows == other.rows and not world.announced() and world.account("third") == other.account("third")
    assert world.stage("third").rule.strikes == other.stage("third").rule.strikes


def test_what_finds_no_room_is_in_the_dead_letters_and_a_replay_agrees(modules, config, monkeypatch):
    monkeypatch.setattr(backlog, "ROWS_MAX", 20)
    world = held(modules, config, 30)
    stage = world.stage("third")
    assert stage.backlog.rows == 20 and stage.dead == 40 and not stage.rule.quarantined and not stage.rule.strikes
    letters = world.letters()
    assert len(letters) == 20 == len(world.journaled(SKIP)) and all("over its CPU share" in letter["reason"] for letter in letters)
    world.pipeline.catch_up()
    world.forward()
    world.drain()
    rows, account = dict(world.rows), world.account("third")
    assert account.out["dead_lettered"] == 40 and account.out["pending"] == 0
    world.crash(1)                       # no checkpoint since the start: all of it is played again, and nobody waits
    world.assert_balanced()
    world.drain()
    assert world.rows == rows and world.account("third") == account and len(world.letters()) == 20 and not world.announced()
    assert not world.stage("third").rule.quarantined


def test_ticks_find_room_by_running_the_oldest(modules, config, monkeypatch):
    monkeypatch.setattr("edge.deferral.ITEMS_MAX", 8)
    world, other = held(modules, config, 30), free(modules, config, 30)
    assert len(world.stage("third").backlog) <= 8
    world.pipeline.catch_up()
    world.forward()
    for w in (world, other):
        w.drain()
    assert world.rows == other.rows


def test_a_rule_that_was_changed_does_not_get_what_waited_for_another(modules, config):
    world = held(modules, config, 10)
    world.checkpoint()
    world.config = config.replace('[rules.third]\ninput = "s"', '[rules.third]\nparams = {}\ninput = "plain"').replace(
        "[streams.s.fields]", '[streams.s.fields]\nmore = { type = "f64", required = false }').replace('input = "plain"', 'input = "s"')
    world.crash(1)
    world.assert_balanced()
    assert world.recovered.fresh and not world.pipeline.deferred
    letters = world.letters()
    assert len(letters) == 10 and {letter["reason"] for letter in letters} == {"the rule was changed while these waited for CPU"}


class Clockwork:
    """A meter whose rule takes the same time for every event."""

    def __init__(self, ns):
        self.ns, self.last_ns, self.total_ns = ns, 0, 0

    def note(self, rows):
        self.last_ns = rows * self.ns
        self.total_ns += self.last_ns


def test_one_greedy_rule_slows_only_itself(modules, monkeypatch):
    """By count, in virtual time: after each turn the cheap rules have had every call, and the greedy one what it can pay for."""
    monkeypatch.setattr(backlog, "ROWS_MAX", 2000)
    rules = "".join(f'[rules.{name}]\ninput = "s"\nmodule = "threshold"\nparams = {{ field = "t", op = ">", value = 1 }}\n'
                    for name in ("greedy", *(f"cheap{i}" for i in range(9))))
    world = World(modules, CONFIG[:CONFIG.index("[rules.third]")] + rules).start()
    share = world.pipeline.share = Share(0.5)
    greedy, *cheap = world.pipeline.stages
    for stage in world.pipeline.stages:
        stage.meter = Clockwork(400_000 if stage is greedy else 2000)
    behind, turn_ns = [], 50_000_000
    for i in range(150):
        share.grant(turn_ns, world.pipeline.stages)
        used = greedy.meter.total_ns
        world.now_ns = START + i * S
        world.put(*events(*map(float, range(200))))         # 80 ms for the greedy rule, of 25 ms that there are for all
        world.pipeline.serve(10_000_000)
        assert all(stage.backlog is None and stage.rule.calls == i + 1 for stage in cheap)
        assert i < 10 or greedy.meter.total_ns - used <= 80_000_000, "one call at a time"
        behind.append(greedy.backlog.rows if greedy.backlog else 0)
        world.assert_balanced()
    assert behind[0] == 0 and 0 < max(behind) <= 2000, "it waits, and goes on"
    assert greedy.dead > 0 and greedy.meter.total_ns <= 0.5 * (BURST_NS + 150 * turn_ns) + 80_000_000
    assert greedy.meter.total_ns > 0.8 * 0.5 * 150 * turn_ns, "it has what the others leave"
    assert world.account("greedy").out["pending"] == greedy.backlog.rows and greedy.backlog.lag_ns > 5 * S


@pytest.mark.parametrize("policy", ["keep", "replay"])
def test_a_swap_while_stages_wait_changes_no_output(modules, policy):
    plain, world, rng = undeferred(modules, 2), waiting(modules, random.Random(7)).start(), random.Random(8)
    script, swapped = Script(SCRIPTS[2]), []

    def on_step():
        if world.pipeline.deferred and rng.random() < 0.3:
            stage = rng.choice(world.pipeline.deferred)
            swapped.append(stage.name)
            assert world.deploy(stage.name, policy=policy, limits={"time_ns": 20_000_000 + len(swapped)}).state == "done"
        world.assert_balanced()

    script.play(world, on_step)
    assert len(swapped) > 3
    world.settle()
    assert world.rows == plain.rows and not world.announced()
