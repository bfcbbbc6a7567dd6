"""What `tidegate discover` proposes: patterns, fields, roles; and that the gateway's own decoder takes what it says it takes, whatever comes."""

import json
import random
import tomllib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.columns._batch import Batch
from edge.decoding._decode import Decoder, Router
from edge.mqtt._intake import Intake, Topics
from gateway.config import reader as config
from gateway.deploy import rulebook
from gateway.discover import page, survey
from gateway.discover.proposal import PLAIN
from gateway.discover.sight import spelled
from gateway.discover.survey import Survey
from gateway.ingest.permits import Permits
from gateway.init import page as init_page

NOW = 1_795_000_000 * 10**9
SECOND = 10**9


def heard(messages):
    """A Survey of (topic, payload) or (topic, payload, flags), a second apart."""
    found = Survey()
    for i, (topic, payload, *flags) in enumerate(messages):
        found.add(topic.encode("utf-8", "surrogateescape"), payload if isinstance(payload, bytes) else json.dumps(payload).encode(), flags[0] if flags else 0, NOW + i * SECOND)
    return found


def proposed(messages, seconds=60):
    """(name -> stream's table of the page, the page), held against the messages."""
    found = heard(messages)
    proposals = page.propose(found)
    text = page.streams(proposals, seconds)
    hold(found, proposals, text)
    return tomllib.loads(text).get("streams", {}), text


def hold(found, proposals, text):
    """The page is a sound configuration, and each stream takes what it says, no more and no less."""
    tables = tomllib.loads(text)                     # the comments, too, are ones
    good = [proposal for proposal in proposals if proposal.table]
    assert list(tables.get("streams", {})) == [proposal.name for proposal in good]
    assert all(proposal.why for proposal in proposals if proposal.table is None)
    assert text.isprintable() or all(c.isprintable() or c == "\n" for c in text)
    if not good:
        return
    loaded = config.parse("[listener]\nport = 0\n" + text)
    assert rulebook.problems(loaded) == []
    contracts = rulebook.contracts_of(loaded)
    router = Router(contracts)
    for number, (proposal, contract) in enumerate(zip(good, contracts)):
        messages = [(topic.name, payload) for topic in found.topics.values() for _, payload, _ in topic.kept if router.stream_of(topic.name) == number]
        assert len(messages) == proposal.looked
        intake = Intake(Topics(), max(1, len(messages)), max(1, sum(len(payload) for _, payload in messages)))
        for message in messages:
            assert intake.add(*message)
        router.route(intake)
        batch, dead = Batch(contract.schema), []
        assert Decoder(contract).decode(intake, number, batch, dead) == proposal.taken, (dead[:3], text)
        assert f"all {proposal.looked:,} looked into are taken" in text or dead


# --- patterns

def reading(n=0, **more):
    return {"temp": 20.5 + n, "hum": 40, **more}


def topics_of(messages):
    return sorted(topic for stream in proposed(messages)[0].values() for topic in stream["topics"])


@pytest.mark.parametrize("topics, wanted", [
    (["sensors/d1/env", "sensors/d2/env", "sensors/d3/env"], ["sensors/+/env"]),
    (["plant/hall1/press-7/state", "plant/hall1/press-8/state", "plant/hall2/press-9/state"], ["plant/+/+/state"]),
    (["home/kitchen", "home/bath"], ["home/+"]),
    (["d1/env", "d2/env", "d1/env/raw"], ["+/env", "d1/env/raw"]),
    (["only/one"], ["only/one"]),
    (["x/aabb01cc/up", "x/aabb02cc/up", "x/ccdd03ee/up", "y/q/up"], ["x/+/up", "y/q/up"]),
    (["", "/", "//"], ["/", "//"]),
], ids=["devices", "halls and presses", "rooms", "depths", "one", "hexadecimal", "empty levels"])
def test_topics_that_differ_in_devices_become_one_pattern(topics, wanted):
    assert topics_of([(topic, reading(i)) for i in range(4) for topic in topics]) == wanted


def test_what_is_measured_stays_apart_and_devices_become_the_key():
    messages = [(f"home/room{d}/{what}", b"%d.5" % (i + d)) for i in range(3) for d in range(4) for what in ("temperature", "humidity", "co2", "air_pressure", "batteryVoltage")]
    streams, _ = proposed(messages)
    assert {name: stream["topics"] for name, stream in streams.items()} == {name: [f"home/+/{name}"] for name in ("temperature", "humidity", "co2", "air_pressure", "batteryVoltage")}
    assert all(stream["key"] == "device" and stream["fields"] == {"device": {"type": "str", "from": "topic[1]"}, "value": "f64"} for stream in streams.values())


def test_payloads_of_another_make_are_another_stream():
    messages = [(f"s/d{d}/{kind}", value) for d in range(3) for i in range(3) for kind, value in (("env", reading(i)), ("door", {"open": True, "cycles": i}))]
    streams, _ = proposed(messages)
    assert {name: stream["topics"] for name, stream in streams.items()} == {"env": ["s/+/env"], "door": ["s/+/door"]}


def test_devices_of_another_format_under_one_pattern_are_named_one_by_one():
    messages = [(f"s/d{d}/data", reading(i) if d < 7 else msgpack.packb(reading(i))) for d in range(10) for i in range(3)]
    streams, _ = proposed(messages)
    assert sorted((stream.get("format", "json"), tuple(stream["topics"])) for stream in streams.values()) == [
        ("json", ("s/+/data",)), ("msgpack", ("s/d7/data", "s/d8/data", "s/d9/data"))]


def test_a_topic_is_taken_by_the_more_special_pattern():
    messages = [("s/d1/x", b"5") for _ in range(4)] + [(f"s/d{d}/x", {"open": True}) for d in range(2, 9) for _ in range(4)]
    streams, _ = proposed(messages)
    assert sorted(tuple(stream["topics"]) for stream in streams.values()) == [("s/+/x",), ("s/d1/x",)]
    assert next(iter(streams.values()))["topics"] == ["s/d1/x"]


# --- fields

def fields(*payloads, topic="t", **more):
    return proposed([(topic, payload) for payload in payloads], **more)[0].popitem()[1]["fields"]


@pytest.mark.parametrize("values, wanted", [
    ([1, 2, 30], "i64"),
    ([1, 2.5], "f64"),
    ([2**63, 1], "f64"),
    ([True, False], "bool"),
    (["a", "b"], "str"),
    (["2026-11-25T10:00:00Z", "2026-11-25t10:00:00.25+01:00"], {"type": "time", "format": "rfc3339"}),
    (["2026-11-25T10:00:00Z", "soon"], "str"),
    ([NOW // 10**9, NOW // 10**9 + 5], {"type": "time", "format": "s"}),
    ([NOW // 10**6 + 17, NOW // 10**6 + 999], {"type": "time", "format": "ms"}),
    ([NOW / 1e9 + 0.25], {"type": "time", "format": "s"}),
    ([NOW // 1000], {"type": "time", "format": "us"}),
    ([NOW], {"type": "time", "format": "ns"}),
    ([1, None], {"type": "i64", "required": False}),
], ids=["i64", "f64", "beyond 64 bits", "bool", "str", "rfc3339", "almost rfc3339", "s", "ms", "fraction of s", "us", "ns", "null"])
@pytest.mark.parametrize("pack", [lambda v: json.dumps(v).encode(), msgpack.packb], ids=["json", "msgpack"])
def test_a_field_has_the_type_of_all_its_values(values, wanted, pack):
    assert fields(*(pack({"v": value, "other": 1.5}) for value in values))["v"] == wanted


def test_a_timestamp_of_messagepack_is_a_time():
    assert fields(*(msgpack.packb({"v": msgpack.Timestamp.from_unix_nano(NOW + i)}) for i in range(3)))["v"] == {"type": "time", "format": "s"}


@pytest.mark.parametrize("payload, wanted", [(b"21", "f64"), (b"true", "bool"), (b"on", "str"), (b'"on"', "str"), (b" 7.5 ", "f64"), (str(NOW // 10**6).encode(), {"type": "time", "format": "ms"})],
                         ids=["number", "bool", "text", "quoted", "blanks", "time"])
def test_a_bare_payload_is_one_value(payload, wanted):
    streams, _ = proposed([("plain", payload)] * 3)
    assert streams["plain"] == {"topics": ["plain"], "format": "raw", "fields": {"value": wanted}, **({"time": "value"} if isinstance(wanted, dict) else {})}


def test_members_are_found_at_any_depth_and_named_for_where_they_are():
    odd = {"a": {"b": {"c": 1.5}}, "a_b_c": 2.5, "x y": 3.5, "topic": "t", "é.[]\"\\": 4.5, "l": [1.5, {"m": 2.5}], "": 5.5}
    found = fields(odd, odd)
    assert found == {"a_b_c": {"type": "f64", "from": "a.b.c"}, "a_b_c_2": {"type": "f64", "from": "a_b_c"}, "x_y": {"type": "f64", "from": '["x y"]'}, "topic": "str",
                     "_.____": {"type": "f64", "from": '["é.[]\\"\\\\"]'}, "l_0": {"type": "f64", "from": "l[0]"}, "l_1_m": {"type": "f64", "from": "l[1].m"},
                     "_": {"type": "f64", "from": '[""]'}}


def test_what_is_not_always_there_is_optional_and_says_how_often():
    streams, text = proposed([("t", {"a": 1.5, **({"b": "x"} if i % 4 == 0 else {})}) for i in range(20)])
    assert streams["t"]["fields"] == {"a": "f64", "b": {"type": "str", "required": False}} and "in 5 of 20" in text


@pytest.mark.parametrize("messages, why", [
    ([("t", bytes([0, 255, i])) for i in range(9)], "binary in 9 of 9: no contract reads it"),
    ([("t", {"a": 1} if i % 2 else b"abc") for i in range(10)], "payloads are mixed: "),
    ([("t", b"")] * 3, "empty"),
    ([("t", {"a": None})] * 3, "null in every message"),
    ([("t", {"a": "x" if i % 2 else 1}) for i in range(10)], "mixed types: "),
    ([("t", b"x" * (survey.PAYLOAD_BYTES_MAX + 1))], "above 64 KiB"),
], ids=["binary", "mixed payloads", "empty", "null", "mixed types", "large"])
def test_what_cannot_be_proposed_is_said_with_its_reason(messages, why):
    streams, text = proposed(messages)
    assert not streams and "# Not proposed:\n" in text and why in text, text


def test_fields_without_one_type_are_left_out_with_the_reason():
    streams, text = proposed([("t", {"good": 1.5, "mixed": i if i % 2 else "x", "series": [1] * (i + 1), "none": None}) for i in range(10)])
    assert streams["t"]["fields"] == {"good": "f64"}
    for line in ("left out: mixed: mixed types: ", "left out: series: an array of 1 to more than 8 elements", "left out: none: null in every message"):
        assert line in text


def test_a_few_that_break_the_type_are_counted_as_the_dead_letters_they_would_be():
    _, text = proposed([("t", b'{"temp": NaN}' if i % 20 == 7 else {"temp": 20.5}) for i in range(100)])
    assert "95 of 100 looked into are taken" in text and "field temp: not finite (5)" in text


def test_a_message_of_another_shape_is_a_dead_letter_and_bends_no_field():
    streams, text = proposed([(f"s/d{i % 4}/env", [1, 2, 3] if i == 50 else {"ts": (NOW + i * SECOND) // 10**6, "seq": (i // 4) - 3 * (i == 60), "temp": 20.5}) for i in range(100)])
    assert streams["env"]["fields"] == {"device": {"type": "str", "from": "topic[1]"}, "ts": {"type": "time", "format": "ms"}, "seq": "i64", "temp": "f64"}
    assert (streams["env"]["time"], streams["env"]["sequence"]) == ("ts", "seq") and "99 of 100 looked into are taken" in text and "but for 1, which" in text


# --- roles

def test_time_key_and_sequence_are_found():
    messages = [("up", {"dev": f"d{i % 3}", "ts": (NOW + i * SECOND) // 10**6 - 250, "seq": i // 3, "uptime": 100 + 7 * i, "v": i % 5 + 0.5}) for i in range(30)]
    streams, text = proposed(messages)
    assert {role: streams["up"][role] for role in ("key", "time", "sequence")} == {"key": "dev", "time": "ts", "sequence": "seq"}
    assert "0.2 to 0.3 s behind the clock here" in text or "0.2 s behind" in text or "0.3 s behind" in text
    assert "id" not in streams["up"]


def test_an_id_that_no_two_events_share_is_found():
    streams, _ = proposed([(f"s/d{i % 2}/up", {"uuid": f"{i:032x}", "site": "north"}) for i in range(10)])
    assert streams["up"]["id"] == "uuid" and streams["up"]["key"] == "device"


def test_a_counter_that_falls_is_no_sequence_and_a_repeat_is_not_a_fall():
    assert "sequence" not in proposed([("t", {"seq": n}) for n in (1, 2, 1, 2, 3)])[0]["t"]
    assert proposed([("t", {"seq": n}) for n in (1, 2, 2, 3)])[0]["t"]["sequence"] == "seq"


def test_a_time_far_from_the_clock_is_not_the_events_time():
    streams, _ = proposed([("t", {"ts": 1_500_000_000 + i}) for i in range(5)])
    assert streams["t"]["fields"]["ts"] == {"type": "time", "format": "s"} and "time" not in streams["t"]


def test_retained_messages_are_counted_apart():
    _, text = proposed([("t", {"a": 1.5}, 4)] * 1 + [("t", {"a": 2.5}, 1)] * 6)
    assert "1 retained: they come again at each start" in text and "0.1 a second" in text and "QoS 0 and 1" in text


def test_a_member_that_repeats_the_topics_device_is_left_out():
    streams, text = proposed([(f"s/d{i % 2}/up", {"device": f"d{i % 2}", "v": i + 0.5}) for i in range(10)])
    assert streams["up"]["fields"] == {"device": {"type": "str", "from": "topic[1]"}, "v": "f64"}
    assert "left out: device: says what level 1 of the topic says" in text


def test_times_that_go_back_ask_for_lateness_and_those_ahead_are_told():
    streams, _ = proposed([("t", {"ts": (NOW + i * SECOND) // 10**6 - (2500 if i % 4 == 3 else 0)}) for i in range(12)])
    assert (streams["t"]["time"], streams["t"]["lateness"]) == ("ts", "2s")
    assert "ahead by more than `skew` believes" in proposed([("t", {"ts": NOW // 10**9 + 3600 + i}) for i in range(3)])[1]


def test_permits_let_each_device_below_its_own_name_and_no_topic_writes_lines_of_its_own(tmp_path):
    messages = [(f"s/d{d}/env", reading(i)) for d in range(3) for i in range(2)] + [(topic, {"a": 1.5}) for topic in ("x\nuser eve\ntopic write q", "y/%c", "z z", "fine")]
    filters = [permit for proposal in page.propose(heard(messages)) for permit in proposal.permits()]
    assert sorted(filters) == ["fine", "s/%u/env"]
    (tmp_path / "acl").write_text(init_page.permits(filters))
    may = Permits(tmp_path / "acl").permission("id", "d1").may
    assert may(b"s/d1/env") and may(b"fine") and not may(b"s/d2/env") and not may(b"x")


# --- bounds

def test_a_survey_is_bounded_and_still_hears_every_topic_all_along(monkeypatch):
    monkeypatch.setattr(survey, "KEPT_BYTES_MAX", 200_000)
    monkeypatch.setattr(survey, "TOPICS_MAX", 50)
    found = Survey()
    for i in range(20_000):
        found.add(b"loud", b"%d" % i, 0, NOW + i)
        if i % 400 == 0:
            found.add(b"quiet/%d" % (i // 400), b"x" * 100, 0, NOW + i)
        assert found.weight <= 200_000
    loud = found.topics[b"loud"]
    assert (found.count, loud.count, len(found.topics), found.beyond) == (20_050, 20_000, 50, 1)
    kept = [int(payload) for _, payload, _ in loud.kept]
    assert {b - a for a, b in zip(kept, kept[1:])} == {loud.stride} and kept[-1] > 20_000 - 2 * loud.stride
    assert all(len(topic.kept) == 1 for topic in found.topics.values() if topic is not loud)


def test_the_brokers_own_topics_and_unusable_ones_are_left_out():
    found = heard([("$SYS/broker/uptime", b"1"), ("a\udcff", b"1"), ("x" * 2000, b"1"), ("ok", b"1")])
    assert list(found.topics) == [b"ok"] and found.beyond == 2


# --- hostile

names = st.text(max_size=6) | st.sampled_from(["device", "ts", "seq", "id", "topic", "a.b", "temp", "value", "x\ud800", "\n", "a\u2028"])
scalars = (st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12) | st.integers(0, 9) | st.sampled_from([NOW // 10**9, NOW // 10**6, NOW])
           | st.datetimes().map(lambda d: d.isoformat() + "Z"))
documents = st.recursive(scalars, lambda x: st.lists(x, max_size=10) | st.dictionaries(names, x, max_size=5), max_leaves=20)
objects = st.dictionaries(names, documents, max_size=6)


def packed(value):
    try:
        return msgpack.packb(value)
    except (ValueError, OverflowError):
        return b"\xc1"


payloads = (objects.map(lambda v: json.dumps(v).encode()) | objects.map(packed) | documents.map(lambda v: json.dumps(v).encode()) | documents.map(packed)
            | st.binary(max_size=30) | st.text(max_size=20).map(lambda t: t.encode("utf-8", "surrogatepass")))
levels = st.sampled_from(["", "a", "d1", "d2", "d3", "temp", "hall 1", "é", "\x01", "+x", "x" * 70]) | st.text(max_size=4)
topics = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(lambda t: t and not t.startswith("$"))


@settings(max_examples=40, deadline=None)
@given(st.lists(topics, min_size=1, max_size=5).flatmap(lambda known: st.lists(st.tuples(st.sampled_from(known), payloads, st.integers(0, 6).filter(lambda f: f & 3 != 3)), max_size=25)))
def test_whatever_comes_a_stream_takes_what_it_says(messages):
    proposed([(topic.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"), payload, flags) for topic, payload, flags in messages])


KINDS = {"i64": st.integers(-(2**63), 2**63 - 1), "f64": st.floats(allow_nan=False, allow_infinity=False), "bool": st.booleans(), "str": st.text(max_size=5).filter(lambda t: t.isprintable())}


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text("abcxyz. é\"", max_size=4), st.tuples(st.sampled_from(sorted(KINDS)), st.booleans()), min_size=1, max_size=6), st.data(), st.booleans())
def test_messages_of_one_schema_are_all_taken_and_every_field_has_its_type(schema, data, as_json):
    one = st.fixed_dictionaries({}, optional={name: (KINDS[kind] if not optional else KINDS[kind] | st.none()) for name, (kind, optional) in schema.items()})
    rows = data.draw(st.lists(one, min_size=1, max_size=8))
    messages = [(f"s/d{i % 3}/up", json.dumps(row).encode() if as_json else msgpack.packb(row)) for i, row in enumerate(rows)]
    streams, text = proposed(messages)
    assert "dead letters" not in text
    places = {spelled((name,)) if spelled((name,)) != f'["{name}"]' or not PLAIN.fullmatch(name) else name: kind for name, (kind, _) in schema.items()}
    got = {(field.get("from", name), field["type"]) if isinstance(field, dict) else (name, field) for stream in streams.values() for name, field in stream["fields"].items()}
    assert {pair for pair in got if pair[0] != "topic[1]"} == {(place, kind) for place, kind in places.items() if any(row.get(name) is not None for row in rows
                                                              for name in schema if place in (name, spelled((name,))))}


def test_random_bytes_in_quantity_break_nothing():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    real = msgpack.packb({"a": [1, -1, 2**63, 1.5, None, True, "é", b"raw", {"v": 300}], "t": msgpack.Timestamp(5, 7)})
    texts = [b"[" * 3000, b"9" * 5000, b'{"a":1e999}', b'{"a":' * 600 + b"1" + b"}" * 600, real, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b'{"a":1,"a":"x"}', b"\xef\xbb\xbf{}"]
    messages = [(f"t/{rng.randrange(6)}", rng.choice(texts)) for _ in range(60)]
    messages += [(f"m/{rng.randrange(6)}", real[:at] + bytes([rng.randrange(256)]) + real[at + 1:]) for at in range(len(real)) for _ in range(4)]
    messages += [(f"b/{i % 9}", rng.randbytes(rng.randrange(24))) for i in range(400)]
    proposed(messages)


ODD = [None, True, 1, 7, -5, 2**63, 10**400, 1.5, 1e300, 4e18, float("nan"), float("inf"), "x", "", "é", "2026-11-25T10:00:00Z", "2026-13-25T10:00:00Z", "2026-11-25T10:00:60Z", [1, 2], [], {}, {"a": 1},
       NOW, NOW // 10**9, NOW // 10**6]


def faulty(rng):
    """Messages of one schema, and faults in some: another type, a missing member, an array around it, another format, a byte too few."""
    as_json = rng.random() < 0.6
    schema = {rng.choice(["ts", "seq", "a", "c d", "device", "id", "topic", "value", "time", "1", "x.y"]): rng.choice(ODD) for _ in range(rng.randrange(1, 6))}
    for _ in range(rng.randrange(1, 60)):
        row = dict(schema)
        if rng.random() < 0.3:
            row[rng.choice(list(row))] = rng.choice(ODD)
        if rng.random() < 0.1:
            row.popitem()
        row = [row, 1] if rng.random() < 0.05 else row
        payload = json.dumps(row).encode() if as_json == (rng.random() < 0.9) else packed(row)
        yield rng.choice(["s/d1/e", "s/d2/e", "s/d3/e", "s//e", "s/d1/f", "s/d2/f", "s/x/temp", "q"]), payload[:-1] if rng.random() < 0.03 else payload, rng.choice([0, 1, 4])


def test_faults_among_messages_of_one_schema_are_counted_as_they_are():
    seed = random.randrange(2**32)
    print("seed", seed)
    for i in range(30):
        proposed(faulty(random.Random(seed + i)))
