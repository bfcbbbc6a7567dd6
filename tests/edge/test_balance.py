"""The ledger goes upstream: the cloud sees, without asking the gateway, in which interval what stream, rule or lane does not balance or lacks rows."""

import random

import pytest
from memory_disk import MemoryDisk, PowerCut
from pipeline_world import CONFIG, START, S, World, env, modules, plain
from settings import ONCE

from edge.balance import FINDINGS_MAX, SPANS_MAX, Balance
from edge.books import STREAM
from edge.codec.receiver import Receiver

LANES = CONFIG + ONCE + """
[lanes.alerts]
streams = ["plain"]
age = "0s"
priority = 0
[lanes.telemetry]
streams = ["env", "once"]
age = "0s"
quota = "16KiB"
[journal]
quota = "1MiB"
"""


def minute(world, i, n=5):
    world.now_ns += 60 * S
    world.put(*(env(f"d{k % 3}", i * 10 + k // 2, (world.now_ns - START) // 10**6, 1.5) for k in range(n)), *(plain(k) for k in range(n)))
    world.core.account(world.now_ns)
    world.forward()


def test_a_gateway_that_runs_well_balances_in_every_interval(modules):
    world = World(modules, LANES).start()
    for i in range(10):
        minute(world, i)
        if i % 3:
            world.drain()
        assert world.receiver.check() == []
    world.drain()
    rows = world.of(STREAM)
    assert len({row[:60] for row in rows.values()}) >= 10 and world.receiver.check() == [] and not world.missing()


def test_nothing_is_said_when_nothing_changed(modules):
    world = World(modules, LANES).start()
    minute(world, 1)
    world.drain()
    world.core.account(world.now_ns)             # the lanes' acknowledgements are news
    world.drain()
    said = world.stream(STREAM).next_sequence
    for _ in range(5):
        world.core.account(world.now_ns)
        world.drain()
    assert world.stream(STREAM).next_sequence == said


@pytest.mark.parametrize("kind, name", [("stream", "env"), ("rule", "once")])
def test_an_event_that_no_fate_accounts_for_is_named_with_its_interval(kind, name, modules):
    world = World(modules, LANES).start()
    for i in range(6):
        if i == 3:
            if kind == "stream":
                world.stream(name).arrived += 2
            else:
                world.stage(name).filtered -= 2
        minute(world, i)
    world.drain()
    (problem,) = world.receiver.check()
    assert (problem["kind"], problem["name"], problem["difference"]) == (kind, name, 2)
    assert (problem["start"], problem["stop"]) == (START + 3 * 60 * S, START + 4 * 60 * S)


def test_rows_that_the_gateway_sent_and_that_have_not_come_are_named_with_their_interval(modules):
    world = World(modules, LANES).start()
    lost, receive = [], world.receive
    for i in range(6):
        if i == 3:
            world.receive = lambda topic, payload: lost.append(topic) if "/plain" in topic else receive(topic, payload)
        minute(world, i)
        world.drain()
        world.receive = receive
    world.core.account(world.now_ns)
    world.forward()
    world.drain()
    assert lost
    (problem,) = world.receiver.check()
    assert (problem["kind"], problem["name"], problem["lacking"], problem["stop"]) == ("lane", "alerts/plain", 5, START + 4 * 60 * S)
    again = Receiver(world.receiver.dump())
    assert again.check() == [problem], "it is remembered"


def test_evictions_are_accounted_for_as_announced(modules):
    world = World(modules, LANES).start()
    for i in range(150):
        minute(world, i, 60)
    assert sum(outbox.evicted.get(n, 0) for outbox in world.core.outboxes.values() for n in outbox.evicted) > 0
    world.drain()
    world.core.account(world.now_ns)
    world.forward()
    world.drain()
    assert world.announced() and world.receiver.check() == []


@pytest.mark.parametrize("seed", range(5))
def test_the_books_balance_over_crashes_and_come_once(seed, modules):
    chance = random.Random(seed)
    world = World(modules, LANES, MemoryDisk(seed=seed)).start()
    for i in range(40):
        if chance.random() < 0.2:
            world.disk.cut_at = world.disk.operations + chance.randint(0, 12)
        try:
            minute(world, i)
            if chance.random() < 0.3:
                world.checkpoint()
            world.drain(acknowledge=lambda: chance.random() < 0.8, most=chance.randint(0, 8))
        except PowerCut:
            pass
        if world.disk.cut_at is not None:
            world.disk.cut_at = None
            world.crash(survival=chance.random())
        assert world.receiver.check() == [], f"seed {seed}, step {i}"
    world.reconnect()
    world.drain()
    world.core.account(world.now_ns)
    world.forward()
    world.drain()
    assert world.receiver.check() == [] and not world.missing(), f"seed {seed}"


def test_a_balance_is_bounded():
    balance = Balance(lambda *span: (1, 0))
    rows = [{"start": i, "stop": i + 1, "kind": kind, "name": "a/b", "what": what, "count": count}
            for i in range(2000) for kind in ("stream", "lane") for what, count in (("next", i), ("in", (i % 3) ** 2))]
    balance.take("g", 1, list(enumerate(rows)))
    assert len(balance.findings) == FINDINGS_MAX
    assert all(len(spans) <= SPANS_MAX for _, _, spans, _ in balance._accounts.values())
