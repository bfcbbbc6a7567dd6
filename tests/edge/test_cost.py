"""What a rule costs is measured call by call in its own module, in bounded memory, and said for people and for Prometheus."""

import random
import re
import sys

import pytest
import rule_module as m
from pipeline_world import START, S, World, env, modules

from edge._watermark import Watermarks
from edge.cost import RECENT, Meter
from edge.host.compile import Cache
from edge.host.rule import Rule
from edge.share import Share
from edge.stage import Stage, Stream
from gateway import status

__all__ = ["modules"]


class Clocked:
    """A rule whose run time is set by hand."""

    run_ns = 0


def test_percentiles_are_those_of_the_recent_calls_with_rows():
    rule, rng = Clocked(), random.Random(1)
    meter, spent = Meter(rule), []
    for i in range(3 * RECENT + 7):
        rows, ns = rng.choice([0, 1, 7, 1000]), rng.randrange(10**6)
        rule.run_ns += ns
        meter.note(rows)
        assert meter.last_ns == ns
        if rows:
            spent.append(ns / rows)
    recent = sorted(spent[-RECENT:])
    assert meter.percentiles(0.5, 0.99, 1) == [round(recent[RECENT // 2], 1), round(recent[int(0.99 * RECENT)], 1), round(recent[-1], 1)]


def test_a_rule_that_was_never_called_costs_nothing_and_memory_does_not_grow():
    rule = Clocked()
    meter = Meter(rule)
    assert meter.percentiles(0.5, 0.99) == [0, 0]
    before = sys.getsizeof(meter._recent)
    for _ in range(10 * RECENT):
        meter.note(3)
    assert sys.getsizeof(meter._recent) == before <= 12 * RECENT


def slow_module(turns):
    """A filter that passes nothing and counts to `turns` for each call."""
    return m.checked(m.module(process=f"""(local $i i32)
      (loop $on (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $on (i32.lt_u (local.get $i) (i32.const {turns})))) (i32.const 0)"""))


def stage_of(module, cache):
    rule = Rule("r", module, {}, m.STREAM, cache=Cache(cache))
    streams = [Stream(i, schema, Watermarks) for i, schema in enumerate((m.STREAM, rule.output_schema, rule.late_schema, rule.output_schema))]
    return Stage(rule, *streams)


def test_a_stages_cost_is_its_modules_time(modules):
    idle, busy = stage_of(slow_module(10), modules), stage_of(slow_module(2_000_000), modules)
    for _ in range(5):
        for stage in (idle, busy):
            stage.process(m.batch(10))
    assert busy.cost["cpu_ns"] == busy.rule.run_ns and busy.cost["cpu_ns_per_event"]["p50"] > 100 * idle.cost["cpu_ns_per_event"]["p50"] > 0
    assert busy.cost["cpu_ns_per_event"]["p99"] >= busy.cost["cpu_ns_per_event"]["p50"]
    assert busy.cost["memory_bytes"] == busy.rule.memory_bytes == 4 * 65536


class Doors:
    """What gateway.status reads of a daemon, over a World."""

    def __init__(self, world):
        self.core, self.pipeline = world.core, world.pipeline
        self.pipeline.share = Share(0.8)
        self.config = world.core.config
        self.started, self.blocked, self.blocks, self.last_block, self.metrics = 0.0, "", 0, "", None
        self.clock = self
        self.quality = self.steps = self.last_step_ns = 0
        self.parts = self
        self.listener = self.broker = self.upstream = self.workshop = None


@pytest.fixture
def world(modules):
    world = World(modules).start()
    for i in range(20):
        world.now_ns = START + i * S
        world.put(*[env(f"d{k}", 10 * i + k, world.now_ns // 10**6, float(i + k)) for k in range(5)], env("d0", 10 * i, 0, 1.0))
    world.tick(30)
    return world


def test_status_says_what_each_rule_did_and_cost(world):
    rules = status.status(Doors(world))["rules"]
    assert set(rules) == {stage.name for stage in world.pipeline.stages}
    once, tumble = rules["once"], rules["tumble"]
    assert once["in"] == 120 and once["out"] == world.stream("once").next_sequence > 90 and once["calls"] >= 20 and once["traps"] == 0
    assert tumble["out"] > 0 and tumble["memory_bytes"] >= 65536 and tumble["cpu_ns"] > 0
    for rule in rules.values():
        assert 0 < rule["cpu_ns_per_event"]["p50"] <= rule["cpu_ns_per_event"]["p99"] or not rule["in"]


def test_metrics_have_the_cost_and_a_bounded_number_of_rules(world, monkeypatch):
    monkeypatch.setattr(status, "RULES_MAX", 3)
    text = status.metrics_text(Doors(world))
    labels = set(re.findall(r'rule="([^"]+)"', text)) | {name for name in re.findall(r'kind="rule",name="([^"]+)"', text)}
    assert len(labels) == 3 and f"tidegate_rules_not_shown {len(world.pipeline.stages) - 3}" in text
    for name in ("rule_calls_total", "rule_traps_total", "rule_cpu_seconds_total", "rule_memory_bytes", "rule_lag_rows", "rule_lag_seconds"):
        assert len(re.findall(rf"^tidegate_{name}{{", text, re.M)) == 3, name
    assert len(re.findall(r'^tidegate_rule_cpu_ns_per_event{rule="[^"]+",quantile="0\.(?:5|99)"} [\d.]+$', text, re.M)) == 6
