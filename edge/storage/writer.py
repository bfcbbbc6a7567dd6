"""A writer: appends to a log that do not fail. What the disk refuses waits in memory, in order, until flush() gets it in.

Whoever appends has done something that cannot be undone (decoded a batch, advanced a rule), so the record must not be lost. The bound is on the
caller: while anything waits it takes in no more events (Pipeline.sync raises, Outbox.blocked says so).
"""

from collections import deque

from edge.errors import DiskError

DURABLE = ()                         # among what waits: all before it is to be durable before what follows gets in


class Writer:
    """Appends to `log`. `waiting`: records that the disk has refused so far."""

    def __init__(self, log):
        self.log = log
        self._held = deque()

    @property
    def waiting(self) -> int:
        return len(self._held) - self._held.count(DURABLE)

    @property
    def head(self) -> int:
        """The position that the next record gets."""
        return self.log.head + self.waiting

    def append(self, *record):
        """Log.append's arguments."""
        if not self._held:
            try:
                self.log.append(*record)
                return
            except DiskError:
                pass
        self._held.append(record)

    def part(self):
        """What comes from now on rests on what came before: it gets into the log after the next sync(), which makes that durable first. A power cut
        may keep any part of what was not made durable, the end without the beginning, too."""
        self._held.append(DURABLE)

    def flush(self):
        """Get in what waits. Raises DiskError; what is left goes on waiting."""
        while self._held:
            if self._held[0] is DURABLE:
                self.log.sync()
            else:
                self.log.append(*self._held[0])
            self._held.popleft()

    def sync(self):
        """Make all of it durable. Raises DiskError; call again."""
        self.flush()
        self.log.sync()
