"""What a lane promises about its cursor: nothing unacknowledged is forgotten, over disconnections and restarts."""

import json
import random

import msgpack
from edge.codec.batches import encode_columns
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.storage.records import BATCH, SCHEMA
from gateway.forward.lane import RANGES_MAX, _merged

from fake_log import FakeLog
from world import FakeUpstream, Source, sequences


def copy(state):
    return msgpack.unpackb(msgpack.packb(state), strict_map_key=False)


def sent(messages):
    return [(m.topic, bytes(m.payload), m.retain) for m in messages]


def all_of(stream, start, stop):
    return [(stream, i) for i in range(start, stop)]


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


def test_rows_that_are_evicted_while_under_way_and_acknowledged_after_all_have_arrived():
    """Of a message that held more, as many as went; each row waits, and is acknowledged, once."""
    said = []
    s = Source(age_ms=0, rows_max=20, arrived=lambda *rows: said.append(rows))
    world = FakeUpstream(s.lane)
    s.put(10, records=6)
    first, second, third = world.messages(s.lane)
    s.log.drop_before(3)
    s.lane.evicted(30)
    assert s.lane.rows_waiting == 30 and said == []
    s.lane.acknowledged(third)
    assert said == [] and s.lane.rows_waiting == 10
    s.lane.acknowledged(second)
    assert said == [(7, 10)] and s.lane.rows_waiting == 0
    s.lane.acknowledged(first)
    assert said == [(7, 10), (7, 20)] and s.lane.rows_acked == {7: 60} and s.lane.rows_waiting == 0


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
    for _ in range(6):
        s = Source(age_ms=rng.choice([0, 50]), rows_max=rng.choice([7, 40]), window=rng.choice([1, 2, 5]), size_bytes_max=4000)
        world = FakeUpstream(s.lane)
        arrived, flying, contexts = set(), [], {}

        def send():
            messages = world.messages(s.lane)
            sequences(sent([m for m in messages if m.retain]), contexts)
            return messages

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
                    fresh.sequences, fresh.lane.pace = s.sequences, s.lane.pace
                    fresh.lane.load(state)
                    s = fresh
                s.lane.connected()
            elif flying:
                m = flying.pop(rng.randrange(len(flying)))
                arrived.update(sequences(sent([m]), contexts))
                s.lane.acknowledged(m)
            world.now += rng.choice([0, 0.01, 0.1])
            flying += send()
            assert s.lane.in_flight == len(flying) <= s.lane.policy.window
        for _ in range(100_000):
            world.now += 1
            flying += send()
            if not flying:
                break
            m = flying.pop()
            arrived.update(sequences(sent([m]), contexts))
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
