"""Each row is handed on once, whatever is doubled, reordered, lost, or restarted in between."""
import random

import pytest

from edge.codec.batches import CONTEXT, GAP, encode_batch, encode_gap
from edge.codec.intervals import Intervals
from edge.codec.receiver import Receiver
from edge.codec.rows import RowEncoder
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.errors import DiskError, UpstreamError

SCHEMA = Schema("s", (Field("v", "i64"),))


def message(first, count, *, epoch=1, gateway="g"):
    batch = Batch.from_rows(SCHEMA, [{"v": s} for s in range(first, first + count)], first_sequence=first, received_ns=first)
    return encode_batch(batch, gateway=gateway, epoch=epoch)


def sequences(delivery):
    return [s for first, count in delivery.ranges for s in range(first, first + count)]


@pytest.mark.parametrize("seed", range(15))
def test_each_row_once_under_duplicates_reordering_gaps_and_restarts(seed):
    print("seed", seed)
    r = random.Random(seed)
    receiver, got, announced = Receiver(), {}, {}
    sent = [(r.randrange(500), r.randrange(1, 40), r.randrange(2)) for _ in range(60)]
    for first, count, epoch in sent + r.sample(sent, 20):
        if r.random() < 0.15:
            delivery = receiver.feed("t/b", encode_gap("g", "s", epoch, first, count, "evicted"))
            new = [s for a, n, _ in delivery.gaps for s in range(a, a + n)]
            lost = announced.setdefault(epoch, set())
            assert set(new) == set(range(first, first + count)) - got.setdefault(epoch, set()) - lost
            lost.update(new)
        else:
            delivery = receiver.feed("t/b", message(first, count, epoch=epoch))
            have = got.setdefault(epoch, set())
            assert sequences(delivery) == [s for s in range(first, first + count) if s not in have]
            assert (delivery.batch.column("v") if delivery.batch else []) == sequences(delivery)
            assert delivery.duplicates == count - len(sequences(delivery))
            have.update(sequences(delivery))
        if r.random() < 0.1:
            receiver = Receiver.load(receiver.dump())
    for entry in receiver.report():
        have, lost = got.get(entry["epoch"], set()), announced.get(entry["epoch"], set())
        known = have | lost
        missing = set(range(min(known), max(known))) - known
        assert entry["received"] == len(have)
        assert {s for a, n in entry["missing"] for s in range(a, a + n)} == missing
        assert {s for a, n in entry["announced"] for s in range(a, a + n)} == lost - have


def test_an_evicted_row_that_comes_after_all_is_delivered():
    receiver = Receiver()
    receiver.feed("t/b", encode_gap("g", "s", 1, 0, 10, "quota"))
    assert sequences(receiver.feed("t/b", message(3, 2))) == [3, 4]
    assert receiver.report()[0]["announced"] == [(0, 3), (5, 5)]


def test_rows_survive_a_restart_of_the_receiver_with_their_contexts():
    schema = Schema("hot", (Field("d", "str"), Field("v", "f64")), key="d")
    encoder = RowEncoder("g", 7, schema)
    batch = Batch.from_rows(schema, [{"d": "a", "v": 1.5}, {"d": "b", "v": None}], first_sequence=5, received_ns=10**18 + 7)
    receiver = Receiver()
    assert receiver.feed("up/hot/context", encoder.context(batch)).kind == CONTEXT
    one, two = encoder.encode(batch)
    assert receiver.feed("up/hot/rows", one).batch.rows() == [{"d": "a", "v": 1.5}]
    receiver = Receiver(receiver.dump())
    again, last = receiver.feed("up/hot/rows", one), receiver.feed("up/hot/rows", two)
    assert again.batch is None and again.duplicates == 1
    assert last.batch.rows() == [{"d": "b", "v": None}]
    assert (last.first_sequence, last.batch.received_ns, last.gateway, last.stream, last.epoch) == (6, 10**18 + 7, "g", "hot", 7)
    with pytest.raises(UpstreamError, match="context"):
        receiver.feed("up/other/rows", one)


def test_intervals_beyond_the_bound_close_the_lowest_hole():
    seen = Intervals(count_max=3)
    for start in (0, 10, 20, 30):
        seen.add(start, start + 5)
    assert list(seen) == [(0, 15), (20, 25), (30, 35)] and seen.filled == 5


def test_a_damaged_state_is_refused():
    state = Receiver().dump()
    for i in range(len(state)):
        with pytest.raises(DiskError):
            Receiver(state[:i] + bytes((state[i] ^ 1,)) + state[i + 1 :])
        with pytest.raises(DiskError):
            Receiver(state[:i])


def test_a_gap_is_told_once():
    receiver = Receiver()
    gap = encode_gap("g", "s", 1, 5, 3, "quota")
    assert receiver.feed("t/g", gap).gaps == [(5, 3, "quota")]
    assert receiver.feed("t/g", gap).gaps == [] and receiver.feed("t/g", gap).kind == GAP
