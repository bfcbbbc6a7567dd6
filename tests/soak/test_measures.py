"""The measures of the tests (proven.py) measure what they say, and what is excused has a reason."""

import ast
from pathlib import Path

import mutants_run
import planted_run
import pytest
import soak
from campaigns import MEASURES, TESTS
from proven import CYTHON, CYTHON_TESTS, PYTHON
from proven import TESTS as PROVING

ROOT = Path(__file__).resolve().parents[2]
EXCUSED_MAX = 150


def test_all_that_is_named_is_there():
    for name in (*PYTHON, *CYTHON, *PROVING, *CYTHON_TESTS, *(f"tests/{m.script}" for m in MEASURES)):
        assert (ROOT / name).is_file(), name
    assert len(planted_run.MISTAKES) == next(m.full for m in MEASURES if m.name == "planted") and TESTS.name == "tests"


def test_nothing_of_the_proven_code_is_left_out_of_the_measure():
    assert not [name for name in PYTHON if "no cover" in (ROOT / name).read_text()]


def test_a_planted_mistake_changes_one_place():
    for module, was, becomes in planted_run.MISTAKES:
        assert module in CYTHON and (ROOT / module).read_text().count(was) == 1 and was != becomes, (module, was)


def test_what_is_excused_has_a_reason_and_a_line():
    excused = mutants_run.equivalents()
    assert len(excused) <= EXCUSED_MAX
    for (module, was, becomes), why in excused.items():
        lines = [line.strip() for line in (ROOT / module).read_text().splitlines()]
        assert all(line in lines for line in was.splitlines()) and was != becomes, (module, was)
        assert len(why.split()) >= 4, f"{module}: {was}: say why it changes nothing"


def test_mutants_are_fair_and_each_changes_what_runs():
    pytest.importorskip("cosmic_ray", reason="cosmic-ray is not installed")
    source = (ROOT / "edge/storage/writer.py").read_text()
    made = list(mutants_run.mutants("edge/storage/writer.py", range(100)))
    assert len({m.text for m in made}) == len(made) > 5
    for mutant in made:
        assert source.splitlines()[mutant.line - 1].strip() == mutant.was.splitlines()[0].strip()
        assert ast.dump(ast.parse(mutant.text)) != ast.dump(ast.parse(source))
    parts = [str(m) for share in range(0, 100, 20) for m in mutants_run.mutants("edge/storage/writer.py", range(share, share + 20))]
    assert sorted(parts) == sorted(map(str, made)), "the shares together are all of them"


def test_a_mutant_is_put_into_what_runs_and_into_what_was_imported_from_it():
    import types

    import edge.codec.intervals

    path, source = "edge/codec/intervals.py", (ROOT / "edge/codec/intervals.py").read_text()
    module = types.ModuleType("edge.codec.intervals")
    exec(compile(source, path, "exec"), vars(module))
    real = mutants_run.sys.modules["edge.codec.intervals"]
    try:
        mutants_run.sys.modules["edge.codec.intervals"] = module
        user = module.Intervals
        mutants_run.put_in(path, source, source.replace("sum(self.stops) - sum(self.starts)", "sum(self.stops) + sum(self.starts)").replace("count_max: int = 4096", "count_max: int = 7"))
        assert user([(1, 3)]).total == 4 and user().count_max == 7
    finally:
        mutants_run.sys.modules["edge.codec.intervals"] = real
    assert edge.codec.intervals.Intervals([(1, 3)]).total == 2


def test_a_mutant_in_a_default_of_a_struct_is_put_in(monkeypatch):
    import types

    import edge.recovery

    path, source = "edge/recovery.py", (ROOT / "edge/recovery.py").read_text()
    module = types.ModuleType("edge.recovery")
    exec(compile(source, path, "exec"), vars(module))
    user = types.ModuleType("user")
    user.Recovered = module.Recovered
    monkeypatch.setitem(mutants_run.sys.modules, "edge.recovery", module)
    monkeypatch.setitem(mutants_run.sys.modules, "user", user)
    mutants_run.put_in(path, source, source.replace("FAILED_MAX = 20", "FAILED_MAX = 7"))
    assert user.Recovered is module.Recovered and module.Recovered().replayed == 0
    mutants_run.put_in(path, source, source.replace("replayed: int = 0", "replayed: int = 7"))
    assert user.Recovered().replayed == module.Recovered().replayed == 7 and edge.recovery.Recovered().replayed == 0


def test_the_page_says_what_was_measured(monkeypatch):
    line = {"seed": 1, "first": 0, "count": 10, "code": "a", "commit": "c0ffee", "when": "2026-11-25T12:00Z"}
    monkeypatch.setattr(soak, "results", lambda: [
        {**line, "campaign": "mutants", "results": {"killed": 90, "survived": 5, "equivalent": 3, "modules": {}, "broken": []}},
        {**line, "campaign": "mutants", "first": 10, "results": {"killed": 95, "survived": 10, "equivalent": 0, "broken": []}},
        {**line, "campaign": "coverage", "count": 1, "results": {"branches": 620, "missing": 0, "modules": 14, "cython": 3, "broken": []}}])
    page = soak.page()
    assert "| 185 of 200 killed (92.5%), 3 that change nothing, in 20 hundredths | 0 | c0ffee | 2026-11-25T12:00Z |" in page
    assert "| 620 of 620 branches in 14 modules, all lines of 3 Cython modules | 0 | c0ffee |" in page and "| nothing yet |" in page


def test_the_page_tells_of_the_largest_run_on_one_code_by_one_seed():
    def line(code, first, *broken, seed=1):
        return {"campaign": "kill", "code": code, "seed": seed, "first": first, "count": 250, "results": {"broken": list(broken)}}

    known = [line("a", 0), line("a", 250, "lost"), line("b", 0, "lost"), line("b", 250), line("b", 0), line("b", 500, seed=2), line("b", 750)]
    largest, others = soak.largest_run("kill", known)
    assert [(r["first"], r["results"]["broken"]) for r in largest] == [(0, []), (250, []), (750, [])], "the last word on a chunk counts"
    assert [(r["code"], r["seed"], r["first"]) for r in others] == [("a", 1, 0), ("a", 1, 250), ("b", 2, 500)]
    assert soak.largest_run("kill", known[:4])[0] == [line("b", 0, "lost"), line("b", 250)] and soak.largest_run("fleet", known) == ([], [])
