"""A rule that takes more than its part of the CPU waits, and nobody else does; waiting changes no byte of what comes out."""

import random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge._watermark import Watermarks
from edge.backlog import BYTES_MAX, CALL, CLOCK, ITEMS_MAX, ROWS_MAX, TICK, Backlog, items
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.errors import DiskError
from edge.share import BURST_NS, RESERVE, Share

MS = 10**6
KEYED = Schema("s", (Field("n", "i64"), Field("id", "str"), Field("at", "time")), key="id", time="at")
PLAIN = Schema("p", (Field("n", "i64"),))


class Account:
    """A stage, as far as shares go: its calls cost what the test says."""

    def __init__(self, name=""):
        self.name, self.credit_ns, self.shadow, self.waiting = name, 0.0, None, []


# --- shares


class Line:
    """Accounts in virtual time: each is offered calls; what waits is served as credit comes, at most SLICE a turn."""

    SLICE, TURN = 10 * MS, 5 * MS

    def __init__(self, count, cpu=0.8):
        self.share, self.accounts = Share(cpu), [Account(str(i)) for i in range(count)]
        self.now = 0
        self.used, self.waited = {a: 0 for a in self.accounts}, {a: [] for a in self.accounts}
        self.share.grant(0, self.accounts)

    def turn(self, calls):
        """calls: account -> ns each of its calls takes, one a turn."""
        for account, ns in calls.items():
            account.waiting.append((self.now, ns))
            if len(account.waiting) == 1 and not self.share.holds(account):
                self._run(account)
        began = sum(self.used.values())
        while sum(self.used.values()) - began < self.SLICE and (account := self.share.next([a for a in self.accounts if a.waiting])):
            self._run(account)
        spent = sum(self.used.values()) - began
        self.now += max(self.TURN, spent)
        self.share.grant(max(self.TURN, spent), self.accounts)

    def _run(self, account):
        offered, ns = account.waiting.pop(0)
        self.waited[account].append(self.now - offered)
        self.used[account] += ns
        self.share.charge(account, ns)


def test_within_the_budget_nobody_waits_whoever_uses_it():
    line = Line(10)
    greedy, *cheap = line.accounts
    for _ in range(4000):
        line.turn({greedy: 3.5 * MS} | {a: 0.02 * MS for a in cheap})       # 70 % and 3.6 % of 80 %
    assert max(max(waits) for waits in line.waited.values()) == 0


def test_beyond_it_one_greedy_rule_waits_and_nine_cheap_ones_do_not():
    line = Line(10)
    greedy, *cheap = line.accounts
    for _ in range(4000):
        line.turn({greedy: 40 * MS} | {a: 0.1 * MS for a in cheap})
    assert all(set(line.waited[a]) == {0} for a in cheap) and len(line.waited[cheap[0]]) == 4000
    assert len(greedy.waiting) > 1000
    assert 0.6 < line.used[greedy] / line.now <= 0.85, "it has what the others leave of the budget"


def test_two_greedy_rules_have_the_same_and_one_that_begins_later_is_not_behind():
    line = Line(4)
    a, b, c, idle = line.accounts
    for i in range(8000):
        line.turn({a: 9 * MS, b: 3 * MS} | ({c: 6 * MS} if i >= 4000 else {}))
        if i == 3999:
            assert abs(line.used[a] - line.used[b]) < 0.05 * line.used[a] + BURST_NS
            before, began = dict(line.used), line.now
    spent = {x: line.used[x] - before[x] for x in (a, b, c)}
    assert min(spent.values()) > 0.8 * (line.now - began) / 3 - BURST_NS
    assert sum(spent.values()) <= 0.8 * (line.now - began) + 2 * BURST_NS


@pytest.mark.parametrize("seed", range(5))
def test_a_rule_below_its_part_never_waits_and_the_budget_holds(seed):
    rng = random.Random(seed)
    n, cpu = rng.randrange(2, 40), rng.choice([0.1, 0.5, 0.8])
    line = Line(n, cpu)
    modest = line.accounts[:rng.randrange(1, n)]
    part = cpu * Line.TURN / n
    for _ in range(2000):
        line.turn({a: rng.uniform(0, 0.9) * part if a in modest else rng.uniform(0, 20) * part for a in line.accounts})
    assert all(set(line.waited[a]) <= {0} for a in modest), f"seed {seed}"
    assert sum(line.used.values()) <= cpu * (line.now + BURST_NS) + 20 * part * n + Line.SLICE, f"seed {seed}"


def test_a_shadow_stops_before_anybody_waits_for_it():
    line = Line(3)
    greedy, *cheap = line.accounts
    greedy.shadow = Account("shadow")
    ran = 0
    for _ in range(4000):
        line.turn({greedy: 3 * MS} | {a: 0.05 * MS for a in cheap})         # 60 %, and the shadow would take as much again
        if line.share.spare:
            ran += 1
            line.share.charge(greedy.shadow, 3 * MS)
    assert max(max(waits) for waits in line.waited.values()) == 0
    assert 0.2 < ran / 4000 < 0.5 and line.share.left_ns > 0.5 * RESERVE * 0.8 * BURST_NS


# --- the backlog


def observed(rows, schema=KEYED, received_ns=10**18):
    batch = Batch.from_rows(schema, rows, first_sequence=7, received_ns=received_ns)
    Watermarks(5, 10, capacity=4).observe(batch)
    return batch


def same(a, b):
    return (a.rows() == b.rows() and a.watermark_ns == b.watermark_ns and a.watermarks() == b.watermarks()
            and (a.first_sequence, a.received_ns, a.clock) == (b.first_sequence, b.received_ns, b.clock))


def test_a_backlog_comes_back_from_a_checkpoint_as_it_was():
    backlog, rng = Backlog(), random.Random(3)
    watermarks = Watermarks(5, 10, capacity=4)
    for i in range(40):
        kind = rng.randrange(4)
        if kind == 0:
            backlog.add_mark(TICK, 10**18 + i)
        elif kind == 1:
            backlog.add_mark(CLOCK, -i)
        else:
            batch = Batch.from_rows(KEYED, [{"n": k, "id": rng.choice(["", "ü", None, *"abcdefgh"]), "at": 10**18 + i * k} for k in range(rng.randrange(6))],
                                    first_sequence=i, received_ns=10**18 + 100 * i)
            batch.clock = i % 3
            watermarks.observe(batch)
            assert backlog.add_call(i, batch)
            if rng.random() < 0.3 and (tick := watermarks.tick(KEYED, 10**18 + 100 * i + 50)) is not None:
                assert backlog.add_call(i, tick)
    again = Backlog.load(backlog.dump(), KEYED)
    assert (again.rows, again.lag_ns, len(again)) == (backlog.rows, backlog.lag_ns, len(backlog)) and again.rows > 20
    while len(backlog):
        (kind, number, batch), (kind_2, number_2, batch_2) = backlog.pop(), again.pop()
        assert (kind, number) == (kind_2, number_2) and (batch is batch_2 is None or same(batch, batch_2))
    assert backlog.rows == backlog.bytes == again.rows == again.bytes == 0


@pytest.mark.parametrize("schema", [KEYED, PLAIN])
def test_rows_bytes_and_items_are_bounded_and_ticks_are_always_taken(schema):
    backlog = Backlog()
    big = observed([{"n": 1}] * (ROWS_MAX // 4 + 1), schema)
    assert [backlog.add_call(i, big) for i in range(5)] == [True, True, True, False, False]
    assert backlog.add_call(9, observed([], schema)) and backlog.rows == 3 * len(big)
    alone = Backlog()
    assert alone.add_call(1, observed([{"n": 1}] * 2 * ROWS_MAX, schema)), "what is larger than the bound is taken alone"
    assert not alone.add_call(2, observed([{"n": 1}], schema))
    wide = Backlog()
    text = observed([{"n": 1, "id": "x" * (BYTES_MAX // 3)}])
    assert [wide.add_call(i, text) for i in range(4)] == [True, True, False, False]
    many = Backlog()
    assert sum(many.add_call(i, observed([{"n": 1}], schema)) for i in range(2 * ITEMS_MAX)) == ITEMS_MAX


def test_lag_is_the_age_of_the_oldest_batch():
    backlog = Backlog()
    assert backlog.lag_ns == 0
    backlog.add_call(1, observed([{"n": 1}], PLAIN, received_ns=100))
    backlog.add_mark(TICK, 400)
    assert backlog.lag_ns == 300
    backlog.add_call(2, observed([{"n": 1}], PLAIN, received_ns=700))
    backlog.pop()
    assert backlog.lag_ns == 0


anything = st.recursive(st.none() | st.booleans() | st.integers(-2**63, 2**64 - 1) | st.binary(max_size=20) | st.floats() | st.text(max_size=5),
                        lambda inner: st.lists(inner, max_size=6), max_leaves=20)


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=60) | anything.map(msgpack.packb) | st.lists(st.tuples(st.integers(0, 3), anything, anything, anything, anything)).map(msgpack.packb))
def test_a_damaged_backlog_is_a_disk_error(data):
    try:
        assert isinstance(items(data), list)
        Backlog.load(data, KEYED)
    except DiskError:
        pass
