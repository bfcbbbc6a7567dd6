"""Pace: how much of a backlog may be under way at once, so that what is urgent waits behind little of it, on a fast link and on a slow one.

Whatever stands before an alert on the connection delays it: in the kernel's buffer, on the way, and at a receiver that takes one message after the other. A
message's round trip tells how much that is, wherever it is. So the backlog of all lanes together has a window of bytes: it grows while a message's round trip is
about that of a message which had the connection to itself, and shrinks when it is more than STRETCH of that; then the link, or the receiver, was at work all the
time, and more under way would only be a queue. (After TCP Vegas, Brakmo and Peterson 1995.) Every ALONE_S the window begins anew, and what is usual is learnt again.
At least QUANTUM may be under way, and always one message: of some 4,000 rows, where they are packed into batches.

The gateway's one thread is the other thing to wait for. So a backlog is packed in turns of the loop of its own, each behind a look at the sockets that found nothing
fresh: a turn gathers rows for a moment, or encodes one message. And packing takes a twelfth of the time at most.
"""

QUANTUM = 8 << 10
GROWTH = 2 << 10                     # of the window, with each round trip
STRETCH = 1.5
ALONE_S = 10.0
WEIGHT = 1 / 8                       # of a round trip in the mean
WORK_S = 0.001                       # of packing; then for RESTS times as long nothing of a backlog is packed
RESTS = 11
ENCODING_S = 0.0002                  # left of the turn in which rows gathered; else their message is encoded in the next


class Pace:
    """Of one connection. Times are the reactor's seconds; size in bytes."""

    def __init__(self):
        self.turn = True             # this is a turn for backlogs
        self.asked = False           # one has something to send and waits for such a turn
        self.reset()

    def reset(self):
        """The connection is gone, and all that was under way."""
        self.in_flight = 0
        self.window = QUANTUM
        self._alone_s = None         # mean round trip of a message beside which nothing of a backlog was under way
        self._until = 0.0
        self._begins = True          # the window doubles with each round trip
        self._worked_s = self.rests_until = 0.0

    def allows(self, now) -> bool:
        """Whether one more message of a backlog may go, in this turn. asked: it might in another."""
        if now >= self._until:
            self._until, self.window, self._begins = now + ALONE_S, QUANTUM, True
        may = now >= self.rests_until and self.in_flight < self.window
        if may and not self.turn:
            self.asked = True
        return may and self.turn

    def worked(self, seconds, now):
        """So long a backlog was packed, until now."""
        self._worked_s += seconds
        if self._worked_s >= WORK_S:
            self.rests_until, self._worked_s = now + RESTS * self._worked_s, 0.0

    def sent(self, size) -> bool:
        """A message of a backlog went. Returns whether it had the connection to itself, for acknowledged()."""
        alone = not self.in_flight
        self.in_flight += size
        return alone

    def forgotten(self, size):
        """It will not be acknowledged."""
        self.in_flight -= size

    def acknowledged(self, size, alone, took_s):
        """Its PUBACK came, took_s after it went."""
        used = self.in_flight >= self.window         # what is not used need not grow
        self.in_flight -= size
        if alone:
            self._alone_s = took_s if self._alone_s is None else self._alone_s + WEIGHT * (took_s - self._alone_s)
        if self._alone_s is not None and took_s > STRETCH * self._alone_s:
            self._begins = False
            self.window = max(QUANTUM, self.window - size // 2)      # a half, with each round trip
        elif used:
            self.window += size if self._begins else GROWTH * size // self.window
