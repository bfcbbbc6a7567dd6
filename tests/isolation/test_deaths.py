"""A worker that dies costs the call in which it died, and nothing else: what comes out is bit-equal to a run in which nothing dies."""

import json
import os
import random
import signal
import threading
import time

import pytest
import rule_module as m
from pipeline_script import script
from pipeline_world import START, S, Script, World, modules
from test_pipeline_traps import CONFIG, PROCESS

from edge.errors import RuleError
from edge.host.compile import Cache
from edge.host.limits import Limits
from edge.host.rule import Rule
from gateway.isolation import workshop as module
from gateway.isolation.sandbox import Unconfined
from gateway.isolation.workshop import Workshop

__all__ = ["modules"]
POISON = 667.0                       # PROCESS loops for ever
WAIT_S = 60


class Mortal(Workshop):
    """before: fn(batch), called before each call; it may kill the worker."""

    before = staticmethod(lambda batch: None)

    @property
    def pid(self):
        return self._child._pid

    def process(self, number, inputs, batch, area, **limits):
        self.before(batch)
        return super().process(number, inputs, batch, area, **limits)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def kill_within(self):
        """Once the code of the module has begun."""
        channel, pid, before = self._child.channel, self.pid, self._child.channel.serial

        def strike():
            until = time.monotonic() + WAIT_S
            while not (channel.serial != before and channel.begun) and time.monotonic() < until:
                time.sleep(0.001)
            os.kill(pid, signal.SIGKILL)

        threading.Thread(target=strike).start()


@pytest.fixture
def shop():
    try:
        made = Mortal()
    except Unconfined as error:
        pytest.skip(f"this kernel does not confine a process: {error}")
    yield made
    made.close()


def played(modules, steps, place=None, on_step=lambda: None):
    """All that a world puts out for a script's steps."""
    world = World(modules)
    world.place = place
    world.start()
    Script(steps).play(world, on_step)
    world.checkpoint()
    world.drain()
    world.assert_balanced()
    states = [(stage.name, stage.rule.image(), stage.calls) for stage in world.pipeline.stages]
    world.close()
    return world.rows, states, len(world.letters())


def test_deaths_between_calls_change_no_bit(modules, shop, seed=1):
    steps, rng = script(seed, 40, swaps=0.15), random.Random(seed)
    expected = played(modules, steps)
    shop.before = lambda batch: shop.restarts < 3 and rng.random() < 0.02 and shop.kill()
    found = played(modules, steps, shop, lambda: shop.restarts < 5 and rng.random() < 0.1 and shop.kill())
    assert found == expected and shop.restarts >= 3, f"seed {seed}, {shop.restarts} deaths"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("rule") / "third.wasm"
    path.write_bytes(m.module(process=PROCESS))
    return CONFIG.replace("$PATH", str(path))


def poisoned(modules, config, poison, place=None):
    """Rows, how many letters, and strikes of 30 turns of 20 events; the events of turn 12 have a poison among them."""
    world, rng = World(modules, config), random.Random(3)
    world.place = place
    world.start()
    for turn in range(30):
        values = [round(rng.gauss(20, 5), 3) for _ in range(20)]
        if turn == 12:
            values[7] = poison
        world.now_ns = START + turn * S
        world.put(*((b"s", json.dumps({"id": f"d{i % 2}", "t": value}).encode()) for i, value in enumerate(values)))
        world.tick(0.5)
    world.drain()
    world.assert_balanced()
    assert not world.missing()
    letters = world.letters()
    rows = world.rows
    strikes = [len(stage.rule.strikes) for stage in world.pipeline.stages]
    world.close()
    return rows, len(letters), strikes


def test_the_call_in_which_the_worker_died_counts_as_a_trap_of_its_rule(modules, config, shop):
    expected = poisoned(modules, config, POISON)                  # the watchdog stops it
    shop.before = lambda batch: any(row["t"] == POISON for row in batch.rows()) and batch.schema.stream == "s" and not shop.restarts and shop.kill_within()
    config = config.replace('memory = "1MiB"', 'memory = "1MiB", time = "30s"')          # it does not
    found = poisoned(modules, config, POISON, shop)
    assert shop.restarts == 1 and found[2] == expected[2] == [1, 0, 0]
    assert found[0] == expected[0] and found[1] == expected[1] > 0


@pytest.fixture
def rule(shop, tmp_path):
    return Rule("probe", m.checked(m.module(process=m.ABOVE_4)), {}, m.STREAM, cache=Cache(tmp_path, shop))


def test_a_worker_that_stops_answering_is_replaced(rule, shop, monkeypatch):
    assert rule.process(m.batch()).out_count == 5
    monkeypatch.setattr(module, "SLACK_NS", 10**8)
    monkeypatch.setattr(shop, "before", lambda batch: os.kill(shop.pid, signal.SIGSTOP))
    with pytest.raises(RuleError, match="did not answer in time"):
        for _ in range(module.TRIES_MAX):
            rule.process(m.batch())
    monkeypatch.undo()
    rule.reset()
    assert rule.process(m.batch()).out_count == 5 and shop.restarts == module.TRIES_MAX


def test_an_endless_loop_is_stopped_by_the_workers_watchdog(shop, tmp_path):
    endless = Rule("probe", m.checked(m.module(process="(loop $l (br $l)) (i32.const 0)")), {}, m.STREAM, cache=Cache(tmp_path, shop), limits=Limits(time_ns=20_000_000))
    with pytest.raises(RuleError, match="longer than 20 ms") as caught:
        endless.process(m.batch())
    assert caught.value.code == "limit" and caught.value.backtrace and not shop.restarts


def test_a_worker_that_cannot_be_started_again_ends_the_gateway(rule, shop, monkeypatch):
    def cannot():
        raise Unconfined("no memory")

    monkeypatch.setattr(module, "STARTS_S", ())
    monkeypatch.setattr(shop, "_start", cannot)
    shop.kill()
    with pytest.raises(Unconfined):
        rule.process(m.batch())


def test_what_nobody_has_any_more_is_dropped_in_the_worker(rule, shop):
    for _ in range(50):
        rule.reset()
    rule.process(m.batch())
    assert not any(len(gone) > 1 for gone in shop._gone)
    assert rule.process(m.batch()).out_count == 5
