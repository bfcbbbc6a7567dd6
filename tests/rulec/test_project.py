"""rule.toml: what it says becomes the manifest; every mistake is named at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.columns.schema import Field
from edge.errors import ConfigError
from edge.host.manifest import Manifest
from rulec import project

GOOD = """
name = "hot"
version = 3
state = 2
summary = "Passes events above a limit"
language = "c"
source = "hot.c"
[input]
stream = "env"
key = "device"
time = "ts"
[input.fields]
device = "str"
ts = "time"
temp = { type = "f64", unit = "°C", optional = true }
[output]
key = "device"
[output.fields]
device = "str"
[parameters.limit]
type = "f64"
default = 0.0
min = -9
summary = "the limit"
[parameters.strict]
type = "bool"
default = false
summary = "whether"
[parameters.names]
type = "str"
list = true
required = true
summary = "which"
[limits]
time_ms = 5
"""


def folder(tmp_path, text, source="hot.c"):
    (tmp_path / "rule.toml").write_text(text)
    (tmp_path / source).write_text("")
    return tmp_path


def problems(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        project.load(folder(tmp_path, text))
    return [line.split("rule.toml: ", 1)[1] for line in str(caught.value).splitlines()]


def test_the_manifest_is_what_rule_toml_says(tmp_path):
    rule = project.load(folder(tmp_path, GOOD))
    manifest = Manifest.read(rule.manifest_bytes())
    assert manifest == rule.manifest
    assert (manifest.name, manifest.version, manifest.state, manifest.limits.time_ms, manifest.key) == ("hot", 3, 2, 5, "device")
    assert [(p.name, p.type, p.default, p.required, p.many) for p in manifest.parameters] == [
        ("limit", "f64", 0.0, False, False), ("strict", "bool", False, False, False), ("names", "str", None, True, True)]
    assert [(f.name, f.type, f.optional, f.unit) for f in manifest.inputs][2] == ("temp", "f64", True, "°C")
    assert rule.schema.fields[2] == Field("temp", "f64", "°C") and (rule.schema.stream, rule.schema.key, rule.schema.time) == ("env", "device", "ts")
    assert rule.optional == ("temp",) and rule.cases == ""
    assert manifest.arguments({"names": ["x"]}, "r") == {"limit": (1, [0.0]), "strict": (2, [0]), "names": (4, ["x"])}


def test_a_manifest_leaves_out_what_nobody_said(tmp_path):
    text = 'name = "a"\nversion = 1\nsummary = "s"\nlanguage = "c"\nsource = "hot.c"\n[input.fields]\nt = "number"\n'
    rule = project.load(folder(tmp_path, text))
    assert rule.manifest_bytes() == (b'{"name":"a","version":1,"abi":1,"summary":"s","drops":"filtered","parameters":[],'
                                     b'"inputs":[{"name":"t","type":"number"}]}')
    assert rule.schema is None


def test_every_mistake_is_named_at_once(tmp_path):
    text = """
name = "no name"
language = "go"
sumary = "s"
[input.fields]
x = "f32"
[parameters.p]
type = "f64"
[limits]
time = 3
"""
    assert problems(tmp_path, text) == [
        "sumary: unknown key; did you mean summary?",
        "name: 'no name' is no name: it has letters, digits, _ - . and at most 64 of them, and begins with no - or .",
        "version: is missing: a whole number, to be raised with each version that a gateway gets",
        "summary: is missing: what the rule does, in one line",
        "language: 'go' is not known here; known are sql, c, assemblyscript, rust",
        "source: is missing: the file with the rule's source, beside rule.toml",
        "input.fields.x: 'f32' is not known here; known are f64, i64, bool, str, time, number, any",
        "parameters.p.summary: is missing: what it does, in a few words",
        "limits.time: unknown key; did you mean time_ms?",
    ]


def test_what_belongs_together_is_checked(tmp_path):
    text = GOOD.replace('key = "device"\ntime = "ts"', 'key = "ts"\ntime = "when"').replace("default = 0.0", "default = -10.5").replace("default = false", 'default = "no"')
    assert problems(tmp_path, text) == [
        "input.key: 'ts' is not a field of type str; put it under [input.fields]",
        "input.time: 'when' is not a field of type time; put it under [input.fields]",
        "parameters.limit: a value of it is -10.5, must be at least -9",
        "parameters.strict: a value of it is 'no', must be of type bool",
    ]
    assert problems(tmp_path, GOOD.replace('"hot.c"', '"../hot.c"')) == ["source: '../hot.c' is not in the rule's folder"]
    assert problems(tmp_path, GOOD.replace('"hot.c"', '"cold.c"')) == [f"source: there is no file {tmp_path}/cold.c"]
    assert problems(tmp_path, GOOD.replace('"c"', '"sql"').replace('"str"', '"any"', 1))[-1] == "input.fields.device: SQL needs one of the types f64, i64, bool, str, time"
    assert problems(tmp_path, "= 3")[0].startswith("is not TOML")


def test_a_folder_without_a_rule_says_how_to_begin(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file; begin a rule with `tidegate rule new NAME`"):
        project.load(tmp_path)


PLAIN = st.recursive(st.integers() | st.booleans() | st.text("abc\n'"), lambda v: st.lists(v, max_size=2) | st.dictionaries(
    st.sampled_from(["name", "type", "fields", "key", "default", "min", "x", "summary", "list"]), v, max_size=3), max_leaves=8)


@given(changes=st.dictionaries(st.sampled_from(["name", "version", "input", "output", "parameters", "limits", "source", "drops", "state"]), PLAIN, min_size=1))
def test_no_table_whatever_stops_the_reader_otherwise(changes):
    problems = []
    rule, manifest, _ = project.understand({**project.tomllib.loads(GOOD), **changes}, problems)
    assert problems or Manifest.read(project.Project(None, manifest, "c", "", "", None).manifest_bytes()) == manifest
