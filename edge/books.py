"""Books: the ledger as rows of the gateway's own stream `$ledger`, one interval after another. docs/format/ledger.md.

The stream is journaled and goes by a lane like any other, so a receiver has its rows once and in order. Counts are of all time: whoever misses a row
knows all from the next one.
"""

from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.ledger import accounts

STREAM = "$ledger"
SCHEMA = Schema(STREAM, (Field("start", "time"), Field("stop", "time"), Field("kind", "str"), Field("name", "str"), Field("what", "str"), Field("count", "i64")), 1, None, "stop")
IN, NEXT = "in", "next"                  # beside the fates: what came; of a lane's stream, its next sequence


class Books:
    """Tells what has changed since it was asked last; at first, all."""

    def __init__(self, start_ns):
        self._start_ns = start_ns
        self._told = {}                  # (kind, name) -> entries

    def batch(self, pipeline, lanes, stop_ns):
        """The rows for the time since the last one, or None when nothing has changed. lanes: as edge.ledger.accounts takes it."""
        following = {stream.name: stream.next_sequence for stream in pipeline.streams}
        rows = []
        for account in accounts(pipeline, lanes):
            stream = account.name.partition("/")[2]
            if account.kind == "lane" and stream == STREAM:
                continue                 # it changes by being told
            entries = {what: count for what, count in account.out.items() if count}
            if account.kind == "lane" and stream in following:
                entries[NEXT] = following[stream]
            entries[IN] = account.into       # the last: it says that the account is whole
            if self._told.get((account.kind, account.name)) != entries:
                self._told[account.kind, account.name] = entries
                rows += [{"start": self._start_ns, "stop": stop_ns, "kind": account.kind, "name": account.name, "what": what, "count": count}
                         for what, count in entries.items()]
        self._start_ns = stop_ns
        return Batch.from_rows(SCHEMA, rows, received_ns=stop_ns) if rows else None
