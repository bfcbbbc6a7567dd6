"""An outbox: one lane's log of results that wait to go upstream, with its accounts.

It is appended to by the pipeline and read back by the lane, which moves a cursor. It is not synced batch by batch: the journal is,
and an outbox is cut back to the last checkpoint and written again by replay after a crash.
"""

from edge.ledger import Account
from edge.records import BATCH, GAP
from edge.writer import Writer


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

    def append(self, stream, batch, payload):
        """A batch's rows, already encoded."""
        self.names[stream.number] = stream.name
        self.writer.append(BATCH, stream.number, batch.first_sequence, len(batch), payload)
        self.appended[stream.number] = self.appended.get(stream.number, 0) + len(batch)
        self._fresh += len(batch)

    def adopt(self, stream, record):
        """Account for a record that was found without a checkpoint."""
        self.names[stream.number] = stream.name
        self.appended[stream.number] = self.appended.get(stream.number, 0) + (record.count if record.kind == BATCH else 0)

    def on_evict(self, kind, stream, first, count) -> int:
        """The log's quota pushed rows out, or the announcement of a gap: the gap goes upstream (again). The rows that this lost."""
        rows = count if kind == BATCH else 0
        self.evicted[stream] = self.evicted.get(stream, 0) + rows
        self.writer.append(GAP, stream, first, count, b"")
        return rows

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
        """Accounts by stream. acknowledged, dead: stream number -> rows that upstream has taken, and that could not be sent."""
        rows = []
        for number, appended in self.appended.items():
            out = {"acknowledged": acknowledged.get(number, 0), "dead_lettered": dead.get(number, 0), "evicted": self.evicted.get(number, 0)}
            out["pending"] = max(0, appended - sum(out.values()))
            rows.append(Account("lane", f"{self.name}/{self.names.get(number, number)}", appended, out))
        return rows

    def state(self) -> dict:
        return {"head": self.log.head, "appended": self.appended, "evicted": self.evicted, "names": self.names}

    def load(self, state):
        self.appended, self.evicted, self.names = dict(state["appended"]), dict(state["evicted"]), dict(state["names"])
