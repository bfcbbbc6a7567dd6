"""What a device sends again, having seen no PUBACK, is not counted twice, whatever crashes between: against a naive model, and through a whole gateway."""

import json
import random
from collections import OrderedDict, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_disk import MemoryDisk, PowerCut
from pipeline_world import S, World, modules
from settings import GATEWAY

from edge._repeats import Repeats
from edge.codec.batches import decode_columns
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.decoding.contract import Contract, FieldSource
from edge.errors import ConfigError
from edge.mqtt._intake import Intake, Topics
from edge.storage.records import BATCH

SCHEMA = Schema("s", (Field("device", "str"), Field("id", "str"), Field("n", "i64"), Field("on", "bool")), 1, "device", None)
CONFIG = GATEWAY + """
[streams.ids]
topics = ["ids/+"]
key = "device"
id = "id"
ids_max = 8
[streams.ids.fields]
device = "str"
id = "str"
[streams.numbers]
topics = ["numbers/+"]
key = "device"
sequence = "n"
ids_max = 8
[streams.numbers.fields]
device = "str"
n = "i64"
temp = "f64"
[journal]
quota = "256KiB"
[lanes.all]
streams = ["ids", "numbers"]
quota = "256KiB"
age = "0s"
"""


DUP = 8                                  # of RawEvent.flags, as in the first byte of a PUBLISH


class Model:
    """What a repeat is, in plain words."""

    def __init__(self, mark, keys_max, ids_max, window):
        self.mark, self.keys_max, self.ids_max, self.keys, self.recent = mark, keys_max, ids_max, OrderedDict(), deque(maxlen=window)

    def sift(self, rows, resent):
        return [row for row, dup in zip(rows, resent) if not self.repeated(row, dup)]

    def repeated(self, row, dup):
        key, mark = row["device"], self.mark(row)
        if key is None or mark is None:
            return False
        if dup and (key, mark) in self.recent:
            return True
        if key not in self.keys:
            if len(self.keys) == self.keys_max:
                for _ in range(max(self.keys_max // 16, 1)):
                    self.keys.popitem(last=False)
            self.keys[key] = deque(maxlen=self.ids_max)
        if mark in self.keys[key]:
            return True
        self.keys[key].append(mark)
        self.recent.append((key, mark))
        self.keys.move_to_end(key)
        return False


MARKS = {("id", False): lambda row: row["id"], ("n", False): lambda row: row["n"], ("n", True): lambda row: None if row["n"] is None else tuple(row.items())}
ROWS = st.lists(st.fixed_dictionaries({"device": st.sampled_from(["a", "b", "c", "d", "e", None]), "id": st.sampled_from(["", "x", "y" * 20, "y" * 21, None]),
                                       "n": st.sampled_from([0, 1, -1, 2**63 - 1, None]), "on": st.sampled_from([True, False, None])}), max_size=40)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(MARKS)), st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 2, 8, 32]), st.lists(ROWS, max_size=6), st.integers(0, 6), st.integers(0))
def test_repeats_are_those_of_a_naive_model_also_from_a_dump_and_from_what_was_taken(how, keys_max, ids_max, window, batches, restart, dups):
    (field, whole), model = how, Model(MARKS[how], keys_max, ids_max, window)

    def new():
        return Repeats(SCHEMA, field, whole, keys_max, ids_max, window)

    repeats, replayed = new(), new()
    for i, rows in enumerate(batches):
        resent = [dups >> (i + 3 * r) & 1 for r in range(len(rows))]
        expected = model.sift([{name: row[name] for name in ("device", "id", "n", "on")} for row in rows], resent)
        fresh = repeats.sift(Batch.from_rows(SCHEMA, rows), bitmap(resent))
        assert fresh.rows() == expected
        if i == restart:
            dumped, repeats = repeats.dump(), new()
            repeats.load(*dumped)
        replayed.note(fresh)
        assert replayed.dump() == repeats.dump(), "what was taken tells the state"


def bitmap(bits):
    return sum(bit << r for r, bit in enumerate(bits)).to_bytes((len(bits) + 7) // 8, "little") if any(bits) else None


def test_what_is_sent_again_by_a_broker_is_a_repeat_far_beyond_the_ids_of_its_key():
    sent = [{"device": f"d{i % 3}", "n": i // 3} for i in range(8192)]
    repeats = Repeats(SCHEMA, "n", True)
    repeats.note(Batch.from_rows(SCHEMA, [{"device": "d0", "n": -1}, *sent]))
    dumped, other = repeats.dump(), Repeats(SCHEMA, "n", True)
    other.load(*dumped)
    old = Repeats(SCHEMA, "n", True)
    old.load(*dumped[:2])
    for known in (repeats, other):
        assert len(known.sift(Batch.from_rows(SCHEMA, sent), bitmap([1] * len(sent)))) == 0
        assert known.dump() == dumped, "a repeat changes nothing"
        assert len(known.sift(Batch.from_rows(SCHEMA, [{"device": "d0", "n": -1}]), b"\1")) == 1, "it was the event before the window"
    assert len(old.sift(Batch.from_rows(SCHEMA, sent[-96:]), bitmap([1] * 96))) == 0, "a checkpoint of an older version knows the last 32 of each key"
    assert len(old.sift(Batch.from_rows(SCHEMA, sent[:96]), bitmap([1] * 96))) == 96, "and no more"
    with pytest.raises(ValueError, match="bits"):
        repeats.sift(Batch.from_rows(SCHEMA, sent), b"\1")


def test_a_device_that_counts_anew_loses_nothing_by_the_flag():
    repeats = Repeats(SCHEMA, "n", True, ids_max=4)
    rows = [{"device": "a", "n": n} for n in range(100)]
    repeats.note(Batch.from_rows(SCHEMA, rows))
    assert len(repeats.sift(Batch.from_rows(SCHEMA, rows))) == 100, "it began anew, with the same values: without the flag these are others"
    assert len(repeats.sift(Batch.from_rows(SCHEMA, [{"device": "b", "n": 5}, {"device": "a", "n": 5, "on": True}]), b"\3")) == 2, "another device, and another value"


def test_a_chain_of_marks_that_somebody_chose_is_not_followed_for_long():
    """Ids whose marks have the same lowest bits stand in one chain: 64 of it are looked at."""
    def marks_of(ids):
        probe = Repeats(SCHEMA, "n", False, window=1 << 15)
        probe.note(Batch.from_rows(SCHEMA, [{"device": "a", "n": n} for n in ids]))
        return memoryview(probe.dump()[2]).cast("Q")

    chosen = [n for n, mark in enumerate(marks_of(range(1 << 15))) if mark & 255 == 7][:100]
    repeats = Repeats(SCHEMA, "n", False, ids_max=1, window=256)
    rows = [{"device": "a", "n": n} for n in chosen]
    repeats.note(Batch.from_rows(SCHEMA, rows))
    assert len(chosen) == 100
    assert [len(repeats.sift(Batch.from_rows(SCHEMA, [row]), b"\1")) for row in rows[:35:-1]] == [0] * 64
    assert len(repeats.sift(Batch.from_rows(SCHEMA, [rows[35]]), b"\1")) == 1
    with pytest.raises(ValueError, match="power of two"):
        Repeats(SCHEMA, "n", False, window=3)


def test_the_state_of_another_contract_is_left():
    repeats, other = Repeats(SCHEMA, "id", False, 5, 4), Repeats(SCHEMA, "n", True, 5, 4)
    repeats.note(Batch.from_rows(SCHEMA, [{"device": "a", "id": "x"}]))
    other.load(*repeats.dump())
    assert len(other) == 0 and len(repeats) == 1
    with pytest.raises(ValueError):
        repeats.load(repeats.dump()[0], b"")


def test_a_contract_has_an_id_or_a_sequence_not_both():
    fields = [FieldSource("device", "str"), FieldSource("id", "str"), FieldSource("n", "i64")]
    with pytest.raises(ConfigError, match="keep one"):
        Contract("s", ["s"], fields, id="id", sequence="n")


class Device:
    """Sends, and sends again what it saw no PUBACK of; PUBACKs get lost. Starts to count from 0 again now and then."""

    def __init__(self, name, chance):
        self.name, self.chance, self.sent, self.n, self.open = name, chance, 0, 0, []

    def events(self):
        """What it has under way now: some of it comes for the second time."""
        while len(self.open) < 6 and self.chance.random() < 0.7:
            self.sent, self.n = self.sent + 1, 0 if self.chance.random() < 0.1 else self.n + 1
            self.open.append((b"ids/x", json.dumps({"device": self.name, "id": f"{self.sent}"}).encode()))
            self.open.append((b"numbers/x", json.dumps({"device": self.name, "n": self.n, "temp": self.sent / 4}).encode()))
        return self.open[:self.chance.randint(0, len(self.open))]

    def acknowledged(self, events):
        """The connection may break before some of the PUBACKs, the last ones."""
        mine = [e for e in self.open if e in events]
        seen = mine[:len(mine) if self.chance.random() < 0.4 else self.chance.randint(0, len(mine))]
        self.open = [e for e in self.open if e not in seen]


@pytest.mark.parametrize("seed", range(5))
def test_each_event_counts_once_whatever_is_sent_again_and_crashes(seed, modules):
    chance = random.Random(seed)
    world = World(modules, CONFIG, MemoryDisk(seed=seed)).start()
    devices, taken, settled, duplicates = [Device(f"d{i}", chance) for i in range(3)], set(), 0, 0
    for step in range(60):
        world.now_ns += S
        events = [e for device in devices for e in device.events()]
        chance.shuffle(events)
        if chance.random() < 0.25:
            world.disk.cut_at = world.disk.operations + chance.randint(0, 6)
        try:
            if events and world.put(*events):
                settled, duplicates = settled + len(events), duplicates + sum(e in taken for e in events)
                taken |= set(events)
                for device in devices:
                    device.acknowledged(events)
            if chance.random() < 0.2:
                world.checkpoint()
            world.drain(most=chance.randint(0, 5))
        except PowerCut:
            pass
        if world.disk.cut_at is not None:
            world.disk.cut_at = None
            world.crash(survival=chance.random())
            taken |= {_event(name, row) for name in ("ids", "numbers") for row in _stored(world, name)}
        world.assert_balanced()
    for device in devices:
        if device.open:
            world.put(*device.open)
            taken |= set(device.open)
    world.reconnect()
    world.drain()
    for name in ("ids", "numbers"):
        rows = [json.loads(row.replace("'", '"')) for row in world.of(name).values()]
        marks = [tuple(row.items()) for row in rows]
        assert len(marks) == len(set(marks)), f"seed {seed}: {name} counted twice"
        assert {_event(name, row) for row in rows} == {e for e in taken if e[0].startswith(name.encode())}, f"seed {seed}: {name}"
    told = sum(world.account(name).out["duplicates"] for name in ("ids", "numbers"))
    assert told >= duplicates > 20, f"seed {seed}: what was acknowledged and had come before is counted, crash or not"
    world.assert_balanced()


@pytest.fixture(scope="module")
def pipeline(modules):
    world = World(modules, CONFIG, MemoryDisk()).start()
    yield world.pipeline
    world.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ids", "numbers", "nobody", "broken"]), st.booleans()), max_size=40))
def test_the_flag_stays_with_its_row_whatever_is_dead_or_of_another_stream_between(pipeline, events):
    intake, expected = Intake(Topics()), {"ids": [], "numbers": []}
    for name, dup in events:
        topic, payload = {"ids": (b"ids/x", b'{"device": "d", "id": "i"}'), "numbers": (b"numbers/x", b'{"device": "d", "n": 1, "temp": 1}'), "nobody": (b"nobody", b""),
                          "broken": (b"ids/x", b"{")}[name]
        intake.add(topic, payload, flags=DUP * dup | 1)
        if name in expected:
            expected[name].append(int(dup))
    pipeline.router.route(intake)
    for position, (stream, decoder) in enumerate(zip(pipeline.inputs, pipeline.decoders)):
        rejected, batch = [], Batch(stream.schema, 64)
        decoder.decode(intake, position, batch, rejected)
        bits = intake.resent_rows(position, rejected)
        assert len(batch) == len(expected[stream.name])
        assert (bits or b"").rstrip(b"\0") == (bitmap(expected[stream.name]) or b"").rstrip(b"\0")


def test_all_that_a_broker_had_under_way_comes_again_and_is_counted_once(modules):
    """200 events of a device, and a loss of the connection before any PUBACK arrived; the broker marks them DUP. A crash between, a malformed one and another stream's among them."""
    world = World(modules, CONFIG, MemoryDisk()).start()
    numbers = [(b"numbers/x", json.dumps({"device": "d", "n": n, "temp": n / 4}).encode()) for n in range(200)]
    ids = [(b"ids/x", json.dumps({"device": "d", "id": f"{n}"}).encode()) for n in range(200)]
    assert world.put(*numbers[:100], *ids)
    world.checkpoint()
    assert world.put(*numbers[100:])
    world.crash()
    both = [event for pair in zip(numbers, ids) for event in (*pair, (b"numbers/x", b"{"))]
    new = (b"numbers/x", json.dumps({"device": "d", "n": 200, "temp": 1.0}).encode())
    assert world.put(*both, new, flags=1 | DUP)
    world.reconnect()
    world.drain()
    assert len(world.of("ids")) == 200 and len(world.of("numbers")) == 201
    assert [world.account(name).out["duplicates"] for name in ("ids", "numbers")] == [200, 200]
    assert world.put(*numbers), "numbers of long ago, not marked as sent again: it counts anew"
    world.drain()
    assert len(world.of("numbers")) == 401
    world.assert_balanced()


def test_a_stream_that_declares_no_id_any_more_starts_and_takes_all(modules):
    world = World(modules, CONFIG, MemoryDisk()).start()
    event = b"ids/x", b'{"device": "d", "id": "1"}'
    assert world.put(event) and world.put(event)
    world.checkpoint()
    world.config = CONFIG.replace('id = "id"\nids_max = 8\n', "")
    world.crash()
    assert world.put(event)
    world.reconnect()
    world.drain()
    assert len(world.of("ids")) == 2 and world.account("ids").out["duplicates"] == 1
    world.assert_balanced()


def _event(name, row):
    return f"{name}/x".encode(), json.dumps(row).encode()


def _stored(world, name):
    stream = world.stream(name)
    return [row for r in world.journaled(BATCH) if r.stream == stream.number for row in decode_columns(r.payload, stream.schema).rows()]
