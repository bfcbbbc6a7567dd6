"""What a lane promises about order, grouping and pace, on a clock that the test sets."""

import json
import random
from types import SimpleNamespace

import pytest
from edge.codec.batches import decode_message, encode_columns
from edge.columns._batch import Batch
from edge.errors import ConfigError
from edge.storage.log import Log
from edge.storage.records import BATCH, GAP
from gateway.forward.lane import Lane
from gateway.forward.packer import CONTENT_JSON
from gateway.forward.policy import Policy

from fake_log import FakeLog
from memory_disk import MemoryDisk
from world import STREAMS, FakeUpstream, Source, sequences


def sent(messages):
    return [(m.topic, bytes(m.payload), m.retain) for m in messages]


def gaps(messages):
    """(first, count, reason) of those that say what will never come."""
    found = [SimpleNamespace(**json.loads(m.payload)["gap"]) if m.content_type == CONTENT_JSON else decode_message(m.payload)
             for m in messages if m.rows == 0 and not m.retain]
    return [(gap.first, gap.count, gap.reason) for gap in found]


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
    assert [m.rows for m in messages] == [90, 90, 90]        # whole records, as many as fit
    assert sequences(sent(messages)) == all_of("temps", 0, 270)


@pytest.mark.parametrize("encoding", ["batch", "jsonl", "json"])
def test_no_message_exceeds_the_size_limit(encoding):
    s = Source(age_ms=0, size_bytes_max=2000, window=1000, encoding=encoding)
    world = FakeUpstream(s.lane)
    s.put(1000)
    messages = world.drain(s.lane)
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
    assert sum(m.rows for m in messages) == 2 and not dead
    s.lane.disconnected()
    s.lane.connected()
    messages = world.messages(s.lane)
    for m in messages:
        s.lane.acknowledged(m)
    assert [(stream, first, count) for stream, first, count, _ in dead] == [(7, 1, 1)]
    assert s.lane.rows_dead == {7: 1}
    assert s.lane.rows_acked == {7: 2}
    assert gaps(messages) == [(1, 1, "unsendable")]
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
    for m in messages:
        s.lane.acknowledged(m)
    assert [(stream, first, count) for stream, first, count, _ in dead] == [(99, 0, 2), (7, 100, 5)]
    assert "99" in dead[0][3]
    assert gaps(messages) == [(100, 5, "damaged")], "it never comes, and upstream is told"
    assert s.lane.acked_before == 3


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
    s = Source(age_ms=0, rate_bytes_s=10_000, size_bytes_max=2000, window=1000, encoding="jsonl")
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
    s = Source(age_ms=0, rate_bytes_s=20_000, size_bytes_max=1000, window=1000, encoding="jsonl")
    world = FakeUpstream(s.lane)
    s.lane.disconnected()
    s.put(20, records=1000)
    s.lane.connected()
    drained = sum(m.size for m in world.drain(s.lane))
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


def holed(disk, *at):
    """A log of 30 records of 10 rows, of two streams in turn, and of its bytes those `at` so many twentieths are others."""
    log = Log(disk, "outbox", quota_bytes_max=1 << 20)
    s = Source(log=log)
    for _ in range(15):
        s.put(10, wake=False)
        s.put(10, stream=8, wake=False)
    log.sync()
    path, size = f"outbox/{log._segments[-1].name}.seg", log._segments[-1].size
    log.close()
    for n in at:
        disk.files[path].data[size * n // 20] ^= 0xFF
    return Log(disk, "outbox", quota_bytes_max=1 << 20)


@pytest.mark.parametrize("at", [(5,), (5, 6, 14), range(4, 17)])
@pytest.mark.parametrize("acked", [0, 4])
@pytest.mark.parametrize("evicts", [False, True])
def test_rows_that_are_damaged_in_the_outbox_are_announced_and_counted_once(at, acked, evicts):
    dead, log = [], holed(MemoryDisk(), *at)
    s = Source(log=log, dead=lambda *a: dead.append(a), age_ms=0)
    s.lane.load({"ranges": [[acked, None]], "rows_waiting": 300 - 10 * acked, "rows_acked": {}, "rows_dead": {}, "meanings": []})
    world = FakeUpstream(s.lane)
    world.messages(s.lane)
    s.lane.disconnected()                # none of it arrived
    if evicts:
        log.drop_before(acked)           # what was acknowledged is of no use to the log, but is there
    s.lane.connected()
    messages = world.messages(s.lane)
    said = [(m.stream, m.first, m.count) for m in map(decode_message, [m.payload for m in messages if not m.rows and not m.retain])]
    assert said and not dead
    for m in messages:
        s.lane.acknowledged(m)
    assert sorted(said) == sorted((STREAMS[stream].stream, first, count) for stream, first, count, _ in dead)
    come = sequences(sent(messages))
    lost = [(stream, n) for stream, first, count in said for n in range(first, first + count)]
    assert sorted(come + lost) == sorted((stream, n) for stream in ("temps", "doors") for n in range(5 * acked, 150))
    assert sum(s.lane.rows_acked.values()) == len(come) and sum(s.lane.rows_dead.values()) == len(lost) and s.lane.rows_waiting == 0


@pytest.mark.parametrize("synced", [0, 1, 2])
def test_rows_that_wait_for_the_disk_are_not_missing(synced):
    """Something is damaged, long acknowledged; what came since is in files, in part, and in memory."""
    log = holed(MemoryDisk(), 10)
    s = Source(log=log, age_ms=0)
    world = FakeUpstream(s.lane)
    assert len(gaps(world.drain(s.lane))) == 1
    s.sequences = {7: 150, 8: 150}
    for i in range(4):
        s.put(10, wake=False)
        s.put(10, stream=8, wake=False)
        if i < synced:
            log.sync()
    world.drain(s.lane)
    s.lane.disconnected()
    s.lane.connected()
    s.put(10, wake=False)
    s.put(10, stream=8, wake=False)
    assert gaps(world.drain(s.lane)) == []


def test_positions_that_went_or_were_never_given_out_are_no_damage():
    log = Log(MemoryDisk(), "outbox", quota_bytes_max=1 << 20)
    s = Source(log=log, age_ms=0)
    s.put(10, wake=False)
    log.truncate(40)
    s.sequences[7] += 5                  # as of a stream that another lane had for a while
    s.put(10, wake=False)
    s.sequences[7] += 7
    s.put(10, wake=False)
    world = FakeUpstream(s.lane)
    assert gaps(world.messages(s.lane)) == []
    s.lane.disconnected()
    log.roll()
    s.put(1, wake=False)
    log.sync()
    log.quota_bytes_max = 1
    while log.give_way():
        pass
    assert log.tail == 42
    s.lane.connected()
    assert gaps(world.messages(s.lane)) == []


def test_rows_that_another_lane_had_are_not_missing_where_something_else_is():
    log = holed(MemoryDisk(), 10)
    s = Source(log=log, age_ms=0)
    world = FakeUpstream(s.lane)
    s.sequences = {7: 150, 8: 150}
    s.put(1, wake=False)
    s.put(1, stream=8, wake=False)
    s.sequences[7] += 100                # these it did not have
    s.put(1, wake=False)
    (first, count, _), = gaps(world.drain(s.lane))
    assert first < 150 and count == 10
    s.sequences[8] += 100
    s.put(1, wake=False)
    s.lane.disconnected()
    s.lane.connected()
    s.put(1, stream=8, wake=False)
    assert gaps(world.drain(s.lane)) == []


def test_stream_whose_context_grows_too_long_sends_its_rows_as_batches():
    rng, log, seen = random.Random(3), FakeLog(), []
    s = Source(log=log, age_ms=0, size_bytes_max=1200)
    world = FakeUpstream(s.lane)
    names = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=100)) for _ in range(30)]
    for i in range(300):                         # names that repeat are worth a context, until all of them are too many
        row = {"id": names[i % 30 if i > 60 else i // 20], "v": 1.0, "at": i}
        batch = Batch.from_rows(STREAMS[7], [row], first_sequence=i, received_ns=i * 2_000_000_000)
        log.append(BATCH, 7, i, 1, encode_columns(batch))
        seen += world.drain(s.lane)
    assert all(len(m.payload) <= 1200 for m in seen)
    assert sequences(sent(seen)) == all_of("temps", 0, 300)
    assert seen[0].retain and seen[-1].topic == "tidegate/g1/telemetry/temps"
    assert s.lane.rows_dead == {}


def test_wide_window_of_long_messages_is_bounded_in_bytes():
    s = Source(age_ms=0, window=1000, encoding="jsonl", size_bytes_max=1000)
    world = FakeUpstream(s.lane)
    s.put(2000)
    assert 8_000 <= sum(m.size for m in world.messages(s.lane)) < 9_100


def test_gap_on_a_json_lane_is_json():
    s = Source(age_ms=0, encoding="jsonl")
    world = FakeUpstream(s.lane)
    s.log.append(GAP, 7, 3, 10, b"")
    message, = world.messages(s.lane)
    assert json.loads(message.payload)["gap"] == {"gateway": "g1", "stream": "temps", "epoch": 3, "first": 3, "count": 10, "reason": "evicted"}
