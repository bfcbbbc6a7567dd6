"""From a folder to one file: the same bytes anywhere, manifest and samples inside, and what a user sees when it does not work."""

import re
import sys

import pytest

from edge.errors import ConfigError, RuleError
from edge.host.module import Module
from gateway import cli
from rulec import build, toolchain
from rulec.scaffold import ENDINGS, scaffold

pytest.importorskip("ziglang", reason="C is built with ziglang: pip install ziglang==0.17.1")


def made(parent, language="c"):
    scaffold(parent, "warm", language)
    return parent / "warm"


def test_a_rule_is_one_file_and_the_same_from_any_folder(tmp_path):
    (tmp_path / "else" / "where").mkdir(parents=True)
    one, other = made(tmp_path), made(tmp_path / "else" / "where")
    wasm = build.build(one)
    assert wasm == build.build(other)
    module = Module(wasm)
    assert module.manifest.name == "warm" and module.manifest.outputs[3].unit == "°C"
    assert module.cases == (one / "cases.samples").read_text()
    assert {"tg_save", "tg_migrate"} <= module.exports
    assert str(tmp_path).encode() not in wasm


def test_the_command_writes_the_module_beside_its_source(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["rule", "new", "warm", "--lang", "c"]) == 0
    assert cli.main(["rule", "build", "warm"]) == 0
    assert cli.main(["rule", "build", "warm", "-o", "other.wasm"]) == 0
    assert (tmp_path / "other.wasm").read_bytes() == (tmp_path / "warm/warm.wasm").read_bytes()
    assert re.search(r"^warm/warm.wasm: warm 1, [0-9,]+ bytes$", capsys.readouterr().out, re.M)
    assert cli.main(["rule", "new", "warm"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_mistake_in_the_source_is_shown_with_its_line(tmp_path, capsys):
    folder = made(tmp_path)
    source = (folder / "warm.c").read_text()
    (folder / "warm.c").write_text(source.replace("t->sum / (double)t->n", "t->sum / t.n"))
    assert cli.main(["rule", "build", str(folder)]) == 1
    assert re.search(r"^warm\.c:\d+:\d+: error: ", capsys.readouterr().err, re.M)
    assert not (folder / "warm.wasm").exists()


def test_a_mistake_in_rule_toml_is_named(tmp_path, capsys):
    folder = made(tmp_path)
    (folder / "rule.toml").write_text((folder / "rule.toml").read_text().replace('"c"', '"cobol"'))
    assert cli.main(["rule", "build", str(folder)]) == 2
    assert "language: 'cobol' is not known here" in capsys.readouterr().err


def test_a_module_has_one_manifest(tmp_path):
    folder = made(tmp_path)
    with open(folder / "warm.c", "a") as source:
        source.write('RULE({"name": "x", "version": 1, "abi": 1, "summary": ""})\n')
    with pytest.raises(RuleError, match="warm.c: it has a manifest of its own"):
        build.build(folder)


def test_a_mistake_in_the_samples_is_named_with_its_line(tmp_path, capsys):
    folder = made(tmp_path)
    (folder / "cases.samples").write_text("CASE one\nINN {}\n")
    assert cli.main(["rule", "build", str(folder)]) == 2
    assert "cases.samples:2: 'INN' begins no line; did you mean IN?" in capsys.readouterr().err


def test_samples_that_are_too_long_are_refused(tmp_path):
    folder = made(tmp_path)
    with open(folder / "cases.samples", "a") as cases:
        cases.write("# x\n" * 40_000)
    with pytest.raises(RuleError, match="the limit is 131072"):
        build.build(folder)


def test_a_missing_compiler_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="^the C compiler is missing; install it with: pip install ziglang==0.17.1$"):
        build.build(made(tmp_path))


def test_a_compiler_is_stopped_when_it_hangs_and_heard_when_it_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "SECONDS_MAX", 0.3)
    with pytest.raises(RuleError, match="took longer"):
        toolchain.run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path)
    monkeypatch.setattr(toolchain, "SECONDS_MAX", 60)
    with pytest.raises(RuleError, match="failed with status 3 and said nothing"):
        toolchain.run([sys.executable, "-c", "exit(3)"], tmp_path)
    with pytest.raises(ConfigError, match="cannot be run"):
        toolchain.run([tmp_path / "nothing"], tmp_path)


@pytest.mark.parametrize("language", ENDINGS)
def test_a_new_rule_has_all_its_files(language, tmp_path):
    folder = made(tmp_path, language)
    assert {"rule.toml", "cases.samples", "README.md", f"warm.{ENDINGS[language]}"} <= {file.name for file in folder.iterdir()}
    assert "$" not in (folder / "rule.toml").read_text() + (folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", "a/b", "x" * 65])
def test_a_name_that_is_none_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match="is no name for a rule"):
        scaffold(tmp_path, name, "c")


def test_sql_takes_its_manifest_from_rule_toml(tmp_path):
    folder = made(tmp_path, "sql")
    text = (folder / "rule.toml").read_text()
    (folder / "rule.toml").write_text(text + '\n[parameters.strict]\ntype = "bool"\ndefault = false\nsummary = "nothing"\n')
    with open(folder / "warm.sql", "r+") as query:
        changed = query.read().replace("temp > :limit", "temp > :limit AND NOT :strict")
        query.seek(0)
        query.write(changed)
    manifest = Module(build.build(folder)).manifest
    assert [(p.name, p.default, p.required) for p in manifest.parameters][:3] == [("limit", 30.0, False), ("skip", "test bench", False), ("strict", False, False)]
    assert (manifest.limits.memory_bytes, manifest.outputs[-1].name) == (4194304, "temp_avg")
    assert ("temp", True, "°C") in [(f.name, f.optional, f.unit) for f in manifest.inputs]
    (folder / "rule.toml").write_text(text.replace("version = 1", "version = 1\nstate = 2"))
    with pytest.raises(ConfigError, match="state: is made of the query"):
        build.build(folder)
    (folder / "rule.toml").write_text(text)
    (folder / "warm.sql").write_text("SELECT devise FROM env")
    with pytest.raises(RuleError, match="line 1, column 8"):
        build.build(folder)
