"""`tidegate rule test`, and the samples of the ready-made rules, which are their documentation."""

import json
import os
from xml.etree import ElementTree

import pytest
import tidegate_rules
from wasm_bytes import without

from edge.host.module import CASES_SECTION, with_section
from gateway.cli import main

WASM = tidegate_rules.path("threshold").read_bytes()
GOOD = """\
FIELD device str
FIELD temp f64
PARAM field = "temp"
PARAM value = 30
CASE passes
IN {"device": "a", "temp": 31}
OUT {"device": "a", "temp": 31}
"""
BAD = GOOD.replace('OUT {"device": "a", "temp": 31}', 'OUT {"device": "a", "temp": 32}') + 'CASE <b>&"\x01\nIN {"temp": "}\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rule.wasm").write_bytes(WASM)
    (tmp_path / "cases.samples").write_text(GOOD)
    return tmp_path


def test(capsys, *arguments):
    """(exit status, standard output, standard error) of `rule test`."""
    capsys.readouterr()
    status = main(["rule", "test", *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


test.__test__ = False


@pytest.mark.parametrize("rule", tidegate_rules.names())
def test_ready_made_rules_do_what_their_samples_say(capsys, rule):
    status, out, err = test(capsys, tidegate_rules.path(rule).parent)
    assert status == 0, out + err


def test_a_failure_is_exit_1_with_lines_of_the_file(capsys, folder):
    assert test(capsys, folder)[0] == 0
    (folder / "cases.samples").write_text(BAD)
    status, out, _ = test(capsys, folder / "cases.samples")
    assert status == 1
    assert f"FAILED {folder}/cases.samples:5 passes" in out and '-     7  OUT {"device": "a", "temp": 32}' in out and "2 of 2 cases failed" in out


def test_an_update_is_what_came_out_and_nothing_is_left_beside(capsys, folder):
    (folder / "cases.samples").write_text(BAD)
    assert test(capsys, folder, "--update", "--case", "passes")[0] == 0
    assert (folder / "cases.samples").read_text() == BAD.replace('"temp": 32', '"temp": 31.0')
    assert test(capsys, folder, "--case", "passes")[0] == 0
    assert sorted(os.listdir(folder)) == ["cases.samples", "rule.wasm"]


def test_junit_and_json_tell_the_same(capsys, folder):
    (folder / "cases.samples").write_text(BAD)
    status, out, _ = test(capsys, folder, "--junit", folder / "report.xml", "--json")
    said = json.loads(out)
    suite = ElementTree.parse(folder / "report.xml").getroot()
    assert (status, said["passed"], suite.get("tests"), suite.get("failures")) == (1, False, "2", "2")
    assert [case.get("line") for case in suite] == [str(case["line"]) for case in said["cases"]] == ["5", "8"]
    assert "temp is 31.0, not 32.0" in suite[0][0].text and suite[1].get("name") == '<b>&"\ufffd'


def test_embedded_samples_run_where_none_are_named(capsys, folder):
    embedded = folder / "with.wasm"
    embedded.write_bytes(with_section(without(WASM, CASES_SECTION), CASES_SECTION, BAD.encode()))
    assert test(capsys, embedded)[0] == 1
    assert test(capsys, embedded, folder / "cases.samples")[0] == 0
    assert "cannot be updated" in test(capsys, embedded, "--update")[2]


@pytest.mark.parametrize("arguments, says", [
    (["{}/none"], "there is no such folder"),
    (["{}/none.wasm"], "No such file"),
    (["{}/rule.wasm", "{}/other.wasm"], "name one rule"),
    (["{}", "--case", "what"], "there is no case 'what'; there are passes"),
])
def test_what_cannot_be_done_is_one_line(capsys, folder, arguments, says):
    status, _, err = test(capsys, *(a.format(folder) for a in arguments))
    assert status == 2 and says in err and err.count("\n") == 1


def test_without_samples_the_command_says_where_they_belong(capsys, folder):
    (folder / "cases.samples").unlink()
    status, _, err = test(capsys, folder)
    assert status == 2 and "there are no samples" in err


def test_nothing_is_written_anywhere(capsys, folder, monkeypatch, tmp_path_factory):
    """Safe on a live device: no file is made but in a directory for temporary files, and that is empty again."""
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert test(capsys, folder)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before and not os.listdir(scratch)
