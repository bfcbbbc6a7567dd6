"""Lane: one upstream route over one outbox log. It knows what upstream has acknowledged, and what goes next.

    outbox log --Track live----.
               --Track backlog--+-> Packer -> Message -> Upstream -> PUBACK -> position acknowledged

What is not acknowledged is a short ascending list of position ranges, the last one open-ended. It is all the lane keeps
across a disconnection or a restart: on reconnect everything in it is read from the log and sent again. A backlog of more
than LIVE_RECORDS or LIVE_ROWS is drained behind what is appended from then on: it leaves one slot of the window and half of the
rate's burst to live data, and all lanes' backlogs together have no more under way than their Pace allows. More than RANGES_MAX ranges are merged over the smallest gaps, so that some records go twice;
the receiver drops those.
"""

from time import perf_counter

from edge.codec.batches import decode_columns
from edge.errors import DiskError
from edge.storage.records import BATCH, JUMP, between
from gateway.forward.meanings import Meanings
from gateway.forward.pace import ENCODING_S, Pace
from gateway.forward.packer import Packer
from gateway.forward.track import Track

LIVE_RECORDS = 64
LIVE_ROWS = 4096                 # a message of them
RANGES_MAX = 32
HOLD_MIN_S = 1.0
HOLD_MAX_S = 60.0
READ_BYTES = 64 << 10
WINDOW_MESSAGES = 8


class Lane:
    """Sends `log`'s records by `policy`. streams: record.stream -> Schema of what this process appends; may grow.

    dead(stream, first_sequence, count, reason) is told of rows that cannot be sent: too long, or unreadable in the log.
    set_since(position): (nanoseconds by which the clock was set since that record was stored, whether its time is right then). cleared(): records before this position may leave.
    arrived(stream, rows): these were evicted while they were under way, and acknowledged.
    Raises ConfigError when policy, gateway and name make no topic.
    """

    def __init__(self, name, log, streams, policy, *, gateway, epoch, dead=None, set_since=lambda position: (0, True),
                 cleared=lambda: float("inf"), arrived=lambda stream, rows: None):
        self.name = name
        self.policy = policy
        self.upstream = None         # set by the Upstream that carries it, as `pace`
        self.pace = Pace()
        self.watch = None            # Traces, while it waits for rows of this lane
        self.on_read = lambda: None  # told before the log is read: what belongs there and is not yet should go there
        self.in_flight = 0           # messages
        self._bytes_in_flight = 0
        self.unfinished = False      # the last next() stopped for time
        self.rows_waiting = 0        # appended and not acknowledged
        self.rows_acked = {}         # stream -> rows acknowledged, each counted once: for the ledger, kept by state()
        self.rows_dead = {}          # stream -> rows that could not be sent, likewise
        self.messages_acked = self.bytes_acked = 0       # of this process, as the rest
        self.rows_sent = self.messages_sent = self.bytes_sent = 0
        self.refusals = 0
        self._log = log
        self._streams = streams
        self._meanings = Meanings(streams, log.head)
        self._tell_dead, self._set_since, self._cleared, self._arrived = dead, set_since, cleared, arrived
        self._packer = Packer(policy, name, gateway, epoch)
        self._ranges = [[log.tail, None]]        # valid while disconnected
        self._live = self._backlog = None        # valid while connected
        self._tokens = self._burst = max(policy.rate_bytes_s, policy.size_bytes_max if policy.rate_bytes_s else 0)
        self._filled_at = 0.0
        self._packet_bytes_max = None
        self._hold_until = 0.0
        self._holds = 0              # refusals in a row
        self.refusal = ""            # why the server refuses this lane's messages
        policy.topic_of(gateway, name, "stream")

    # --- for the daemon

    def wake(self, rows=0):
        """`rows` more rows are in the log: send what is due, now."""
        self.rows_waiting += rows
        if self.upstream is not None:
            self.upstream.pump()

    def evicted(self, rows):
        """The log's quota dropped this many rows that waited here."""
        self.rows_waiting = max(0, self.rows_waiting - rows)

    @property
    def reads(self):
        """Rows leave as they come; else they wait for a connection."""
        return self._live is not None

    @property
    def acked_before(self):
        """Everything below this position is acknowledged: the log's drop_before floor."""
        if self._live is None:
            return self._ranges[0][0]
        floor = self._live.floor
        return floor if self._backlog is None or self._backlog.floor is None else min(floor, self._backlog.floor)

    def holds(self, start, stop):
        """Whether something of the positions start to stop is not acknowledged."""
        return any(first < stop and (end is None or end > start) for first, end in self.pending())

    def state(self, numbers=None):
        """For the checkpoint: plain lists and numbers. numbers: of the streams that its log may hold rows of; None: of all."""
        ranges, acked, waiting = self._covered(self.pending())
        numbers = self._streams if numbers is None else numbers
        return {"ranges": ranges, "rows_acked": acked, "rows_dead": dict(self.rows_dead), "rows_waiting": waiting,
                "meanings": self._meanings.state(ranges[0][0], numbers)}

    def load(self, state):
        """Go on from a state(); before start. Positions the log does not hold any more, or not yet, are put right."""
        head, tail = self._log.head, self._log.tail
        ranges = [[max(start, tail), min(stop, head)] for start, stop in state["ranges"][:-1] if max(start, tail) < min(stop, head)]
        ranges.append([max(tail, min(state["ranges"][-1][0], head)), None])
        self._ranges = ranges
        self._meanings.load(state["meanings"], head)
        self.rows_acked, self.rows_dead = dict(state["rows_acked"]), dict(state["rows_dead"])
        self.rows_waiting = state["rows_waiting"]

    def status(self, wall_ns):
        """Counters for people and for /metrics; wall_ns is the wall clock, for the age of the oldest row."""
        return {
            "rows_sent": self.rows_sent, "rows_acked": sum(self.rows_acked.values()), "rows_waiting": self.rows_waiting,
            "rows_dead": sum(self.rows_dead.values()),
            "messages_sent": self.messages_sent, "messages_acked": self.messages_acked, "in_flight": self.in_flight,
            "bytes_sent": self.bytes_sent, "bytes_acked": self.bytes_acked, "refusals": self.refusals,
            "records_waiting": max(0, self._log.head - max(self.acked_before, self._log.tail)),
            "oldest_s": self._oldest_s(wall_ns), "refusal": self.refusal,
        }

    # --- for the Upstream

    def connected(self, packet_bytes_max=None):
        """A connection stands, with the server's Maximum Packet Size or None."""
        self._packet_bytes_max = packet_bytes_max
        self._packer.connected(packet_bytes_max)
        self.on_read()
        head = self._log.head
        waiting = sum((head if stop is None else stop) - start for start, stop in self._ranges)
        if waiting <= LIVE_RECORDS and self.rows_waiting <= LIVE_ROWS:
            self._live, self._backlog = self._track(self._ranges), None
        else:
            self._live, self._backlog = self._track([[head, None]]), self._track([*self._ranges[:-1], [self._ranges[-1][0], head]])

    def disconnected(self):
        """The connection is gone: all that is not acknowledged waits again."""
        if self._live is not None:
            self._ranges, self.rows_acked, self.rows_waiting = self._covered(self.pending())
            self._live = self._backlog = None
        self.in_flight = self._bytes_in_flight = 0
        self.unfinished = False

    def refused(self, reason, now):
        """The server refuses this lane's messages (MQTT 5 reason codes): pause the lane alone, then send again."""
        self.refusals += 1
        self.refusal = reason
        self._hold_until = now + min(HOLD_MAX_S, HOLD_MIN_S * 2 ** min(self._holds, 16))
        self._holds += 1
        self.disconnected()
        self.connected(self._packet_bytes_max)

    def next(self, now, until):
        """The next message that is due, or None; encodes until perf_counter() == until. The Upstream must send it."""
        self.unfinished = False
        room = self._room()
        if self._live is None or room == 0 or now < self._hold_until or not self._affords(now, 0):
            return None
        message = self._live.next(now, until)
        self.unfinished = self._live.unfinished
        if message is None and self._backlog is not None and not self.unfinished:
            if room > (self.policy.window > 1) and self._affords(now, self._burst / 2) and self.pace.allows(now):
                began = perf_counter()
                message = self._backlog.next(now, until, ENCODING_S)
                self.pace.worked(perf_counter() - began, now)
                self.unfinished = self._backlog.unfinished
                if message is not None:
                    message.backlog = True
            if self._backlog.drained:
                self._backlog = None
        if message is not None:
            message.lane = self
            self._count_sent(message)
            if self.watch is not None and message.group is not None:
                self.watch.sent(self, message.group)
        return message

    def acknowledged(self, message):
        """PUBACK for a message of this connection."""
        self.in_flight -= 1
        self.messages_acked += 1
        self.bytes_acked += message.size
        self._bytes_in_flight -= message.size
        if message.group is not None:
            self._holds = 0
            self.refusal = ""
            message.group.track.acknowledged(message.group)
        if self.watch is not None:
            self.watch.acknowledged(self)

    def due_at(self, now):
        """When next() may have something that it has not now; reactor seconds, None: only after wake() or a PUBACK."""
        if self._live is None or self._room() == 0:
            return None
        if now < self._hold_until:
            return self._hold_until
        rate, due = self.policy.rate_bytes_s, self._live.due_at()
        if self._backlog is not None and now < self.pace.rests_until:
            due = self.pace.rests_until if due is None else min(due, self.pace.rests_until)
        if rate and self._tokens <= 0:
            return now + (1 - self._tokens) / rate
        if rate and self._backlog is not None and self._tokens <= self._burst / 2:
            drip = now + (1 + self._burst / 2 - self._tokens) / rate
            due = drip if due is None else min(due, drip)
        return due

    # --- inside

    def _track(self, ranges):
        return Track(ranges, self._log, self._meanings, self._packer, self.policy, self._dead, self._closed, self._set_since, self._cleared)

    def pending(self):
        """Ranges of positions that are not acknowledged, ascending; the last has no end."""
        if self._live is None:
            return [list(r) for r in self._ranges]
        return (self._backlog.pending() if self._backlog is not None else []) + self._live.pending()

    def _covered(self, ranges):
        """At most RANGES_MAX ranges that cover these, and what rows_acked and rows_waiting are once the filled gaps are sent again."""
        ranges, filled = _merged(ranges)
        acked, waiting = dict(self.rows_acked), self.rows_waiting
        for start, stop in filled:
            for record in between(self._log, start, stop):
                if record.kind == BATCH and record.stream in acked:
                    acked[record.stream] -= record.count
                    waiting += record.count
        return ranges, acked, waiting

    def _room(self):
        """Messages that may be sent. WINDOW_MESSAGES of the longest kind bound a wide window of long messages."""
        if self._bytes_in_flight >= WINDOW_MESSAGES * self.policy.size_bytes_max:
            return 0
        return max(0, self.policy.window - self.in_flight)

    def _affords(self, now, reserve):
        rate = self.policy.rate_bytes_s
        if not rate:
            return True
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        return self._tokens > reserve

    def _count_sent(self, message):
        self._tokens -= message.size
        self.in_flight += 1
        self._bytes_in_flight += message.size
        self.messages_sent += 1
        self.rows_sent += message.rows
        self.bytes_sent += message.size

    def _closed(self, stream, rows, evicted):
        self.rows_acked[stream] = self.rows_acked.get(stream, 0) + rows
        self._let_go(max(0, rows - evicted))
        if evicted:
            self._arrived(stream, evicted)

    def _dead(self, stream, first, count, reason):
        count %= JUMP                # numbers left out are no rows
        self.rows_dead[stream] = self.rows_dead.get(stream, 0) + count
        self._let_go(count)
        if self._tell_dead is not None:
            self._tell_dead(stream, first, count, reason)

    def _let_go(self, rows):
        self.rows_waiting = max(0, self.rows_waiting - rows)
        if self._live is not None and self.acked_before >= self._log.head:
            self.rows_waiting = 0    # whatever evictions made of the count, nothing waits now

    def _oldest_s(self, wall_ns):
        for record in self._log.read(self.acked_before, READ_BYTES):
            schema = self._meanings.at(record.position, record.stream)
            if record.kind == BATCH and schema is not None:
                try:
                    return max(0.0, (wall_ns - decode_columns(record.payload, schema).received_ns) / 1e9)
                except DiskError:
                    pass             # it becomes a dead letter when its turn comes
        return 0.0


def _merged(ranges):
    """(ascending disjoint ranges, at most RANGES_MAX; the gaps that were filled for it, the smallest)."""
    joined = [list(ranges[0])]
    for start, stop in ranges[1:]:
        if joined[-1][1] >= start:
            joined[-1][1] = stop
        else:
            joined.append([start, stop])
    gaps = sorted(range(1, len(joined)), key=lambda i: joined[i][0] - joined[i - 1][1])
    fill = set(gaps[:max(0, len(joined) - RANGES_MAX)])
    merged, filled = joined[:1], []
    for i in range(1, len(joined)):
        if i in fill:
            filled.append((merged[-1][1], joined[i][0]))
            merged[-1][1] = joined[i][1]
        else:
            merged.append(joined[i])
    return merged, filled
