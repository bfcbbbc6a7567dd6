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


class Model:
    """What a repeat is, in plain words."""

    def __init__(self, mark, keys_max, ids_max):
        self.mark, self.keys_max, self.ids_max, self.keys = mark, keys_max, ids_max, OrderedDict()

    def sift(self, rows):
        return [row for row in rows if not self.repeated(row)]

    def repeated(self, row):
        key, mark = row["device"], self.mark(row)
        if key is None or mark is None:
            return False
        if key not in self.keys:
            if len(self.keys) == self.keys_max:
                for _ in range(max(self.keys_max // 16, 1)):
                    self.keys.popitem(last=False)
            self.keys[key] = deque(maxlen=self.ids_max)
        if mark in self.keys[key]:
            return True
        self.keys[key].append(mark)
        self.keys.move_to_end(key)
        return False


MARKS = {("id", False): lambda row: row["id"], ("n", False): lambda row: row["n"], ("n", True): lambda row: None if row["n"] is None else tuple(row.items())}
ROWS = st.lists(st.fixed_dictionaries({"device": st.sampled_from(["a", "b", "c", "d", "e", None]), "id": st.sampled_from(["", "x", "y" * 20, "y" * 21, None]),
                                       "n": st.sampled_from([0, 1, -1, 2**63 - 1, None]), "on": st.sampled_from([True, False, None])}), max_size=40)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(MARKS)), st.integers(1, 5), st.integers(1, 4), st.lists(ROWS, max_size=6), st.integers(0, 6))
def test_repeats_are_those_of_a_naive_model_also_from_a_dump_and_from_what_was_taken(how, keys_max, ids_max, batches, restart):
    (field, whole), model = how, Model(MARKS[how], keys_max, ids_max)

    def new():
        return Repeats(SCHEMA, field, whole, keys_max, ids_max)

    repeats, replayed = new(), new()
    for i, rows in enumerate(batches):
        expected = model.sift([{name: row[name] for name in ("device", "id", "n", "on")} for row in rows])
        fresh = repeats.sift(Batch.from_rows(SCHEMA, rows))
        assert fresh.rows() == expected
        if i == restart:
            dumped, repeats = repeats.dump(), new()
            repeats.load(*dumped)
        replayed.note(fresh)
        assert replayed.dump() == repeats.dump(), "what was taken tells the state"


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


def _event(name, row):
    return f"{name}/x".encode(), json.dumps(row).encode()


def _stored(world, name):
    stream = world.stream(name)
    return [row for r in world.journaled(BATCH) if r.stream == stream.number for row in decode_columns(r.payload, stream.schema).rows()]
