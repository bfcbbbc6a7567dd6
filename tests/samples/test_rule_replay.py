"""`tidegate rule replay` on a gateway's data directory, while the gateway is at work on it."""

import json
import shutil

import pytest
import tidegate_rules
from pipeline_world import RULES, START, S, World, env, modules

from edge.storage.disk import Disk
from edge.times import timestamp
from gateway.cli import main

__all__ = ["modules"]


@pytest.fixture(scope="module")
def site(tmp_path_factory, modules):
    """A gateway at work on a real disk, with its configuration's file beside."""
    folder = tmp_path_factory.mktemp("site")
    world = at_work(folder, modules)
    yield world, folder
    world.close()


def at_work(folder, modules, more=""):
    """more: in the table [gateway]."""
    text = RULES.replace('data = "data"', f'data = "{folder}/data"{more}')
    (folder / "tidegate.toml").write_text(text)
    (folder / "data").mkdir()
    world = World(modules, text, Disk()).start()
    for turn in range(40):
        world.now_ns += S
        at_ms = world.now_ns // 10**6
        world.put(*[env(f"d{i}", turn, at_ms - 100 * i, 20 + (turn * 7 + i) % 5) for i in range(3)])
        if turn % 10 == 5:
            world.tick(40)
        if turn == 20:
            world.checkpoint()
    world.tick(60)
    world.pipeline.sync()
    for outbox, _ in world.core.lanes:
        outbox.log.sync()
    return world


@pytest.fixture
def tidegate(capfdbinary, site):
    def run(*arguments):
        capfdbinary.readouterr()
        status = main([*map(str, arguments)])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return run


def replay(folder, *arguments):
    return ["rule", "replay", "--journal", folder / "data", "--config", folder / "tidegate.toml", *arguments]


def rows(text, *streams):
    return sorted(line for line in text.splitlines() if json.loads(line)["stream"] in streams)


def test_a_replay_prints_what_an_export_of_the_outboxes_prints(site, tidegate):
    _, folder = site
    status, out, err = tidegate(*replay(folder))
    assert status == 0, err
    held = []
    for lane in ("alerts", "telemetry"):
        held += rows(tidegate("buffer", "export", f"outbox/{lane}", "--data", folder / "data")[1], "gone", "slope", "slope.late", "once", "tumble", "hop", "band", "slopes")
    assert len(held) > 100 and rows(out, *{json.loads(line)["stream"] for line in held}) == sorted(held)


def test_bounds_leave_out_rows_and_not_what_led_to_them(site, tidegate):
    _, folder = site
    everything = rows(tidegate(*replay(folder, "--rule", "tumble"))[1], "tumble")
    part = tidegate(*replay(folder, "--rule", "tumble", "--from", timestamp(START + 60 * S), "--to", timestamp(START + 100 * S)))[1].splitlines()
    assert 0 < len(part) < len(everything) and set(part) < set(everything)
    assert all(timestamp(START + 60 * S) <= json.loads(line)["received"] < timestamp(START + 100 * S) for line in part)
    middle = [json.loads(line)["sequence"] for line in tidegate(*replay(folder, "--rule", "tumble", "--from", 40, "--to", 80))[1].splitlines()]
    assert middle and middle == list(range(middle[0], middle[-1] + 1)) and middle[0] > 0


def test_another_version_runs_in_the_place_of_the_one_with_its_name(site, tidegate, tmp_path):
    _, folder = site
    shutil.copy(tidegate_rules.path("missing"), tmp_path / "new.wasm")
    old, new = (tidegate(*replay(folder, "--rule", rule))[1] for rule in ("gone", tmp_path / "new.wasm"))
    assert old == new != ""
    assert old != tidegate(*replay(folder, "--rule", tmp_path / "new.wasm", "--params", 'after="20s"'))[1]
    assert "runs as hop, slopes, tumble: say in whose place it goes by --as" in tidegate(*replay(folder, "--rule", tidegate_rules.path("window")))[2]


def test_a_new_rule_runs_on_a_stream(site, tidegate):
    _, folder = site
    threshold = tidegate_rules.path("threshold")
    assert "say which stream it reads by --input" in tidegate(*replay(folder, "--as", "hot", "--rule", threshold))[2]
    status, out, err = tidegate(*replay(folder, "--rule", threshold, "--as", "hot", "--input", "once", "--params", 'field="temp"', "value=23"))
    assert status == 0 and {json.loads(line)["temp"] for line in out.splitlines()} == {24.0}, err


def test_the_version_that_ran_can_be_named_as_the_rule_store_names_it(site, tidegate):
    world, folder = site
    digest = world.core.deployments["gone"].digest
    assert tidegate(*replay(folder, "--rule", digest[:12]))[1] == tidegate(*replay(folder, "--rule", "missing@1"))[1] == tidegate(*replay(folder, "--rule", "gone"))[1] != ""


def test_diff_shows_where_two_versions_differ(site, tidegate):
    _, folder = site
    status, out, _ = tidegate(*replay(folder, "--diff", "tumble", "tumble"))
    assert status == 0 and " 0 changed, 0 only of the old, 0 only of the new" in out
    status, out, _ = tidegate(*replay(folder, "--diff", "tumble", "tumble", "--params", 'functions=["count", "min"]', "--json"))
    found = json.loads(out)
    assert status == 1 and found["same"] == 0 and found["changed"] == found["rows"]["old"] == found["rows"]["new"] > 10 and len(found["first"]) == 10
    status, out, _ = tidegate(*replay(folder, "--diff", "band", "band", "--params", "change=2.5"))
    assert status == 1 and " 0 changed" in out and " 0 only of the new" in out and "\n- {" in out


@pytest.mark.parametrize("arguments, says", [
    (["--rule", "nothing"], "there is no rule or version 'nothing'"),
    (["--rule", "tumble", "--params", "length=5s"], "the value as JSON"),
    (["--rule", "tumble", "--params", "lenght=1"], "did you mean length?"),
    (["--from", "soon"], "neither a position nor a time"),
])
def test_what_cannot_be_played_is_one_line(site, tidegate, arguments, says):
    status, out, err = tidegate(*replay(site[1], *arguments))
    assert status == 2 and out == "" and says in err and err.count("\n") == 1, err


def test_a_data_directory_needs_its_configuration(site, tidegate):
    assert "by --config" in tidegate("rule", "replay", "--journal", site[1] / "data")[2]
    assert "no such directory" in tidegate("rule", "replay", "--journal", site[1] / "none")[2]
    assert "is no archive of a slice" in tidegate("rule", "replay", "--journal", site[1] / "tidegate.toml")[2]
