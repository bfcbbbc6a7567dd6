"""The receiver's limits: what is forgotten at each, that it says so, and that no more is."""

import zlib

import msgpack
import pytest
from test_receiver import SCHEMA, message, sequences

import edge.codec.receiver
from edge.books import SCHEMA as LEDGER
from edge.codec.batches import encode_batch, encode_gap, encode_ledger
from edge.codec.context import Context, number_of
from edge.codec.receiver import Receiver
from edge.codec.rows import RowEncoder
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.errors import DiskError, UpstreamError


def test_beyond_the_bound_the_epoch_not_fed_for_longest_is_forgotten(monkeypatch):
    monkeypatch.setattr(edge.codec.receiver, "TRACKS_MAX", 3)
    receiver = Receiver()
    for epoch in (1, 2, 3):
        receiver.feed("t/b", message(0, 5, epoch=epoch))
    receiver.feed("t/b", encode_gap("g", "s", 1, 5, 1, "quota"))         # the oldest is fed again
    assert receiver.forgotten == 0 and len(receiver.report()) == 3
    receiver.feed("t/b", message(0, 5, epoch=4))
    assert receiver.forgotten == 1 and [e["epoch"] for e in receiver.report()] == [1, 3, 4]
    assert Receiver(receiver.dump()).forgotten == 1
    assert receiver.feed("t/b", message(0, 5, epoch=1)).batch is None and len(receiver.feed("t/b", message(0, 5, epoch=2)).batch) == 5
    assert receiver.forgotten == 2


def contexts(count, name="hot", versions=None):
    """(context message, row message) of so many schemas of a stream."""
    made = []
    for i in range(count):
        schema = Schema(name, (Field("d", "str"), Field(f"v{i}", "f64")), key="d")
        batch = Batch.from_rows(schema, [{"d": "a", f"v{i}": 1.5}], first_sequence=100 + i, received_ns=10**18)
        encoder = RowEncoder("g", 7, schema)
        made.append((encoder.context(batch), *encoder.encode(batch)))
    return made


def test_of_a_topics_contexts_the_oldest_is_forgotten_and_its_rows_are_refused(monkeypatch):
    monkeypatch.setattr(edge.codec.receiver, "CONTEXTS_MAX", 2)
    receiver, made = Receiver(), contexts(3)
    for context, _ in made[:2]:
        receiver.feed("up/hot/context", context)
    receiver.feed("up/hot/context", made[0][0])          # said again: now the other is the oldest
    receiver.feed("up/hot/context", made[2][0])
    for kept in (receiver, Receiver(receiver.dump())):
        with pytest.raises(UpstreamError, match="context"):
            kept.feed("up/hot/rows", made[1][1])
        assert sequences(kept.feed("up/hot/rows", made[0][1])) == [100] and sequences(kept.feed("up/hot/rows", made[2][1])) == [102]


def hot_context(base, table):
    return Context("g", 7, Schema("hot", (Field("d", "str"), Field("v", "f64")), key="d"), base, 10**18, 0, [(0, 0), (0, 1)], table)


def test_a_row_whose_context_got_lost_is_read_by_no_other():
    """Of 3,000 contexts of a stream, those whose names had been the same in 16 bits."""
    named = {}
    for made in (hot_context(base, [f"device-{base % 50}"]) for base in range(3000)):
        named.setdefault(number_of(made._content(), version=1), []).append(made)
    alike = [contexts for contexts in named.values() if len(contexts) > 1]
    assert len(alike) > 20 and len({made.number for contexts in named.values() for made in contexts}) == 3000
    for one, other, *_ in alike:
        receiver = Receiver()
        receiver.feed("up/hot/context", one.encode())
        row = [1, 5, 0, 215]
        with pytest.raises(UpstreamError, match=f"context {other.number}, which has not arrived"):
            receiver.feed("up/hot/row", msgpack.packb([other.number, *row]))
        assert receiver.feed("up/hot/row", msgpack.packb([one.number, *row])).batch.rows() == [{"d": one.strings[0], "v": 21.5}]


def test_contexts_of_gateways_of_before_are_read_under_the_names_that_they_gave():
    receiver, made = Receiver(), hot_context(100, ["a"])
    receiver.feed("up/hot/context", b"\x9a\x02\x01" + made._content())
    for kept in (receiver, Receiver(receiver.dump())):
        assert sequences(kept.feed("up/hot/row", msgpack.packb([number_of(made._content(), version=1), 1, 5, 0, 215]))) == [101]
    with pytest.raises(UpstreamError, match="format version 3; this receiver knows 2: update it"):
        receiver.feed("up/hot/context", b"\x9a\x02\x03" + made._content())


def test_of_topics_the_oldest_is_forgotten(monkeypatch):
    monkeypatch.setattr(edge.codec.receiver, "SCOPES_MAX", 2)
    receiver, ((context, row),) = Receiver(), contexts(1)
    for topic in ("a", "b", "a", "c"):
        receiver.feed(f"up/{topic}/context", context)
    with pytest.raises(UpstreamError, match="context"):
        receiver.feed("up/b/rows", row)
    assert sequences(receiver.feed("up/a/rows", row)) == [100] and receiver.feed("up/c/rows", row).duplicates == 1


def with_seen(pairs):
    """A receiver that has seen these sequences, half-open intervals."""
    body = msgpack.packb([1, [["g", "s", 1, pairs, [], 5, 0, 0]], [], 0])
    return Receiver(zlib.crc32(body).to_bytes(4, "big") + body)


def test_the_limits_are_those_that_the_documents_tell():
    for intervals, given_up in (4095, 0), (4096, 15):
        receiver = with_seen([[20 * n, 20 * n + 5] for n in range(intervals)])
        receiver.feed("t/b", message(20 * intervals, 5))
        entry, = receiver.report()
        assert entry["given_up"] == given_up and len(entry["missing"]) == 4095
    assert (edge.codec.receiver.INTERVALS_MAX, edge.codec.receiver.TRACKS_MAX, edge.codec.receiver.CONTEXTS_MAX, edge.codec.receiver.SCOPES_MAX) == (4096, 65_536, 8, 16_384)


def test_what_is_refused_changes_nothing():
    receiver, ((context, row),) = Receiver(), contexts(1)
    receiver.feed("t/b", message(0, 3))
    before = receiver.dump()
    for payload in (b"", b"\xff\x00", message(5, 3)[:-1], row, encode_gap("g", "s", 1, 3, 2, "quota")[:-2]):
        with pytest.raises(UpstreamError):
            receiver.feed("t/b", payload)
    assert receiver.dump() == before


def test_a_state_of_another_version_is_refused_with_its_number():
    body = msgpack.packb([2, *msgpack.unpackb(Receiver().dump()[4:])[1:]])
    with pytest.raises(DiskError, match="version 2; this one reads 1"):
        Receiver(zlib.crc32(body).to_bytes(4, "big") + body)


def test_a_state_from_before_there_was_a_balance_is_read():
    receiver = Receiver()
    receiver.feed("t/b", message(0, 3))
    body = msgpack.packb(msgpack.unpackb(receiver.dump()[4:])[:4])
    again = Receiver(zlib.crc32(body).to_bytes(4, "big") + body)
    assert again.report() == receiver.report() and again.check() == []


def test_all_of_a_state_comes_back():
    receiver = Receiver()
    for first, count in ((0, 3), (10, 5), (2, 4)):
        receiver.feed("t/b", message(first, count))
    receiver.feed("t/b", message(0, 2, epoch=2, gateway="h"))
    receiver.feed("t/b", encode_gap("g", "s", 1, 7, 5, "quota"))
    again = Receiver.load(receiver.dump())
    assert again.dump() == receiver.dump() and again.report() == receiver.report() == [
        {"gateway": "g", "stream": "s", "epoch": 1, "received": 11, "duplicates": 1, "missing": [(6, 1)], "announced": [(7, 3)], "given_up": 0},
        {"gateway": "h", "stream": "s", "epoch": 2, "received": 2, "duplicates": 0, "missing": [], "announced": [], "given_up": 0}]


def test_a_delivery_has_the_new_rows_and_says_where_they_stand():
    receiver = Receiver()
    receiver.feed("t/b", message(2, 2))
    delivery = receiver.feed("t/b", message(0, 8))
    assert (delivery.gateway, delivery.stream, delivery.epoch, delivery.first_sequence, delivery.ranges, delivery.duplicates) == ("g", "s", 1, 0, [(0, 2), (4, 4)], 2)
    assert delivery.batch.rows() == [{"v": s} for s in (0, 1, 4, 5, 6, 7)] and delivery.message.count == 8
    assert delivery.batch.first_sequence == 0 and delivery.gaps == []
    none = receiver.feed("t/b", message(4, 2))
    assert (none.batch, none.first_sequence, none.ranges, none.duplicates) == (None, None, [], 2)


def test_a_gap_tells_what_has_not_come_and_was_not_told():
    receiver = Receiver()
    receiver.feed("t/b", message(3, 2))
    assert receiver.feed("t/g", encode_gap("g", "s", 1, 0, 8, "quota")).gaps == [(0, 3, "quota"), (5, 3, "quota")]
    assert receiver.feed("t/g", encode_gap("g", "s", 1, 2, 9, "other")).gaps == [(8, 3, "other")]


def test_only_rows_come_twice():
    """A gap or a context may be said again as often as one likes."""
    receiver, ((context, _),) = Receiver(), contexts(1)
    for _ in range(2):
        assert [receiver.feed("t/b", payload).duplicates for payload in (context, encode_gap("g", "s", 1, 0, 8, "quota"), encode_ledger("g", 1, 2, {"s": {"in": 1}}))] == [0, 0, 0]


def test_what_is_missing_is_told_in_full_where_rows_and_gaps_take_turns(monkeypatch):
    """Each of the two is within its bound; what they have together may be twice as much."""
    monkeypatch.setattr(edge.codec.receiver, "INTERVALS_MAX", 3)
    receiver = Receiver()
    for first in (0, 20, 40):
        receiver.feed("t/b", message(first, 5))
        receiver.feed("t/g", encode_gap("g", "s", 1, first + 10, 5, "quota"))
    entry, = receiver.report()
    assert entry["missing"] == [(n, 5) for n in (5, 15, 25, 35, 45)] and entry["given_up"] == 0


def test_a_state_of_nothing_but_a_checksum_is_damaged():
    for size in range(5):
        with pytest.raises(DiskError, match="damaged"):
            Receiver(bytes(size))


def ledger_rows(first, *entries, gateway="g", epoch=1):
    rows = [{"start": 0, "stop": 60, "kind": kind, "name": name, "what": what, "count": count} for kind, name, what, count in entries]
    return encode_batch(Batch.from_rows(LEDGER, rows, first_sequence=first, received_ns=1), gateway=gateway, epoch=epoch)


LANE = ("next", "acknowledged", "pending", "dead_lettered", "evicted", "in")


def said(next_sequence, acknowledged, came, pending=0, evicted=0, dead=0):
    counts = {"next": next_sequence, "acknowledged": acknowledged, "pending": pending, "dead_lettered": dead, "evicted": evicted, "in": came}
    return [("lane", "up/s", what, counts[what]) for what in LANE]


def test_rows_that_a_gateway_counts_and_that_have_not_come_are_named():
    """Also of a stream of which nothing has come at all; and not what was announced as lost, nor numbers that were left out."""
    receiver = Receiver()
    receiver.feed("up/l", ledger_rows(0, *said(0, 0, 0)))
    receiver.feed("up/l", ledger_rows(6, *said(10, 10, 10)))
    assert [(p["name"], p["lacking"]) for p in receiver.check()] == [("up/s", 10)]
    receiver.feed("up/s", message(0, 4))
    assert [p["lacking"] for p in receiver.check()] == [6]
    assert [p["lacking"] for p in Receiver(receiver.dump()).check()] == [6]
    receiver.feed("up/s", encode_gap("g", "s", 1, 4, 3, "quota"))
    assert [p["lacking"] for p in receiver.check()] == [3]
    receiver.feed("up/s", message(7, 3))
    assert receiver.check() == []


def test_rows_of_a_stream_of_which_nothing_came_are_excused_by_as_many_as_went_at_the_gateway():
    receiver = Receiver()
    receiver.feed("up/l", ledger_rows(0, *said(5, 5, 5)))
    receiver.feed("up/l", ledger_rows(6, *said(15, 5, 15, evicted=10)))
    assert receiver.check() == [], "their gap is on its way"
    receiver.feed("up/l", ledger_rows(12, *said(16, 6, 16, evicted=10)))
    assert [p["lacking"] for p in receiver.check()] == [10, 1]


def test_rows_that_no_message_could_carry_excuse_no_others_once_they_are_announced():
    receiver = Receiver()
    receiver.feed("up/l", ledger_rows(0, *said(0, 0, 0)))
    receiver.feed("up/l", ledger_rows(6, *said(10, 8, 10, dead=2)))
    receiver.feed("up/s", message(0, 6))
    receiver.feed("up/s", message(8, 2))
    assert receiver.check() == [], "their gap is on its way"
    receiver.feed("up/s", encode_gap("g", "s", 1, 6, 2, "unsendable"))
    receiver.feed("up/l", ledger_rows(12, *said(20, 18, 20, dead=2)))
    receiver.feed("up/s", message(10, 9))
    assert [p["lacking"] for p in receiver.check()] == [1]
    receiver.feed("up/s", message(19, 1))
    assert receiver.check() == []


def test_ledger_rows_with_holes_in_them_and_of_another_shape_are_passed_over():
    receiver = Receiver()
    other = Schema(LEDGER.stream, (Field("name", "str"),))
    receiver.feed("up/l", encode_batch(Batch.from_rows(other, [{"name": "x"}], first_sequence=0, received_ns=1), gateway="g", epoch=1))
    rows = [{"start": 0, "stop": 60, "kind": "lane", "name": None, "what": "in", "count": 1}]
    receiver.feed("up/l", encode_batch(Batch.from_rows(LEDGER, rows, first_sequence=0, received_ns=1), gateway="h", epoch=1))
    assert receiver.check() == []
    assert receiver.feed("up/l", encode_ledger("g", 1, 2, {"s": {"in": 1}})).batch is None


def test_the_scope_of_a_topic_is_all_but_its_last_level():
    receiver, ((context, row),) = Receiver(), contexts(1)
    receiver.feed("up/site/hot/context", context)
    assert sequences(receiver.feed("up/site/hot/anything", row)) == [100]
    for topic in ("up/site/rows", "rows", "up/site/hot/deeper/rows"):
        with pytest.raises(UpstreamError):
            receiver.feed(topic, row)
    assert SCHEMA.stream == "s"
