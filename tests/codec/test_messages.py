"""Upstream messages say exactly what was encoded, in few bytes; anything else is refused, cheaply and by the right error."""
import json
import random
import struct
import tracemalloc
from datetime import datetime

import msgpack
import pytest
import w1
import zstandard
from hypothesis import given, settings
from test_columns import bits_of, tables

import edge
from edge.columns._batch import Batch
from edge.codec.batches import (
    BATCH, CONTEXT, GAP, LEDGER, ROW, decode_columns, decode_message, encode_batch, encode_columns, encode_gap, encode_ledger, json_rows, jsonl,
)  # fmt: skip
from edge.codec.rows import RowEncoder
from edge.columns.schema import Field, Schema
from edge.errors import DiskError, UpstreamError

HOT = Schema("hot", (Field("device", "str"), Field("ts", "time"), Field("temp", "f64"), Field("seq", "i64")), key="device", time="ts")
LEDGER_COUNTS = {"env": {"stored": 10, "dead_lettered": 1}, "hot": {"out": 3}}


def w1_batch(n=200, **kw):
    return Batch.from_rows(w1.SCHEMA, w1.rows(n, **kw), first_sequence=7, received_ns=1_700_000_000_123_456_789)


def hot(row, first=0):
    return Batch.from_rows(HOT, [{f.name: row[f.name] for f in HOT.fields}], first_sequence=first, received_ns=row["ts"])


@settings(max_examples=150, deadline=None)
@given(tables())
def test_batches_and_rows_come_back_bit_for_bit(table):
    schema, rows = table
    batch = Batch.from_rows(schema, rows, first_sequence=123, received_ns=-5)
    batch.clock = 2
    message = decode_message(encode_batch(batch, gateway="g", epoch=9))
    assert bits_of(message.batch.rows()) == bits_of(batch.rows())
    assert (message.kind, message.gateway, message.epoch, message.first, message.count) == (BATCH, "g", 9, 123, len(rows))
    assert (message.batch.schema, message.batch.received_ns, message.batch.clock) == (schema, -5, 2)
    assert bits_of(decode_columns(encode_columns(batch), schema).rows()) == bits_of(batch.rows())
    encoder = RowEncoder("g", 9, schema)
    contexts = {}
    for _ in range(2):
        if (payload := encoder.context(batch)) is not None:
            context = decode_message(payload).context
            contexts[context.number] = context
        for i, payload in enumerate(encoder.encode(batch) if rows else []):
            back = decode_message(payload, contexts)
            assert bits_of(back.batch.rows()) == bits_of(batch.rows()[i : i + 1])
            assert (back.first, back.batch.clock, back.stream, back.epoch) == (123 + i, 2, "s", 9)
        batch.received_ns += 2_000_000_000


def test_w1_takes_at_most_eight_bytes_an_event_upstream():
    assert len(encode_batch(w1_batch(1000), gateway="gateway-1", epoch=1)) <= 4 * 1000


def test_a_row_of_a_learned_device_takes_at_most_21_bytes():
    rows = w1.rows(5000)
    encoder = RowEncoder("gateway-1", 1, HOT)
    learn = Batch.from_rows(HOT, [{f.name: row[f.name] for f in HOT.fields} for row in rows[:100]], received_ns=rows[0]["ts"])
    assert encoder.context(learn) is not None
    for i, row in enumerate(rows[100:]):
        (message,) = encoder.encode(hot(row, 100 + i))
        assert len(message) <= 21


def test_alerts_at_once_take_at_most_two_bytes_an_input_event_with_their_contexts():
    rows = w1.rows(60_000, rate=1000)
    alerts = [row for row in rows if row["temp"] > 30]
    encoder, total, contexts = RowEncoder("gateway-1", 1, HOT), 0, 0
    for i, row in enumerate(alerts):
        batch = hot(row, i)
        if (context := encoder.context(batch)) is not None:
            total += len(context)
            contexts += 1
        total += sum(map(len, encoder.encode(batch)))
    print("bytes per input event", total / len(rows), "contexts", contexts)
    assert total <= 2.2 * len(rows) and contexts < 60


def test_at_most_one_context_a_second_of_receive_time():
    encoder = RowEncoder("g", 1, HOT)
    row = w1.rows(1)[0]
    assert encoder.context(hot(row)) is not None
    for i in range(2000):
        batch = hot(row | {"device": f"another-device-with-a-long-name-{i % 50}"}, i)
        batch.received_ns = row["ts"] + i * 1_000_000
        made = encoder.context(batch)
        assert made is None or i >= 1000
        encoder.encode(batch)


def test_what_a_context_cannot_say_goes_as_a_batch():
    encoder = RowEncoder("g", 1, HOT)
    row = w1.rows(1)[0]
    payload = encoder.context(hot(row))
    context = decode_message(payload).context
    for odd in ({"ts": row["ts"] + 1}, {"ts": None}, {"seq": -(1 << 63)}):
        (message,) = encoder.encode(hot(row | odd) if odd.get("ts", 0) is not None else Batch.from_rows(HOT, [row | odd | {"x": 0}]))
        back = decode_message(message, {context.number: context})
        assert back.kind == BATCH and back.batch.rows()[0]["seq"] == (row | odd)["seq"] and back.batch.rows()[0]["ts"] == (row | odd)["ts"]


def test_equal_input_gives_equal_bytes():
    assert encode_batch(w1_batch(), gateway="g", epoch=1) == encode_batch(w1_batch(), gateway="g", epoch=1)
    assert encode_columns(w1_batch()) == encode_columns(w1_batch())
    assert encode_ledger("g", 1, 2, LEDGER_COUNTS) == encode_ledger("g", 1, 2, dict(reversed(LEDGER_COUNTS.items())))


def test_text_is_compressed_where_it_pays():
    schema = Schema("log", (Field("line", "str"),))
    batch = Batch.from_rows(schema, [{"line": f"{i * 7919 % 1000} connection from sensor {i} failed: time-out"} for i in range(500)])
    payload = encode_columns(batch)
    assert payload[0] == 2 and decode_columns(payload, schema).rows() == batch.rows()
    with pytest.raises(DiskError):
        decode_columns(payload, schema, bytes_max=10_000)


def test_gap_and_ledger_say_what_was_encoded():
    gap = decode_message(encode_gap("g", "s", 3, 5, 2, "quota"))
    assert (gap.kind, gap.gateway, gap.stream, gap.epoch, gap.first, gap.count, gap.reason) == (GAP, "g", "s", 3, 5, 2, "quota")
    ledger = decode_message(encode_ledger("g", 1, 2, LEDGER_COUNTS))
    assert (ledger.kind, ledger.start_ns, ledger.stop_ns, ledger.counts) == (LEDGER, 1, 2, LEDGER_COUNTS)


def test_decode_gives_the_rows_of_a_batch():
    batch = w1_batch(3)
    assert edge.decode(encode_batch(batch, gateway="g", epoch=1)) == batch.rows()
    with pytest.raises(UpstreamError):
        edge.decode(encode_gap("g", "s", 3, 5, 2, "quota"))


# --- malformed


def genuine():
    batch = w1_batch(60, devices=9)
    encoder = RowEncoder("g", 1, w1.SCHEMA)
    context = encoder.context(batch)
    read = decode_message(context).context
    messages = [encode_batch(batch, gateway="g", epoch=1), context, encoder.encode(batch)[3], encode_gap("g", "s", 1, 2, 3, "x"), encode_ledger("g", 1, 2, LEDGER_COUNTS)]
    plain = [zstandard.decompress(m) if m[:4] == b"\x28\xb5\x2f\xfd" else m for m in messages]
    return messages, plain, {read.number: read}


@pytest.mark.parametrize("which", range(5), ids=["batch", "context", "row", "gap", "ledger"])
def test_truncated_and_trailing_messages_are_refused(which):
    messages, plain, contexts = genuine()
    for payload in (messages[which], plain[which]):
        decode_message(payload, contexts)
        for size in range(len(payload)):
            with pytest.raises(UpstreamError):
                decode_message(payload[:size], contexts)
        with pytest.raises(UpstreamError):
            decode_message(payload + b"\0", contexts)


def mutated(r, payload):
    data = bytearray(payload)
    for _ in range(r.choice([1, 1, 2, 5])):
        at = r.randrange(len(data))
        how = r.randrange(4)
        if how == 0:
            data[at] ^= 1 << r.randrange(8)
        elif how == 1:
            data[at] = r.choice([0, 0x7F, 0x80, 0xFF, 0xDD, 0xDF, 0xC6, 0xDB])
        elif how == 2:
            del data[at : at + r.randrange(1, 9)]
        else:
            data[at:at] = r.choice([b"\xff" * 8, b"\xdd\xff\xff\xff\xff", b"\xc6\x7f\xff\xff\xff", bytes(r.randrange(256) for _ in range(4))])
        if not data:
            break
    return bytes(data)


def test_nothing_but_an_upstream_error_comes_of_mutations():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    r = random.Random(seed)
    messages, plain, contexts = genuine()
    for _ in range(12_000):
        payload = mutated(r, r.choice(messages + plain + plain)) if r.random() < 0.95 else r.randbytes(r.randrange(60))
        try:
            message = decode_message(payload, contexts, bytes_max=1 << 20)
        except UpstreamError:
            continue
        if message.batch is not None:
            message.batch.rows()


def test_nothing_but_a_disk_error_comes_of_damaged_payloads():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    r = random.Random(seed)
    rows = w1.rows(80, devices=9)
    for i in range(0, 80, 7):
        rows[i]["temp"], rows[i]["site"], rows[i]["hum"] = None, None, 1 / (i + 3)
    payload = encode_columns(Batch.from_rows(w1.SCHEMA, rows, first_sequence=7))
    for _ in range(20_000):
        damaged = mutated(r, payload)
        try:
            batch = decode_columns(damaged, w1.SCHEMA, bytes_max=1 << 20)
        except DiskError:
            continue
        batch.rows()
        encode_columns(batch)


def bombs():
    schema = Schema("s", (Field("a", "i64"), Field("b", "str"))).to_dict()
    head = [BATCH, 1, "g", 1, schema, 0]
    yield "zeros", zstandard.ZstdCompressor(write_checksum=True).compress(bytes(1 << 28))
    yield "claimed size", b"\x28\xb5\x2f\xfd\xe4" + struct.pack("<Q", 1 << 62) + b"\0\0\0"
    yield "no size", zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(bytes(1 << 26))
    yield "rows", msgpack.packb([*head, 1 << 20, 0, 0, b"\0\2\0\1\0\0\0a\0\0"])
    yield "more rows", msgpack.packb([*head, (1 << 64) - 1, 0, 0, b""])
    yield "array", b"\xdd\xff\xff\xff\xff" + b"\x90" * 1000
    yield "nested", b"\x9a" * 100_000
    yield "fields", msgpack.packb([BATCH, 1, "g", 1, schema | {"fields": [[f"f{i}", "str", ""] for i in range(100_000)]}, 0, 1, 0, 0, b""])
    yield "strings", msgpack.packb([CONTEXT, 1, "g", 1, schema, 0, 0, 0, [[0, 0], [0, 0]], [""] * 1_000_000])


@pytest.mark.parametrize(("name", "payload"), list(bombs()), ids=lambda v: v if isinstance(v, str) else "")
def test_bombs_are_refused_within_the_bound(name, payload):
    cap = 4 << 20
    tracemalloc.start()
    try:
        with pytest.raises(UpstreamError):
            decode_message(payload, bytes_max=cap)
        assert tracemalloc.get_traced_memory()[1] <= 1.5 * cap
    finally:
        tracemalloc.stop()


def test_a_dictionary_that_grows_by_front_coding_is_refused_before_it_is_built():
    schema = Schema("s", (Field("b", "str"),))
    batch = Batch.from_rows(schema, [{"b": "x" * 100_000 + "y" * i} for i in range(300)])
    payload = encode_columns(batch)
    assert len(payload) < 200_000
    assert decode_columns(payload, schema).rows() == batch.rows()
    with pytest.raises(DiskError):
        decode_columns(payload, schema, bytes_max=16 << 20)


def test_a_batch_that_a_receiver_would_refuse_is_not_encoded():
    schema = Schema("s", (Field("a", "i64"),))
    big = Batch.from_rows(schema, [{"a": 1}] * 200_000)
    with pytest.raises(ValueError, match="fewer"):
        encode_batch(big, gateway="g", epoch=1)
    fits = big.select(range(180_000))
    assert len(decode_message(encode_batch(fits, gateway="g", epoch=1)).batch) == 180_000


# --- JSON


def test_json_rows_read_back():
    schema = Schema("s", (Field('n"\\\n', "f64"), Field("i", "i64"), Field("b", "bool"), Field("s", "str"), Field("t", "time")))
    values = [
        (0.1, -(1 << 63), True, 'q"\\\x00\x1f\n é😀', 0), (float("nan"), 7, None, "", 1_700_000_000_123_000_000),
        (-0.0, 0, False, None, -1), (1e300, (1 << 63) - 1, False, "x", (1 << 63) - 1), (5e-324, 1, True, "x", -(1 << 63)), (None, None, None, None, None),
    ]  # fmt: skip
    batch = Batch.from_rows(schema, [dict(zip([f.name for f in schema.fields], v)) for v in values])
    lines = jsonl(batch).decode().splitlines()
    back = [list(json.loads(line).values()) for line in lines]
    for got, (f, i, b, s, t) in zip(back, values):
        assert got[1:4] == [i, b, s]
        assert got[0] == (None if f is None or f != f else f) and str(got[0]) == str(None if f != f else f)
    times = [row[4] for row in back]
    assert times == ["1970-01-01T00:00:00Z", "2023-11-14T22:13:20.123Z", "1969-12-31T23:59:59.999999999Z", "2262-04-11T23:47:16.854775807Z",
                     "1677-09-21T00:12:43.145224192Z", None]
    assert json_rows(Batch.from_rows(Schema("e", ()), [{}])) == [b"{}"]


def test_json_dates_are_the_calendars():
    r = random.Random(5)
    schema = Schema("s", (Field("t", "time"),))
    for _ in range(300):
        s = r.randrange(-9_000_000_000, 9_000_000_000)
        (row,) = json_rows(Batch.from_rows(schema, [{"t": s * 10**9}]))
        assert datetime.fromisoformat(json.loads(row)["t"]).timestamp() == s


def test_rows_of_every_kind_are_told_apart():
    _, plain, contexts = genuine()
    assert [decode_message(p, contexts).kind for p in plain] == [BATCH, CONTEXT, ROW, GAP, LEDGER]
