"""What a rule costs: the time in its module an event, batch by batch, and what it did for it. The time is the instance's own (Rule.run_ns)."""

from array import array

RECENT = 512                         # calls with rows that the percentiles speak of


class Meter:
    """Reads one rule's run time after each call. `last_ns`: of the last call, with what it took to undo it if it trapped."""

    __slots__ = ("last_ns", "_rule", "_seen_ns", "_recent", "_n")

    def __init__(self, rule):
        self.last_ns = 0
        self._rule = rule
        self._seen_ns = rule.run_ns
        self._recent = array("d", bytes(8 * RECENT))     # nanoseconds an event, a ring
        self._n = 0

    def note(self, rows):
        """A call with so many rows was made; 0 for one whose rows do not count: a tick, or a trap."""
        run_ns = self._rule.run_ns
        self.last_ns = spent = run_ns - self._seen_ns
        self._seen_ns = run_ns
        if rows:
            self._recent[self._n % RECENT] = spent / rows
            self._n += 1

    def percentiles(self, *shares) -> list[float]:
        """Nanoseconds an event in the share's place of the recent calls in ascending order: 0.5 is the median. 0 before the first call."""
        recent = sorted(self._recent[:min(self._n, RECENT)]) or [0.0]
        return [round(recent[min(len(recent) - 1, int(share * len(recent)))], 1) for share in shares]


def cost(stage) -> dict:
    """What a stage costs and did, plain data. Rows and calls: since its ledger began; cpu and traps: since the start.

    lag: rows that wait for CPU, and how much older the oldest of them is than the newest thing that came, by the receive clock.
    """
    rule, meter = stage.rule, stage.meter
    p50, p99 = meter.percentiles(0.5, 0.99)
    return {
        "cpu_ns_per_event": {"p50": p50, "p99": p99},
        "cpu_ns": rule.run_ns,
        "memory_bytes": rule.memory_bytes,
        "calls": stage.calls,
        "traps": rule.traps,
        "in": stage.input.next_sequence - stage.since,
        "out": stage.output.next_sequence - stage.output.since,
        "late": stage.late_rows,
        "ignored": stage.ignored,
        "dead_lettered": stage.dead,
        "lag_rows": stage.backlog.rows if stage.backlog else 0,
        "lag_ns": stage.backlog.lag_ns if stage.backlog else 0,
    }
