"""What runs: over restarts, changes of the configuration, files that are gone or damaged, quarantine. A start is never refused for a rule's sake."""

import json
from ast import literal_eval
from pathlib import Path

import msgpack
import pytest
import rule_module as m
import tidegate_rules
from memory_disk import MemoryDisk
from msgspec.structs import replace
from pipeline_world import CONFIG, START, S, World, env, modules

from edge.deployment import Deployment
from edge.errors import ConfigError
from edge.host.module import Module
from edge.recovery import capture

__all__ = ["modules"]

RULES = CONFIG + """
[rules.hot]
input = "env"
module = "$PATH"
[rules.tumble]
input = "hot"
module = "window"
params = { length = "5s", fields = ["temp"], functions = ["count"] }
[lanes.all]
streams = ["env", "hot", "tumble"]
age = "0s"
"""
TRAPPING = m.ABOVE_4.replace("(f64.const 4)", "(f64.const 6)").replace("(local.set $rows", "(if (i32.load (local.get $batch)) (then unreachable)) (local.set $rows")
MODULES = {
    1: m.module(process=m.ABOVE_4, plan=None),
    2: m.module(process=m.ABOVE_4.replace("(f64.const 4)", "(f64.const 5)"), manifest=m.MANIFEST | {"version": 2}),
    3: m.module(process=TRAPPING, manifest=m.MANIFEST | {"version": 3}),
}
DIGESTS = {number: Module(wasm).digest for number, wasm in MODULES.items()}



@pytest.fixture
def path(tmp_path):
    path = tmp_path / "hot.wasm"
    path.write_bytes(MODULES[1])
    return path


@pytest.fixture
def world(modules, path):
    world = World(modules, RULES.replace("$PATH", str(path)).replace("temp = {", "t = {").replace('"temp"', '"t"')).start()
    for wasm in MODULES.values():
        world.core.store.put(wasm, who="test", when_ns=1)
    world.core.on_event = lambda kind, rule, text, **details: world.events.append((kind, rule))
    world.events = []
    return world


def feed(world, turns, first=None):
    first = world.stream("env").next_sequence if first is None else first
    for i in range(first, first + turns):
        world.now_ns += S
        topic, payload = env("d", i, world.now_ns // 10**6, 0.0)
        assert world.put((topic, json.dumps(json.loads(payload) | {"t": float(i % 10)}).encode()))
        world.assert_balanced()


def restart(world, **changes):
    world.checkpoint()
    world.close()
    events = world.events
    for old, new in changes.items():
        world.config = world.config.replace(old, new)
    world.start()
    world.events = events
    world.core.on_event = lambda kind, rule, text, **details: world.events.append((kind, rule))
    world.assert_balanced()
    return world


def said(world, text):
    return any(text in message for _, message in world.lines.lines)


def runs(world, rule):
    stage = world.core.stage(rule)
    assert stage is None or stage.rule.digest == world.core.deployments[rule].digest
    return None if stage is None else next((n for n, d in DIGESTS.items() if d == stage.rule.digest), stage.rule.digest)


# --- what a start runs

def test_what_was_pushed_runs_again_and_the_configuration_wins_where_it_is_new(world):
    feed(world, 5)
    swap = world.deploy("hot", digest=DIGESTS[2])
    assert swap.state == "done" and runs(world, "hot") == 2, swap.error
    restart(world)
    assert runs(world, "hot") == 2 and world.core.deployments["hot"].previous["digest"] == DIGESTS[1]
    world.config = world.config.replace("[rules.tumble]", 'limits = { time = "20ms" }\n[rules.tumble]')
    restart(world)
    assert runs(world, "hot") == 1 and said(world, "the configuration says something new")
    feed(world, 5)
    assert world.carry_out(world.core.rollback("hot")).state == "done" and runs(world, "hot") == 2
    restart(world)
    assert runs(world, "hot") == 2, "the entry is the one that it was rolled back over"


def test_a_changed_file_is_a_change_of_the_configuration(world, path):
    world.deploy("hot", digest=DIGESTS[2])
    path.write_bytes(m.module(process=m.ABOVE_4, manifest=m.MANIFEST | {"version": 9}))
    restart(world)
    assert runs(world, "hot") not in (1, 2) and world.core.deployments["hot"].previous["digest"] == DIGESTS[2]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"\0asm?")])
def test_a_file_that_is_gone_or_damaged_costs_nothing(world, path, harm):
    feed(world, 12)
    world.drain()
    harm(path)
    restart(world)
    assert runs(world, "hot") == 1 and not world.core.refused and said(world, "the stored version runs")
    restart(world)
    assert runs(world, "hot") == 1
    path.write_bytes(MODULES[1])
    generation = world.core.generation
    restart(world)
    assert runs(world, "hot") == 1 and world.core.generation == generation


def spoil(world, digest):
    """The stored module rots, or is lost."""
    path = next(p for p in world.disk.files if p.endswith(f"{digest}.wasm"))
    world.disk.files[path].data[20:30] = b"0123456789"
    world.disk.files[path].stable = bytes(world.disk.files[path].data)


def test_a_version_whose_module_is_damaged_gives_way_to_the_one_before_it_then_to_the_configurations(world, path):
    world.deploy("hot", digest=DIGESTS[2])
    world.deploy("hot", digest=DIGESTS[3])
    world.checkpoint()
    spoil(world, DIGESTS[3])
    restart(world)
    assert runs(world, "hot") == 2 and said(world, "runs instead")
    spoil(world, DIGESTS[2])
    restart(world)
    assert runs(world, "hot") == 1 and not world.core.refused
    feed(world, 5)
    spoil(world, DIGESTS[1])
    path.unlink()
    restart(world)
    assert set(world.core.refused) == {"hot", "tumble"}, "the rest runs"
    feed(world, 3)
    path.write_bytes(MODULES[1])
    restart(world)
    assert runs(world, "hot") == 1 and not world.core.refused


def test_a_pushed_rule_outlives_restarts_and_waits_for_a_stream_that_comes_back(world):
    swap = world.deploy("mine", input="hot", digest=DIGESTS[2], lanes=["all"])
    assert swap.state == "done", swap.error
    feed(world, 20)
    world.drain()
    count = len(world.of("mine"))
    assert count == 8
    config = world.config
    world.config = config.replace("[rules.hot]", "[rules.other]").replace('input = "hot"', 'input = "other"').replace('"hot", ', "")
    restart(world)
    assert "there is no stream or rule hot" in world.core.refused["mine"] and "mine" in world.core.deployments
    world.config = config
    restart(world)
    feed(world, 20)
    world.drain()
    assert len(world.of("mine")) == 2 * count and not world.missing()


def test_a_rule_of_the_configuration_that_was_removed_stays_removed_until_its_entry_changes(world):
    assert world.carry_out(world.core.remove("tumble")).state == "done"
    restart(world)
    assert runs(world, "tumble") is None and "tumble" not in world.core.deployments and not world.core.refused
    world.config = world.config.replace('length = "5s"', 'length = "6s"')
    restart(world)
    assert runs(world, "tumble") is not None


def test_a_pushed_rule_whose_name_the_configuration_takes_for_a_stream_waits(world):
    assert world.deploy("mine", input="env", digest=DIGESTS[2]).state == "done"
    world.config += '[streams.mine]\ntopics = ["mine"]\n[streams.mine.fields]\nn = "i64"\n'
    restart(world)
    assert "has this name" in world.core.refused["mine"]
    feed(world, 3)


@pytest.mark.parametrize("part", ["/checkpoints/", "/rules/deployments", "/rules/"])
def test_without_the_checkpoint_or_the_file_the_other_says_what_runs(world, part):
    feed(world, 5)
    assert world.deploy("hot", digest=DIGESTS[2]).state == "done"
    feed(world, 10)
    world.drain()
    files = {path: bytes(node.data) for path, node in world.disk.after_cut(0).files.items() if part not in path}
    world.disk = MemoryDisk(files)
    world.start()
    assert runs(world, "hot") == (1 if part == "/rules/" else 2)
    assert world.core.store.deployments()[0] == world.core.generation
    before = world.stream("hot").next_sequence
    feed(world, 10, 100)
    world.drain()
    assert not world.missing() and ("hot", before) in world.rows


def test_a_checkpoint_from_before_a_swap_gives_no_number_twice(world):
    feed(world, 5)
    world.checkpoint()
    size = world.core.checkpoints.log._segments[-1].size
    feed(world, 20)
    for digest in (DIGESTS[2], DIGESTS[1]):              # there and back again: the rule is the same, what was put out between is not
        swap = world.deploy("hot", digest=digest, policy="fresh")
        assert swap.state == "done"
        feed(world, 20)
    world.drain()
    disk = world.disk.after_cut(0)
    path = max(p for p in disk.files if "/checkpoints/" in p and p.endswith(".seg"))
    del disk.files[path].data[size:]
    world.disk = MemoryDisk({p: bytes(node.data) for p, node in disk.files.items()})
    world.start()
    assert world.recovered.replayed > 50
    assert runs(world, "hot") == 1
    before = world.stream("hot").next_sequence
    feed(world, 10, 500)
    world.drain()
    assert before > 1 << 29 and ("hot", before) in world.rows and not world.missing()


def test_a_checkpoint_of_the_format_before_keeps_its_rules_states(world):
    feed(world, 13)
    meta, images = capture(world.pipeline, world.core.cursors())
    plain = msgpack.unpackb(meta, strict_map_key=False)
    for name in ("owed", "deferred"):
        plain.pop(name, None)
    for stage in plain["stages"].values():
        del stage["input"], stage["enabled"], stage["rows"][7:]
    for stream in plain["streams"].values():
        del stream["sent"]
    world.core.checkpoints.save(msgpack.packb(plain | {"version": 1}), images)
    world.crash(0)
    assert world.recovered.checkpoint and world.recovered.fresh == () and not world.recovered.lost and runs(world, "hot") == 1
    feed(world, 10)
    world.tick(60)
    world.drain()
    world.assert_balanced()
    assert sum(literal_eval(row)["count"] for row in world.of("tumble").values()) == len(world.of("hot"))


def test_a_deployment_that_cannot_be_read_stops_no_start(world):
    world.deploy("hot", digest=DIGESTS[2])
    world.core._plain = lambda: [{"rule": "hot", "input": 7}, {}]
    world.checkpoint()
    world.core.generation += 1
    restart(world)
    assert runs(world, "hot") == 1 and said(world, "a stored deployment is damaged")


# --- changes while it runs

def test_rules_that_read_it_follow_a_new_version_and_keep_their_state(world):
    second = Path(tidegate_rules.path("window")).read_bytes().replace(b'"version": 1', b'"version": 2')
    world.core.store.put(second, who="test", when_ns=1)
    window = world.core.deployments["tumble"]
    swap = world.deploy("sums", input="tumble", digest=window.digest, params={"length": "1m", "fields": ["count"], "functions": ["sum"]}, lanes=["all"])
    assert swap.state == "done", swap.error
    feed(world, 37)
    was = world.stage("sums").rule
    swap = world.deploy("tumble", digest=Module(second).digest, policy="keep")
    assert swap.state == "done" and world.stream("tumble").schema.version == 2 and world.stage("sums").rule is not was, swap.error
    feed(world, 10)
    for _ in range(2):
        world.tick(200)
        world.tick(200)
        world.drain()
        assert sum(literal_eval(row)["count_sum"] for row in world.of("sums").values()) == len(world.of("hot")) > 10
        world.crash(0)
    assert not world.missing() and not world.announced()


@pytest.mark.parametrize("change, text", [
    (lambda core: core.deploy(replace(core.deployments["hot"], digest=Module(Path(tidegate_rules.path("window")).read_bytes()).digest, params=core.deployments["tumble"].params)),
     "tumble reads hot, whose fields would change"),
    (lambda core: core.deploy(replace(core.deployments["hot"], input="tumble")), "in a circle"),
    (lambda core: core.deploy(replace(core.deployments["hot"], input="envy")), "did you mean env"),
    (lambda core: core.deploy(replace(core.deployments["hot"], input="hot.partial")), "no stream or rule 'hot.partial'"),
    (lambda core: core.deploy(Deployment("env", "hot", DIGESTS[1])), "the name of another stream"),
    (lambda core: core.deploy(Deployment("new", "hot", "f" * 64)), "has no module"),
    (lambda core: core.deploy(Deployment("new", "hot", DIGESTS[1], lanes=["al"])), "no lane 'al'; there are all"),
    (lambda core: core.deploy(replace(core.deployments["hot"], params={"x": 1})), "has no parameter"),
    (lambda core: core.deploy(replace(core.deployments["hot"], limits={"time_ns": 1})), "limits: time_ns"),
    (lambda core: core.deploy(replace(core.deployments["hot"], digest=DIGESTS[2]), policy="keep"), "no tg_save"),
    (lambda core: core.deploy(Deployment("new", "hot", DIGESTS[1]), policy="keep"), "no state to keep"),
    (lambda core: core.remove("hot"), "tumble reads it; remove tumble first"),
])
def test_what_cannot_be_is_refused_with_what_to_do_and_changes_nothing(world, change, text):
    feed(world, 5)
    before = world.core.generation, dict(world.core.deployments), [(s.name, s.number) for s in world.pipeline.streams]
    swap = world.carry_out(change(world.core))
    assert swap.state == "failed" and text in swap.error, swap.error
    assert before == (world.core.generation, world.core.deployments, [(s.name, s.number) for s in world.pipeline.streams])
    feed(world, 5)
    for impossible in (lambda: world.core.rollback("hot"), lambda: world.core.remove("hott"), lambda: world.core.set_enabled("x", True),
                       lambda: world.core.deploy(world.core.deployments["hot"], policy="magic")):
        with pytest.raises(ConfigError):
            impossible()


def test_a_later_change_of_a_rule_takes_the_place_of_one_that_waits(world):
    feed(world, 30)
    first = world.core.deploy(replace(world.core.deployments["hot"], digest=DIGESTS[2]), policy="replay")
    other = world.core.set_enabled("tumble", False)
    world.core.advance(0)
    assert first.state == "warming" and other.state == "done", "what needs no warm-up does not wait for one"
    second = world.carry_out(world.core.deploy(replace(world.core.deployments["hot"], digest=DIGESTS[3]), policy="fresh"))
    assert first.state == "failed" and "took its place" in first.error and second.state == "done"


def test_a_disabled_rule_passes_by_for_that_reason_and_goes_on_where_it_was(world):
    feed(world, 10)
    world.drain()
    assert world.carry_out(world.core.set_enabled("hot", False)).state == "done"
    count = len(world.of("hot"))
    feed(world, 20)
    for _ in range(2):
        account = world.account("hot").out
        assert account["disabled"] == 20 and account["quarantined"] == 0
        world.crash(0.5)
        world.drain()
        assert len(world.of("hot")) == count and not world.core.deployments["hot"].enabled
    assert world.carry_out(world.core.set_enabled("hot", True)).state == "done"
    feed(world, 10)
    world.drain()
    assert len(world.of("hot")) == 2 * count and world.account("hot").out["disabled"] == 20


def test_what_a_disabled_rule_has_of_a_key_that_is_forgotten_goes_out_as_partial(world):
    feed(world, 9)
    account = world.account("tumble").out
    assert world.carry_out(world.core.set_enabled("tumble", False)).state == "done"
    for _ in range(2):
        world.tick(25 * 3600)
        world.crash(0)
    assert world.carry_out(world.core.set_enabled("tumble", True)).state == "done"
    feed(world, 20, 100)
    world.tick(100)
    world.drain()
    world.assert_balanced()
    counts = {name: sum(literal_eval(row)["count"] for row in world.of(name).values()) for name in ("tumble", "tumble.partial")}
    assert counts["tumble"] + counts["tumble.partial"] == world.account("tumble").out["aggregated"]
    assert 0 < counts["tumble.partial"] <= account["aggregated"] and not world.missing()


def test_the_checkpoint_does_not_grow_with_the_versions_that_were(world):
    wasm, sizes = Path(tidegate_rules.path("window")).read_bytes(), []
    for n in range(2, 10):
        version = wasm.replace(b'"version": 1', b'"version": %d' % n)
        world.core.store.put(version, who="test", when_ns=n)
        assert world.deploy("tumble", digest=Module(version).digest, policy="keep").state == "done"
        feed(world, 10)
        world.drain()
        sizes.append(len(capture(world.pipeline, world.core.cursors())[0]))
    assert sizes[-1] - sizes[3] < 400, sizes
    world.crash(0)
    world.tick(60)
    world.drain()
    assert not world.missing() and not world.announced()


def test_a_version_in_quarantine_gives_way_to_the_one_before_it_once(world):
    feed(world, 10)
    assert world.deploy("hot", digest=DIGESTS[3], policy="fresh").state == "done"
    feed(world, 5)
    assert world.core.stage("hot").rule.quarantined
    assert world.account("hot").out["dead_lettered"] == 3 and world.account("hot").out["quarantined"] == 2
    while world.core.stage("hot").rule.quarantined:
        world.core.advance(0)
    assert runs(world, "hot") == 1 and world.core.deployments["hot"].previous is None
    assert [e for e in world.events if e[0] in ("quarantine", "rollback")] == [("quarantine", "hot"), ("rollback", "hot")]
    world.crash(0)
    assert runs(world, "hot") == 1
    feed(world, 20)
    world.drain()
    assert not world.missing() and len(world.of("hot")) == 5 + 10


def test_the_same_version_deployed_again_ends_its_quarantine(world):
    world.deploy("hot", digest=DIGESTS[3], policy="fresh")
    world.core.deployments["hot"] = replace(world.core.deployments["hot"], previous=None)
    feed(world, 4)
    world.core.advance(0)
    assert world.core.stage("hot").rule.quarantined and runs(world, "hot") == 3
    assert world.deploy("hot").state == "done"
    assert not world.core.stage("hot").rule.quarantined


def test_a_rollback_that_cannot_be_is_tried_once(world):
    world.deploy("hot", digest=DIGESTS[2])
    world.deploy("hot", digest=DIGESTS[3], policy="fresh")
    spoil(world, DIGESTS[2])
    feed(world, 4)
    for _ in range(50):
        world.core.advance(0)
    assert sum(e == ("failed", "hot") for e in world.events) == 1 and world.core.stage("hot").rule.quarantined
    feed(world, 4)
