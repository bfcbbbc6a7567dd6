"""What a contract makes of a payload, said again slowly: json.loads, exact fractions, datetime."""

import json
import math
import re
from datetime import datetime, timezone
from decimal import Decimal
from fractions import Fraction

from edge.columns._batch import Batch
from edge.decoding._decode import Decoder, Router
from edge.mqtt._intake import Intake, Topics

MISSING = object()
UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
I64 = range(-(2**63), 2**63)


class Refused(Exception):
    pass


def decode(contract, payloads, topic=b"t"):
    """(rows, {event index: reason}) of the decoder under test."""
    intake = Intake(Topics(), max(len(payloads), 1), max(sum(map(len, payloads)), 1))
    for payload in payloads:
        assert intake.add(topic, bytes(payload))
    assert Router([contract]).route(intake) == []
    batch, dead = Batch(contract.schema), []
    rows = Decoder(contract).decode(intake, 0, batch, dead)
    assert rows == len(batch) == len(payloads) - len(dead)
    return batch.rows(), dict(dead)


def parse_json(data):
    """json.loads of strictly decoded text; numbers with a point or exponent stay as written."""
    return json.loads(data.decode(), parse_float=Decimal)


def lookup(value, path):
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                return MISSING
        elif not isinstance(value, dict) or step not in value:
            return MISSING
        value = value[step]
    return value


def coerce(value, field):
    """The column's value. Raises Refused."""
    number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    if field.kind == "str" and isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refused from None
        return value
    if field.kind == "bool" and isinstance(value, bool):
        return value
    if field.kind == "time" and field.time_format == "rfc3339" and isinstance(value, str):
        return rfc3339(value)
    if not number or field.kind in ("str", "bool") or (isinstance(value, float) and not math.isfinite(value)):
        raise Refused
    if field.kind == "f64":
        try:
            result = float(str(value)) if isinstance(value, Decimal) else float(value)
        except OverflowError:
            raise Refused from None
        if not math.isfinite(result):
            raise Refused
        return result
    if isinstance(value, Decimal) and value and value.adjusted() > 100:
        raise Refused
    if field.kind == "i64":
        result = Fraction(value)
        if result.denominator != 1:
            raise Refused
    elif field.time_format == "rfc3339":
        raise Refused
    elif isinstance(value, float):
        whole = math.floor(value)
        result = whole * UNITS[field.time_format] + round((value - whole) * UNITS[field.time_format])
    else:
        result = math.trunc(Fraction(value) * UNITS[field.time_format])
    if int(result) not in I64:
        raise Refused
    return int(result)


RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def rfc3339(text):
    match = RFC3339.fullmatch(text)
    if not match:
        raise Refused
    day, clock, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{zone.upper()}")
    except ValueError:
        raise Refused from None
    delta = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    result = (delta.days * 86400 + delta.seconds) * 10**9 + int((fraction or "0")[:9].ljust(9, "0"))
    if int(result) not in I64:
        raise Refused
    return result


def expected(value, contract):
    """The row of a parsed payload. Raises Refused."""
    row = {}
    for field in contract.fields:
        found = lookup(value, field.path)
        if found is MISSING or found is None:
            if field.required:
                raise Refused
            row[field.name] = None
        else:
            row[field.name] = coerce(found, field)
    return row
