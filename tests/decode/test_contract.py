"""Contracts refuse what cannot be, and say where; topics are matched by MQTT 3.1.1 section 4.7."""

import pytest

from edge.decoding._decode import Router
from edge.decoding.contract import Contract, FieldSource, check_filter, parse_path, topic_matches
from edge.errors import ConfigError
from edge.mqtt._intake import Intake, Topics

V = FieldSource("v", "f64")


@pytest.mark.parametrize("pattern,topic,matches", [
    ("a/b", "a/b", True), ("a/b", "a/b/", False), ("a/b", "A/b", False), ("+", "a", True), ("+", "/a", False), ("+/+", "/a", True), ("/+", "/a", True), ("a/+", "a", False),
    ("a/+", "a/", True), ("a/+/c", "a/b/c", True), ("a/+/c", "a/b/b/c", False), ("#", "a/b", True), ("a/#", "a", True), ("a/#", "a/", True), ("a/#", "ab", False),
    ("a/#", "a/b/c", True), ("+/a/#", "x/a/b", True), ("#", "$SYS/x", False), ("+/x", "$SYS/x", False), ("$SYS/#", "$SYS/x", True), ("$SYS/+", "$SYS/x", True), ("é/+", "é/ü", True),
])
def test_topic_filters(pattern, topic, matches):
    check_filter(pattern)
    assert topic_matches(pattern, topic.encode()) is matches


@pytest.mark.parametrize("pattern", ["", "a/#/b", "a#", "#a", "a/b+", "+a", "a/+b/c", "a\0b", "x" * 65536, "\ud800", None, 3])
def test_wrong_filters_are_refused(pattern):
    with pytest.raises(ConfigError, match="topic filter"):
        Contract("s", [pattern], [V])


@pytest.mark.parametrize("text,path", [("a", ("a",)), ("a.b", ("a", "b")), ("a[0].b", ("a", 0, "b")), ("[2][3]", (2, 3)), ('["x.y"].z', ("x.y", "z")), ('a["]\\""]', ("a", ']"')), ("a-b c.é", ("a-b c", "é"))])
def test_paths(text, path):
    assert parse_path(text) == path


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a[", "a[]", "a[-1]", "a[0", "a[0]b", "a]", 'a"', '["a]', "a[9999999]", ".".join("a" * 33), 5])
def test_wrong_paths_are_refused(text):
    with pytest.raises(ConfigError, match="field f"):
        FieldSource("f", "f64", text)


@pytest.mark.parametrize("wrong,said", [
    (lambda: FieldSource("f", "f32"), "unknown type 'f32'"), (lambda: FieldSource("f", "time"), "needs a format"), (lambda: FieldSource("f", "f64", time_format="s"), "belongs to times"),
    (lambda: FieldSource("f", "time", time_format="min"), "unknown time format"), (lambda: FieldSource("", "f64"), "name"), (lambda: FieldSource("\ud800", "f64"), "surrogate"),
    (lambda: Contract("s", [], [V]), "at least one"), (lambda: Contract("s", "a/b", [V]), "list"), (lambda: Contract("s", ["a"], []), "fields"), (lambda: Contract("s", ["a"], [V, V]), "twice"),
    (lambda: Contract("s", ["a"], [V], format="xml"), "unknown format"), (lambda: Contract("s", ["a"], [V], key="v"), "key 'v' is f64"), (lambda: Contract("s", ["a"], [V], time="w"), "is not a field"),
    (lambda: Contract("s", ["a"], [V], version=0), "version"), (lambda: Contract("s", ["a"], [V], qos=3), "qos"), (lambda: Contract("s", ["a"], [V], sequence="v"), "sequence"),
    (lambda: Contract("s", ["a"], [V, FieldSource("w", "f64")], format="raw"), "one value"), (lambda: Contract("s", ["a"], [FieldSource("v", "f64", "x")], format="raw"), "leave the source out"),
])
def test_what_cannot_be_is_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        wrong()


def test_a_contract_gives_its_schema():
    contract = Contract("s", ["a"], [FieldSource("d", "str", "topic[1]"), FieldSource("t", "time", time_format="s"), FieldSource("v", "f64", unit="C")], version=3, key="d", time="t")
    schema = contract.schema
    assert (schema.stream, schema.version, schema.key, schema.time) == ("s", 3, "d", "t")
    assert [(f.name, f.kind, f.unit) for f in schema.fields] == [("d", "str", ""), ("t", "time", ""), ("v", "f64", "C")]


def test_the_first_contract_that_matches_takes_the_topic():
    router = Router([Contract("a", ["x/1"], [V]), Contract("b", ["x/+", "y"], [V])])
    intake = Intake(Topics())
    for topic in (b"x/1", b"x/2", b"z", b"y", b"x/1", b"z", b"\xff"):
        intake.add(topic, b"")
    assert router.route(intake) == [2, 5, 6]
    assert [router.stream_of(t) for t in (b"x/1", b"x/2", b"y", b"z")] == [0, 1, 1, -1]
    intake.clear()
    intake.add(b"z", b"")
    assert router.route(intake) == [0]
