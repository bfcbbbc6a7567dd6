"""Which field tells devices apart, which is the event's time, which counts a device's events or names them: candidates, by what they held."""

import re

from edge.times import nanoseconds
from gateway.discover.sight import DAY_NS, DISTINCT_MAX, I64, UNITS, lookup

DEVICES = ("device", "device_id", "deviceid", "dev", "dev_id", "sensor", "sensor_id", "sensorid", "node", "node_id", "nodeid", "client", "client_id", "clientid", "mac", "serial",
           "serial_number", "sn", "imei", "eui", "deveui", "dev_eui", "station", "machine", "asset", "id", "name", "unit", "source")
COUNTERS = re.compile(r"seq|count|cnt|(^|_)(n|no|nr|num|number|packet|msg|idx|index)(_|$)|frame|fcnt", re.I)
NAMES = re.compile(r"(^|_)(u?u?id|guid|ulid|key|nonce)$|messageid|eventid|msgid", re.I)
SKEW_NS = 60 * 10**9                     # gateway.config.spec.Stream.skew
KEYS_MAX = 1000                          # that are followed, the first ones
LEAST = 3                                # messages of one key that show that a field counts


class Track:
    """How a field goes on from message to message of a key."""

    __slots__ = ("last", "rises", "falls", "ones", "seen", "again", "same_level", "least_lag", "most_lag", "back")

    def __init__(self):
        self.last, self.seen = {}, set()
        self.rises = self.falls = self.ones = self.again = 0
        self.same_level = True       # equal to the topic's level that is the key, in every message
        self.least_lag = self.most_lag = None
        self.back = 0                # ns by which a key's time fell behind one that it had before


class Roles:
    """fields: name -> proposal.Field. level: of the topic, that is the key, or None. Sees every message with see(), once the fields stand; a
    message without its key is passed over."""

    def __init__(self, fields, level):
        self._fields, self._level = fields, level
        self._tracks = {name: Track() for name in fields}
        self.key = self._payload_key()
        self._before = {}

    def see(self, topic, payload, value, received_ns, retained):
        """A message; value: its payload, parsed. What a key sends twice in a row is a repeat, and says nothing."""
        level = topic.levels[self._level] if self._level is not None else None
        key = level if level is not None else lookup(value, self._fields[self.key].path) if self.key else ""
        if not isinstance(key, str) or self._before.get(key) == hash(payload) or key not in self._before and len(self._before) >= KEYS_MAX:
            return
        self._before[key] = hash(payload)
        for name, track in self._tracks.items():
            field = self._fields[name]
            found = lookup(value, field.path)
            if field.kind in ("i64", "str") and isinstance(found, (str, int)):
                _step(track, key, found)
                track.same_level = track.same_level and found == level
            elif field.kind == "time" and not retained:
                _lag(track, key, field.format, found, received_ns)

    def doubles(self) -> list:
        """Text fields that say what the topic's level says."""
        return [name for name, field in self._fields.items() if self._level is not None and field.kind == "str" and self._tracks[name].same_level]

    def time(self):
        """The field that is the event's time, or None: nearly always there, and within a day of when the messages came."""
        good = [(name not in ("ts", "time", "timestamp"), abs(track.most_lag), i, name) for i, (name, track) in enumerate(self._tracks.items())
                if self._fields[name].kind == "time" and self._fields[name].often and track.most_lag is not None
                and max(abs(track.least_lag), abs(track.most_lag)) < DAY_NS]
        return min(good)[3] if good else None

    def lag(self, name) -> str:
        """How far a time was behind the clock here, in words."""
        track = self._tracks[name]
        if track.most_lag is None:
            return ""
        least, most = f"{track.least_lag / 1e9:.1f}", f"{track.most_lag / 1e9:.1f}"
        ahead = ", ahead by more than `skew` believes" if track.least_lag < -SKEW_NS else ""
        return f"{most if least == most else f'{least} to {most}'} s behind the clock here{ahead}"

    def back_ns(self, name) -> int:
        """By how much a time was less than an earlier one of its key."""
        return self._tracks[name].back

    def counter(self):
        """(the i64 field in which each device counts its events, or None; others that only rise). Named for it, it may fall now and then: events come late, or again."""
        tracks = {name: track for name, track in self._tracks.items() if self._fields[name].kind == "i64" and self._fields[name].often and track.rises >= LEAST - 1}
        rising = [name for name, track in tracks.items() if not track.falls or COUNTERS.search(name) and track.rises >= 9 * track.falls]
        named = [name for name in rising if COUNTERS.search(name)]
        steady = [name for name in rising if 10 * self._tracks[name].ones >= 9 * self._tracks[name].rises]
        best = next(iter([name for name in named if name in steady] or named or steady), None)
        return best, [name for name in rising if name != best]

    def rising(self, name) -> str:
        """How a counter goes on, in words."""
        falls = self._tracks[name].falls
        return "rises from message to message of each device" + (f" but for {falls:,}, which came late or again" if falls else "")

    def names(self):
        """The str field that no two events of a key share, or None."""
        return next((name for name, track in self._tracks.items() if self._fields[name].kind == "str" and self._fields[name].often and NAMES.search(name) and name != self.key
                     and not track.again and len(track.seen) >= LEAST), None)

    def _payload_key(self):
        """The text field that tells devices apart where the topic does not: by its name, and because its values come again."""
        if self._level is not None:
            return None
        good = {name.lower(): name for name, field in self._fields.items() if field.kind == "str" and field.often and (field.repeats or not NAMES.search(name))}
        return next((good[name] for name in DEVICES if name in good), None)


def _step(track, key, value):
    both = hash((key, value))
    if both in track.seen:
        track.again += 1
    elif len(track.seen) < DISTINCT_MAX:
        track.seen.add(both)
    if isinstance(value, int):
        last = track.last.get(key)
        if last is not None:
            track.rises += value > last
            track.falls += value <= last
            track.ones += value == last + 1
        track.last[key] = value


def _lag(track, key, format, found, received_ns):
    try:
        ns = nanoseconds(found.upper()) if isinstance(found, str) else found.to_unix_nano() if hasattr(found, "to_unix_nano") else found * UNITS.get(format, 1)
        ns = int(ns)
    except (ValueError, TypeError, OverflowError):
        return
    if ns not in I64:
        return
    lag, newest = received_ns - ns, track.last.get(key, ns)
    track.back, track.last[key] = max(track.back, newest - ns), max(newest, ns)
    track.least_lag = lag if track.least_lag is None else min(track.least_lag, lag)
    track.most_lag = lag if track.most_lag is None else max(track.most_lag, lag)
