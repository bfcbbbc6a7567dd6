"""Scenario errors: all at once, each with its place; and the ready-made scenarios."""

import gzip

import pytest

from firmware_sim import library
from firmware_sim.cli import main
from firmware_sim.reference import render
from firmware_sim.scenario import ScenarioError, load_scenario

BAD = """
name = "bad"
sede = 3
[[group]]
name = "a"
count = 0
qoss = 1
topic = "x/{devise}"
[[group.sensors]]
name = "t"
kind = "walks"
[[group]]
name = "b"
mqtt = "3.1"
[[group.sensors]]
kind = "walk"
stepp = 1
low = "cold"
[group.faults]
malformed_kinds = []
storms = [{ at_s = 1, device = 3 }]
"""

CONTRADICTIONS = {
    'topic = "x/{devise}"': "group[0].topic: '{devise}' is not one of",
    'topic = "x/+/y"': "group[0].topic: must be printable, without + and #",
    'id = "same"': "group[0].id: needs {n}",
    'id = "{n:x!}"': "group[0].id: ",
    'device_field = "temp"': "group[0].sensors: two fields are called 'temp'",
    'format = "json-nested"\nseq_field = "temp.x"': "group[0].sensors: 'temp' cannot be a value and an object",
}
FAULTS = {
    "storms = [{ at_s = 1, devices = 99 }]": "group[0].faults.storms[0].devices: 99 of a group of 3",
    "slow_link = { devices = 4, bytes_per_s = 9 }": "group[0].faults.slow_link.devices: 4 of a group of 3",
    "drops = 1.5": "group[0].faults.drops: expected `float` <= 1",
}


def test_all_problems_are_listed_with_place_and_near_miss(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(BAD)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    text = "\n".join(caught.value.problems)
    for line in ("sede: unknown key; did you mean 'seed'?", "group[0].count: expected `int` >= 1", "group[0].qoss: unknown key; did you mean 'qos'?",
                 "group[0].sensors[0].kind: unknown kind 'walks'; did you mean 'walk'?", "group[1].mqtt: invalid enum value '3.1'",
                 "group[1].sensors[0].name: missing", "group[1].sensors[0].stepp: unknown key; did you mean 'step'?",
                 "group[1].sensors[0].low: expected `float`, got `str`", "group[1].faults.malformed_kinds: expected `array` of length >= 1",
                 "group[1].faults.storms[0].device: unknown key; did you mean 'devices'?", "group[1].faults.storms[0].devices: missing"):
        assert line in text
    assert len(caught.value.problems) == 11


@pytest.mark.parametrize("lines", CONTRADICTIONS)
def test_contradictions_of_a_group(scenario, lines):
    with pytest.raises(ScenarioError) as caught:
        scenario(group=lines)
    assert CONTRADICTIONS[lines] in str(caught.value)


@pytest.mark.parametrize("lines", FAULTS)
def test_contradictions_of_faults(scenario, lines):
    with pytest.raises(ScenarioError) as caught:
        scenario(faults=lines)
    assert FAULTS[lines] in str(caught.value)


def test_lost_acks_need_acknowledgements(scenario):
    with pytest.raises(ScenarioError, match="lost_acks: qos 0 has no"):
        scenario(group="qos = 0", faults="lost_acks = 0.1")


def test_replay_reads_compressed_columns_and_names_what_is_not_there(tmp_path):
    with gzip.open(tmp_path / "d.csv.gz", "wt") as file:
        file.write('"a","b"\n1,x\n2.5,y\n')
    text = 'name = "r"\n[[group]]\nname = "g"\n[[group.sensors]]\nname = "v"\nkind = "replay"\nfile = "d.csv.gz"\ncolumn = "{}"\n'
    path = tmp_path / "r.toml"
    path.write_text(text.format("a"))
    sensor = load_scenario(path).group[0].sensors[0]
    from firmware_sim.scenario import replay_column
    assert replay_column(sensor.file, "a") == (1, 2.5) and replay_column(sensor.file, "b") == ("x", "y")
    path.write_text(text.format("c"))
    with pytest.raises(ScenarioError, match="has no column 'c'"):
        load_scenario(path)


def test_not_toml_and_not_there(tmp_path):
    path = tmp_path / "x.toml"
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(path)
    path.write_text("a = [")
    with pytest.raises(ScenarioError, match="is not TOML"):
        load_scenario(path)


@pytest.mark.parametrize("name", library.names())
def test_ready_made_scenarios_are_sound_and_told_about(name):
    load_scenario(library.find(name))
    assert len(library.about(name)) > 20


def test_unknown_scenario_is_an_error_with_a_near_miss(capsys):
    assert main(["run", "strom", "--check"]) == 2
    assert "did you mean 'storm'?" in capsys.readouterr().err


def test_readme_holds_the_reference_of_today():
    readme = (library.DIRECTORY.parent / "README.md").read_text()
    assert render() in readme, "run: python -m firmware_sim.reference firmware-sim/README.md"
