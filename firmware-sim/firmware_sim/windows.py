"""Check rows of tumbling windows: counts, means and extremes per device, recomputed from the truth by the devices' own time."""

import datetime
import math

from .errors import TruthError
from .index import ACKED, COUNTED
from .verify import Findings

MEAN_TOLERANCE = 1e-9
COLUMNS = {"device": "device", "start": "start", "count": "count", "mean": "mean"}
_OPTIONAL = {"end", "min", "max"}


class Window:
    """What the truth says of one device and window: certain events, and others that may or may not have been taken in."""

    __slots__ = ("certain", "possible", "total", "low", "high", "received")

    def __init__(self):
        self.certain = self.possible = self.received = 0
        self.total = 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, value, certain):
        if not certain:
            self.possible += 1
            return
        self.certain += 1
        self.total += value
        self.low, self.high = min(self.low, value), max(self.high, value)

    def differences(self, row, columns, tolerance) -> dict:
        """What of the row is not as it should be. With possible events in the window only its count is checked, as a range."""
        differ = {}
        count = row[columns["count"]]
        if not isinstance(count, int) or not self.certain <= count <= self.certain + self.possible:
            differ["count"] = {"truth": self.certain, "received": count}
        if self.possible:
            return differ
        for name, truth, least in (("mean", self.total / self.certain, MEAN_TOLERANCE), ("min", self.low, 0.0), ("max", self.high, 0.0)):
            if name in columns:
                value = row[columns[name]]
                allowed = max(least, tolerance)
                if not isinstance(value, (int, float)) or not math.isclose(value, truth, rel_tol=allowed, abs_tol=least):
                    differ[name] = {"truth": truth, "received": value}
        return differ


def parse_columns(text) -> dict:
    """'start=window_start,mean=avg' over the defaults; raises TruthError on names that mean nothing."""
    columns = dict(COLUMNS)
    for part in filter(None, (text or "").split(",")):
        name, _, column = part.strip().partition("=")
        if name not in COLUMNS.keys() | _OPTIONAL or not column:
            raise TruthError(f"--columns '{part}': expected NAME=COLUMN with NAME one of {', '.join([*COLUMNS, *sorted(_OPTIONAL)])}")
        columns[name] = column
    if "end" in columns:
        del columns["start"]
    return columns


def verify_windows(truth, rows, *, field, length_s, columns, tolerance=0.0, open_windows=0) -> dict:
    """Check window rows against a TruthIndex.

    Windows of length_s seconds begin at multiples of it since 1970. The newest `open_windows` of each device may be absent.
    Counts must agree; tolerance is relative and for mean (never below 1e-9), min and max.
    """
    length = round(length_s * 10**9)
    windows = _recompute(truth, field, length)
    found, received = Findings(), 0
    for row in rows:
        received += 1
        missing = [c for c in columns.values() if c not in row]
        if missing:
            raise TruthError(f"row {received} has no column '{missing[0]}'; it has {', '.join(row)}; name them with --columns")
        device = row[columns["device"]]
        start = _time_ns(row[columns["start"]]) if "start" in columns else _time_ns(row[columns["end"]]) - length
        window = windows.get((device, start)) if isinstance(device, str) else None
        if window is None:
            found.add("unexpected", str(device), {"device": device, "start": start, "row": row})
            continue
        window.received += 1
        if window.received > 1:
            found.add("doubled", device, {"device": device, "start": start, "times": window.received})
            continue
        differ = window.differences(row, columns, tolerance)
        if differ:
            found.add("wrong", device, {"device": device, "start": start, "fields": differ})
    return found.report(events=len(truth), rows=received, windows=len(windows), expected=_find_missing(windows, found, open_windows))


def _recompute(truth, field, length):
    windows, numeric = {}, False
    for n, flags in enumerate(truth.flags):
        if not truth.counts(n):
            continue
        line = truth.line(n)
        value = line.values.get(field)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        numeric = True
        key = line.device, line.time // length * length
        window = windows.get(key)
        if window is None:
            window = windows[key] = Window()
        window.add(value, bool(flags & ACKED and flags & COUNTED))
    if not numeric and len(truth):
        raise TruthError(f"{truth.path}: no expected event has a number called '{field}'")
    return windows


def _find_missing(windows, found, open_windows):
    starts = {}
    for device, start in windows:
        starts.setdefault(device, []).append(start)
    expected = 0
    for device, of_device in starts.items():
        of_device.sort()
        for i, start in enumerate(of_device):
            window = windows[device, start]
            if not window.certain:
                continue
            expected += 1
            if not window.received and i < len(of_device) - open_windows:
                found.add("missing", device, {"device": device, "start": start, "count": window.certain})
    return expected


def _time_ns(value):
    if isinstance(value, int):
        return value
    try:
        moment = datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise TruthError(f"window time {value!r}: expected nanoseconds since 1970 or RFC 3339 text") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1) * 1000
