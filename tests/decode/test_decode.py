"""Payloads become rows as docs/contracts.md says, or dead letters; JSON and MessagePack against an independent reading."""

import json
import random
import struct

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import contract_oracle as oracle
from edge.decoding.contract import Contract, FieldSource
from test_json import CASES, REAL, W1

KINDS = [("f64", None), ("i64", None), ("bool", None), ("str", None), ("time", "s"), ("time", "ms"), ("time", "us"), ("time", "ns"), ("time", "rfc3339")]


def contract(*fields, format="json"):
    return Contract("s", ["#"], fields, format=format)


def field(kind, source=None, required=True, name="v", time_format=None):
    return FieldSource(name, kind, source, required=required, time_format=time_format or ("ms" if kind == "time" else None))


def one(kind, payload, format="json", **more):
    """The value of field v, or the reason of the dead letter."""
    rows, dead = oracle.decode(contract(field(kind, **more), format=format), [payload])
    return rows[0]["v"] if rows else dead[0]


def readings(format):
    """One contract that wants everything in every way: shared paths, nested ones, elements, all types."""
    fields = [FieldSource(f"{kind}_{unit}_{i}", kind, source, required=False, time_format=unit)
              for i, source in enumerate(["v", "a.v", "a.b[1].v", "l[0]", '["x.y"]']) for kind, unit in KINDS]
    return contract(*fields, format=format)


def w1():
    return contract(field("str", name="device"), field("time", name="ts"), field("f64", name="temp"), field("f64", name="hum"), field("i64", name="seq"),
                    field("str", name="site"), field("f64", name="pres"), field("f64", name="bat"))


def agree(wanted, payloads, parse):
    rows, dead = oracle.decode(wanted, payloads)
    rows = iter(rows)
    for i, payload in enumerate(payloads):
        try:
            row = oracle.expected(parse(payload), wanted)
        except (oracle.Refused, ValueError):
            row = None
        assert (repr(row) if row else None) == (None if i in dead else repr(next(rows))), (payload, dead.get(i))


def test_an_event_becomes_a_row():
    assert oracle.decode(w1(), [W1]) == ([{"device": "dev-017", "ts": 1700000000123000000, "temp": 21.53, "hum": 40.1, "seq": 10000123, "site": "s1",
                                           "pres": 1013.2, "bat": 3.71}], {})


@pytest.mark.parametrize("wanted", [contract(field("str", "zz", required=False)), readings("json"), w1()], ids=["skips all", "wants all", "W1"])
def test_json_verdicts_and_values_agree_with_json_loads(wanted):
    cases = [c for c in CASES if b"99999999" not in c]
    documents = [*cases, *(b'{"v": %s, "a": {"v": %s, "b": [0, {"v": %s}]}, "l": [%s], "x.y": %s}' % ((c,) * 5) for c in cases if c.count(b"[") < 500 and c.count(b"{") < 500)]
    documents += [data[:n] for data in REAL for n in range(len(data) + 1)]
    documents += [W1[:at] + bytes([b]) + W1[at + 1:] for at in range(len(W1)) for b in range(256)]
    agree(wanted, documents, oracle.parse_json)


scalars = (st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | st.text(max_size=9) | st.integers(-5, 5) |
           st.datetimes().map(lambda d: d.isoformat() + "Z"))
inner = st.recursive(scalars, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(["v", "a", "b", "x.y", "l"]), x, max_size=4), max_leaves=12)
documents = st.dictionaries(st.sampled_from(["v", "a", "l", "x.y", "other"]), inner, max_size=5)


def single(value):
    """Contracts of one required field each, so that one wrong type does not hide the others."""
    return [contract(FieldSource("f", kind, source, time_format=unit), format=value) for source in ("v", "a.b[1].v", "l[0]", "a") for kind, unit in KINDS]


JSON_SINGLES, MSGPACK_SINGLES = single("json"), single("msgpack")


@settings(max_examples=150, deadline=None)
@given(st.lists(documents, min_size=1, max_size=4))
def test_generated_json_agrees(values):
    payloads = [json.dumps(v).encode() for v in values]
    for wanted in JSON_SINGLES:
        agree(wanted, payloads, oracle.parse_json)


@settings(max_examples=150, deadline=None)
@given(st.lists(documents, min_size=1, max_size=4).filter(lambda v: fits(v)))
def test_generated_msgpack_agrees(values):
    payloads = [msgpack.packb(v) for v in values]
    for wanted in MSGPACK_SINGLES:
        agree(wanted, payloads, parse_msgpack)


def fits(value):
    try:
        return bool(msgpack.packb(value))
    except (OverflowError, ValueError):
        return False


def parse_msgpack(data):
    try:
        return msgpack.unpackb(data, strict_map_key=False, max_ext_len=1 << 20, ext_hook=lambda code, body: bytes(body))
    except TypeError as error:       # an array or map as a map's key: Python's dict does not hold it, MessagePack does
        raise Unhashable from error


class Unhashable(Exception):
    pass


def test_garbage_has_msgpacks_verdict():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    real = msgpack.packb({"a": [1, -1, 2**63, 1.5, None, True, "é", b"raw", {"v": 300}], "v": 70000, "t": msgpack.ExtType(7, b"1234"), "s": "x" * 300, "n": -40000})
    wanted = contract(field("i64", "zz", required=False), format="msgpack")
    payloads = [real[:n] for n in range(len(real) + 1)] + [real + b"\0"]
    payloads += [real[:at] + bytes([b]) + real[at + 1:] for at in range(0, len(real)) for b in rng.sample(range(256), 40)]
    payloads += [rng.randbytes(rng.randrange(12)) for _ in range(30_000)] + [bytes([b]) + rng.randbytes(n) for b in range(256) for n in range(20)]
    _, dead = oracle.decode(wanted, payloads)
    for i, payload in enumerate(payloads):
        try:
            parse_msgpack(payload)
            valid = True
        except Unhashable:
            continue
        except (ValueError, msgpack.exceptions.UnpackException) as error:
            if "Timestamp" in str(error) or "timestamp" in str(error) or "nanoseconds" in str(error):
                continue             # a malformed timestamp is an extension here
            valid = False
        assert valid == (i not in dead), (payload, dead.get(i))


@pytest.mark.parametrize("format", ["json", "msgpack", "raw"])
def test_no_garbage_breaks_a_decoder(format):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    wanted = readings(format) if format != "raw" else contract(field("f64"), FieldSource("l", "i64", "topic[1]", required=False), format="raw")
    alphabet = b'{}[]",:\\u0123e.-+ tfnNI"av'
    for _ in range(4):
        payloads = [rng.randbytes(rng.randrange(24)) if i & 1 else bytes(rng.choices(alphabet, k=rng.randrange(24))) for i in range(10_000)]
        oracle.decode(wanted, payloads)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1, -1, -32, -33, -128, -129, -32769, -(2**31) - 1, -(2**63)])
def test_msgpack_integers_of_every_width(value):
    assert one("i64", msgpack.packb({"v": value}), "msgpack") == value
    assert one("f64", msgpack.packb({"v": value}), "msgpack") == float(value)


def test_msgpack_edges():
    assert one("i64", msgpack.packb({"v": 2**63}), "msgpack") == "field v: out of range"
    assert one("f64", msgpack.packb({"v": 2**64 - 1}), "msgpack") == float(2**64 - 1)
    assert one("f64", b"\x81\xa1v\xca" + struct.pack(">f", 0.1), "msgpack") == struct.unpack("f", struct.pack("f", 0.1))[0]
    assert one("str", b"\x81\xa1v\xc4\x01a", "msgpack") == "field v: expected str, found binary"
    assert one("i64", b"\x81\xa1v\xdd\xff\xff\xff\xff", "msgpack") == "not MessagePack at byte 8"
    assert one("i64", b"\x91" * 513, "msgpack") == "nested deeper than 512 levels at byte 512"
    assert one("i64", b"\x81\xa1v" + b"\x91" * 511 + b"\x01", "msgpack") == "field v: expected i64, found array"
    for seconds, ns in ((0, 0), (1700000000, 0), (1700000000, 123456789), (2**33, 1), (-1, 999999999), (-9223372037, 145224192)):
        assert one("time", msgpack.packb({"v": msgpack.Timestamp(seconds, ns)}), "msgpack") == seconds * 10**9 + ns
    assert one("time", msgpack.packb({"v": msgpack.Timestamp(2**40, 0)}), "msgpack") == "field v: expected time, found extension"


def test_of_equal_names_the_last_wins_at_every_level():
    wanted = contract(field("i64", "a.x", name="x", required=False), field("i64", "a.y", name="y", required=False))
    rows, dead = oracle.decode(wanted, [b'{"a":{"x":1},"a":{"y":2}}', b'{"a":{"x":1,"x":"s","x":3}}', b'{"a":{"x":1},"\\u0061":7}', b'{"a":{"x":1,"x":null}}'])
    assert not dead and [(r["x"], r["y"]) for r in rows] == [(None, 2), (3, None), (None, None), (None, None)]
    assert one("i64", b'{"v":1,"v":"s"}') == "field v: expected i64, found string"


def test_a_dead_letter_leaves_no_part_of_a_row():
    good = b'{"v":"a","w":1}'
    rows, dead = oracle.decode(contract(field("str"), field("i64", name="w", required=False)), [good, b'{"v":"b","w":"x"}', b'{"v":"c"', good, b'{"w":1}', b"{\"v\":\"d\"}"])
    assert [r["v"] for r in rows] == ["a", "a", "d"] and rows[2]["w"] is None
    assert dead == {1: "field w: expected i64, found string", 2: "not JSON at byte 8", 4: "field v: missing"}


@pytest.mark.parametrize("kind,payload,result", [
    ("f64", b"1", 1.0), ("f64", b"-0", 0.0), ("f64", b"NaN", "field v: not finite"), ("f64", b"1e999", "field v: not finite"),
    ("f64", b'"1"', "field v: expected f64, found string"), ("f64", b"true", "field v: expected f64, found boolean"), ("f64", b"null", "field v: missing"),
    ("i64", b"1.0", 1), ("i64", b"1e3", 1000), ("i64", b"12.5e1", 125), ("i64", b"1.5", "field v: not an integer"), ("i64", b"9223372036854775808", "field v: out of range"),
    ("i64", b"-9223372036854775808", -(2**63)), ("i64", b"9007199254740993.0", 2**53 + 1), ("i64", b"1.00000000000000000000000000", 1),
    ("bool", b"true", True), ("bool", b"1", "field v: expected bool, found integer"), ("str", b"1", "field v: expected str, found integer"),
    ("str", b'"\\u0041\\n"', "A\n"), ("str", b'"\\ud800"', "field v: half a surrogate pair"), ("str", b'{"a":1}', "field v: expected str, found object"),
    ("time", b"1700000000123.4567891", 1700000000123456789), ("time", b"9223372036854.775807", 2**63 - 1), ("time", b"9223372036854.775808", "field v: out of range"),
])
def test_types_take_what_the_table_says(kind, payload, result):
    assert one(kind, b'{"v":%s}' % payload) == result


@pytest.mark.parametrize("text,result", [
    ("1970-01-01T00:00:00Z", 0), ("2023-11-14T22:13:20.123456789Z", 1700000000123456789), ("2023-11-14t22:13:20.5z", 1700000000500000000),
    ("2023-11-15 03:43:20+05:30", 1700000000 * 10**9), ("2023-11-14T22:13:20.1234567899-00:00", 1700000000123456789), ("1969-12-31T23:59:59.5Z", -500000000),
    ("2016-12-31T23:59:60Z", 1483228800 * 10**9), ("2017-01-01T00:59:60.25+01:00", 1483228800 * 10**9 + 250000000), ("2016-12-31T22:59:60Z", None),
    ("2024-02-29T00:00:00Z", 1709164800 * 10**9), ("2023-02-29T00:00:00Z", None), ("1900-02-29T00:00:00Z", None), ("2023-13-01T00:00:00Z", None),
    ("2023-11-14T24:00:00Z", None), ("2023-11-14T22:60:00Z", None), ("2023-11-14T22:13:20", None), ("2023-11-14T22:13:20.Z", None), ("2023-11-14T22:13:20+0100", None),
    ("2023-11-14T22:13:20+24:00", None), ("2023-11-14", None), ("", None), ("2023-11-14T22:13:2\u0660Z", None), ("2023-1-14T22:13:20.00Z", None),
    ("2262-04-11T23:47:16.854775807Z", 2**63 - 1), ("2262-04-11T23:47:16.854775808Z", "out of range"), ("1677-09-21T00:12:43.145224192Z", -(2**63)),
    ("1677-09-21T00:12:43.145224191Z", "out of range"), ("0000-01-01T00:00:00Z", "out of range"),
])
def test_rfc3339(text, result):
    want = result if isinstance(result, int) else f"field v: {result or 'not an RFC 3339 time'}"
    assert one("time", json.dumps({"v": text}).encode(), time_format="rfc3339") == want
    if text:
        assert one("time", text.encode(), "raw", time_format="rfc3339") == want


@pytest.mark.parametrize("kind,payload,result", [
    ("f64", b" 21.5\n", 21.5), ("f64", b"1e400", "field v: not finite"), ("f64", b"21,5", "field v: expected f64, found text that is none"), ("i64", b"7", 7),
    ("i64", b"7.5", "field v: not an integer"), ("bool", b"true", True), ("bool", b"false ", False), ("bool", b"truE", "field v: expected bool, found text that is none"),
    ("str", b' "text" ', ' "text" '), ("str", b"\xff", "field v: not UTF-8"), ("str", b"", "field v: missing"), ("f64", b" ", "field v: missing"),
    ("time", b"1700000000123", 1700000000123000000),
])
def test_raw_payloads_are_one_value(kind, payload, result):
    assert one(kind, payload, "raw") == result


def test_topic_levels_are_fields():
    fields = [FieldSource("all", "str", "topic"), FieldSource("site", "str", "topic[1]"), FieldSource("n", "i64", "topic[2]"),
              FieldSource("none", "str", "topic[9]", required=False), FieldSource("empty", "str", "topic[3]", required=False)]
    rows, dead = oracle.decode(contract(*fields), [b"{}"], topic=b"site/north/12//x")
    assert rows == [{"all": "site/north/12//x", "site": "north", "n": 12, "none": None, "empty": None}]
    _, dead = oracle.decode(contract(*fields), [b"{}"], topic=b"site/north")
    assert dead == {0: "field n: missing"}


def test_names_in_another_order_and_between_strange_ones_are_found():
    rng = random.Random(5)
    event = json.loads(W1)
    payloads = []
    for _ in range(300):
        items = [*event.items(), ('de"vice', 1), ("devic", [{"temp": 1}]), ("", {"ts": 0}), ("devicE", None)]
        rng.shuffle(items)
        payloads.append(json.dumps(dict(items), indent=rng.choice([None, 1])).encode())
    rows, dead = oracle.decode(w1(), payloads)
    assert not dead and all(row == oracle.decode(w1(), [W1])[0][0] for row in rows)
