"""A device: its sensors, its clock, its sequence numbers, and what goes wrong with its events."""

import random

import msgspec

from .connection import Connection, Event
from .payloads import Encoder
from .sensors import make_sensor

SECOND = 10**9
_json = msgspec.json.Encoder().encode


class Device:
    """Makes one event a step, in the scenario's time, and queues it on its connection. All randomness comes from the seed."""

    __slots__ = ("group", "connection", "seq", "offline_until", "_fleet", "_id", "_sensors", "_encoder", "_rng", "_chance", "_period",
                 "_phase", "_made", "_held", "_offset_ns", "_drift", "_record_head")

    def __init__(self, fleet, group, number, seed):
        self.group = group
        self._fleet = fleet
        self._id = group.id.format(n=number, group=group.name)
        topic = group.topic.format(n=number, group=group.name, device=self._id)
        self.connection = Connection(fleet, group, self._id, topic)
        self.seq = group.first_seq
        self.offline_until = 0
        self._rng = random.Random(f"{seed}/{group.name}/{number}/device")
        self._sensors = [(s.name, make_sensor(s, random.Random(f"{seed}/{group.name}/{number}/{s.name}"), number)) for s in group.sensors]
        self._encoder = Encoder(group, self._id)
        self._chance = any((group.faults.duplicates, group.faults.disorder, group.faults.drops, group.faults.malformed,
                            group.faults.lost_acks, group.faults.offline))
        self._period = SECOND / group.rate
        self._phase = self._rng.random() * self._period
        self._made = 0
        self._held = []              # (made count at which it goes, event)
        faults = group.faults
        self._offset_ns = int(faults.skew_s * (2 * self._rng.random() - 1) * SECOND) if faults.skew_s else 0
        self._drift = faults.drift_ppm * 1e-6 * (2 * self._rng.random() - 1) if faults.drift_ppm else 0.0
        head = _json({"device": self._id, "group": group.name, "qos": group.qos})
        self._record_head = head[1:-1].replace(b"%", b"%%") + b',"seq":%d,"time":%d,"values":%b%b}'

    @property
    def first_due(self) -> int:
        """Scenario time of the first event, ns."""
        return int(self._phase)

    def set_clock(self, by_ns):
        """A step of the device's clock."""
        self._offset_ns += by_ns

    def step(self, due) -> int:
        """Make the event of this scenario time (ns); returns the time of the next one."""
        seq, self.seq = self.seq, self.seq + 1
        self._made += 1
        faults, chance = self.group.faults, self._rng.random
        t = due / SECOND
        values = {name: sensor(t) for name, sensor in self._sensors}
        if not self._chance:
            self.connection.put(self._event(seq, due, values, None, False))
        elif not (faults.drops and chance() < faults.drops):
            kind = self._rng.choice(faults.malformed_kinds) if faults.malformed and chance() < faults.malformed else None
            lose_ack = faults.lost_acks > 0 and chance() < faults.lost_acks
            event = self._event(seq, due, values, kind, lose_ack)
            if faults.disorder and chance() < faults.disorder:
                self._held.append((self._made + faults.disorder_depth, event))
            else:
                self._queue(event)
        else:
            self._fleet.dropped += 1
        if self._held:
            self._release()
        if faults.offline and chance() < faults.offline:
            self.go_offline(due, int(faults.offline_s * SECOND))
        self._fleet.touched[self.connection] = None
        jitter = self.group.jitter and self.group.jitter * chance()
        return max(due, int(self._phase + (self._made + jitter) * self._period))

    def go_offline(self, now, for_ns):
        """Cut the connection until now + for_ns, in scenario time; events are buffered meanwhile."""
        until = now + for_ns
        if until > self.offline_until:
            self.offline_until = until
            self._fleet.schedule(until, self._wake)
        if self.connection.wanted:
            self.connection.abort(stay_away=True)
            self._fleet.cuts += 1

    def finish(self):
        """No more events: what was held back goes, and the device comes online to send what it has."""
        while self._held:
            self.connection.put(self._held.pop(0)[1])
        self.connection.open()
        self._fleet.touched[self.connection] = None

    def _wake(self, due):
        if due >= self.offline_until:
            self.connection.open()
            self._fleet.touched[self.connection] = None

    def _release(self):
        while self._held and self._held[0][0] <= self._made:
            self._queue(self._held.pop(0)[1])

    def _queue(self, event):
        self.connection.put(event)
        if self.group.faults.duplicates and self._rng.random() < self.group.faults.duplicates:
            self.connection.put(event)

    def _event(self, seq, due, values, kind, lose_ack):
        claimed = self._fleet.start_ns + due + self._offset_ns + int(self._drift * due)
        time_ns, stamp = self._encoder.stamp(claimed)
        values_json = _json(values)
        if kind is None:
            payload, flag = self._encoder.encode(seq, stamp, values, values_json), b""
        else:
            payload, flag = self._encoder.broken(kind, seq, stamp, values, self._rng), b',"malformed":"%b"' % kind.encode()
        return Event(payload, self._record_head % (seq, time_ns, values_json, flag), kind, lose_ack)
