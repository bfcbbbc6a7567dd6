"""Traces: when the events of a sampled turn came, and when each step of their way was done; as long as somebody asks (`tidegate otlp`).

A turn's batches are stored, synced, acknowledged and given to the rules together (daemon.py), so they have one trace: when the oldest event was read,
then STEPS; and for each lane that got rows of it at once, when they were sent and when upstream had acknowledged all of them, by their positions in
the outbox. What a rule puts out later (a window that closes, a batch that waits for CPU) is in no trace. Times are the reactor's until they are read.

Bounds: so many begin a minute as were asked for, evenly. OPEN_MAX wait for upstream, for OPEN_S: an older one is told as it is, unfinished. RING_TRACES are
kept to be read; the oldest is forgotten for a new one, and counted. Without a question for the time that the last one gave, nothing is traced.
"""

from collections import deque

from edge.errors import TidegateError

STEPS = ("journaled", "synced", "acknowledged", "ruled")     # journaled: decoded too, in the log; synced: on the disk; acknowledged: the PUBACKs are sent
PER_MINUTE_MAX = 600
ASKED_S_MAX = 600
RING_TRACES = 256
OPEN_MAX, OPEN_S = 64, 120.0


class Traces:
    """lanes: fn() -> (Outbox, Lane) pairs. reactor: its clock is used. wall_ns: the wall clock, when they are read."""

    def __init__(self, lanes, reactor, wall_ns):
        self._lanes, self._reactor, self._wall_ns = lanes, reactor, wall_ns
        self._ring, self._number = deque(maxlen=RING_TRACES), 0
        self._open = []              # traces that wait for upstream, the oldest first
        self._waits = []             # (lane, its entry in the trace, start, stop of positions, trace)
        self._current, self._before = None, []
        self._every_s, self._until, self._next = 60.0, 0.0, 0.0

    def read(self, request) -> dict:
        """The traces behind a number, oldest first, as plain data with times in nanoseconds since 1970. request: {"after", "per_minute", "seconds"}: the
        last answer's `next`, how many are to begin a minute, and for how long if nobody asks again. Raises TidegateError."""
        after, per_minute, seconds = (request.get(name, default) for name, default in (("after", 0), ("per_minute", 6), ("seconds", 180)))
        if not all(isinstance(n, int) for n in (after, per_minute, seconds)) or not 1 <= per_minute <= PER_MINUTE_MAX or not 1 <= seconds <= ASKED_S_MAX:
            raise TidegateError(f"traces: after is a number, per_minute up to {PER_MINUTE_MAX}, seconds up to {ASKED_S_MAX}")
        now = self._reactor.monotonic()
        self._every_s, self._until = 60 / per_minute, now + seconds
        self._next = min(self._next, now + self._every_s)
        self._give_up(now)
        if after > self._number:         # of another run
            after = 0
        first = self._ring[0][0] if self._ring else self._number + 1
        origin_ns = self._wall_ns() - int(now * 1e9)
        return {"traces": [_plain(trace, origin_ns) for number, trace in self._ring if number > after], "next": self._number, "forgotten": max(0, first - 1 - after)}

    # --- told by the daemon

    def note(self, step, about=None):
        """A step of the turn's way is done. about: of "arrived", when the oldest event came, or None: now; of "ruled", what was stored."""
        if step == "arrived":
            self._current = self._begin(about)
        elif self._current is not None:
            self._current[step] = self._reactor.monotonic()
            if step == "acknowledged":
                self._before = [(outbox.log.head, sum(outbox.appended.values())) for outbox, _ in self._lanes()]
            elif step == "ruled":
                self._ruled(about)

    def _begin(self, since):
        now = self._reactor.monotonic()
        if now >= self._until:           # nobody asks any more
            self._open, self._waits = [], []
            return None
        if now < self._next:
            return None
        self._next = now + self._every_s
        self._give_up(now, OPEN_MAX - 1)
        return {"arrived": min(now, since or self._reactor.now), "streams": [], "lanes": []}

    def _ruled(self, stored):
        trace, self._current = self._current, None
        if not stored:
            return                       # nothing of it was kept
        trace["streams"] = [[stream.name, batch.first_sequence, len(batch)] for stream, batch, _ in stored]
        for (outbox, lane), (head, rows) in zip(self._lanes(), self._before):
            rows = sum(outbox.appended.values()) - rows
            if rows > 0:
                entry = {"lane": lane.name, "rows": rows, "sent": None, "acknowledged": None}
                trace["lanes"].append(entry)
                if lane.reads and outbox.log.head > head:        # else nobody knows when it will leave
                    self._waits.append((lane, entry, head, outbox.log.head, trace))
                    lane.watch = self
        if any(wait[4] is trace for wait in self._waits):
            self._open.append(trace)
        else:
            self._finish(trace)

    # --- told by a lane

    def sent(self, lane, group):
        """A message of these rows has been handed over."""
        for other, entry, start, stop, _ in self._waits:
            if other is lane and group.positions[0] < stop and group.positions[-1] >= start:
                entry["sent"] = self._reactor.monotonic()

    def acknowledged(self, lane):
        """Upstream has acknowledged something."""
        now, kept, done = self._reactor.monotonic(), [], []
        for wait in self._waits:
            (kept if wait[0] is not lane or lane.holds(wait[2], wait[3]) else done).append(wait)
        self._waits = kept
        for _, entry, _, _, trace in done:
            entry["acknowledged"] = now
            if not any(wait[4] is trace for wait in kept):
                self._open.remove(trace)
                self._finish(trace)
        if not any(wait[0] is lane for wait in kept):
            lane.watch = None

    # --- the end of a trace

    def _give_up(self, now, most=OPEN_MAX):
        while self._open and (len(self._open) > most or now - self._open[0]["arrived"] > OPEN_S):
            trace = self._open.pop(0)
            self._waits = [wait for wait in self._waits if wait[4] is not trace]
            self._finish(trace)

    def _finish(self, trace):
        self._number += 1
        self._ring.append((self._number, trace))


def _plain(trace, origin_ns):
    def wall(time_s):
        return None if time_s is None else origin_ns + int(time_s * 1e9)

    return {**{name: wall(trace.get(name)) for name in ("arrived", *STEPS)}, "streams": trace["streams"],
            "lanes": [{**entry, "sent": wall(entry["sent"]), "acknowledged": wall(entry["acknowledged"])} for entry in trace["lanes"]]}
