"""Taps: a bounded look at what flows by, that goes away by itself."""

import pytest
import rule_module as m
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.columns._batch import Batch
from edge.errors import TidegateError
from gateway.manage.tail import ANSWER_ROWS, EXPIRES_S, RING_ROWS, ROWS_PER_BATCH, ROWS_PER_SECOND, TAPS_MAX, Taps


class Stream:
    def __init__(self, name):
        self.name, self.tap = name, None


class World:
    def __init__(self):
        self.now, self.streams = 100.0, {f"s{i}": Stream(f"s{i}") for i in range(TAPS_MAX + 2)}
        self.taps = Taps(self.streams.get, clock=lambda: self.now)

    def flow(self, count, first=0, name="s0"):
        if self.streams[name].tap is not None:
            self.streams[name].tap(Batch.from_rows(m.STREAM, m.rows(count), first_sequence=first))


def test_what_flows_by_is_read_once_and_in_order():
    world = World()
    found = world.taps.read("s0")
    assert found["rows"] == [] and found["seen"] == 0
    for i in range(3):
        world.flow(2, first=2 * i)
    found = world.taps.read("s0", found["next"])
    assert [row["sequence"] for row in found["rows"]] == list(range(6)) and found["rows"][1]["t"] == 1.0
    assert (found["seen"], found["sampled"]) == (6, 6)
    assert world.taps.read("s0", found["next"])["rows"] == []


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.tuples(st.integers(0, 90), st.floats(0, 1.5)), max_size=60))
def test_a_tap_takes_no_more_than_its_bounds(batches):
    world, second, taken = World(), [], 0
    world.taps.read("s0")
    for count, wait in batches:
        world.now += wait
        world.taps.read("s0")
        world.flow(count)
        found = world.streams["s0"].tap.read(0)
        second = [(at, n) for at, n in second if at > world.now - 1] + [(world.now, found["sampled"] - taken)]
        assert found["sampled"] - taken <= min(ROWS_PER_BATCH, count)
        assert sum(n for _, n in second) <= 2 * ROWS_PER_SECOND
        assert count == 0 or found["sampled"] > taken or sum(n for _, n in second) >= ROWS_PER_SECOND
        taken = found["sampled"]
        assert len(found["rows"]) <= ANSWER_ROWS and len(world.streams["s0"].tap._rows) <= RING_ROWS
    assert found["seen"] == sum(count for count, _ in batches) if batches else True


def test_rows_are_taken_from_all_over_a_large_batch():
    world = World()
    world.taps.read("s0")
    world.flow(1000)
    sequences = [row["sequence"] for row in world.taps.read("s0", 0)["rows"]]
    assert len(sequences) == ROWS_PER_BATCH and sequences == sorted(set(sequences)) and max(sequences) >= 900


def test_a_tap_that_nobody_asks_goes_away_at_the_next_batch():
    world = World()
    world.taps.read("s0")
    world.now += EXPIRES_S + 0.1
    world.flow(5)
    assert world.streams["s0"].tap is None
    assert world.taps.read("s0", 3)["rows"] == [], "asked again, it begins anew"
    world.flow(1)
    assert len(world.taps.read("s0", 0)["rows"]) == 1


def test_the_number_of_watched_streams_is_bounded():
    world = World()
    for i in range(TAPS_MAX):
        world.taps.read(f"s{i}")
    with pytest.raises(TidegateError, match="watched already"):
        world.taps.read(f"s{TAPS_MAX}")
    world.now += EXPIRES_S + 1
    world.taps.read(f"s{TAPS_MAX}")
    assert [s.name for s in world.streams.values() if s.tap is not None] == [f"s{TAPS_MAX}"]
    with pytest.raises(TidegateError, match="no stream"):
        world.taps.read("other")


def test_a_stream_that_a_swap_replaced_is_watched_anew():
    world = World()
    world.taps.read("s0")
    world.streams["s0"] = Stream("s0")
    assert world.taps.read("s0", 5)["rows"] == []
    world.flow(2)
    assert len(world.taps.read("s0", 0)["rows"]) == 2
