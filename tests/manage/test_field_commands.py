"""`tidegate rule` on a running gateway: each command says what became of it, in words or as JSON, and its exit status means it."""

import json
import threading

import pytest
from fake_core import Box
from module_maker import rule

from edge.columns._batch import Batch
from edge.storage.disk import Disk
from gateway import cli
from gateway.commands import tail
from gateway.control import Control


class Served:
    """A Box behind its local socket, in a thread."""

    def __init__(self):
        self.box = Box(Disk())
        self.control = Control(self.box.reactor, "data", {"manage": lambda request: self.box.manager.handle(request["request"], request["who"])})
        self._ends = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._ends:
            self.box.reactor.turn(0.2)

    def close(self):
        self._ends = True
        self.box.reactor.soon(bool)
        self._thread.join()
        self.control.close()
        self.box.close()


@pytest.fixture
def served(tmp_path, monkeypatch, compiled):
    monkeypatch.chdir(tmp_path)
    compiled(tmp_path)
    served = Served()
    yield served
    served.close()


@pytest.fixture
def tidegate(capsys):
    def run(*words):
        status = cli.main([*words, "--gateway", "data"])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def module(tmp_path, name="hot", version=1, **changes):
    path = tmp_path / f"{name}-{version}.wasm"
    path.write_bytes(rule(name, version, **changes))
    return str(path)


def test_a_rule_is_pushed_watched_changed_and_removed(served, tidegate, tmp_path):
    parameter = {"parameters": [{"name": "limit", "type": "f64", "summary": "above it", "default": 1.0}]}
    status, out, err = tidegate("rule", "push", module(tmp_path, **parameter), "--param", "limit=3.5", "--lane", "main", "--wait")
    assert status == 0 and "hot: push hot@1 done" in out and "ok  module" in out and not err
    status, out, _ = tidegate("rule", "push", module(tmp_path, version=2, **parameter), "--policy", "replay", "--horizon", "2h")
    assert status == 0 and "state: replay" in out
    status, out, _ = tidegate("rule", "ls")
    assert status == 0 and "hot@2" in out and '{"limit": 3.5}' in out and "for tests" in out
    assert tidegate("rule", "set", "hot", "limit=4")[0] == 0
    status, out, _ = tidegate("rule", "show", "hot")
    assert "limit" in out and "above it" in out and "local:" in out
    assert tidegate("rule", "show", "hot@1")[0] == 0
    for command in ("disable", "enable", "rollback"):
        status, out, _ = tidegate("rule", command, "hot")
        assert status == 0 and out.startswith("hot: ") and " done" in out
    status, out, _ = tidegate("rule", "logs", "hot")
    assert status == 0 and "rolled back" in out and "admitted" in out
    status, out, _ = tidegate("rule", "audit")
    assert status == 0 and "whole up to line" in out and "rolled back" in out
    assert tidegate("rule", "stats")[1] == "no rules\n", "the fake runs none"
    assert tidegate("rule", "rm", "hot")[0] == 0 and "no rules" in tidegate("rule", "ls")[1]
    assert tidegate("rule", "rm", "hot@1") == (0, "hot@1 is removed\n", "")


def test_a_refused_push_says_why_and_exits_1(served, tidegate, tmp_path):
    status, out, _ = tidegate("rule", "push", module(tmp_path), "--param", "no=1")
    assert status == 1 and "no parameter 'no'" in out and "what ran before goes on" in out
    status, out, _ = tidegate("rule", "push", module(tmp_path), "--param", "no=1", "--json")
    assert status == 1 and json.loads(out)["state"] == "failed"


@pytest.mark.parametrize(("words", "says"), [
    (("rule", "push", "none.wasm"), "none.wasm: No such file"), (("rule", "push", "hot@3"), "rule store has no 'hot@3'"),
    (("rule", "set", "hot", "x"), "a parameter is written name=value"), (("rule", "set", "hot", "x=1"), "no rule 'hot'"),
    (("rule", "rollback", "hot"), "no rule 'hot'"), (("tail", "nowhere"), "no stream or rule 'nowhere'"), (("rule", "logs", "hot"), "no rule 'hot'")])
def test_what_cannot_be_is_one_line_and_exit_2(served, tidegate, words, says):
    status, out, err = tidegate(*words)
    assert status == 2 and not out and err.count("\n") == 1 and says in err


def test_every_command_answers_in_json(served, tidegate, tmp_path):
    assert json.loads(tidegate("rule", "push", module(tmp_path), "--json")[1])["state"] == "done"
    for words in (("ls",), ("show", "hot"), ("logs", "hot"), ("stats",), ("audit",), ("disable", "hot"), ("enable", "hot"), ("diff", "hot"), ("rm", "hot")):
        status, out, err = tidegate("rule", *words, "--json")
        assert status == 0 and json.loads(out) is not None and not err, words


def test_a_tampered_record_exits_1(served, tidegate, tmp_path):
    tidegate("rule", "push", module(tmp_path))
    tidegate("rule", "disable", "hot")
    file = next((tmp_path / "data/rules/audit").iterdir())
    file.write_bytes(file.read_bytes().replace(b"admitted", b"refused!", 1))
    status, out, _ = tidegate("rule", "audit")
    assert status == 1 and "BROKEN: 00000001.jsonl line" in out


def test_tail_prints_what_flows_by(served, capsys, monkeypatch):
    stream = served.box.core.pipeline.streams[0]

    def flow(seconds):
        row = {"id": "a\x1b[2J", "t": 1.0, "n": 1, "ok": True, "at": 10**18}
        served.box.reactor.soon(lambda: stream.tap(Batch.from_rows(stream.schema, [row] * 3, first_sequence=7)))

    monkeypatch.setattr(tail.time, "sleep", flow)
    assert cli.main(["tail", "s", "--count", "4", "--gateway", "data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and json.loads(lines[0])["sequence"] == 7 and "\x1b" not in lines[0]
