"""Wills: what devices left to be said when they are gone without a goodbye; at once, or after the delay that they asked for.

A delayed will is said when its delay or the session is over, whichever comes first, and not at all if the device comes back to its session before (MQTT 5.0 section
3.1.3.2.2). Wills wait for room in the intake, in order. Delayed ones are as many as sessions are kept.
"""

from collections import deque


class Wills:
    """on_due: called when a will waits to be taken. events are (topic, payload, 0, flags), as the intake takes them."""

    def __init__(self, reactor, on_due):
        self._reactor, self._on_due = reactor, on_due
        self._due = deque()
        self.said = 0
        self._delayed = {}           # client id -> (event, Timer)

    def __bool__(self):
        return bool(self._due)

    def add(self, client_id, event, delay_s):
        """The device is gone."""
        if delay_s <= 0:
            self._say(event)
            return
        self.end(client_id)
        self._delayed[client_id] = event, self._reactor.later(delay_s, lambda: self.end(client_id))

    def end(self, client_id):
        """The delay or the session is over: a will that waited is due."""
        event, timer = self._delayed.pop(client_id, (None, None))
        if event is not None:
            timer.cancel()
            self._say(event)

    def _say(self, event):
        self.said += 1
        self._due.append(event)
        self._on_due()

    def cancel(self, client_id):
        """The device is back in its session."""
        _, timer = self._delayed.pop(client_id, (None, None))
        if timer is not None:
            timer.cancel()

    def take(self, intake):
        """Put into the intake what is due and finds room."""
        while self._due and intake.add(*self._due[0]):
            self._due.popleft()
