"""Gathering: how long events wait in the intake for company, so that one record, one write and one sync serve many of them.

    durability "ack"     what a turn took is stored and synced in that turn
    durability 10ms, 1s  ... when the oldest event is that old; an event that is to be acknowledged makes it ACK_S at most; a half-full intake, now

Whatever the setting: what is acknowledged is synced, for acknowledgements leave after the sync, and what rules make of an event leaves after it too. So a
power cut costs what came in the last so many milliseconds, which at QoS 1 and 2 the device still has.
"""

ACK_S = 0.01                             # devices and brokers may have as few as one message under way: their rate is one over this


class Gathering:
    """most_s: how long an event may wait; 0: not at all. Times are the reactor's seconds."""

    def __init__(self, most_s):
        self._most_s = most_s
        self.since = self._owed_since = None     # when the oldest event was seen, and the oldest that is to be acknowledged

    def wait_s(self, intake, now):
        """How long what is in the intake may wait; 0: store it now."""
        if not self._most_s or intake.half_full:
            return 0.0
        if self.since is None:
            self.since = now
        due = self.since + self._most_s
        if intake.owed:
            if self._owed_since is None:
                self._owed_since = now
            due = min(due, self._owed_since + ACK_S)
        return max(0.0, due - now)

    def stored(self):
        """The intake was emptied."""
        self.since = self._owed_since = None
