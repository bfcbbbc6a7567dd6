"""Watermarks: event-time progress by key."""

from hypothesis import given, strategies as st

from edge._watermark import FORGOTTEN, Watermarks
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema

S = 10**9
KEYED = Schema("env", (Field("device", "str"), Field("ts", "time")), key="device", time="ts")
PLAIN = Schema("env", (Field("ts", "time"),), time="ts")


def batch(rows, received, schema=KEYED):
    return Batch.from_rows(schema, [dict(zip([f.name for f in schema.fields], r if isinstance(r, tuple) else (r,))) for r in rows], received_ns=received)


def test_a_keys_watermark_is_its_latest_event_less_the_lateness():
    w = Watermarks(lateness_ns=2 * S)
    w.observe(batch([("a", 10 * S), ("b", 7 * S), ("a", 9 * S)], 10 * S))
    assert (w.watermark(b"a"), w.watermark(b"b"), w.watermark(b"c")) == (8 * S, 5 * S, None)


def test_a_clock_in_the_future_counts_only_up_to_the_allowed_skew_and_touches_no_other_key():
    w = Watermarks(skew_ns=60 * S)
    w.observe(batch([("mad", 10**6 * S), ("honest", 10 * S)], 10 * S))
    assert w.watermark(b"mad") == 70 * S
    assert w.watermark(b"honest") == 10 * S


def test_a_clock_hours_behind_makes_its_own_time_and_nobody_late():
    w = Watermarks(idle_ns=30 * S)
    w.observe(batch([("slow", 10 * S), ("good", 7210 * S)], 7210 * S))
    w.tick(KEYED, 7211 * S)
    assert w.watermark(b"slow") == 10 * S
    assert w.watermark(b"good") == 7210 * S


def test_a_silent_key_goes_on_in_its_own_time_and_is_announced():
    w = Watermarks(lateness_ns=1 * S, idle_ns=30 * S)
    w.observe(batch([("slow", 10 * S), ("good", 1010 * S)], 1010 * S))
    assert w.tick(KEYED, 1040 * S) is None
    w.observe(batch([("good", 1041 * S)], 1041 * S))
    tick = w.tick(KEYED, 1050 * S)
    assert len(tick) == 0 and tick.received_ns == 1050 * S
    assert w.watermark(b"slow") == 10 * S + 10 * S - 1 * S
    assert w.watermark(b"good") == 1040 * S


def test_a_key_silent_for_long_is_forgotten_once():
    w = Watermarks(forget_ns=100 * S)
    w.observe(batch([("a", 1 * S)], 1 * S))
    assert w.tick(KEYED, 200 * S) is not None
    assert len(w) == 0
    assert w.tick(KEYED, 300 * S) is None


def test_at_its_limit_the_table_forgets_the_longest_silent():
    w = Watermarks(capacity=16)
    for i in range(40):
        w.observe(batch([(f"k{i}", i * S)], i * S))
        assert len(w) <= 16
    assert w.watermark(b"k39") == 39 * S and w.watermark(b"k0") is None


def test_a_clock_that_is_set_does_not_make_keys_silent():
    w = Watermarks(idle_ns=30 * S)
    w.observe(batch([("a", 1000 * S)], 5 * S))
    w.shift(10**9 * S)
    assert w.tick(KEYED, 10**9 * S + 6 * S) is None


def test_without_a_key_the_stream_is_one_key():
    w = Watermarks()
    b = batch([5 * S, 3 * S], 5 * S, PLAIN)
    w.observe(b)
    assert b.watermark_ns == 5 * S


def test_the_merged_watermark_is_the_slowest_of_the_active_and_never_goes_back():
    w = Watermarks(idle_ns=30 * S)
    w.observe(batch([("a", 10 * S), ("b", 20 * S)], 20 * S))
    w.tick(KEYED, 21 * S)
    assert w.merged_ns == 10 * S
    w.observe(batch([("a", 15 * S), ("c", 1 * S)], 22 * S))
    w.tick(KEYED, 23 * S)
    assert w.merged_ns == 10 * S


events = st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(-100, 10**4)), max_size=6), max_size=20)


@given(events, st.integers(0, 50), st.integers(0, 19))
def test_watermarks_never_go_back_and_survive_a_restart(batches, lateness, cut):
    live = Watermarks(lateness_ns=lateness, idle_ns=5, skew_ns=100, forget_ns=40, capacity=4)
    twin = None
    last = {}
    for i, rows in enumerate(batches):
        if i == cut:
            twin = Watermarks(lateness_ns=lateness, idle_ns=5, skew_ns=100, forget_ns=40, capacity=4)
            twin.load(live.dump())
        for w in filter(None, (live, twin)):
            w.observe(batch(rows, i * 7))
            w.tick(KEYED, i * 7 + 3)
        for key in "abcdef":
            now = live.watermark(key.encode())
            assert now is None or now >= last.get(key, now)
            assert now != FORGOTTEN
            last.pop(key, None) if now is None else last.update({key: now})
            assert twin is None or twin.watermark(key.encode()) == now
    assert twin is None or twin.dump() == live.dump()
