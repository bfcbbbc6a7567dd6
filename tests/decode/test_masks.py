"""Masks: what they take away is in no column, no dead letter and no file."""

import hashlib
import json
import math

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.columns._batch import Batch
from edge.decoding._decode import Decoder, Router
from edge.decoding.contract import Contract, FieldSource
from edge.errors import ConfigError
from edge.mqtt._intake import Intake, Topics
from edge.storage.records import DEAD
from gateway import keys
from gateway.commands import buffer, dead_letters
from gateway.config import reader as config
from gateway.daemon import Daemon
from gateway.letters import Letters

KEY = bytes(range(32))


def decoded(contract, payloads, topic=b"t/x"):
    intake, dead = Intake(Topics()), []
    for payload in payloads:
        assert intake.add(topic, payload)
    Router([contract]).route(intake)
    batch = Batch(contract.schema, 16)
    Decoder(contract).decode(intake, 0, batch, dead)
    return [dict(row) for row in batch.rows()], dead, batch


def hashed(text):
    return hashlib.blake2b(text.encode(), key=KEY, digest_size=8).hexdigest()


def contract(kind, mask, format="json", source=None, **words):
    time_format = "ms" if kind == "time" else None
    return Contract("s", ["t/#"], [FieldSource("v", kind, source, mask=mask, time_format=time_format, **words)], format=format, mask_key=KEY)


@given(st.text(), st.integers(0, 12), st.sampled_from(["json", "msgpack"]))
def test_texts_are_hashed_cut_and_dropped(text, n, format):
    pack = (lambda v: json.dumps(v).encode()) if format == "json" else msgpack.packb
    if any(0xD800 <= ord(c) < 0xE000 for c in text):
        return
    for mask, expected in (("hash", hashed(text)), (f"truncate:{n}", text[:n]), ("drop", None)):
        rows, dead, batch = decoded(contract("str", mask, format), [pack({"v": text})])
        assert [row["v"] for row in rows] == [expected] and not dead


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 20))
def test_numbers_are_cut_towards_zero(number, n):
    rows, _, _ = decoded(contract("f64", f"truncate:{n}"), [json.dumps({"v": number}).encode()])
    value = rows[0]["v"]
    assert math.isfinite(value) and abs(value) <= abs(number) and (number - value == 0 or abs(number - value) < 1.001 * 10.0**-n)
    if n < 16 and abs(number) < 1e15 / 10**n:
        assert value == math.trunc(number * 10.0**n) / 10.0**n


@pytest.mark.parametrize("kind, value", [("f64", 3.5), ("i64", 7), ("bool", True), ("time", 1700000000000), ("str", "x")])
def test_a_dropped_value_is_checked_and_then_null(kind, value):
    rows, dead, _ = decoded(contract(kind, "drop"), [json.dumps({"v": value}).encode(), b'{"v":[1]}', b"{}"])
    assert rows == [{"v": None}] and [reason for _, reason in dead] == [f"field v: expected {kind}, found array", "field v: missing"]


def test_raw_payloads_and_topic_levels_are_masked():
    assert decoded(contract("str", "hash", "raw"), [b"secret"])[0] == [{"v": hashed("secret")}]
    assert decoded(contract("str", "truncate:2", source="topic[1]"), [b"{}"], b"t/secret")[0] == [{"v": "se"}]
    assert decoded(contract("str", "drop", source="topic"), [b"{}"], b"t/secret")[0] == [{"v": None}]


def test_one_path_may_have_a_masked_and_a_whole_field_and_the_last_of_two_members_wins():
    c = Contract("s", ["t/#"], [FieldSource("a", "str", "v", mask="hash"), FieldSource("b", "str", "v")], mask_key=KEY)
    rows, _, _ = decoded(c, [b'{"v":"one","v":"two"}'])
    assert rows == [{"a": hashed("two"), "b": "two"}]


@pytest.mark.parametrize("kind, mask, says", [("f64", "hash", "does not go with f64"), ("i64", "truncate:1", "does not go"), ("str", "blur", "unknown mask"), ("str", "truncate:", "unknown mask")])
def test_a_mask_that_makes_no_sense_is_refused(kind, mask, says):
    with pytest.raises(ConfigError, match=says):
        FieldSource("v", kind, mask=mask)


def test_key_and_time_are_not_dropped_and_no_hash_is_without_a_key():
    fields = [FieldSource("k", "str", mask="drop")]
    with pytest.raises(ConfigError, match="is the key and cannot be dropped"):
        Contract("s", ["t"], fields, key="k")
    with pytest.raises(ConfigError, match="mask_key_file"):
        Contract("s", ["t"], [FieldSource("k", "str", mask="hash")])


@pytest.mark.parametrize("content, says", [(None, "is missing"), ("", "64 hexadecimal"), ("ab" * 31, "64 hexadecimal"), ("hunter2 " * 8, "64 hexadecimal"), (b"\xff" * 32, "64 hexadecimal")])
def test_a_key_file_that_is_none_is_refused_without_telling_what_is_in_it(tmp_path, content, says):
    if content is not None:
        (tmp_path / "k").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=says) as caught:
        keys.load(tmp_path / "k", "gateway.mask_key_file")
    assert "hunter2" not in str(caught.value)


def test_what_is_masked_is_in_no_file_of_the_gateway(tmp_path, capsys):
    (tmp_path / "key").write_text(KEY.hex() + "\n")
    (tmp_path / "t.toml").write_text("""
[gateway]
data = "data"
mask_key_file = "key"
[listener]
port = 0
[streams.people]
topics = ["people/+"]
key = "person"
[streams.people.fields]
person = { type = "str", from = "topic[1]", mask = "hash" }
card = { type = "str", mask = "truncate:4" }
pin = { type = "str", mask = "drop" }
temp = "f64"
[upstream]
host = "127.0.0.1"
port = 1
[lanes.all]
streams = ["people"]
""")
    daemon = Daemon(config.load(tmp_path / "t.toml"))
    daemon.start()
    for i in range(50):
        daemon.intake.add(b"people/Wanda-Marchetti", json.dumps({"card": f"4711-SECRETCARD-{i}", "pin": f"SECRETPIN{i}", "temp": i if i % 2 else "SECRETTEMP"}).encode())
    while not (letters := [r.position for r in daemon.pipeline.dead.log.read(0) if r.kind == DEAD]) or daemon.refuses:
        daemon.turn(0.02)
    assert "mask" in Letters(daemon).handle({"do": "retry", "numbers": letters[:1], "who": "local:0"})["refused"][0][1]
    daemon.close()
    everything = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    for log in ("journal", "outbox/all", "dead"):
        buffer.run(_arguments(buffer, ["export", log, "-c", str(tmp_path / "t.toml")]))
    said = capsys.readouterr().out
    number = json.loads(said.splitlines()[-1])["number"]
    dead_letters.run(_arguments(dead_letters, ["show", str(number), "-c", str(tmp_path / "t.toml")]))
    said += capsys.readouterr().out
    assert hashed("Wanda-Marchetti") in said and '"4711"' in said and '"withheld"' in said and "not kept" in said
    for secret in ("SECRET", "Wanda", "Marchetti"):
        assert secret.encode() not in everything and secret not in said


def _arguments(command, argv):
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(argv)
