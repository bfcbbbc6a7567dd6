"""Traces of sampled turns: bounded, only while somebody asks, and told when upstream has them."""

from types import SimpleNamespace

import pytest

from edge.errors import TidegateError
from gateway import traces
from gateway.traces import OPEN_MAX, OPEN_S, RING_TRACES, STEPS, Traces


class Lane:
    """A lane over an outbox whose positions are acknowledged by hand."""

    def __init__(self):
        self.name, self.reads, self.watch, self.acknowledged_before = "main", True, None, 0
        self.outbox = SimpleNamespace(log=SimpleNamespace(head=0), appended={1: 0})

    def holds(self, start, stop):
        return self.acknowledged_before < stop

    def append(self, rows):
        self.outbox.log.head += 1
        self.outbox.appended[1] += rows

    def send(self):
        if self.watch is not None:
            self.watch.sent(self, SimpleNamespace(positions=list(range(self.acknowledged_before, self.outbox.log.head))))

    def acknowledge(self):
        self.acknowledged_before = self.outbox.log.head
        if self.watch is not None:
            self.watch.acknowledged(self)


class Gateway:
    """A daemon's turns, on a clock that goes on by a millisecond at each look."""

    def __init__(self):
        self.lane, self.at = Lane(), 100.0
        self.traces = Traces(lambda: [(self.lane.outbox, self.lane)], self, lambda: 10**18)

    @property
    def now(self):
        return self.at

    def monotonic(self):
        self.at += 0.001
        return self.at

    def ask(self, after=0, per_minute=60, seconds=100):
        return self.traces.read({"after": after, "per_minute": per_minute, "seconds": seconds})

    def turn(self, rows=5, since=None):
        self.traces.note("arrived", since)
        for step in STEPS[:3]:
            self.traces.note(step)
        if rows:
            self.lane.append(rows)
        self.traces.note("ruled", [(SimpleNamespace(name="env"), Stored(rows), b"")] if rows is not None else [])


class Stored:
    first_sequence = 7

    def __init__(self, rows):
        self._rows = rows

    def __len__(self):
        return self._rows or 9


def test_a_trace_has_each_step_in_its_order_and_ends_when_upstream_has_it():
    gateway = Gateway()
    gateway.ask()
    gateway.turn(since=99.5)
    assert gateway.ask()["traces"] == []
    gateway.lane.send()
    gateway.lane.acknowledge()
    told = gateway.ask()
    one, = told["traces"]
    (lane,) = one["lanes"]
    times = [one["arrived"], *(one[step] for step in STEPS), lane["sent"], lane["acknowledged"]]
    assert times == sorted(times) and len(set(times)) == len(times) and times[1] - times[0] > 5e8 and 10**18 - times[-1] < 10**9
    assert one["streams"] == [["env", 7, 5]] and lane["lane"] == "main" and lane["rows"] == 5
    assert gateway.ask(told["next"])["traces"] == [] and gateway.lane.watch is None


def test_nothing_is_traced_unless_somebody_asks():
    gateway = Gateway()
    gateway.turn()
    gateway.ask(seconds=10)
    gateway.at += 20
    gateway.turn()
    gateway.lane.acknowledge()
    assert gateway.ask()["next"] == 0
    gateway.turn()
    gateway.lane.acknowledge()
    assert gateway.ask()["next"] == 1


def test_so_many_begin_a_minute_as_were_asked_for():
    gateway = Gateway()
    gateway.ask(per_minute=6, seconds=600)
    began = gateway.at
    while gateway.at < began + 115:
        gateway.at += 0.2
        gateway.turn()
        gateway.lane.acknowledge()
    assert gateway.ask()["next"] == 12


def test_a_turn_that_keeps_nothing_has_no_trace_and_one_for_no_lane_waits_for_nobody():
    gateway = Gateway()
    gateway.ask()
    gateway.turn(rows=None)
    gateway.at += 2
    gateway.turn(rows=0)
    gateway.at += 2
    gateway.lane.reads = False           # not connected: rows gather in memory, and nobody knows when they leave
    gateway.turn()
    told = gateway.ask()["traces"]
    assert [len(one["lanes"]) for one in told] == [0, 1] and told[1]["lanes"][0]["acknowledged"] is None


def test_what_waits_for_upstream_is_bounded_in_number_and_time():
    gateway = Gateway()
    gateway.ask(per_minute=600, seconds=600)
    for _ in range(OPEN_MAX + 10):
        gateway.at += 0.2
        gateway.turn()
    told = gateway.ask(per_minute=600, seconds=600)
    assert len(told["traces"]) == 10 and told["traces"][0]["lanes"][0]["acknowledged"] is None and len(gateway.traces._open) == len(gateway.traces._waits) == OPEN_MAX
    gateway.at += OPEN_S
    assert len(gateway.ask()["traces"]) == OPEN_MAX + 10 and gateway.traces._waits == []
    gateway.lane.acknowledge()


def test_of_what_nobody_reads_the_oldest_is_forgotten_and_counted():
    gateway = Gateway()
    for _ in range(RING_TRACES + 30):
        gateway.ask(after=gateway.traces._number, per_minute=600)
        gateway.at += 0.2
        gateway.turn()
        gateway.lane.acknowledge()
    told = gateway.ask(after=10)
    assert len(told["traces"]) == RING_TRACES and told["forgotten"] == 20 and told["next"] == RING_TRACES + 30
    assert len(gateway.ask(after=10**6)["traces"]) == RING_TRACES              # a number of another run


@pytest.mark.parametrize("asked", [{"per_minute": 0}, {"per_minute": traces.PER_MINUTE_MAX + 1}, {"seconds": 0}, {"seconds": 10**9}, {"after": "x"}, {"seconds": None}])
def test_a_question_out_of_bounds_is_refused(asked):
    with pytest.raises(TidegateError):
        Gateway().traces.read(asked)
