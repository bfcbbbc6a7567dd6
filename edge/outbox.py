"""An outbox: one lane's log of results that wait to go upstream, with its accounts.

It is appended to by the pipeline and read back by the lane, which moves a cursor. It is not synced batch by batch: the journal is,
and an outbox is cut back to the last checkpoint and written again by replay after a crash.
"""

from edge.ledger import Account
from edge.records import BATCH, GAP


class Outbox:
    """One lane's results. `log` is its Log; `streams` the streams that feed it; full: "evict-oldest" or "backpressure"."""

    def __init__(self, name, log, *, evict):
        self.name = name
        self.log = log
        self.evict = evict
        self.appended = {}           # stream number -> rows appended
        self.evicted = {}            # stream number -> rows evicted before they were acknowledged
        self.names = {}              # stream number -> name

    def append(self, stream, batch, payload):
        """A batch's rows, already encoded."""
        self.names[stream.number] = stream.name
        self.log.append(BATCH, stream.number, batch.first_sequence, len(batch), payload)
        self.appended[stream.number] = self.appended.get(stream.number, 0) + len(batch)

    def adopt(self, stream, record):
        """Account for a record that was found without a checkpoint."""
        self.names[stream.number] = stream.name
        self.appended[stream.number] = self.appended.get(stream.number, 0) + (record.count if record.kind == BATCH else 0)

    def on_evict(self, stream, first, count):
        """The log's quota pushed rows out: the gap itself goes upstream."""
        self.evicted[stream] = self.evicted.get(stream, 0) + count
        self.log.append(GAP, stream, first, count, b"")

    @property
    def blocked(self) -> bool:
        """At its quota and not allowed to evict."""
        return not self.evict and self.log.full

    def accounts(self, acknowledged):
        """Accounts by stream. acknowledged: stream number -> rows that upstream has taken."""
        rows = []
        for number, appended in self.appended.items():
            gone, evicted = acknowledged.get(number, 0), self.evicted.get(number, 0)
            rows.append(Account("lane", f"{self.name}/{self.names.get(number, number)}", appended,
                                {"acknowledged": gone, "evicted": evicted, "pending": appended - gone - evicted}))
        return rows

    def state(self) -> dict:
        return {"head": self.log.head, "appended": self.appended, "evicted": self.evicted, "names": self.names}

    def load(self, state):
        self.appended, self.evicted, self.names = dict(state["appended"]), dict(state["evicted"]), dict(state["names"])
