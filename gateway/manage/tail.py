"""Watching a stream live: a tap that takes a few rows of what flows by, as long as somebody asks for them.

A stream without a tap costs one look at an attribute a batch. With one: at most ROWS_PER_BATCH rows of a batch and ROWS_PER_SECOND a second are
copied, and RING_ROWS kept. Whoever reads asks again with the number that the last answer gave; after EXPIRES_S without a question the tap is gone.
"""

import json
import time
from collections import deque

from edge.codec._json_rows import json_rows
from edge.errors import TidegateError
from gateway.requests import Unknown

ROWS_PER_BATCH = 20
ROWS_PER_SECOND = 100
RING_ROWS = 1000
ANSWER_ROWS = 200
EXPIRES_S = 10.0
TAPS_MAX = 8
ROW_BYTES_MAX = 4096


class Tap:
    """On one stream. Call it with each batch."""

    def __init__(self, stream, clock):
        self._stream, self._clock = stream, clock
        self._rows = deque(maxlen=RING_ROWS)     # (number, row)
        self._number = 0
        self._seen = self._taken = 0
        self._asked = self._second = clock()
        self._room = ROWS_PER_SECOND
        stream.tap = self

    @property
    def expired(self) -> bool:
        return self._clock() - self._asked > EXPIRES_S

    def __call__(self, batch):
        now, count = self._clock(), len(batch)
        if now - self._asked > EXPIRES_S:
            self.remove()
            return
        if now - self._second >= 1.0:
            self._second, self._room = now, ROWS_PER_SECOND
        self._seen += count
        take = min(count, ROWS_PER_BATCH, self._room)
        if not take:
            return
        self._room -= take
        for index, row in zip(chosen := [i * count // take for i in range(take)], json_rows(batch.select(chosen))):
            self._number += 1
            self._taken += 1
            shown = json.loads(row) if len(row) <= ROW_BYTES_MAX else {"cut": bytes(row[:ROW_BYTES_MAX]).decode("utf-8", "replace")}
            self._rows.append((self._number, {"sequence": batch.first_sequence + index, **shown}))

    def read(self, after) -> dict:
        """Rows behind a number (None: those to come), and what became of the others: seen rows since the tap was set, sampled of them."""
        self._asked = self._clock()
        found = [] if after is None else [item for item in self._rows if item[0] > after][:ANSWER_ROWS]
        return {"rows": [row for _, row in found], "next": found[-1][0] if found else self._number, "seen": self._seen, "sampled": self._taken}

    def remove(self):
        """Nobody looks any more."""
        if self._stream.tap is self:
            self._stream.tap = None


class Taps:
    """At most TAPS_MAX streams are watched at a time. find(name) gives the Stream of a name as it is at work now, or None."""

    def __init__(self, find, clock=time.monotonic):
        self._find, self._clock = find, clock
        self._taps = {}                  # name -> Tap

    def read(self, name, after=None) -> dict:
        """Raises TidegateError for a stream that is not there, or when too many are watched."""
        stream = self._find(name)
        if stream is None:
            raise Unknown(f"there is no stream or rule {name!r}")
        tap = self._taps.get(name)
        if tap is None or stream.tap is not tap:          # expired, or a swap has put another stream in its place
            self.expire()
            if len(self._taps) >= TAPS_MAX:
                raise TidegateError(f"{TAPS_MAX} streams are watched already: try again when one is left alone")
            tap, after = Tap(stream, self._clock), None
            self._taps[name] = tap
        return tap.read(after)

    def expire(self):
        """Forget the taps that nobody asks any more."""
        for name, tap in list(self._taps.items()):
            stream = self._find(name)
            if tap.expired or stream is None or stream.tap is not tap:
                tap.remove()
                del self._taps[name]
