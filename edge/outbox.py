"""An outbox: one lane's log of results that wait to go upstream, with its accounts.

It is appended to by the pipeline and read back by the lane, which moves a cursor. It is not synced batch by batch: the journal is,
and an outbox is cut back to the last checkpoint and written again by replay after a crash.
"""

import msgpack

from edge.ledger import Account
from edge.records import BATCH, GAP
from edge.writer import Writer

READ_BYTES = 1 << 20
STEPS_MAX = 32                       # of the clock that are kept; beyond, the two oldest count as one


class Outbox:
    """One lane's results. `log` is its Log; `streams` the streams that feed it; full: "evict-oldest" or "backpressure"."""

    def __init__(self, name, log, *, evict):
        self.name = name
        self.log = log
        self.writer = Writer(log)
        self.evict = evict
        self._fresh = 0              # rows appended since take_fresh()
        self.appended = {}           # stream number -> rows appended
        self.evicted = {}            # stream number -> rows evicted before they were acknowledged
        self.names = {}              # stream number -> name
        self._steps = []             # [position, delta_ns]: what stands before it was stored before the clock was set by so much

    def append(self, stream, batch, payload):
        """A batch's rows, already encoded."""
        self.put(stream.number, stream.name, batch.first_sequence, len(batch), payload)

    def put(self, number, name, first, count, payload):
        """Rows of the stream `name` under this number, from sequence `first` on."""
        self.names[number] = name
        self.writer.append(BATCH, number, first, count, payload)
        self.appended[number] = self.appended.get(number, 0) + count
        self._fresh += count

    def adopt(self, stream, record):
        """Account for a record that was found without a checkpoint."""
        self.names[stream.number] = stream.name
        self.appended[stream.number] = self.appended.get(stream.number, 0) + (record.count if record.kind == BATCH else 0)

    def on_evict(self, kind, stream, first, count) -> int:
        """The log's quota is about to push rows out, or a gap: it goes upstream (again). The payload is the position that the rows stood before.
        Returns the rows that this loses."""
        rows = count if kind == BATCH else 0
        self.evicted[stream] = self.evicted.get(stream, 0) + rows
        self.writer.append(GAP, stream, first, count, msgpack.packb(self.log.evicts_before))
        return rows

    def cut_back(self, state, sequences):
        """Go back to a state(): forget the records since, but for the gaps of rows that stood there then and are gone. sequences: of the next row,
        by stream number. Raises DiskError."""
        head = state["head"]
        gaps = [r for r in _since(self.log, head) if r.kind == GAP and r.payload]
        self.log.truncate(head)
        self.load(state)
        for gap in gaps:
            count = min(gap.count, sequences.get(gap.stream, 0) - gap.first)
            if count > 0:
                self.log.drop_before(min(head, msgpack.unpackb(gap.payload)))
                self.on_evict(BATCH, gap.stream, gap.first, count)

    def clock_set(self, delta_ns):
        """The receive clock was set; what comes from now on has its time by the new one."""
        self._steps.append([self.writer.head, delta_ns])
        if len(self._steps) > STEPS_MAX:
            (_, first), (at, second) = self._steps[:2]
            self._steps[:2] = [[at, first + second]]

    def set_since(self, position) -> int:
        """By how many nanoseconds the receive clock was set since the record of this position was stored."""
        return sum(delta_ns for at, delta_ns in self._steps if position < at)

    def take_fresh(self) -> int:
        """Rows appended since the last call."""
        fresh, self._fresh = self._fresh, 0
        return fresh

    @property
    def blocked(self) -> str:
        """Why no more may be appended, or ""."""
        if self.writer.waiting:
            return f"outbox {self.name}: the disk refuses {self.writer.waiting} records"
        if not self.evict and self.log.full:
            return f"outbox {self.name} is at its quota and may not evict (lanes.{self.name}.full)"
        return ""

    def accounts(self, acknowledged, dead):
        """Accounts by stream, over all numbers that it had. acknowledged, dead: stream number -> rows that upstream has taken, and that could not be sent."""
        rows = {}
        for number, appended in self.appended.items():
            out = {"acknowledged": acknowledged.get(number, 0), "dead_lettered": dead.get(number, 0)}
            out["evicted"] = min(self.evicted.get(number, 0), appended - sum(out.values()))      # some were acknowledged before they went
            out["pending"] = appended - sum(out.values())
            name = f"{self.name}/{self.names.get(number, number)}"
            row = rows.setdefault(name, Account("lane", name, 0, dict.fromkeys(out, 0)))
            row.into += appended
            row.out = {fate: count + out[fate] for fate, count in row.out.items()}
        return list(rows.values())

    def state(self) -> dict:
        return {"head": self.log.head, "appended": self.appended, "evicted": self.evicted, "names": self.names, "steps": [list(step) for step in self._steps]}

    def load(self, state):
        self.appended, self.evicted, self.names = dict(state["appended"]), dict(state["evicted"]), dict(state["names"])
        self._steps = [list(step) for step in state.get("steps", [])]


def _since(log, position):
    while position < log.head and (records := log.read(position, READ_BYTES)):
        yield from records
        position = records[-1].position + 1
