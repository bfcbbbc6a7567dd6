"""Meanings: which schema a stream's number stands for at a position of an outbox.

A number means what its last SCHEMA record says, and what this process appends means what its own streams say. A reader that
starts in the middle of a segment has not read the SCHEMA records before it: the lane's state carries their meanings over a restart.
"""

from bisect import bisect_right

import msgpack

from edge.columns.schema import Schema
from edge.errors import DiskError


class Meanings:
    """streams: number -> Schema of everything that is appended from position `base` on; may grow."""

    def __init__(self, streams, base):
        self._streams = streams
        self._base = base
        self._older = {}             # number -> ascending [(position, Schema)], of positions below base

    def at(self, position, number):
        """The schema of a record, or None when nothing says so."""
        if position < self._base and (older := self._older.get(number)):
            i = bisect_right(older, position, key=lambda entry: entry[0])
            if i:
                return older[i - 1][1]
        return self._streams.get(number)

    def learn(self, record):
        """Take a SCHEMA record in. Raises DiskError when it is none."""
        if record.position >= self._base:
            return
        try:
            schema = Schema.from_dict(msgpack.unpackb(record.payload))
        except (ValueError, TypeError, KeyError) as e:
            raise DiskError(f"outbox record {record.position}: not a schema ({e}); run `tidegate buffer verify`") from None
        older = self._older.setdefault(record.stream, [])
        i = bisect_right(older, record.position, key=lambda entry: entry[0])
        if i == 0 or older[i - 1][1] != schema:
            older.insert(i, (record.position, schema))

    def state(self, floor, numbers):
        """Plain data for load(): of these numbers, and what no record from `floor` on needs is left out."""
        out = []
        for number, older in self._older.items():
            if floor < self._base and number in numbers:
                i = max(0, bisect_right(older, floor, key=lambda entry: entry[0]) - 1)
                out += [[position, number, schema.to_dict()] for position, schema in older[i:]]
        return out + [[self._base, number, schema.to_dict()] for number, schema in self._streams.items() if number in numbers]

    def load(self, state, head):
        """Take over what an earlier process knew. head: of the log as it stands now, which may have been cut back since."""
        self._base = min(self._base, head)
        for position, number, data in state:
            if position < self._base:
                self._older.setdefault(number, []).append((position, Schema.from_dict(data)))
        for older in self._older.values():
            older.sort(key=lambda entry: entry[0])
