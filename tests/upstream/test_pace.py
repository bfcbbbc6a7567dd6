"""What a backlog has under way: little enough that what is urgent hardly waits, and enough that the link is at work. On links of virtual time."""

from itertools import count

import pytest
from gateway.forward import track
from gateway.forward.pace import ENCODING_S, QUANTUM, WORK_S, Pace
from gateway.reactor import Reactor

from fake_server import FakeServer
from world import FakeUpstream, Source, connect, run, sequences

MESSAGE = 10_000                         # bytes, some 4,000 rows
ROWS = 4096


@pytest.fixture
def reactor():
    reactor = Reactor()
    yield reactor
    reactor.close()


class Pipe:
    """A link, and a receiver that takes one message after the other. bytes_s: of the slower of both. A lane's window is `window` messages."""

    def __init__(self, bytes_s, latency_s, window=4):
        self.pace, self.bytes_s, self.latency_s, self.window = Pace(), bytes_s, latency_s, window
        self.now, self.free_at, self.flying, self.sent, self.waits = 0.0, 0.0, [], 0, []

    def drain(self, seconds, step_s=0.0005):
        """A backlog drains so long. (bytes a second, mean time that an alert would have waited behind it, most)."""
        until, before, self.waits = self.now + seconds, self.sent, []
        while self.now < until:
            self.now += step_s
            while self.flying and self.flying[0][0] <= self.now:
                at, sent_at, alone = self.flying.pop(0)
                self.pace.acknowledged(MESSAGE, alone, at - sent_at)
            while len(self.flying) < self.window and self.pace.allows(self.now):
                alone = self.pace.sent(MESSAGE)
                self.free_at = max(self.free_at, self.now) + MESSAGE / self.bytes_s
                self.flying.append((self.free_at + self.latency_s, self.now, alone))
                self.sent += MESSAGE
            self.waits.append(max(0.0, self.free_at - self.now))
        return (self.sent - before) / seconds, sum(self.waits) / len(self.waits), max(self.waits)


@pytest.mark.parametrize("bytes_s, latency_s", [(10e6, 0.0002), (2e6, 0.02), (300_000, 0.04), (125_000, 0.1), (20e6, 0.3)])
def test_an_alert_waits_behind_about_a_message_and_the_link_is_at_work(bytes_s, latency_s):
    rate, mean_s, most_s = Pipe(bytes_s, latency_s).drain(60)
    message_s = MESSAGE / bytes_s
    assert mean_s <= 1.5 * message_s and most_s <= 4 * message_s
    could = min(bytes_s, 4 * MESSAGE / (latency_s + message_s))       # with its lane's window
    assert rate >= 0.6 * could


def test_a_fast_link_of_any_latency_up_to_a_quarter_second_drains_50_000_rows_a_second():
    for latency_s in (0.0001, 0.001, 0.01, 0.05, 0.1, 0.25):
        rate, _, _ = Pipe(50e6, latency_s).drain(30)
        assert rate / MESSAGE * ROWS >= 50_000, latency_s


def test_it_follows_a_link_that_changes():
    pipe = Pipe(50e6, 0.1)
    assert pipe.drain(5)[0] / MESSAGE * ROWS > 100_000
    pipe.bytes_s = 125_000                   # a message takes 80 ms now
    pipe.drain(5)
    _, mean_s, most_s = pipe.drain(30)
    assert mean_s < 0.12 and most_s < 0.33
    pipe.bytes_s = 50e6
    pipe.drain(12)
    assert pipe.drain(30)[0] / MESSAGE * ROWS > 100_000


def test_at_most_a_twelfth_of_the_time_goes_into_packing():
    pace, now, worked = Pace(), 100.0, 0.0
    while now < 101.0:
        if pace.allows(now):
            now += WORK_S / 3
            worked += WORK_S / 3
            pace.worked(WORK_S / 3, now)
        else:
            now = pace.rests_until
    assert 0.07 < worked < 0.085


def sent(messages):
    """(lane, stream, sequence) of each row."""
    return [(message.lane.name, *row) for message in messages for row in sequences([(message.topic, message.payload)])]


def test_a_backlog_waits_for_a_turn_of_its_own_and_what_is_new_does_not():
    alerts, bulk = Source("alerts", age_ms=0, priority=0), Source("bulk", age_ms=0)
    for source in (alerts, bulk):
        source.put(10, records=100)
    upstream, pace = FakeUpstream(alerts.lane, bulk.lane), Pace()
    alerts.lane.pace = bulk.lane.pace = pace
    pace.turn = False
    bulk.put(2)
    assert sent(upstream.messages(alerts.lane)) == [] and sent(upstream.messages(bulk.lane)) == [("bulk", "temps", 1000), ("bulk", "temps", 1001)]
    assert pace.asked
    pace.turn = True
    assert sent(upstream.messages(alerts.lane, 1)) == [("alerts", "temps", i) for i in range(1000)]


def test_a_message_of_a_backlog_is_not_encoded_in_the_turn_that_gathered_its_rows(monkeypatch):
    """Unless there was little to gather: one message's encoding is the longest that the loop is held up."""
    bulk = Source("bulk", age_ms=0)
    bulk.put(10, records=100)
    upstream, clock, turn_s = FakeUpstream(bulk.lane), count(0.0, ENCODING_S / 20), 1.5 * ENCODING_S     # the time of each look at the clock
    monkeypatch.setattr(track, "perf_counter", lambda: next(clock))
    turns, pack, encoded = [], bulk.lane._packer.pack, []
    monkeypatch.setattr(bulk.lane._packer, "pack", lambda group: encoded.append(next(clock)) or pack(group))
    while not turns or turns[-1] is None:
        encoded.clear()
        began = next(clock)
        turns.append(bulk.lane.next(upstream.now, began + turn_s))
        assert bulk.lane.unfinished == (turns[-1] is None) == (not encoded)
        assert not encoded or encoded[0] <= began + turn_s - ENCODING_S
    assert len(turns) > 2 and turns[-1].rows == 1000


@pytest.mark.parametrize("encoding", ["batch", "jsonl", "json"])
def test_a_server_that_is_silent_holds_a_message_of_all_backlogs_together(reactor, encoding):
    """And the alerts that come meanwhile are sent, behind it alone."""
    taken = []
    server = FakeServer(reactor, on_publish=lambda connection, mid, topic, payload, retain: taken.append((topic, len(payload))))
    alerts, bulk, more = Source("alerts", age_ms=0, priority=0), Source("bulk", age_ms=0, encoding=encoding), Source("more", age_ms=0, encoding=encoding)
    for source in (alerts, bulk, more):
        source.put(100, records=200)
    upstream = connect(reactor, server.port, alerts, bulk, more)
    run(reactor, lambda: upstream.status()["bytes_in_flight"] >= QUANTUM or sum(source.lane.rows_sent for source in (alerts, bulk, more)) == 60_000)
    for _ in range(50):
        reactor.turn(0.002)
    old = sum(size for _, size in taken)
    assert old <= QUANTUM + max(size for _, size in taken)
    before = len(taken)
    alerts.put(1)
    run(reactor, lambda: sum("alerts" in topic for topic, _ in taken[before:]) >= 2)        # its context, and the row
    assert len(taken) == before + 2
    upstream.close()
    server.close()
