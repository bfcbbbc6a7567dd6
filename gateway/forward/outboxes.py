"""Outboxes: one a lane, and which of them gives way when there is no room.

    full =                    at the lane's quota                          when the disk is full
    backpressure              no more events are taken                     keeps all it has
    evict-oldest              its own oldest rows go                       gives way, the least urgent lane first, oldest rows first
    evict-lowest-priority     these lanes share their quotas: when the     likewise
                              sum is used up, rows of the least urgent
                              of them go, oldest first; a lane takes
                              nothing from one that is more urgent

On a full disk the journal's oldest segments go first, as far as no restart needs them. Rows go by the segment, each announced upstream in a gap. The last
segment of a lane stays, so lanes that share may be over their sum by a segment each.
"""

from contextlib import suppress

from edge.books import STREAM as LEDGER
from edge.errors import DiskError
from edge.outbox import Outbox
from edge.storage._record import HEADER_BYTES

BACKPRESSURE, OLDEST, LOWEST = "backpressure", "evict-oldest", "evict-lowest-priority"


class Outboxes(dict):
    """Lane name -> Outbox. lanes: the configuration's. new_log(name, quota, segment_bytes_max, on_evict) -> Log. evicted(outbox, rows) is told of rows that go."""

    def __init__(self, lanes, new_log, evicted):
        super().__init__()
        self._lanes, self._new_log, self._told = lanes, new_log, evicted
        self._shared = sum(lane.quota for lane in lanes.values() if lane.full == LOWEST)
        for name, lane in lanes.items():
            self[name] = self._outbox(name, lane)
        self._order = sorted((box for box in self.values() if box.evict), key=lambda box: -lanes[box.name].priority)      # who gives way first
        self._sharing = [box for box in self._order if lanes[box.name].full == LOWEST]

    def of(self, stream, more=()):
        """Those of the lanes whose table names the stream, or the rule that it is the rest of, and of `more`."""
        named = {stream, stream.removesuffix(".partial")}
        return [box for name, box in self.items() if named & set(self._lanes[name].streams) or name in more]

    def of_ledger(self):
        """Those of the lanes that name $ledger; if none does, of the least urgent one, of those that send batches where there are any."""
        lanes = self._lanes
        named = [box for name, box in self.items() if LEDGER in lanes[name].streams]
        fit = [name for name in lanes if not lanes[name].topic.startswith("{stream}")]       # a topic must not begin with $
        ranked = sorted(fit, key=lambda name: (lanes[name].encoding == "batch", lanes[name].priority))
        return named or [self[name] for name in ranked[-1:]]

    def give_way(self) -> bool:
        """The disk is full: let the oldest rows of the least urgent lane go that may, and can. False when there is none."""
        return any(map(_gives_way, self._order))

    # --- inside

    def _outbox(self, name, lane):
        """The lane's outbox, over its log; the log calls back for what it evicts and for its preamble."""
        holder = []
        quota = self._shared if lane.full == LOWEST else lane.quota
        log = self._new_log(f"outbox/{name}", quota, lane.quota // 4, lambda *gap: self._evicted(holder[0], *gap))
        box = Outbox(name, log, evict=lane.full != BACKPRESSURE, make_room=self._make_room if lane.full == LOWEST else None)
        holder.append(box)
        if not box.evict:
            log.keep_from = log.tail
        return box

    def _evicted(self, box, kind, stream, first, count):
        self._told(box, box.on_evict(kind, stream, first, count))

    def _make_room(self, box, payload):
        """Let rows of the lanes that share go until a record of this outbox finds room, as far as they may."""
        size, own = HEADER_BYTES + len(payload), self._lanes[box.name].priority
        while sum(other.log.size_bytes for other in self._sharing) + size > self._shared:
            if not any(_gives_way(other) for other in self._sharing if self._lanes[other.name].priority >= own):
                return


def _gives_way(box):
    """Whether rows went; those that the disk takes no notice of stay."""
    with suppress(DiskError):
        return box.log.give_way()
    return False
