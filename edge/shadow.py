"""A shadow: a new version of a rule that runs beside the active one, on the same calls, and whose output is compared and thrown away.

It has its own instance and its own accounts, and gives nothing to anybody: no stream, no outbox, no dead letter, no journal, no checkpoint.
What it puts out is compared call by call. Equal columns are equal rows; otherwise rows are compared as multisets, and what one side has and the
other has not waits for it for WINDOW_CALLS calls, because a version may say the same a little later. Only then it counts as different.
"""

import json
from collections import deque
from hashlib import sha256

from edge.codec._payload import columns_of
from edge.columns._batch import Batch
from edge.cost import Meter
from edge.errors import RuleError

TRAPS_MAX = 3                        # then it is stopped
WINDOW_CALLS = 64                    # a row may come so many calls later in the other version
WINDOW_ROWS = 2048                   # rows that wait for their like; beyond it the oldest count as different
CHUNK = 256                          # rows that are compared as columns, from both ends, before
VALUES_MAX = 16_384                  # of a side and call are looked at one by one, at most
ROW_NS = 10_000                      # what that takes for a row, about: it counts as the shadow's time
SAMPLES = 20                         # of differing rows that are kept for a side
TEXT_MAX = 400                       # characters kept of a row


class Shadow:
    """rule: the new version, bound to the stage's input stream. `stopped`: why it runs no more, or ""."""

    def __init__(self, rule):
        self.rule = rule
        self.meter = Meter(rule)
        self.credit_ns = 0.0             # see edge/share.py
        self.spent_ns = 0                # for the last call
        self.stopped = ""
        self.calls = self.rows = self.traps = self.shed_calls = self.shed_rows = self.active_failed = 0
        self.late = [0, 0]               # of the active rule, of the shadow; so are these
        self.ignored = [0, 0]
        self.unexamined = [0, 0]
        self.same = 0
        self.different = [0, 0]
        self._began_ns = None
        self._open = {}                  # (stream, row as text) -> [surplus of the active side, call]
        self._samples = deque(maxlen=SAMPLES), deque(maxlen=SAMPLES)

    def observe(self, batch, result, spare=True):
        """The active rule has answered a batch, with result or, None, not at all. spare: there is CPU for a shadow now."""
        if self.stopped:
            return
        if not spare:
            self.shed_calls += 1
            self.shed_rows += len(batch)
            return
        if self._began_ns is None:
            self._began_ns = batch.received_ns
        self.calls += 1
        self.rows += len(batch)
        self.spent_ns = 0
        self.active_failed += result is None
        try:
            mine = self.rule.process(batch)
            self.meter.note(len(batch))
        except RuleError as error:
            mine = None
            self._trapped(error)
            self.meter.note(0)
        self.spent_ns += self.meter.last_ns
        self._compare(batch, result, mine)

    def _trapped(self, error):
        """Begin anew with a fresh state, TRAPS_MAX times."""
        self.traps += 1
        if self.traps >= TRAPS_MAX:
            self.stopped = f"it trapped {self.traps} times: {error}"
            return
        try:
            self.rule.reset()
        except RuleError as again:
            self.stopped = f"it cannot be started again: {again}"

    # --- what differs

    def _compare(self, batch, active, shadow):
        for side, result in enumerate((active, shadow)):
            if result is not None:
                self.late[side] += result.late_count
                self.ignored[side] += result.ignored
        for stream in ("out", "late"):
            rows = [Batch(batch.schema, 1) if r is None or not getattr(r, f"{stream}_count") else getattr(r, stream)(batch) for r in (active, shadow)]
            if len(rows[0]) or len(rows[1]):
                self._compare_rows(stream, *rows)
        while self._open and (len(self._open) > WINDOW_ROWS or next(iter(self._open.values()))[1] <= self.calls - WINDOW_CALLS):
            self._close(next(iter(self._open)))

    def _compare_rows(self, stream, active, shadow):
        alike = active.schema.fields == shadow.schema.fields and active.schema.key == shadow.schema.key
        if alike and len(active) == len(shadow) and columns_of(active) == columns_of(shadow):
            self.same += len(active)
            return
        start, stop = common(active, shadow) if alike else (0, 0)
        self.same += start + stop
        rest = [part(rows, start, len(rows) - stop) for rows in (active, shadow)]
        if max(len(rows) * len(rows.schema.fields) for rows in rest) > VALUES_MAX:
            self.unexamined = [count + len(rows) for count, rows in zip(self.unexamined, rest)]
            return
        cuts = {}
        for sign, rows in zip((1, -1), rest):
            self.spent_ns += ROW_NS * len(rows)
            for row in rows.rows():
                self._count((stream, spelled(row, cuts)), sign)

    def _count(self, key, sign):
        """A row of the active side (1) or of the shadow's (-1): it meets its like, or waits for it."""
        surplus = self._open.get(key)
        if surplus is None:
            self._open[key] = [sign, self.calls]
            return
        self.same += surplus[0] * sign < 0
        surplus[0] += sign
        if not surplus[0]:
            del self._open[key]

    def _close(self, key):
        """Nothing like it came."""
        surplus, call = self._open.pop(key)
        side = 0 if surplus > 0 else 1
        self.different[side] += abs(surplus)
        self._samples[side].append({"stream": key[0], "row": key[1], "times": abs(surplus), "call": call})

    # --- what is told

    def report(self) -> dict:
        """Plain data. waiting: rows whose like may still come; shed: calls that it did not see, after which its state may differ."""
        waiting = [sum(s for s, _ in self._open.values() if s > 0), -sum(s for s, _ in self._open.values() if s < 0)]
        p50, p99 = self.meter.percentiles(0.5, 0.99)
        return {
            "module": self.rule.digest, "since_ns": self._began_ns, "calls": self.calls, "rows": self.rows, "stopped": self.stopped,
            "same": self.same, "only_active": self.different[0], "only_shadow": self.different[1],
            **{name: dict(zip(("active", "shadow"), pair)) for name, pair in
               (("waiting", waiting), ("late", self.late), ("ignored", self.ignored), ("unexamined", self.unexamined))},
            "traps": self.traps, "active_failed": self.active_failed, "shed": {"calls": self.shed_calls, "rows": self.shed_rows},
            "cpu_ns_per_event": {"p50": p50, "p99": p99}, "cpu_ns": self.rule.run_ns, "memory_bytes": self.rule.memory_bytes,
            "samples": {"active": list(self._samples[0]), "shadow": list(self._samples[1])},
        }


def part(batch, start, stop):
    """Rows start to stop of a batch."""
    rows = Batch(batch.schema, max(1, stop - start))
    rows.extend(batch, start, stop)
    return rows


def common(a, b) -> tuple[int, int]:
    """How many rows two batches of the same fields have in common at their start, and how many after that at their end, by chunks."""
    start = stop = 0
    most = min(len(a), len(b))
    while start < most and columns_of(part(a, start, end := min(most, start + CHUNK))) == columns_of(part(b, start, end)):
        start = end
    while start + stop < most:
        size = min(CHUNK, most - start - stop)
        ends = len(a) - stop, len(b) - stop
        if columns_of(part(a, ends[0] - size, ends[0])) != columns_of(part(b, ends[1] - size, ends[1])):
            break
        stop += size
    return start, stop


def spelled(row, cuts) -> str:
    """A row as JSON text, the same for equal rows whatever the order of their fields. What is long is cut, and told apart by its digest.

    cuts: long strings that were cut before, and what they became: rows share them."""
    row = {name: _cut(value, cuts) if isinstance(value, str) and len(value) > TEXT_MAX else value for name, value in row.items()}
    return _cut(json.dumps(row, sort_keys=True, ensure_ascii=False), {})


def _cut(text, cuts):
    if len(text) <= TEXT_MAX:
        return text
    if text not in cuts:
        cuts[text] = f"{text[:TEXT_MAX]}... {sha256(text.encode()).hexdigest()[:16]}"
    return cuts[text]


def diff(stage) -> dict:
    """The shadow's report, and what the active rule costs beside it. The stage has a shadow."""
    cost = stage.cost
    return stage.shadow.report() | {"active": {name: cost[name] for name in ("cpu_ns_per_event", "memory_bytes")} | {"module": stage.rule.digest}}
