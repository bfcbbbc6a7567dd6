"""`tidegate bench`: its figures are made and have their shape. No test here says how fast anything is."""

import json
import subprocess
import sys

import pytest

from gateway.bench import workload
from gateway.bench.figure import Figure
from gateway.bench.suite import MEASUREMENTS
from gateway.cli import main

KEYS = {"figure", "value", "unit", "demand", "met", "baseline", "ratio"}
INSIDE = ["engine", "filters", "batches", "protection", "sql"]


def test_each_figure_is_a_json_line_beside_its_demand(tmp_path):
    done = subprocess.run([sys.executable, "-m", "gateway.cli", "bench", "--json", "--quick", "--folder", str(tmp_path), "--only", *INSIDE],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(KEYS <= set(f) <= KEYS | {"note"} for f in figures)
    assert all(isinstance(f["value"], (int, float)) and f["value"] > 0 for f in figures)
    assert all((f["met"] is None) == (f["demand"] is None) for f in figures)
    assert all((f["ratio"] is None) == (f["baseline"] is None) for f in figures)
    assert {f["demand"] for f in figures} >= {1.0, 25, 16, 2, 8}
    assert not list(tmp_path.iterdir())              # what it needed is gone again


def test_an_unknown_measurement_is_refused_by_name(capsys):
    assert main(["bench", "--only", "engine", "warp"]) == 2
    error = capsys.readouterr().err
    assert "warp" in error and all(name in error for name in MEASUREMENTS)


@pytest.mark.parametrize("value, more, met", [(1.0, False, True), (1.1, False, False), (0.9, True, False), (1.0, True, True), (None, False, None)])
def test_a_demand_is_met_at_its_limit_and_unknown_without_a_value(value, more, met):
    figure = Figure("speed", value, "x", 1.0, more=more, note="why")
    assert figure.met is met and json.loads(figure.to_json())["met"] is met
    assert {True: " met ", False: "NOT MET", None: "not measured"}[met] in figure.to_text() and figure.to_text().endswith("why")


def test_the_workload_is_the_same_every_time():
    assert workload.packets(500) == workload.packets(500) != workload.packets(500, seed=2)
    sizes = [len(payload) for _, payload, _ in workload.events(2000)]
    assert 110 <= sum(sizes) / len(sizes) <= 120
    hot = sum(temp > 3000 for _, _, temp in workload.events(20_000))
    assert 0.09 <= hot / 20_000 <= 0.11
