"""Answers to management requests leave behind the lanes' rows, and are not starved by them."""

import json

import pytest

from gateway.manage.mailbox import Mailbox, topics
from gateway.reactor import Reactor

from fake_server import FakeServer
from world import Source, connect, run

IN, OUT = topics("g1")


@pytest.fixture
def reactor():
    r = Reactor()
    yield r
    r.close()


def ask(box, count):
    for i in range(count):
        box.take(IN, json.dumps({"id": str(i), "request": {"do": "rule.ls"}}).encode(), False)


def test_rows_that_are_due_go_before_answers(reactor):
    server = FakeServer(reactor)
    alerts, box = Source("alerts", age_ms=0, priority=9), Mailbox(reactor, "g1", lambda request, who: "x" * 1000)
    ask(box, 5)
    run(reactor, lambda: box.handled == 5)
    alerts.put(1, records=5)
    up = connect(reactor, server.port, alerts, mailbox=box)
    run(reactor, lambda: alerts.lane.rows_waiting == 0 and box.status()["answers"] == 0 and not up.status()["in_flight"])
    where = [topic == OUT for topic, *_ in server.messages]
    assert where == sorted(where) and sum(where) == 5
    assert "manage" not in up.status()["lanes"] and up.status()["manage"]["handled"] == 5
    up.close()
    server.close()


def test_answers_leave_while_a_backlog_is_drained(reactor):
    server = FakeServer(reactor)
    bulk, box = Source(age_ms=0, rows_max=50), Mailbox(reactor, "g1", lambda request, who: [])
    bulk.put(50, records=3000, wake=False)
    up = connect(reactor, server.port, bulk, mailbox=box)
    run(reactor, lambda: len(server.messages) > 100)
    ask(box, 10)
    run(reactor, lambda: sum(topic == OUT for topic, *_ in server.messages) == 10)
    assert bulk.lane.rows_waiting > 0
    up.close()
    server.close()


def test_an_answer_the_server_refuses_holds_up_no_lane(reactor):
    rows = []

    def on_publish(connection, mid, topic, payload, retain):
        rows.append(topic)
        connection.ack(mid, 0x87 if topic == OUT else 0)

    server = FakeServer(reactor, on_publish)
    alerts, box = Source("alerts", age_ms=0), Mailbox(reactor, "g1", lambda request, who: [])
    up = connect(reactor, server.port, alerts, mailbox=box)
    run(reactor, lambda: up.connected)
    ask(box, 2)
    run(reactor, lambda: box.refusal)
    alerts.put(1, records=20)
    run(reactor, lambda: alerts.lane.rows_waiting == 0)
    assert "Not authorized" in up.status()["manage"]["refusal"] and server.connects == 1
    up.close()
    server.close()
