"""`tidegate rule bench` measures what a rule does with events as its samples show them."""

import json
import shutil

import pytest
import rule_module as m
import tidegate_rules

from edge.host.module import CASES_SECTION, with_section
from gateway.cli import main


def bench(capsys, *arguments):
    capsys.readouterr()
    status = main(["rule", "bench", *map(str, arguments), "--seconds", "0.02"])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize("rule", ["threshold", "window", "missing"])
def test_the_figures_are_of_events_that_the_rule_works_on(capsys, rule):
    status, out, _ = bench(capsys, tidegate_rules.path(rule).parent, "--json")
    found = json.loads(out)
    assert status == 0 and found["rule"] == rule and found["params"]
    assert 0 < found["batch"]["p50_ns"] <= found["batch"]["p99_ns"] and found["batch"]["p50_ns"] < found["single"]["p50_ns"]
    assert found["outcome"]["in"] >= 40 * 1024 and (found["outcome"]["out"] > 0 or rule == "missing")
    assert found["module_bytes"] > 1000 and found["code_bytes"] > found["module_bytes"] and found["compile_ns"] > 0 and found["memory_bytes"] >= 65536


def test_a_case_gives_the_parameters_and_a_file_gives_the_cases(capsys, tmp_path):
    shutil.copy(tidegate_rules.path("window"), tmp_path / "w.wasm")
    cases = tidegate_rules.path("window").parent / "cases.samples"
    status, out, _ = bench(capsys, tmp_path / "w.wasm", "--input", cases, "--case", "hopping windows: an event counts in each window that covers it")
    assert status == 0 and 'hop = "5s"' in out and "ns an event" in out and "compile" in out
    assert "no case 'none' that runs" in bench(capsys, tmp_path / "w.wasm", "--input", cases, "--case", "none")[2]
    assert "parameter length is missing" in bench(capsys, tmp_path / "w.wasm", "--input", _without_params(cases, tmp_path))[2]


def _without_params(cases, folder):
    path = folder / "bare.samples"
    path.write_text("\n".join(line for line in cases.read_text().splitlines() if not line.startswith(("PARAM", "REFUSED"))).replace(
        "CASE a hop is not longer than its window", ""))
    return path


def test_without_samples_the_manifest_tells_what_to_generate(capsys, tmp_path):
    inputs = [{"name": "t", "type": "f64"}, {"name": "id", "type": "str"}, {"name": "n", "type": "i64"}, {"name": "ok", "type": "bool"}, {"name": "at", "type": "time"}]
    (tmp_path / "rule.wasm").write_bytes(m.module(process=m.ABOVE_4, manifest={**m.MANIFEST, "inputs": inputs, "key": "id"}))
    status, out, _ = bench(capsys, tmp_path / "rule.wasm")
    assert status == 0 and "no parameters" in out


def test_a_rule_that_traps_on_the_way_is_one_line(capsys, tmp_path):
    (tmp_path / "rule.wasm").write_bytes(with_section(m.module(process="(unreachable)"), CASES_SECTION, b'FIELD t f64\nCASE one\nIN {"t": 1}\nTRAP unreachable'))
    status, out, err = bench(capsys, tmp_path / "rule.wasm")
    assert status == 2 and out == "" and "unreachable" in err.splitlines()[-1]
