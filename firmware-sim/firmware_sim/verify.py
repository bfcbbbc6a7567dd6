"""Compare what was received with the truth: missing, doubled, wrong, unexpected."""

import math
import sys

import msgspec

from .errors import TruthError
from .index import ACKED, COUNTED, MALFORMED

EXAMPLES_MAX = 5
DEVICES_MAX = 1000
_decode = msgspec.json.Decoder(dict).decode


class Findings:
    """Counts by kind, by device and kind, and the first few of each."""

    KINDS = ("missing", "doubled", "wrong", "unexpected")

    def __init__(self):
        self.counts = dict.fromkeys(self.KINDS, 0)
        self.examples = {kind: [] for kind in self.KINDS}
        self.devices = {}

    def add(self, kind, device, example):
        self.counts[kind] += 1
        if device in self.devices or len(self.devices) < DEVICES_MAX:
            per = self.devices.setdefault(device, {})
            per[kind] = per.get(kind, 0) + 1
        if len(self.examples[kind]) < EXAMPLES_MAX:
            self.examples[kind].append(example)

    @property
    def clean(self):
        return not any(self.counts.values())

    def report(self, **counts) -> dict:
        """Everything, ready for JSON."""
        return {"ok": self.clean, **counts, **self.counts,
                "examples": {k: v for k, v in self.examples.items() if v}, "devices": self.devices}


def read_rows(path, stream=None):
    """The rows of `path` ("-": standard input), those of `stream` if given.

    Raises TruthError on a line that is no JSON object (but for a torn last one), and on rows of two streams when none was chosen.
    """
    seen, number = None, 0
    try:
        file = sys.stdin.buffer if path == "-" else open(path, "rb")
    except OSError as error:
        raise TruthError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        for raw in file:
            number += 1
            try:
                row = _decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if not raw.endswith(b"\n"):
                    return
                if not raw.strip():
                    continue
                raise TruthError(f"{path}:{number}: not a JSON object: {error}") from None
            name = row.get("stream")
            if stream is not None:
                if name != stream:
                    continue
            elif seen is None:
                seen = name
            elif name != seen:
                raise TruthError(f"{path}:{number}: rows of two streams, '{seen}' and '{name}'; choose one with --stream")
            yield row


def verify_events(truth, rows, *, fields=None, tolerance=0.0, allow_copies=False) -> dict:
    """Check rows, each an event by device and sequence number, against a TruthIndex.

    fields: names that each row must have and that are compared; None: compare those that both sides have.
    tolerance: relative, for numbers. allow_copies: as many rows of an event as the device sent are fine.
    """
    found = Findings()
    keys = sorted({(g["device"], g["seq"]) for g in truth.groups.values()})
    received = 0
    for row in rows:
        received += 1
        device, seq = _identity(row, keys)
        n = truth.find(device, seq)
        if n < 0:
            found.add("unexpected", str(device), {"device": device, "seq": seq, "why": "never sent", "row": row})
            continue
        if not truth.counts(n):
            why = "malformed" if truth.flags[n] & MALFORMED else "filtered"
            found.add("unexpected", device, {"device": device, "seq": seq, "why": why, "row": row})
            continue
        already = truth.received[n]
        truth.received[n] = min(255, already + 1)
        if already > (truth.copies.get(n, 0) if allow_copies else 0) or already == 255:
            found.add("doubled", device, {"device": device, "seq": seq, "times": already + 1})
            continue
        differ = _differences(truth, truth.line(n), row, fields, tolerance)
        if differ:
            found.add("wrong", device, {"device": device, "seq": seq, "fields": differ})
    counts = _find_missing(truth, found)
    return found.report(events=len(truth), rows=received, **counts)


def _identity(row, keys):
    for device, seq in keys:
        device, seq = _key(row, device), _key(row, seq)
        if device is not None and seq is not None:
            return row[device], row[seq]
    return None, None


def _key(row, name):
    """The row's key for a field of the truth: its name, or the last part of a dotted name."""
    if name in row:
        return name
    last = name.rpartition(".")[2]
    return last if last in row else None


def _differences(truth, line, row, fields, tolerance):
    differ = {}
    for name in line.values if fields is None else fields:
        key = _key(row, name)
        if name not in line.values or key is None:
            if fields is not None:
                differ[name] = {"truth": line.values.get(name), "received": "no such field"}
        elif not same(line.values[name], row[key], tolerance):
            differ[name] = {"truth": line.values[name], "received": row[key]}
    key = _key(row, truth.groups[line.group]["time"])
    if key is not None and type(row[key]) is int and row[key] not in _times(line.time):
        differ[key] = {"truth": line.time, "received": row[key]}
    return differ


def _times(ns):
    """The ways to say a time as an integer, without loss."""
    return [ns // unit for unit in (1, 10**3, 10**6, 10**9) if ns % unit == 0]


def same(a, b, tolerance):
    """Equal; numbers within a relative tolerance, and never equal to a boolean."""
    if isinstance(a, bool) or isinstance(b, bool) or not (isinstance(a, (int, float)) and isinstance(b, (int, float))):
        return type(a) is type(b) and a == b
    return a == b or (tolerance > 0 and math.isclose(a, b, rel_tol=tolerance))


def _find_missing(truth, found):
    expected = unacknowledged = dead = 0
    for n, flags in enumerate(truth.flags):
        if not truth.counts(n):
            dead += bool(flags & MALFORMED and flags & ACKED)
            continue
        if not (flags & ACKED and flags & COUNTED):
            unacknowledged += 1
            continue
        expected += 1
        if not truth.received[n]:
            line = truth.line(n)
            found.add("missing", line.device, {"device": line.device, "seq": line.seq, "sent": line.sent})
    return {"expected": expected, "optional": unacknowledged, "dead_letters": dead}
