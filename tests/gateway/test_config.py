"""Configuration: what is right is taken, what is wrong is said, all at once."""

import re
import tomllib

import msgspec
import pytest

from gateway.config import reader as config, spec
from gateway.config.units import Duration, Part, Size

GOOD = """
[gateway]
name = "plant-7"
data = "data"
[listener]
port = 0
[streams.env]
topics = ["sensors/+/+/env"]
key = "device"
time = "ts"
lateness = "2s"
[streams.env.fields]
device = { type = "str", from = "topic[2]" }
ts = { type = "time", format = "ms" }
temp = "f64"
[rules.hot]
input = "env"
module = "threshold"
params = { field = "temp", value = 30.0 }
[upstream]
host = "localhost"
[lanes.alerts]
streams = ["hot", "hot.late"]
age = "0s"
"""


def problems(text):
    with pytest.raises(config.Problems) as caught:
        config.parse(text)
    return dict(caught.value.items)


def test_a_good_configuration_is_typed():
    c = config.parse(GOOD)
    assert c.streams["env"].lateness == 2 * 10**9 and c.lanes["alerts"].age == 0
    assert c.lanes["alerts"].message_max == 100 << 10
    assert c.streams["env"].fields["temp"].type == "f64"


@pytest.mark.parametrize(("old", "new", "place", "says"), [
    ("[listener]", "[listner]", "listner", "did you mean listener?"),
    ("port = 0", "port = 70000", "listener.port", "65535"),
    ("port = 0", "port = true", "listener.port", "int"),
    ('lateness = "2s"', "lateness = 2", "streams.env.lateness", "in quotes"),
    ('lateness = "2s"', 'lateness = "2 parsec"', "streams.env.lateness", "units are"),
    ('temp = "f64"', 'temp = "float"', "streams.env.fields.temp", "float"),
    ('input = "env"', 'input = "envv"', "rules.hot.input", "did you mean env?"),
    ('"hot", "hot.late"', '"hott"', "lanes.alerts.streams[0]", "did you mean hot?"),
    ("[rules.hot]", "[rules.env]", "rules.env", "take another"),
    ('host = "localhost"', "", "upstream.host", "missing"),
    ('age = "0s"', 'topic = "a/+/b"', "lanes.alerts.topic", "topic to publish on"),
    ('age = "0s"', 'topic = "a/{device}"', "lanes.alerts.topic", "{gateway}"),
    ("[listener]\nport = 0", "", "", "nothing comes in"),
    ("port = 0", 'tls = {cert = "a"}', "listener.tls", "together"),
])
def test_a_mistake_is_named_with_its_place_and_what_to_do(old, new, place, says):
    assert old in GOOD
    found = problems(GOOD.replace(old, new))
    assert place in found, found
    assert says in found[place]


def test_all_mistakes_are_named_at_once():
    text = GOOD.replace("port = 0", "port = -1\nprot = 3").replace('lateness = "2s"', "lateness = 2").replace('age = "0s"', 'aeg = "0s"').replace('"hot", "hot.late"', '"hott"')
    assert set(problems(text)) == {"listener.port", "listener.prot", "streams.env.lateness", "lanes.alerts.aeg", "lanes.alerts.streams[0]"}


def test_what_is_not_toml_or_not_there_is_one_clear_line(tmp_path):
    assert "not TOML" in problems("[gateway")[""]
    with pytest.raises(config.Problems, match="cannot be read"):
        config.load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(config.Problems, match="UTF-8"):
        config.load(tmp_path / "latin.toml")


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "t.toml").write_text(GOOD.replace('"threshold"', '"rules/mine.wasm"'))
    c = config.load(tmp_path / "t.toml")
    assert c.gateway.data == str(tmp_path / "data") and c.rules["hot"].module == str(tmp_path / "rules/mine.wasm")


def structs():
    return [t for t in vars(spec).values() if isinstance(t, type) and issubclass(t, msgspec.Struct) and t is not msgspec.Struct]


def test_every_key_is_documented_and_no_other():
    for struct in structs():
        assert set(struct.DOCS) == {f.encode_name for f in msgspec.structs.fields(struct)}, struct


def test_the_json_schema_knows_every_key():
    schema = spec.schema()
    assert schema["$ref"] == "#/$defs/Config"
    for struct in structs():
        if struct is not spec.Link:
            assert set(schema["$defs"][struct.__name__]["properties"]) == set(struct.DOCS)
    assert re.search(schema["$defs"]["Lane"]["properties"]["age"]["pattern"], "250ms")


@pytest.mark.parametrize(("text", "value"), [("0s", 0), ("250ms", 250 * 10**6), ("1.5s", 15 * 10**8), ("2h", 7200 * 10**9)])
def test_durations(text, value):
    assert Duration.parse(text) == value
    assert Duration.parse(str(Duration(value))) == value


@pytest.mark.parametrize(("text", "value"), [("100KiB", 102400), ("1.5 MiB", 1572864), ("2GB", 2 * 10**9), ("0B", 0)])
def test_sizes(text, value):
    assert Size.parse(text) == value
    assert Size.parse(str(Size(value))) == value


@pytest.mark.parametrize(("text", "value"), [("80%", 0.8), ("100 %", 1), ("0.5%", 0.005)])
def test_parts(text, value):
    assert Part.parse(text) == value
    assert Part.parse(str(Part(value))) == value


@pytest.mark.parametrize("text", ["0%", "101%", "80", "0.8", "%", "80ms"])
def test_no_part_of_a_whole_is_refused(text):
    with pytest.raises(ValueError, match="%"):
        Part.parse(text)


def test_the_good_configuration_is_toml():
    assert tomllib.loads(GOOD)["gateway"]["name"] == "plant-7"
