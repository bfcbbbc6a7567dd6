"""What the upstream connection promises when the other end misbehaves."""

import random
import resource
import socket
import time

import pytest
from gateway import client
from gateway.forward import lane, track, upstream
from gateway.reactor import Reactor

from fake_server import FakeServer
from world import Source, connect, run, sequences, settle


@pytest.fixture
def reactor():
    r = Reactor()
    yield r
    r.close()


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch):
    monkeypatch.setattr(client, "BACKOFF_MIN_S", 0.05)
    monkeypatch.setattr(client, "BACKOFF_MAX_S", 0.2)


def all_of(stream, start, stop):
    return [(stream, i) for i in range(start, stop)]


@pytest.mark.parametrize("version", [4, 5])
def test_rows_arrive_and_are_acknowledged(reactor, version):
    server = FakeServer(reactor)
    s = Source(age_ms=10)
    up = connect(reactor, server.port, s, version=version)
    s.put(100, records=10)
    run(reactor, lambda: s.lane.acked_before == 10)
    assert sequences(server.messages) == all_of("temps", 0, 1000)
    assert s.lane.rows_waiting == 0 and up.status()["in_flight"] == 0
    assert {c.version for c in server.connections} == {version}
    up.close()
    server.close()


def test_a_second_connack_ends_the_connection_and_nothing_is_counted_twice(reactor):
    """It would have begun anew what is under way."""
    held = []
    server = FakeServer(reactor, lambda connection, mid, *rest: held.append((connection, mid)))
    s = Source(age_ms=0)
    up = connect(reactor, server.port, s)
    run(reactor, lambda: up.connected)
    s.put(5, records=4)
    run(reactor, lambda: held)
    held[0][0].send(bytes([0x20, 3, 0, 0, 0]))
    for connection, mid in held:
        connection.ack(mid)
    server.on_publish = server.accept
    run(reactor, lambda: server.connects == 2 and s.lane.acked_before == 4)
    assert s.lane.rows_acked == {7: 20} and s.lane.rows_waiting == 0
    up.close()
    server.close()


def test_wake_sends_before_it_returns(reactor, monkeypatch):
    monkeypatch.setattr(upstream, "BUDGET_S", 10.0)                     # a machine with other work may need all of it for the first message
    server = FakeServer(reactor)
    s = Source(age_ms=0)
    up = connect(reactor, server.port, s)
    run(reactor, lambda: up.connected)
    s.put(1)
    assert not up._link.want_write() and s.lane.messages_sent == 2      # context and row
    run(reactor, lambda: s.lane.acked_before == 1)
    up.close()
    server.close()


def test_server_that_never_acknowledges_costs_one_message_a_try(reactor):
    arrived = []
    server = FakeServer(reactor, on_publish=lambda c, mid, *m: arrived.append(m))
    s = Source(age_ms=0, window=4, rows_max=10)
    up = connect(reactor, server.port, s, ack_timeout_s=0.1)
    states = set()
    s.put(10, records=50)
    cpu = time.process_time()

    def note():
        states.add(up.state)
        assert up.status()["in_flight"] <= 4 and len(up._link._out_messages) <= 4
        return server.connects >= 6
    run(reactor, note, 60)
    assert time.process_time() - cpu < 2
    assert states == {"closed", "open", "half-open"}
    assert up.ack_timeouts >= 5
    assert len(arrived) <= 3 * 4 + 3         # full windows while closed, one message half-open
    server.on_publish = server.accept
    run(reactor, lambda: s.lane.acked_before == 50)
    assert set(sequences(server.messages)) == set(all_of("temps", 0, 500)) and up.state == "closed"
    up.close()
    server.close()


def test_acknowledgements_out_of_order_unknown_and_doubled(reactor):
    waiting, messages = [], []

    def shuffle(connection, mid, *message):
        messages.append(message)
        waiting.append((connection, mid))
        connection.ack((mid + 30_000) % 65_535 + 1)
        if len(waiting) == 3:
            random.shuffle(waiting)
            for c, m in waiting:
                c.ack(m)
                c.ack(m)
            waiting.clear()
    server = FakeServer(reactor, on_publish=shuffle)
    s = Source(age_ms=0, window=4, rows_max=10)
    up = connect(reactor, server.port, s)
    s.put(10, records=300)       # a backlog: it takes 3 of the 4 slots
    run(reactor, lambda: s.lane.acked_before == 300)
    assert set(sequences(messages)) == set(all_of("temps", 0, 3000)) and server.connects == 1
    up.close()
    server.close()


def test_server_that_forgets_a_message_gets_it_again(reactor):
    forgotten, messages = [], []

    def forget(connection, mid, *message):
        if not forgotten and len(messages) == 5:
            forgotten.append(message)
            return
        messages.append(message)
        connection.ack(mid)
    server = FakeServer(reactor, on_publish=forget)
    s = Source(age_ms=0, window=4, rows_max=10)
    up = connect(reactor, server.port, s, ack_timeout_s=0.2)
    s.put(10, records=100)
    run(reactor, lambda: s.lane.acked_before == 100)
    assert forgotten and up.ack_timeouts == 1
    assert set(sequences(messages)) == set(all_of("temps", 0, 1000))
    up.close()
    server.close()


def test_flapping_server_loses_nothing_and_pahos_queue_stays_empty(reactor):
    messages, budget = [], [0]

    def flap(connection, mid, *message):
        messages.append(message)
        if budget[0] == 0:
            budget[0] = random.randrange(1, 6)
            connection.close()               # received, never acknowledged
            return
        budget[0] -= 1
        connection.ack(mid)
    server = FakeServer(reactor, on_publish=flap)
    s, alerts = Source(age_ms=0, window=4, rows_max=10), Source("alerts", age_ms=0, priority=0)
    up = connect(reactor, server.port, s, alerts)
    s.put(10, records=50)
    while s.lane.rows_waiting or alerts.lane.rows_waiting:
        alerts.put(1, stream=8) if alerts.log.head < 30 else None
        reactor.turn(0.02)
        if not up.connected:
            assert not up._link._out_messages and up.status()["in_flight"] == 0
    assert server.connects > 5
    assert set(sequences(messages)) == set(all_of("temps", 0, 500)) | set(all_of("doors", 0, 30))
    up.close()
    server.close()


def test_reconnect_sends_only_what_the_lane_sends(reactor):
    """paho's own retransmission would arrive in front of the lane's, marked DUP, and twice."""
    held = []
    server = FakeServer(reactor, on_publish=lambda c, mid, *m: held.append((c, m)))
    s = Source(age_ms=0, window=4)
    up = connect(reactor, server.port, s)
    for _ in range(3):
        s.put(2)
        settle(reactor, 0.03)
    run(reactor, lambda: len(held) == 3)
    held[0][0].close()
    held.clear()
    server.on_publish = server.accept
    run(reactor, lambda: s.lane.acked_before == 3)
    settle(reactor, 0.1)
    assert sequences(server.messages) == all_of("temps", 0, 6)
    up.close()
    server.close()


def test_absent_server_costs_little_and_nothing_is_encoded(reactor):
    server = FakeServer(reactor)
    server.close()
    s = Source(age_ms=0)
    up = connect(reactor, server.port, s)
    for _ in range(20):
        s.put(10)
        settle(reactor, 0.03)
    assert up.status()["failures"] >= 3 and up.state == "open"
    assert s.lane.messages_sent == 0 and s.lane.rows_waiting == 200
    again = FakeServer(reactor, port=server.port)
    run(reactor, lambda: s.lane.acked_before == 20)
    assert sequences(again.messages) == all_of("temps", 0, 200)
    up.close()
    again.close()


def test_alerts_overtake_a_bulk_drain(reactor, monkeypatch):
    order = []
    for module in (upstream, lane, track):
        monkeypatch.setattr(module, "perf_counter", lambda: 0.0)         # a turn's budget does not run out because the processor was taken away

    def slow(connection, mid, topic, payload, retain):
        order.append(topic)
        if "alerts" in topic:
            connection.ack(mid)
        else:
            reactor.later(0.02, lambda: connection.ack(mid))
    server = FakeServer(reactor, on_publish=slow)
    bulk, alerts = Source(age_ms=0, window=4, rows_max=200), Source("alerts", age_ms=0, priority=0)
    up = connect(reactor, server.port, bulk, alerts)
    bulk.put(200, records=100)
    run(reactor, lambda: bulk.lane.messages_acked > 4)
    for i in range(20):
        before = len(order)
        alerts.put(1)
        assert alerts.lane.in_flight >= 1        # it is on the wire, whatever bulk is in flight
        run(reactor, lambda: alerts.lane.rows_waiting == 0)
        assert any("alerts" in topic for topic in order[before:before + 6])
    assert bulk.lane.rows_waiting > 0
    run(reactor, lambda: bulk.lane.rows_waiting == 0, 60)
    up.close()
    server.close()


def test_refused_lane_pauses_alone(reactor):
    server = FakeServer(reactor)

    def deny(connection, mid, topic, payload, retain):
        if "telemetry" in topic and allowed[0] is False:
            connection.ack(mid, 0x87)
        else:
            server.accept(connection, mid, topic, payload, retain)
    allowed, events = [False], []
    server.on_publish = deny
    bulk, alerts = Source(age_ms=0), Source("alerts", age_ms=0, priority=0)
    up = connect(reactor, server.port, bulk, alerts, on_event=lambda *e: events.append(e))
    bulk.put(10, records=5)
    run(reactor, lambda: bulk.lane.refusals == 1)
    alerts.put(1)
    run(reactor, lambda: alerts.lane.rows_waiting == 0)
    assert server.connects == 1 and up.state == "closed"
    assert "Not authorized" in up.status()["lanes"]["telemetry"]["refusal"]
    assert any(name == "refused" and "telemetry" in words for name, words in events)
    allowed[0] = True
    run(reactor, lambda: bulk.lane.rows_waiting == 0)
    assert set(sequences(server.messages)) == set(all_of("temps", 0, 50))
    up.close()
    server.close()


def test_servers_receive_maximum_and_packet_size_are_kept(reactor):
    arrived = []
    server = FakeServer(reactor, on_publish=lambda c, mid, *m: arrived.append((c, mid, m)),
                        limits=b"\x21" + (2).to_bytes(2, "big") + b"\x27" + (2500).to_bytes(4, "big"))
    s = Source(age_ms=0, window=50, encoding="jsonl")
    up = connect(reactor, server.port, s)
    s.put(100)
    run(reactor, lambda: len(arrived) == 2)
    settle(reactor)
    assert len(arrived) == 2
    for c, mid, _ in arrived:
        c.ack(mid)
    server.on_publish = server.accept
    run(reactor, lambda: s.lane.acked_before == 1)
    assert all(len(payload) < 2500 for _, payload, _ in server.messages)
    up.close()
    server.close()


@pytest.mark.parametrize("limits, words", [(b"\x24\x00", "QoS 0"), (b"\x27\x00\x00\x01\x00", "256 bytes")])
def test_server_that_cannot_take_rows_is_named(reactor, limits, words):
    server = FakeServer(reactor, limits=limits)
    s = Source(age_ms=0)
    up = connect(reactor, server.port, s)
    s.put(1)
    run(reactor, lambda: up.status()["failures"] > 2)
    assert words in up.status()["error"] and s.lane.rows_waiting == 1 and not server.messages
    up.close()
    server.close()


def test_encoding_yields_to_the_loop(reactor):
    server = FakeServer(reactor)
    s = Source(age_ms=0, window=1000, rows_max=50)
    up = connect(reactor, server.port, s)
    run(reactor, lambda: up.connected)
    for _ in range(400):
        s.put(500, wake=False)
    longest = 0.0
    s.lane.wake()
    while s.lane.rows_waiting:
        started = time.perf_counter()
        up.pump()
        longest = max(longest, time.perf_counter() - started)
        reactor.turn(0.01)
    print(f"longest pump {1e3 * longest:.1f} ms")
    assert len(set(sequences(server.messages))) == 200_000
    up.close()
    server.close()


def test_idle_connection_does_not_spin(reactor):
    server = FakeServer(reactor)
    s = Source(age_ms=0, rate_bytes_s=1000)
    up = connect(reactor, server.port, s)
    s.put(10)
    run(reactor, lambda: s.lane.rows_waiting == 0)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    turns = 0
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        reactor.turn(0.1)
        turns += 1
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert turns < 30 and after.ru_utime - usage.ru_utime < 0.2
    up.close()
    server.close()


def test_reader_that_stalls_holds_back_bulk_but_bounds_what_an_alert_waits_behind(reactor):
    server = FakeServer(reactor)
    bulk, alerts = Source(age_ms=0, window=200, encoding="jsonl"), Source("alerts", age_ms=0, priority=0)
    up = connect(reactor, server.port, bulk, alerts)
    run(reactor, lambda: up.connected)
    stalled = server.connections[0]
    stalled.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    reactor.forget(stalled.sock.fileno())
    bulk.put(500, records=30, text="x" * 100)
    settle(reactor, 0.2)
    assert up._link.want_write() and bulk.lane.bytes_sent < 1 << 20
    was = bulk.lane.messages_sent
    alerts.put(1)
    settle(reactor)
    assert alerts.lane.in_flight and bulk.lane.messages_sent == was
    cpu = time.process_time()
    settle(reactor, 0.3)
    assert time.process_time() - cpu < 0.2
    reactor.watch(stalled.sock.fileno(), stalled.readable)
    run(reactor, lambda: bulk.lane.rows_waiting == 0 and alerts.lane.rows_waiting == 0, 60)
    assert sum(payload.count(b"\n") for topic, payload, _ in server.messages if "telemetry" in topic) == 15_000
    up.close()
    server.close()
