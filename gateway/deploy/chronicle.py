"""What befell each rule: uploads, swaps, traps. In memory, the last EVENTS_MAX of each of RULES_MAX rules; the audit log keeps the decisions for good."""

import time
from collections import OrderedDict, deque

EVENTS_MAX = 100
RULES_MAX = 256
TEXT_MAX = 500


class Chronicle:
    """note() and of(rule). wall: fn() -> seconds since 1970."""

    def __init__(self, wall=time.time):
        self._wall = wall
        self._events = OrderedDict()     # rule -> deque of events, the one that was noted last at the end
        self._number = 0

    def note(self, rule, what, text="", who=""):
        """An event of a rule. At RULES_MAX the rule of which nothing was heard for the longest time is forgotten."""
        self._number += 1
        event = {"n": self._number, "at": round(self._wall(), 3), "what": what, "text": text[:TEXT_MAX]}
        self._events.setdefault(rule, deque(maxlen=EVENTS_MAX)).append(event | ({"who": who} if who else {}))
        self._events.move_to_end(rule)
        if len(self._events) > RULES_MAX:
            self._events.popitem(last=False)

    def of(self, rule) -> list[dict]:
        """A rule's events, the oldest first."""
        return list(self._events.get(rule, ()))
