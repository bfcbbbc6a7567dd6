"""Columns come back bit for bit, whatever they hold; equal rows give equal bytes; they are small."""
import random
import struct

import pytest
import w1
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.codec._payload import Malformed, batch_of, batch_of_columns, columns_of, payload_of
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema

MANY = 64 << 20
I64 = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-5, 5), st.integers(0, 1000).map(lambda v: v * 1_000_000),
    st.sampled_from([-(1 << 63), (1 << 63) - 1, 0, 10**18]),
)  # fmt: skip
BITS = st.one_of(
    st.integers(0, (1 << 64) - 1), st.sampled_from([0x7FF0000000000001, 0xFFF8000000000123, 1 << 63, 0x7FF0000000000000, 0xFFF0000000000000, 1])
)
F64 = st.one_of(
    BITS.map(lambda b: struct.unpack("<d", struct.pack("<Q", b))[0]), st.integers(-9999, 9999).map(lambda v: v / 100),
    st.floats(), st.integers(-(1 << 54), 1 << 54).map(float),
)  # fmt: skip
TEXT = st.one_of(st.text(max_size=12), st.integers(0, 30).map(lambda i: f"dev-{i:03}"), st.just(""))
VALUES = {"i64": I64, "time": I64, "f64": F64, "bool": st.booleans(), "str": TEXT}


def bits_of(rows):
    return [[(struct.pack("<d", v) if isinstance(v, float) else v) for v in row.values()] for row in rows]


def round_trip(schema, rows):
    batch = Batch.from_rows(schema, rows, first_sequence=(1 << 64) - 1, received_ns=-(1 << 63))
    payload = payload_of(batch, 7)
    back = batch_of(payload, 1, schema, MANY)
    assert len(back) == len(batch)
    assert bits_of(back.rows()) == bits_of(batch.rows())
    assert (back.first_sequence, back.received_ns, back.clock) == (batch.first_sequence, batch.received_ns, batch.clock)
    assert payload_of(back, 7) == payload
    columns = columns_of(batch)
    assert payload.endswith(columns)
    assert bits_of(batch_of_columns(columns, schema, len(batch), MANY).rows()) == bits_of(batch.rows())
    return payload


@st.composite
def tables(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=5))
    fields = tuple(Field(f"f{i}", k) for i, k in enumerate(kinds))
    strings = [f.name for f in fields if f.kind == "str"]
    key = draw(st.sampled_from([None, *strings]))
    columns = []
    n = draw(st.integers(0, 40))
    for f in fields:
        nulls = draw(st.sampled_from(["none", "some", "all"]))
        value = VALUES[f.kind] if nulls == "none" else st.one_of(st.none(), VALUES[f.kind]) if nulls == "some" else st.none()
        if draw(st.booleans()):
            columns.append(draw(st.lists(value, min_size=n, max_size=n)))
        else:
            pool = draw(st.lists(value, min_size=1, max_size=3))
            columns.append([pool[(i * 7 // 3) % len(pool)] for i in range(n)])
    rows = [{f.name: c[i] for f, c in zip(fields, columns)} for i in range(n)]
    return Schema("s", fields, 1, key, None), rows


@settings(max_examples=400, deadline=None)
@given(tables())
def test_any_table_comes_back_bit_for_bit(table):
    round_trip(*table)


def walk(r, n, kind, shape):
    """n values of a kind in one of several shapes, among them those that make each encoding win."""
    v, out = r.randrange(1 << 20), []
    for i in range(n):
        if kind == "bool":
            out.append(bool(r.randrange(2)) if shape % 2 else i % 97 < 80)
        elif kind == "str":
            out.append([f"dev-{i % 50}", "a" * (i % 9), f"{r.random()}", "é→😀" * r.randrange(3), "only"][shape])
        else:
            v += [r.randrange(-3, 4), 1000, 0 if r.random() < 0.99 else 1 << 30, r.getrandbits(40), i * i][shape]
            whole = v if shape != 3 else r.getrandbits(64) - (1 << 63)
            out.append(whole if kind == "i64" else whole // 1000 * 1_000_000 % (1 << 62) if kind == "time" else v / 100 if shape != 1 else v / 7)
    return [None if shape != 1 and r.random() < 0.05 * (shape == 2) else value for value in out]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 63, 64, 65, 255, 1000, 5000])
def test_every_size_and_shape_comes_back(n):
    seed = n
    print("seed", seed)
    r = random.Random(seed)
    kinds = ["str", "i64", "time", "f64", "bool"]
    for shape in range(5):
        fields = tuple(Field(f"{k}{s}", k) for k in kinds for s in range(5) if k != "str" or s == shape)
        schema = Schema("s", fields, 1, f"str{shape}", None)
        columns = {f.name: walk(r, n, f.kind, int(f.name[-1])) for f in fields}
        round_trip(schema, [{name: c[i] for name, c in columns.items()} for i in range(n)])


@pytest.mark.parametrize("width", range(65))
def test_every_bit_width_comes_back(width):
    r = random.Random(width)
    schema = Schema("s", (Field("v", "i64"),))
    for n in (2, 9, 100):
        values = [r.getrandbits(width) - (1 << 63) if width else 5 for _ in range(n)]
        round_trip(schema, [{"v": v} for v in values])


def test_bytes_depend_on_the_rows_alone():
    schema = Schema("s", (Field("k", "str"), Field("v", "f64")), key="k")
    rows = [{"k": f"d{i % 5}", "v": i / 4} for i in range(40)]
    whole = Batch.from_rows(schema, rows)
    part = Batch.from_rows(schema, [{"k": "unused", "v": None}, *reversed(rows)]).select([0])
    part.clear()
    part.extend(Batch.from_rows(schema, rows[:13]))
    part.extend(Batch.from_rows(schema, rows), 13)
    assert columns_of(part) == columns_of(whole)


@pytest.mark.parametrize("shuffled", [False, True])
def test_w1_takes_at_most_four_bytes_an_event(shuffled):
    batch = Batch.from_rows(w1.SCHEMA, w1.rows(1000, shuffled=shuffled), first_sequence=10**6, received_ns=1_700_000_000_123_456_789)
    assert len(payload_of(batch, 1)) <= 4 * 1000


def test_small_batches_have_small_heads():
    schema = Schema("s", (Field("v", "f64"),))
    assert len(payload_of(Batch.from_rows(schema, [{"v": 21.5}]), 1)) <= 10


def test_truncation_is_noticed_at_every_byte_and_trailing_bytes_too():
    rows = w1.rows(30, devices=7)
    rows[3]["temp"] = None
    rows[4]["hum"] = 1 / 3
    payload = round_trip(w1.SCHEMA, rows)
    for size in range(len(payload)):
        with pytest.raises(Malformed):
            batch_of(payload[:size], 1, w1.SCHEMA, MANY)
    with pytest.raises(Malformed):
        batch_of(payload + b"\0", 1, w1.SCHEMA, MANY)
