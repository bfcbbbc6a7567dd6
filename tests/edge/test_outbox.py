"""An outbox keeps each row, once, in order, and its accounts say where it is: while rows gather, when the disk refuses, when the quota is used up, when it is cut back."""

import random

import msgpack
import pytest
from memory_disk import MemoryDisk

import edge.outbox
from edge.codec.batches import decode_columns, encode_columns
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.errors import DiskError
from edge.outbox import BLUR_NS, GATHER_ROWS, SMALL_ROWS, STEPS_MAX, Outbox
from edge.storage.log import Log
from edge.storage.records import BATCH, GAP, JUMP, SCHEMA

TIMED = Schema("timed", (Field("v", "i64"), Field("at", "time")), time="at")
PLAIN = Schema("plain", (Field("v", "i64"),))
NOISE, NOISY = random.Random(1), 40          # a batch of 40 rows has values that no column shortens


class Stream:
    def __init__(self, number, schema):
        self.number, self.name, self.schema = number, schema.stream, schema
        self.sequence = 0

    def batch(self, count, received_ns=0, clock=0, schema=None, first=None):
        first = self.sequence if first is None else first
        rows = [{"v": NOISE.randrange(1 << 60) if count == NOISY else n} | ({"at": n} if self.schema.time else {}) for n in range(first, first + count)]
        batch = Batch.from_rows(schema or self.schema, rows, first_sequence=first, received_ns=received_ns)
        batch.clock = clock
        self.sequence = first + count
        return batch


def made(*, gathers=True, evict=True, quota=1 << 20, make_room=None, disk=None):
    log = Log(disk or MemoryDisk(), "data/outbox", quota_bytes_max=quota, on_evict=lambda *gap: outbox.on_evict(*gap))
    outbox = Outbox("lane", log, evict=evict, make_room=make_room)
    outbox.gathers = lambda: gathers
    return outbox, Stream(1, TIMED), Stream(2, PLAIN)


def put(outbox, stream, *counts, **options):
    for count in counts:
        batch = stream.batch(count, **options)
        outbox.append(stream, batch, encode_columns(batch))


def records(outbox):
    found, position = [], outbox.log.tail
    while some := outbox.log.read(position, 1 << 20):
        found += some
        position = found[-1].position + 1
    return found


def held(outbox, kind=BATCH):
    """(stream, first, count) of the log's records."""
    return [(r.stream, r.first, r.count) for r in records(outbox) if r.kind == kind]


def kept(outbox):
    """Its state, as a checkpoint keeps it."""
    outbox.write()
    return msgpack.unpackb(msgpack.packb(outbox.state()), strict_map_key=False)


def left_behind():
    """(outbox, a state of then): two records stood there then, one came since, and those two went."""
    outbox, timed, _ = made(gathers=False)
    put(outbox, timed, 3, 2)
    state = kept(outbox)
    outbox.log.roll()
    put(outbox, timed, 2)
    outbox.writer.sync()
    outbox.log.drop_before(2)
    return outbox, state


def test_rows_gather_while_nobody_reads_and_are_written_together():
    outbox, timed, plain = made()
    put(outbox, timed, 3, 4)
    put(outbox, plain, 2)
    put(outbox, timed, 1)
    assert held(outbox) == [] and outbox.take_fresh() == 10 and outbox.take_fresh() == 0
    outbox.write()
    outbox.write()
    assert held(outbox) == [(1, 0, 8), (2, 0, 2)]
    first = outbox.log.read(0)[0]
    assert decode_columns(first.payload, TIMED).rows() == [{"v": n, "at": n} for n in range(8)]
    assert outbox.appended == {1: 8, 2: 2} and outbox.names == {1: "timed", 2: "plain"}


def test_while_somebody_reads_each_batch_is_written_as_it_comes():
    outbox, timed, plain = made(gathers=False)
    put(outbox, timed, 3, 4)
    put(outbox, plain, 1)
    assert held(outbox) == [(1, 0, 3), (1, 3, 4), (2, 0, 1)]


def test_a_large_batch_is_written_at_once_behind_what_waits():
    outbox, timed, plain = made()
    put(outbox, timed, 3)
    put(outbox, plain, SMALL_ROWS)
    put(outbox, timed, SMALL_ROWS + 1)
    assert held(outbox) == [(1, 0, 3), (2, 0, SMALL_ROWS), (1, 3, SMALL_ROWS + 1)]


def test_what_gathers_is_bounded_in_rows_over_all_streams(monkeypatch):
    monkeypatch.setattr(edge.outbox, "GATHER_BYTES", 1 << 40)
    outbox, timed, plain = made()
    full, rest = divmod(GATHER_ROWS, 2 * SMALL_ROWS)
    for _ in range(full):
        put(outbox, timed, SMALL_ROWS)
        put(outbox, plain, SMALL_ROWS)
    assert held(outbox) == [] and not rest
    put(outbox, timed, 1)
    assert held(outbox) == [(1, 0, GATHER_ROWS // 2), (2, 0, GATHER_ROWS // 2)]
    for _ in range(2 * full - 1):
        put(outbox, plain, SMALL_ROWS)
    assert len(held(outbox)) == 2
    put(outbox, plain, SMALL_ROWS)
    assert len(held(outbox)) == 4, "a row of the other stream counts, too"


def test_what_gathers_is_bounded_in_memory(monkeypatch):
    outbox, timed, _ = made()
    put(outbox, timed, 10)
    monkeypatch.setattr(edge.outbox, "GATHER_BYTES", outbox._bytes)
    put(outbox, timed, 1)
    assert held(outbox) == [] and outbox._bytes > 0
    monkeypatch.setattr(edge.outbox, "GATHER_BYTES", outbox._bytes - 1)
    put(outbox, timed, 1)
    assert held(outbox) == [(1, 0, 11)]
    outbox.write()
    assert held(outbox) == [(1, 0, 11), (1, 11, 1)] and outbox._bytes == 0


def test_what_need_not_be_encoded_is_not_and_what_is_comes_back():
    outbox, timed, _ = made()
    assert outbox.append(timed, timed.batch(1)) is None and outbox.append(timed, timed.batch(1), b"given") == b"given"
    large = timed.batch(SMALL_ROWS + 1)
    assert outbox.append(timed, large) == encode_columns(large)
    outbox.gathers = lambda: False
    assert outbox.append(timed, (one := timed.batch(1))) == encode_columns(one)
    assert held(outbox) == [(1, 0, 2), (1, 2, SMALL_ROWS + 1), (1, SMALL_ROWS + 3, 1)]


def test_rows_may_leave_once_their_cause_is_durable():
    """take_fresh() says so."""
    outbox, timed, _ = made(gathers=False)
    assert outbox.cleared == 0
    put(outbox, timed, 1)
    assert outbox.cleared == 0 and outbox.take_fresh() == 1 and outbox.cleared == 1
    outbox.gathers = lambda: True
    put(outbox, timed, 1)
    outbox.write()
    assert outbox.cleared == 1
    outbox.take_fresh()
    put(outbox, timed, 1)
    outbox.take_fresh()                  # while they gather
    outbox.write()
    assert outbox.cleared == 3
    state = kept(outbox)
    put(outbox, timed, 1)
    outbox.write()
    outbox.take_fresh()
    outbox.cut_back(state, {})
    assert outbox.cleared == 3


@pytest.mark.parametrize("stream, options, joins", [
    (0, {}, True), (0, {"first": 6}, False), (0, {"first": 4}, False), (0, {"clock": 1}, False), (0, {"schema": Schema("timed", TIMED.fields, time="at")}, False),
    (0, {"received_ns": 10 * BLUR_NS}, True), (1, {"received_ns": BLUR_NS}, True), (1, {"received_ns": -BLUR_NS}, True), (1, {"received_ns": BLUR_NS + 1}, False),
    (1, {"received_ns": -BLUR_NS - 1}, False)])
def test_rows_join_only_where_one_record_can_say_all_of_them(stream, options, joins):
    outbox, *streams = made()
    put(outbox, streams[stream], 5)
    put(outbox, streams[stream], 2, **options)
    assert (held(outbox) == []) == joins
    outbox.write()
    assert held(outbox) == ([(stream + 1, 0, 7)] if joins else [(stream + 1, 0, 5), (stream + 1, options.get("first", 5), 2)])


def test_a_gathered_batch_keeps_the_time_and_clock_of_its_first():
    outbox, _, plain = made()
    put(outbox, plain, 1, received_ns=100, clock=1)
    put(outbox, plain, 1, received_ns=200, clock=1)
    outbox.write()
    batch = decode_columns(outbox.log.read(0)[0].payload, PLAIN)
    assert (batch.received_ns, batch.clock, batch.rows()) == (100, 1, [{"v": 0}, {"v": 1}])


def test_room_is_asked_for_before_each_record_but_not_while_the_disk_refuses():
    asked = []
    outbox, timed, plain = made(make_room=lambda box, payload: asked.append((box is outbox, len(payload))))
    put(outbox, timed, 3)
    put(outbox, plain, 2)
    assert asked == []
    outbox.write()
    assert [own for own, _ in asked] == [True, True] and all(size for _, size in asked)
    append, outbox.log.append = outbox.log.append, lambda *record: (_ for _ in ()).throw(DiskError("full"))
    outbox.put(1, "timed", 3, 1, b"x")
    outbox.put(1, "timed", 4, 1, b"x")
    assert len(asked) == 3 and outbox.writer.waiting == 2 and outbox.blocked == "outbox lane: the disk refuses 2 records"
    outbox.log.append = append
    outbox.flush()
    assert outbox.blocked == "" and held(outbox)[-2:] == [(1, 3, 1), (1, 4, 1)]


def test_a_step_of_the_clock_is_behind_what_waited_for_the_disk_then_whatever_got_in_before_it():
    outbox, timed, plain = made(gathers=False)
    put(outbox, plain, 1)
    append, outbox.log.append = outbox.log.append, lambda *record: (_ for _ in ()).throw(DiskError("full"))
    put(outbox, plain, 1)
    outbox.clock_set(500)
    outbox.log.append = append
    outbox.log._preamble = lambda: [(SCHEMA, n, b"x") for n in range(3)]
    outbox.log.roll()
    outbox.flush()
    put(outbox, plain, 1)
    assert [outbox.set_since(r.position) for r in records(outbox) if r.kind == BATCH] == [(500, True), (500, True), (0, True)]


def test_it_is_blocked_at_its_quota_unless_it_may_evict():
    for evict in (True, False):
        outbox, timed, _ = made(gathers=False, evict=evict, quota=20_000)
        outbox.log.keep_from = 0
        assert outbox.blocked == ""
        for _ in range(200):
            put(outbox, timed, 40)
        assert outbox.blocked == ("" if evict else "outbox lane is at its quota and may not evict (lanes.lane.full)")


def test_what_is_evicted_is_counted_and_announced_with_the_position_that_it_stood_before():
    outbox, timed, _ = made(gathers=False, quota=20_000)
    for _ in range(300):
        put(outbox, timed, 40)
    evicted = outbox.evicted[1]
    gaps = held(outbox, GAP)
    assert evicted and gaps and held(outbox)[0] == (1, evicted, 40)
    told = {n for _, first, count in gaps for n in range(first, first + count)}
    assert told == set(range(evicted)), "gaps that are evicted are announced again"
    payloads = [msgpack.unpackb(r.payload) for r in records(outbox) if r.kind == GAP]
    assert [p for p in payloads if isinstance(p, int)][-1] == outbox.log.evicts_before == outbox.log.tail
    assert [p for p in payloads if p == [outbox.log.tail]], "a gap's gap says that it is one: its rows are counted already"
    assert outbox.on_evict(GAP, 1, 0, 7) == 0 and outbox.on_evict(BATCH, 1, 0, 7) == 7 and outbox.evicted[1] == evicted + 7
    assert [msgpack.unpackb(r.payload) for r in records(outbox)[-2:]] == [[outbox.log.tail], outbox.log.tail] and outbox.state()["evicted_to"] == {1: evicted}
    row, = outbox.accounts({}, {})
    assert row.out["evicted"] == evicted + 7 and row.difference == 0


def test_cut_back_it_is_as_it_was_but_for_what_was_evicted_since():
    outbox, timed, _ = made(gathers=False, quota=20_000)
    for _ in range(20):
        put(outbox, timed, 40)
    state, appended = kept(outbox), dict(outbox.appended)
    for _ in range(300):
        put(outbox, timed, 40)
    assert outbox.evicted[1] > 800, "all that stood there then is gone, and more"
    outbox.cut_back(state, {1: 800})
    assert outbox.log.head > state["head"] and outbox.appended == appended and outbox.evicted == {1: 800}
    assert {n for _, first, count in held(outbox, GAP) for n in range(first, first + count)} == set(range(800)) and held(outbox) == []


def test_cut_back_gaps_of_rows_that_are_numbered_anew_are_forgotten():
    outbox, state = left_behind()
    for number, first, count in ((1, 3, 4), (1, 5, 2), (1, 6, 1), (9, 0, 2)):
        outbox.writer.append(GAP, number, first, count, msgpack.packb(2))
    outbox.writer.append(GAP, 1, 0, 1, b"")
    outbox.cut_back(state, {1: 5})
    assert held(outbox, GAP) == [(1, 3, 2)] and outbox.evicted == {1: 2} and held(outbox) == []


def test_a_state_that_was_taken_is_not_changed_by_what_comes_after():
    outbox, timed, _ = made(gathers=False)
    put(outbox, timed, 5)
    outbox.clock_set(7)
    kept = msgpack.packb(state := outbox.state())
    again, _, _ = made()
    again.load(state)
    assert again.state() | {"head": 1} == state
    again.appended[1] += 1
    again.evicted[1] = 1
    again.names[3] = "x"
    again._steps[0][1] += 1
    assert msgpack.packb(state) == kept
    again.load({name: value for name, value in state.items() if name != "steps"})         # of an older version
    assert again.set_since(0) == (0, True)


def test_how_far_the_clock_was_set_since_a_row_was_stored_is_known():
    outbox, timed, _ = made()
    put(outbox, timed, 1)
    outbox.clock_set(100)                # what gathered is of the time before
    put(outbox, timed, 1)
    outbox.clock_set(10)
    outbox.write()
    assert held(outbox) == [(1, 0, 1), (1, 1, 1)]
    assert [outbox.set_since(position) for position in (0, 1, 2)] == [(110, True), (10, True), (0, True)]
    outbox.begin()                       # another run: nobody knows how long the gateway was off
    outbox.clock_set(1)
    assert [outbox.set_since(position) for position in (0, 1, 2)] == [(110, True), (10, True), (0, True)]
    put(outbox, timed, 1)
    outbox.clock_set(2)
    assert [outbox.set_since(position) for position in (0, 1, 2)] == [(110, True), (10, True), (2, True)]
    again, _, _ = made()
    again.load(kept(outbox))
    assert again.since == outbox.since == 2 and again.set_since(1) == (10, True)


def test_steps_of_the_clock_are_bounded_and_the_oldest_count_as_one():
    outbox, timed, _ = made(gathers=False)
    for i in range(STEPS_MAX + 2):
        put(outbox, timed, 1)
        outbox.clock_set(1 << i)
    assert len(outbox.state()["steps"]) == STEPS_MAX
    whole = (1 << STEPS_MAX + 2) - 1
    assert [outbox.set_since(p)[0] for p in (0, 1, 2, 3, STEPS_MAX + 1, STEPS_MAX + 2)] == [whole, whole, whole, whole - 7, 1 << STEPS_MAX + 1, 0]


def test_accounts_say_where_each_row_is_also_under_a_new_number():
    outbox, timed, _ = made(gathers=False)
    put(outbox, timed, 100)
    newer = Stream(7, TIMED)
    put(outbox, newer, 10)
    outbox.put(8, "other", 0, 5, b"")
    outbox.evicted = {1: 50}
    rows = {a.name: a for a in outbox.accounts({1: 70, 7: 1}, {1: 2})}
    assert {name: (a.kind, a.into, a.out) for name, a in rows.items()} == {
        "lane/timed": ("lane", 110, {"acknowledged": 71, "dead_lettered": 2, "evicted": 28, "pending": 9}),
        "lane/other": ("lane", 5, {"acknowledged": 0, "dead_lettered": 0, "evicted": 0, "pending": 5})}
    outbox.names.pop(8)
    assert "lane/8" in {a.name for a in outbox.accounts({}, {})}
    assert outbox.numbers_waiting({1: 99, 7: 9, 8: 5}, {1: 1}) == {7} and outbox.numbers_waiting({}, {}) == {1, 7, 8}


def test_what_is_found_without_a_checkpoint_is_accounted_for():
    outbox, _, _ = made()
    end = None
    for kind, first, count in ((BATCH, 0, 5), (GAP, 5, 3), (BATCH, 8, 2), (BATCH, 14, 1), (GAP, 3, 1), (BATCH, 15 + JUMP, 1)):
        end = outbox.adopt("timed", type("Record", (), {"kind": kind, "stream": 1, "first": first, "count": count}), end)
    assert outbox.appended == {1: 13} and outbox.names == {1: "timed"}, "four that are missing, and numbers left out are no rows"


def test_rows_that_the_end_of_a_log_lacks_are_announced_and_counted_as_gone():
    outbox, timed, plain = made()
    end = outbox.adopt("timed", type("Record", (), {"kind": BATCH, "stream": 5, "first": 0, "count": 5}), None)        # its number of then
    timed.next_sequence, plain.next_sequence = 8 + JUMP, 3
    outbox.lacks_from(end, timed)
    outbox.lacks_from(None, plain)       # nothing of it is here, and nobody knows what was
    assert held(outbox, GAP) == [(1, 5, 3 + JUMP)] and outbox.appended == {5: 5, 1: 3} and outbox.evicted == {1: 3}
    row, = outbox.accounts({5: 5}, {})
    assert row.out == {"acknowledged": 5, "dead_lettered": 0, "evicted": 3, "pending": 0}
    end = outbox.adopt("timed", type("Record", (), {"kind": GAP, "stream": 1, "first": 5, "count": 3 + JUMP}), end)
    outbox.lacks_from(end, timed)
    assert len(held(outbox, GAP)) == 1


def test_only_what_is_lost_before_a_state_is_lost():
    outbox, timed, _ = made(gathers=False)
    put(outbox, timed, 3, 3, 3, 3)
    state = kept(outbox)
    put(outbox, timed, 3, 3)
    outbox.log.recovery.lost += [(1, 2), (3, 5), (4, 6)]
    outbox.cut_back(state, {1: 12})
    assert outbox.log.recovery.lost == [(1, 2), (3, 4)]
    outbox.log.truncate(2)               # what was durable is gone
    outbox.cut_back(state, {1: 12})
    assert outbox.log.recovery.lost == [(1, 2), (3, 4), (2, 4)] and outbox.log.head == 4


def test_what_is_left_out_stands_behind_the_rows_before_it():
    outbox, timed, _ = made()
    put(outbox, timed, 3)
    outbox.leave_out(1, 3, JUMP)
    assert held(outbox) == [(1, 0, 3)] and held(outbox, GAP) == [(1, 3, JUMP)]
    assert [r.kind for r in records(outbox)] == [BATCH, GAP]


def test_rows_that_stand_in_no_file_yet_are_not_taken_for_gone():
    outbox = Outbox("lane", Log(MemoryDisk(), "outbox/lane", quota_bytes_max=1 << 20), evict=True)
    outbox.put(1, "s", 0, 5, b"five rows")
    lane = {"ranges": [[0, None]], "rows_acked": {}, "rows_dead": {}, "rows_waiting": 5}
    outbox._reckon(lane)
    assert lane["rows_acked"] == {} and lane["rows_waiting"] == 5
