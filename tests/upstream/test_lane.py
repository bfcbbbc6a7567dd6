"""What a lane promises about order, grouping, pace and its cursor, on a clock that the test sets."""

import json
import random

import msgpack
import pytest
from edge._batch import Batch
from edge.codec import encode_columns
from edge.errors import ConfigError
from edge.records import BATCH, GAP, SCHEMA
from edge.schema import Field, Schema
from gateway.lane import RANGES_MAX, Lane, _merged
from gateway.policy import Policy

from fake_log import FakeLog
from world import STREAMS, FakeUpstream, Source, sequences


def copy(state):
    return msgpack.unpackb(msgpack.packb(state), strict_map_key=False)


def sent(messages):
    return [(m.topic, bytes(m.payload), m.retain) for m in messages]


def all_of(stream, start, stop):
    return [(stream, i) for i in range(start, stop)]


@pytest.mark.parametrize("wrong", [
    dict(encoding="xml"), dict(size_bytes_max=0), dict(rows_max=0), dict(age_ms=-1), dict(window=0), dict(rate_bytes_s=-1),
    dict(topic="a/+/b"), dict(topic="a/#"), dict(topic="$SYS/x"), dict(topic=""), dict(topic="a/{device}"), dict(topic="a/{stream"),
    dict(topic="a/{0}"), dict(topic="a/{stream!r}"), dict(topic="a\x00b"), dict(topic="x" * 2000), dict(topic="/a"), dict(age_ms=1.5)])
def test_policy_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError):
        Policy(**wrong)


def test_gateway_name_must_be_one_topic_level():
    with pytest.raises(ConfigError):
        Lane("telemetry", Source().log, STREAMS, Policy(), gateway="a/b", epoch=1)


def test_rows_wait_for_company_until_they_are_old():
    s = Source(age_ms=500)
    world = FakeUpstream(s.lane)
    s.put(10)
    assert world.messages(s.lane) == []
    assert s.lane.due_at(world.now) == pytest.approx(world.now + 0.5)
    world.now += 0.3
    s.put(10)
    assert world.messages(s.lane) == []
    world.now += 0.2
    messages = world.messages(s.lane)
    assert len(messages) == 1 and messages[0].rows == 20
    assert sequences(sent(messages)) == all_of("temps", 0, 20)


def test_full_message_goes_before_its_age():
    s = Source(age_ms=60_000, rows_max=100)
    world = FakeUpstream(s.lane)
    s.put(30, records=10)
    messages = world.messages(s.lane)
    assert [m.rows for m in messages] == [100, 20, 100, 20]
    assert sequences(sent(messages)) == all_of("temps", 0, 240)


@pytest.mark.parametrize("encoding", ["batch", "jsonl", "json"])
def test_no_message_exceeds_the_size_limit(encoding):
    s = Source(age_ms=0, size_bytes_max=2000, window=1000, encoding=encoding)
    world = FakeUpstream(s.lane)
    s.put(1000)
    messages = world.messages(s.lane)
    assert all(len(m.payload) <= 2000 for m in messages)
    assert sum(m.rows for m in messages) == 1000
    if encoding == "batch":
        assert sequences(sent(messages)) == all_of("temps", 0, 1000)
    elif encoding == "jsonl":
        lines = b"".join(m.payload for m in messages).splitlines()
        assert [json.loads(line)["v"] for line in lines] == [float(i) for i in range(1000)]
    else:
        assert [json.loads(m.payload)["v"] for m in messages] == [float(i) for i in range(1000)]


def test_servers_packet_limit_counts_too():
    s = Source(age_ms=0, window=1000)
    world = FakeUpstream(s.lane)
    s.lane.disconnected()
    s.lane.connected(packet_bytes_max=600)
    s.put(200)
    messages = world.messages(s.lane)
    assert all(len(m.payload) + len(m.topic) + 20 < 600 for m in messages)
    assert sequences(sent(messages)) == all_of("temps", 0, 200)


@pytest.mark.parametrize("encoding", ["batch", "jsonl", "json"])
def test_row_that_fits_no_message_is_dead_lettered_and_blocks_nothing(encoding):
    dead = []
    s = Source(age_ms=0, size_bytes_max=1000, encoding=encoding, dead=lambda *a: dead.append(a))
    world = FakeUpstream(s.lane)
    s.put(1)
    s.put(1, text="".join(random.Random(1).choices("abcdefghijklmnop0123456789", k=3000)))
    s.put(1)
    messages = world.messages(s.lane)
    assert sum(m.rows for m in messages) == 2
    assert [(stream, first, count) for stream, first, count, _ in dead] == [(7, 1, 1)]
    assert s.lane.rows_dead == {7: 1}
    for m in messages:
        s.lane.acknowledged(m)
    assert s.lane.acked_before == 3 and s.lane.rows_waiting == 0


def test_unreadable_record_is_dead_lettered_and_blocks_nothing():
    dead = []
    s = Source(age_ms=0, dead=lambda *a: dead.append(a))
    world = FakeUpstream(s.lane)
    s.log.append(BATCH, 7, 100, 5, b"not columns")
    s.log.append(BATCH, 99, 0, 2, b"")
    s.put(3)
    messages = world.messages(s.lane)
    assert sum(m.rows for m in messages) == 3
    assert [(stream, first, count) for stream, first, count, _ in dead] == [(7, 100, 5), (99, 0, 2)]
    assert "99" in dead[1][3]
    for m in messages:
        s.lane.acknowledged(m)
    assert s.lane.acked_before == 3


def test_cursor_moves_over_the_contiguous_acknowledged_prefix_only():
    s = Source(age_ms=0)
    world = FakeUpstream(s.lane)
    messages = []
    for _ in range(6):
        s.put(10)
        messages += world.messages(s.lane)
    assert len(messages) == 6
    for m in (messages[1], messages[2], messages[4]):
        s.lane.acknowledged(m)
    assert s.lane.acked_before == 0
    assert s.lane.state()["ranges"] == [[0, 1], [3, 4], [5, None]]
    s.lane.acknowledged(messages[0])
    assert s.lane.acked_before == 3
    assert s.lane.rows_waiting == 20


def test_record_in_pieces_is_acknowledged_by_its_last_piece():
    s = Source(age_ms=0, rows_max=100, window=64)
    world = FakeUpstream(s.lane)
    s.put(250)
    messages = world.messages(s.lane)
    assert [m.rows for m in messages] == [100, 100, 50]
    s.lane.acknowledged(messages[2])
    s.lane.acknowledged(messages[0])
    assert s.lane.acked_before == 0
    s.lane.acknowledged(messages[1])
    assert s.lane.acked_before == 1


def test_window_bounds_what_is_in_flight():
    s = Source(age_ms=0, window=3, rows_max=10)
    world = FakeUpstream(s.lane)
    s.put(10, records=50)
    first = world.messages(s.lane)
    assert len(first) == 3
    s.lane.acknowledged(first[0])
    assert len(world.messages(s.lane)) == 1


def test_streams_do_not_mix_and_do_not_wait_for_each_other():
    s = Source(age_ms=0)
    world = FakeUpstream(s.lane)
    for _ in range(5):
        s.put(3, stream=7)
        s.put(2, stream=8)
    messages = world.messages(s.lane)
    assert sorted(m.topic for m in messages) == ["tidegate/g1/telemetry/doors", "tidegate/g1/telemetry/temps"]
    assert sorted(sequences(sent(messages))) == all_of("doors", 0, 10) + all_of("temps", 0, 15)
    s.lane.acknowledged(messages[0])
    assert s.lane.acked_before == 1          # record 0 was temps, 1 doors


def test_gap_in_sequences_splits_messages():
    s = Source(age_ms=0)
    world = FakeUpstream(s.lane)
    s.put(5)
    s.sequences[7] = 9
    s.put(5)
    messages = world.messages(s.lane)
    assert sequences(sent(messages)) == all_of("temps", 0, 5) + all_of("temps", 9, 14)


def test_rate_cap_holds_on_a_fake_clock():
    s = Source(age_ms=0, rate_bytes_s=10_000, size_bytes_max=2000, window=1000)
    world = FakeUpstream(s.lane)
    total = 0
    for _ in range(200):                     # 20 seconds
        s.put(100, records=1)
        for m in world.messages(s.lane):
            total += m.size
            s.lane.acknowledged(m)
        due = s.lane.due_at(world.now)
        assert due is None or due > world.now
        world.now += 0.1
    assert 0.9 * 200_000 < total < 200_000 + 10_000 + 2_100


def test_live_data_goes_first_after_an_outage_and_backlog_leaves_it_room():
    s = Source(age_ms=0, rows_max=50, window=4)
    world = FakeUpstream(s.lane)
    s.lane.disconnected()
    s.put(50, records=200)
    s.lane.connected()
    backlog = world.messages(s.lane)
    assert len(backlog) == 3                 # one slot is kept for live data
    s.put(50)
    live = world.messages(s.lane)
    assert sequences(sent(live)) == all_of("temps", 10_000, 10_050)
    for m in backlog + live:
        s.lane.acknowledged(m)
    assert s.lane.state()["ranges"] == [[3, 200], [201, None]]
    seen = sequences(sent(backlog + live))
    while batch := world.messages(s.lane):
        seen += sequences(sent(batch))
        for m in batch:
            s.lane.acknowledged(m)
    assert sorted(seen) == all_of("temps", 0, 10_050)
    assert s.lane.acked_before == 201 and s.lane.rows_waiting == 0


def test_backlog_takes_half_of_the_rate_burst_at_most():
    s = Source(age_ms=0, rate_bytes_s=20_000, size_bytes_max=1000, window=1000)
    world = FakeUpstream(s.lane)
    s.lane.disconnected()
    s.put(20, records=1000)
    s.lane.connected()
    drained = sum(m.size for m in world.messages(s.lane))
    assert 9_000 < drained < 11_100
    s.put(20)
    assert len(world.messages(s.lane, 1)) == 1


def test_short_backlog_keeps_its_order():
    s = Source(age_ms=0, window=100)
    world = FakeUpstream(s.lane)
    s.lane.disconnected()
    s.put(5, records=20)
    s.lane.connected()
    s.put(5)
    assert sequences(sent(world.messages(s.lane))) == all_of("temps", 0, 105)


def test_what_is_in_flight_at_a_disconnection_goes_again():
    s = Source(age_ms=0, rows_max=10, window=8)
    world = FakeUpstream(s.lane)
    s.put(10, records=5)
    first = world.messages(s.lane)
    s.lane.acknowledged(first[0])
    s.lane.acknowledged(first[3])
    s.lane.disconnected()
    assert s.lane.in_flight == 0
    s.lane.connected()
    again = sequences(sent(world.messages(s.lane)))
    assert again == all_of("temps", 10, 30) + all_of("temps", 40, 50)


def test_cursor_state_survives_a_restart():
    s = Source(age_ms=0, rows_max=10, window=8)
    world = FakeUpstream(s.lane)
    s.put(10, records=7)
    first = world.messages(s.lane)
    for i in (0, 2, 5):
        s.lane.acknowledged(first[i])
    state = copy(s.lane.state())
    s.log.drop_before(s.lane.acked_before)
    again = Source(log=s.log, age_ms=0, rows_max=10, window=8)
    again.lane.load(state)
    assert again.lane.acked_before == 1 and again.lane.rows_waiting == 40
    world = FakeUpstream(again.lane)
    rows = sequences(sent(world.messages(again.lane)))
    assert rows == all_of("temps", 10, 20) + all_of("temps", 30, 50) + all_of("temps", 60, 70)


def test_state_of_a_log_that_was_cut_back_loses_nothing_new():
    s = Source(age_ms=0)
    s.lane.load({"ranges": [[2, 9], [40, None]], "rows_waiting": 0, "rows_acked": {}, "rows_dead": {}, "meanings": []})
    world = FakeUpstream(s.lane)
    s.put(1, records=5)
    assert sequences(sent(world.messages(s.lane))) == all_of("temps", 0, 5)


def test_contexts_go_retained_before_rows_and_again_after_each_reconnect():
    s = Source(age_ms=0)
    world = FakeUpstream(s.lane)
    for _ in range(2):
        s.put(1)
        first, second = world.messages(s.lane)
        assert first.retain and first.rows == 0 and not second.retain and second.rows == 1
        s.put(1)
        third, = world.messages(s.lane)
        assert not third.retain
        for m in (first, second, third):
            s.lane.acknowledged(m)
        s.lane.disconnected()
        s.lane.connected()
    assert s.lane.acked_before == 4


def test_gap_records_pass_as_they_are():
    s = Source(age_ms=0)
    world = FakeUpstream(s.lane)
    s.put(3)
    s.log.append(GAP, 7, 3, 10, b"")
    s.sequences[7] = 13
    s.put(3)
    messages = world.messages(s.lane)
    assert len(messages) == 3 and messages[0].rows == messages[2].rows == 3 and messages[1].rows == 0
    for m in messages:
        s.lane.acknowledged(m)
    assert s.lane.acked_before == 3


def test_eviction_under_the_cursor_is_stepped_over():
    s = Source(age_ms=0, rows_max=10)
    world = FakeUpstream(s.lane)
    s.lane.disconnected()
    s.put(10, records=100)
    s.log.drop_before(90)
    s.lane.evicted(900)
    s.lane.connected()
    seen = []
    while batch := world.messages(s.lane):
        seen += sequences(sent(batch))
        for m in batch:
            s.lane.acknowledged(m)
    assert seen == all_of("temps", 900, 1000) and s.lane.rows_waiting == 0


def test_state_stays_small_and_covers_everything_unacknowledged():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(200):
        at, ranges = 0, []
        for _ in range(rng.randrange(1, 200)):
            start = at + rng.randrange(0, 5)
            at = start + rng.randrange(1, 5)
            ranges.append([start, at])
        ranges.append([at + rng.randrange(0, 3), None])
        merged, filled = _merged(ranges)
        assert len(merged) <= RANGES_MAX and merged[-1][1] is None
        assert all(a[1] < b[0] for a, b in zip(merged, merged[1:]))
        assert (filled == []) == (len(ranges) <= RANGES_MAX) or len(filled) < len(ranges)
        for start, stop in ranges:
            assert any(a <= start and (b is None or stop is not None and stop <= b) for a, b in merged)


def test_nothing_is_lost_whatever_is_acknowledged_and_cut():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(15):
        s = Source(age_ms=rng.choice([0, 50]), rows_max=rng.choice([7, 40]), window=rng.choice([1, 2, 5]), size_bytes_max=4000)
        world = FakeUpstream(s.lane)
        arrived, flying = set(), []
        for _ in range(300):
            act = rng.random()
            if act < 0.5:
                s.put(rng.randrange(1, 60), stream=rng.choice([7, 8]), records=rng.choice([1, 1, 100]))
            elif act < 0.55:
                s.lane.disconnected()
                flying.clear()
                if rng.random() < 0.3:
                    state = copy(s.lane.state())
                    s.log.drop_before(s.lane.acked_before)
                    fresh = Source(log=s.log, age_ms=20, rows_max=30, window=3)
                    fresh.sequences = s.sequences
                    fresh.lane.load(state)
                    s = fresh
                s.lane.connected()
            elif flying:
                m = flying.pop(rng.randrange(len(flying)))
                arrived.update(sequences(sent([m])))
                s.lane.acknowledged(m)
            world.now += rng.choice([0, 0.01, 0.1])
            flying += world.messages(s.lane)
            assert s.lane.in_flight == len(flying) <= s.lane.policy.window
        for _ in range(100_000):
            world.now += 1
            flying += world.messages(s.lane)
            if not flying:
                break
            m = flying.pop()
            arrived.update(sequences(sent([m])))
            s.lane.acknowledged(m)
        assert arrived == {("temps" if k == 7 else "doors", i) for k, n in s.sequences.items() for i in range(n)}
        assert s.lane.acked_before == s.log.head and s.lane.rows_waiting == 0
        assert s.lane.rows_acked == s.sequences      # each row once, however often it was sent


def schema_record(log, number, schema):
    log.append(SCHEMA, number, 0, 0, msgpack.packb(schema.to_dict()))


def test_a_number_means_what_the_log_says_at_the_record():
    old = Schema("pumps", (Field("rpm", "i64"), Field("at", "time")), time="at")
    log = FakeLog()
    schema_record(log, 7, old)
    rows = [{"rpm": i, "at": i} for i in range(4)]
    log.append(BATCH, 7, 0, 4, encode_columns(Batch.from_rows(old, rows)))
    s = Source(log=log, age_ms=0, encoding="jsonl")          # this process calls 7 temps
    world = FakeUpstream(s.lane)
    s.put(3)
    messages = world.messages(s.lane)
    assert [m.topic for m in messages] == ["tidegate/g1/telemetry/pumps", "tidegate/g1/telemetry/temps"]
    assert [json.loads(line)["rpm"] for line in messages[0].payload.splitlines()] == [0, 1, 2, 3]
    for m in messages:
        s.lane.acknowledged(m)
    assert s.lane.acked_before == log.head


def test_meanings_survive_a_restart_in_the_middle_of_a_segment():
    old = Schema("pumps", (Field("rpm", "i64"), Field("at", "time")), time="at")
    log = FakeLog()
    schema_record(log, 7, old)
    for i in range(3):
        log.append(BATCH, 7, 4 * i, 4, encode_columns(Batch.from_rows(old, [{"rpm": i, "at": i}] * 4, first_sequence=4 * i)))
    s = Source(log=log, age_ms=0, encoding="jsonl", rows_max=4, streams={7: old})
    world = FakeUpstream(s.lane)
    s.lane.acknowledged(world.messages(s.lane, 1)[0])
    state = copy(s.lane.state())
    assert state["ranges"] == [[2, None]]
    again = Source(log=log, age_ms=0, encoding="jsonl")      # a new configuration: 7 is temps now
    again.lane.load(state)
    world = FakeUpstream(again.lane)
    again.put(1)
    topics = [m.topic.rpartition("/")[2] for m in world.messages(again.lane)]
    assert topics == ["pumps", "temps"]
    state = copy(again.lane.state())
    assert {(number, data["stream"]) for _, number, data in state["meanings"]} == {(7, "pumps"), (7, "temps"), (8, "doors")}
