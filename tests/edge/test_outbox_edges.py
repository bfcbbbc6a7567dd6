"""An outbox at its bounds and with states of older versions, and what it reckons when rows went that no checkpoint knows of."""

import msgpack
import pytest
from memory_disk import MemoryDisk
from test_outbox import TIMED, Stream, held, kept, left_behind, made, put, records

import edge.outbox
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.errors import DiskError
from edge.outbox import BLUR_NS, GATHER_ROWS, SMALL_ROWS, Outbox
from edge.storage.log import Log
from edge.storage.records import BATCH, GAP


def plain_outbox():
    return Outbox("lane", Log(MemoryDisk(), "outbox/lane", quota_bytes_max=1 << 20), evict=True)


# --- what gathers

def test_until_somebody_says_that_nobody_reads_each_batch_is_written_as_it_comes():
    outbox, timed = plain_outbox(), Stream(1, TIMED)
    put(outbox, timed, 2, 3)
    assert held(outbox) == [(1, 0, 2), (1, 2, 3)]


def test_what_gathers_takes_a_quarter_of_a_mebibyte_with_its_strings_and_no_more():
    outbox, *_ = made()
    text = Stream(3, Schema("text", (Field("t", "str"),)))

    def more(rows):
        for n in range(text.sequence, text.sequence + rows):
            outbox.append(text, Batch.from_rows(text.schema, [{"t": f"{n:1000}"}], first_sequence=n))
        text.sequence += rows

    more(200)
    assert held(outbox) == []
    more(100)
    (_, first, rows), = held(outbox)
    assert first == 0 and 200 < rows < 300


def test_after_it_was_written_as_much_may_gather_as_before(monkeypatch):
    monkeypatch.setattr(edge.outbox, "GATHER_BYTES", 1 << 40)
    outbox, timed, plain = made(quota=1 << 24)
    put(outbox, timed, 7)
    outbox.write()
    for _ in range(GATHER_ROWS // SMALL_ROWS):
        put(outbox, plain, SMALL_ROWS)
    assert held(outbox) == [(1, 0, 7)]
    put(outbox, timed, 1)
    assert held(outbox)[1:] == [(2, 0, GATHER_ROWS)]


def test_rows_without_a_time_join_by_how_far_apart_they_came_whenever_that_was():
    outbox, _, plain = made()
    for received_ns in (10**18, 10**18 + BLUR_NS, 10**18 - BLUR_NS):
        put(outbox, plain, 1, received_ns=received_ns)
    outbox.write()
    assert held(outbox) == [(2, 0, 3)]


# --- steps of the clock

def test_of_several_steps_of_the_clock_the_last_alone_goes_along_with_what_waits_for_the_disk():
    outbox, _, plain = made(gathers=False)
    put(outbox, plain, 1)
    outbox.clock_set(30)
    put(outbox, plain, 1)
    append, outbox.log.append = outbox.log.append, lambda *record: (_ for _ in ()).throw(DiskError("full"))
    put(outbox, plain, 1)
    outbox.clock_set(500)
    outbox.log.append = append
    outbox.log._preamble = lambda: [(1, n, b"x") for n in range(3)]
    outbox.log.roll()
    outbox.flush()
    put(outbox, plain, 1)
    outbox.flush()                       # nothing waits, and nothing moves
    assert [outbox.set_since(r.position) for r in records(outbox) if r.kind == BATCH] == [(530, True), (500, True), (500, True), (0, True)]


# --- states

def test_the_state_of_an_outbox_that_had_nothing_says_so():
    assert plain_outbox().state() == {"head": 0, "appended": {}, "evicted": {}, "names": {}, "steps": [], "since": 0, "told_before": 0, "evicted_to": {}}


def test_a_state_of_an_older_version_is_read_and_what_it_did_not_know_counts_as_nothing():
    outbox = plain_outbox()
    outbox.load({"appended": {1: 5}, "evicted": {}, "names": {1: "timed"}, "steps": [[3, 100]]})
    state = outbox.state()
    assert (state["since"], state["told_before"], state["evicted_to"], state["steps"]) == (0, 0, {}, [[3, 100, 0]])
    outbox.put(1, "timed", 5, 1, b"x")
    outbox.clock_set(10)                 # in the same run as the step that the state has
    assert outbox.set_since(0) == (110, True) and outbox.state()["steps"] == [[3, 100, 0], [1, 10, 0]]


@pytest.mark.parametrize("older", [True, False])
def test_the_very_first_record_is_announced_when_it_alone_went_after_the_state(older):
    outbox, timed, _ = made(gathers=False)
    put(outbox, timed, 1)
    state = kept(outbox)
    if older:
        del state["told_before"], state["evicted_to"]
    outbox.log.roll()
    put(outbox, timed, 1)
    outbox.writer.sync()
    assert outbox.log.give_way() and outbox.log.tail == 1
    outbox.cut_back(state, {1: 1})
    assert held(outbox, GAP) == [(1, 0, 1)] and outbox.evicted == {1: 1}


def test_what_the_state_counts_already_is_not_announced_again():
    """The notice of it is there still: it goes after the checkpoint."""
    outbox, timed, _ = made(gathers=False)
    put(outbox, timed, 1)
    outbox.log.roll()
    put(outbox, timed, 1)
    outbox.writer.sync()
    assert outbox.log.give_way()
    outbox.writer.sync()
    state = kept(outbox)
    outbox.cut_back(state, {1: 2})
    assert outbox.log.head == state["head"] and held(outbox, GAP) == [(1, 0, 1)] and outbox.evicted == {1: 1} and outbox.log.notices.events == []


def test_only_what_is_announced_is_noted_for_the_next_start():
    outbox, state = left_behind()
    for number, first, count, before in ((1, 3, 2, 2), (9, 0, 2, 2), (1, 0, 1, 9)):       # a stream that has no number yet; a segment that is there
        outbox.writer.append(GAP, number, first, count, msgpack.packb(before))
    outbox.cut_back(state, {1: 5})
    assert outbox.log.notices.events == [(BATCH, 1, 3, 2, 2)] and held(outbox, GAP) == [(1, 3, 2)] and outbox.evicted == {1: 2}


# --- accounts

def test_what_upstream_took_after_the_state_is_put_right_in_its_lane_and_what_waits_stays():
    """Eight records: of the first seven the lane had the 1st, 6th and 7th acknowledged; then the next three were, and went."""
    outbox, timed, _ = made(gathers=False)
    for _ in range(8):
        put(outbox, timed, 3)
        outbox.log.roll()
    state = kept(outbox)
    outbox.log.drop_before(4)
    lane = {"ranges": [[1, 5], [7, None]], "rows_acked": {1: 9}, "rows_dead": {}, "rows_waiting": 15}
    outbox.cut_back(state, {1: 24}, lane)
    assert lane["rows_acked"] == {1: 18} and lane["rows_waiting"] == 6 and outbox.evicted == {}
    assert held(outbox)[0] == (1, 12, 3), "one that waits there"


def test_of_rows_that_went_upstream_has_what_is_not_evicted_and_none_counts_twice():
    outbox = plain_outbox()
    outbox.put(1, "a", 0, 3, b"x")
    outbox.put(2, "b", 0, 4, b"x")
    outbox.leave_out(1, 3, 2)
    outbox.appended = {1: 10, 2: 5, 3: 4, 4: 6, 5: 5, 6: 5}
    outbox.evicted = {4: 3, 5: 2, 6: 1}
    lane = {"ranges": [[0, None]], "rows_acked": {3: 4, 4: 4, 5: 5, 6: 7}, "rows_dead": {}, "rows_waiting": 99}
    outbox._reckon(lane)
    assert lane["rows_acked"] == {1: 7, 2: 1, 3: 4, 4: 4, 5: 5, 6: 7} and lane["rows_waiting"] == 7
    assert outbox.evicted == {4: 2, 5: 0, 6: 0}


def test_rows_that_arrive_after_they_were_evicted_are_no_loss():
    outbox = plain_outbox()
    outbox.evicted = {1: 5}
    for stream, rows, left in ((1, 2, 3), (1, 9, 0), (2, 1, 0), (3, 0, 0)):
        outbox.arrived(stream, rows)
        assert outbox.evicted[stream] == left


def test_accounts_never_count_more_rows_as_evicted_than_are_left_to_be():
    outbox = plain_outbox()
    outbox.put(1, "a", 0, 100, b"x")
    outbox.put(7, "a", 100, 10, b"x")
    outbox.evicted = {1: 50}
    for acknowledged in ({1: 100, 7: 10}, {1: 105, 7: 5}):           # also rows of before it had this number
        row, = outbox.accounts(acknowledged, {})
        assert row.out == {"acknowledged": 110, "dead_lettered": 0, "evicted": 0, "pending": 0} and row.difference == 0


def test_a_number_waits_from_its_first_row_on():
    outbox = plain_outbox()
    outbox.adopt("a", type("Record", (), {"kind": GAP, "stream": 1, "first": 0, "count": 5}), None)         # numbers that were left out, and no row
    outbox.put(2, "b", 0, 1, b"x")
    assert outbox.appended == {1: 0, 2: 1} and outbox.numbers_waiting({}, {}) == {2}
    assert outbox.numbers_waiting({2: 1}, {}) == outbox.numbers_waiting({}, {2: 1}) == set()
