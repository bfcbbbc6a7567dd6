"""The receiving side: decodes upstream messages and hands each row on once.

    receiver = Receiver(saved_state)
    delivery = receiver.feed(topic, payload)        # of each message, in any order, as often as it comes
    store(delivery.batch, receiver.dump())          # together, then acknowledge: a restart neither loses nor doubles

Identity of a row is (gateway, stream, epoch, sequence). Messages come more than once, overlap, and come out of order: after
an outage live rows go first and the backlog later. So the receiver keeps the set of sequences it has seen, as intervals.

Limits and what happens at them
- INTERVALS_MAX intervals an epoch: the lowest hole is closed; rows of it that come later count as duplicates (`given_up`).
- TRACKS_MAX (gateway, stream, epoch): the one not fed for longest is forgotten; its rows would count as new again (`forgotten`).
- CONTEXTS_MAX contexts a topic scope, SCOPES_MAX scopes: the oldest is forgotten; a row of it is refused.
The scope of a topic is the topic without its last level: a stream's contexts and rows are published in one scope.
"""

import zlib
from collections import OrderedDict

import msgpack

from edge.balance import Balance
from edge.books import SCHEMA as LEDGER
from edge.codec.batches import BATCH, CONTEXT, GAP, ROW, decode_message
from edge.codec.intervals import Intervals
from edge.errors import DiskError
from edge.storage.records import JUMP

INTERVALS_MAX = 4096
TRACKS_MAX = 1 << 16
CONTEXTS_MAX = 8
SCOPES_MAX = 1 << 14
STATE_VERSION = 1


class Delivery:
    """What one message brought.

    kind: as in edge.codec.batches. batch: the NEW rows, None if there are none; its sequences are `ranges`, pairs (first, count) in
    row order. first_sequence: of the first new row. duplicates: rows dropped. gaps: (first, count, reason) newly announced as
    lost. message: all of it, duplicates too, and what ledger and context messages say.
    """

    __slots__ = ("batch", "duplicates", "epoch", "first_sequence", "gaps", "gateway", "kind", "message", "ranges", "stream")

    def __init__(self, message):
        self.kind = message.kind
        self.gateway = message.gateway
        self.stream = message.stream
        self.epoch = message.epoch
        self.message = message
        self.first_sequence = None
        self.batch = None
        self.ranges = []
        self.duplicates = 0
        self.gaps = []


class _Track:
    """One (gateway, stream, epoch): sequences seen, sequences announced as lost, rows received and dropped."""

    __slots__ = ("announced", "duplicates", "received", "seen")

    def __init__(self, seen=(), announced=(), received=0, duplicates=0, filled=0):
        self.seen = Intervals(seen, count_max=INTERVALS_MAX, filled=filled)
        self.announced = Intervals(announced, count_max=INTERVALS_MAX)
        self.received = received
        self.duplicates = duplicates

    def missing(self):
        known = Intervals(self.seen, count_max=2 * INTERVALS_MAX)
        for start, stop in self.announced:
            known.add(start, stop)
        return known.holes()

    def announced_only(self):
        return [part for start, stop in self.announced for part in self.seen.lacks(start, stop)]


class Receiver:
    """Deduplicates by sequence. state: what dump gave, or None. Not thread-safe."""

    def __init__(self, state: bytes | None = None):
        self._tracks = OrderedDict()
        self._scopes = OrderedDict()             # scope -> OrderedDict: context number -> (Context, payload)
        self.forgotten = 0
        self._balance = Balance(self._lacks)
        if state is not None:
            self._restore(state)

    def feed(self, topic: str, payload: bytes) -> Delivery:
        """Takes a message. Raises UpstreamError and stays as it was if that is malformed, or a row whose context is not known."""
        scope = topic.rpartition("/")[0]
        held = self._scopes.get(scope, {})
        message = decode_message(payload, {number: context for number, (context, _) in held.items()})
        delivery = Delivery(message)
        if message.kind == CONTEXT:
            self._keep(scope, message.context, bytes(payload))
        elif message.kind in (BATCH, ROW):
            self._take_rows(self._track(message), message, delivery)
        elif message.kind == GAP:
            self._take_gap(self._track(message), message, delivery)
        if message.stream == LEDGER.stream:
            self._read_ledger(delivery)
        return delivery

    def check(self) -> list[dict]:
        """Where what gateways say of themselves (`$ledger`) does not balance or has not come, with the interval: see Balance.problems. Empty: all is accounted for."""
        return self._balance.problems()

    def _read_ledger(self, delivery):
        rows = delivery.batch.rows() if delivery.batch is not None and delivery.batch.schema.fields == LEDGER.fields else ()
        numbers = (n for first, count in delivery.ranges for n in range(first, first + count))
        self._balance.take(delivery.gateway, delivery.epoch, [(n, row) for n, row in zip(numbers, rows) if None not in row.values()])

    def _lacks(self, gateway, stream, epoch, first, stop):
        track = self._tracks.get((gateway, stream, epoch))
        if track is None:
            return stop - first, 0
        unseen = track.seen.lacks(first, stop)
        lacking = sum(d - c for a, b in unseen for c, d in track.announced.lacks(a, b))
        return lacking, (sum(b - a for a, b in unseen) - lacking) % JUMP     # numbers left out are no rows

    def _track(self, message):
        name = (message.gateway, message.stream, message.epoch)
        track = self._tracks.get(name)
        if track is None:
            track = self._tracks[name] = _Track()
            if len(self._tracks) > TRACKS_MAX:
                self._tracks.popitem(last=False)
                self.forgotten += 1
        self._tracks.move_to_end(name)
        return track

    def _take_rows(self, track, message, delivery):
        first, stop = message.first, message.first + message.count
        new = track.seen.lacks(first, stop)
        track.seen.add(first, stop)
        rows = sum(b - a for a, b in new)
        track.received += rows
        track.duplicates += message.count - rows
        delivery.duplicates = message.count - rows
        if rows:
            delivery.batch = message.batch if not delivery.duplicates else message.batch.select([s - first for a, b in new for s in range(a, b)])
            delivery.ranges = [(a, b - a) for a, b in new]
            delivery.first_sequence = delivery.batch.first_sequence = new[0][0]

    def _take_gap(self, track, message, delivery):
        for start, stop in track.seen.lacks(message.first, message.first + message.count):
            for a, b in track.announced.lacks(start, stop):
                delivery.gaps.append((a, b - a, message.reason))
        for first, count, _ in delivery.gaps:
            track.announced.add(first, first + count)

    def _keep(self, scope, context, payload):
        held = self._scopes.setdefault(scope, OrderedDict())
        held[context.number] = (context, payload)
        held.move_to_end(context.number)
        self._scopes.move_to_end(scope)
        if len(held) > CONTEXTS_MAX:
            held.popitem(last=False)
        if len(self._scopes) > SCOPES_MAX:
            self._scopes.popitem(last=False)

    def report(self) -> list[dict]:
        """One entry an epoch: gateway, stream, epoch, received, duplicates, and as pairs (first, count): missing (between what
        was seen, neither received nor announced) and announced (lost at the gateway, not received); given_up: see the limits."""
        return [
            {
                "gateway": gateway, "stream": stream, "epoch": epoch, "received": t.received, "duplicates": t.duplicates,
                "missing": [(a, b - a) for a, b in t.missing()], "announced": [(a, b - a) for a, b in t.announced_only()],
                "given_up": t.seen.filled,
            }
            for (gateway, stream, epoch), t in sorted(self._tracks.items())
        ]  # fmt: skip

    # --- state

    def dump(self) -> bytes:
        """All that a new Receiver needs to go on."""
        tracks = [
            [*name, list(t.seen), list(t.announced), t.received, t.duplicates, t.seen.filled] for name, t in self._tracks.items()
        ]
        scopes = [[scope, [payload for _, payload in held.values()]] for scope, held in self._scopes.items()]
        body = msgpack.packb([STATE_VERSION, tracks, scopes, self.forgotten, self._balance.state()])
        return zlib.crc32(body).to_bytes(4, "big") + body

    @classmethod
    def load(cls, state: bytes) -> "Receiver":
        """The receiver that dumped this. Raises DiskError if the bytes are damaged."""
        return cls(state)

    def _restore(self, state):
        if len(state) < 5 or zlib.crc32(state[4:]) != int.from_bytes(state[:4], "big"):
            raise DiskError("a receiver's state is damaged; restore an older one, or start anew and expect duplicates")
        version, *rest = msgpack.unpackb(state[4:])
        if version != STATE_VERSION:
            raise DiskError(f"a receiver's state has version {version}; this one reads {STATE_VERSION}")
        tracks, scopes, self.forgotten, *balance = rest
        self._balance = Balance(self._lacks, *balance)
        for gateway, stream, epoch, seen, announced, received, duplicates, filled in tracks:
            self._tracks[gateway, stream, epoch] = _Track(seen, announced, received, duplicates, filled)
        for scope, payloads in scopes:
            for payload in payloads:
                self._keep(scope, decode_message(payload).context, payload)
