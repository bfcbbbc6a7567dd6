"""Rows as samples spell them: JSON with exact numbers, so that two rows are equal when their texts are.

f64: the shortest decimal that reads back as the same double; NaN, Infinity and -Infinity by these names. time: in the format of the stream's
event-time field, a number of s, ms, us or ns since 1970 (with a fraction where it takes one), else RFC 3339 in UTC.
"""

import json
import math
from decimal import Decimal

from edge.times import nanoseconds, timestamp

DIGITS = {"s": 9, "ms": 6, "us": 3, "ns": 0}
I64 = range(-(1 << 63), 1 << 63)


def row_text(row, fields, time_format) -> str:
    """Of a batch's row: name -> value as Batch.rows() gives them. fields: edge.columns.schema.Fields."""
    return _object((f.name, _value(row[f.name], f.kind, time_format)) for f in fields)


def expected_text(row, fields, time_format) -> str:
    """Of a row as somebody wrote it, JSON as edge.rehearsal.samples reads it: as row_text would spell it; what is no value of its field stays as it is.
    A field that is left out is null."""
    kinds = {f.name: f.kind for f in fields}
    spelled = [(f.name, _expected(row.get(f.name), f.kind, time_format)) for f in fields]
    return _object(spelled + [(name, _raw(value)) for name, value in row.items() if name not in kinds])


def moment(ns) -> str:
    """A time as AT takes it: short ones as a duration since 1970."""
    if not -(1 << 63) < ns < (1 << 63) - 1:
        return "the end of time" if ns > 0 else "the beginning of time"
    return f"{_decimal(ns, 9)}s" if abs(ns) < 10**15 else timestamp(ns)


def _object(pairs):
    return "{" + ", ".join(f"{_text(name)}: {value}" for name, value in pairs) + "}"


def _value(value, kind, time_format):
    if value is None:
        return "null"
    if kind == "f64":
        return _double(value)
    if kind == "time":
        return json.dumps(timestamp(value)) if time_format == "rfc3339" else _decimal(value, DIGITS[time_format])
    return _text(value)


def _double(value):
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal(value, digits):
    """value / 10**digits, exactly."""
    whole, rest = divmod(abs(value), 10**digits)
    return f"{'-' * (value < 0)}{whole}" + (f".{rest:0{digits}d}".rstrip("0") if rest else "")


def _expected(value, kind, time_format):
    try:
        return _value(_converted(value, kind, time_format), kind, time_format)
    except (ValueError, OverflowError, ArithmeticError):
        return _raw(value)


def _converted(value, kind, time_format):
    """A value of the kind, or ValueError."""
    number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    if value is None or kind == "bool" and isinstance(value, bool) or kind == "str" and isinstance(value, str):
        return value
    if kind == "f64" and number:
        return float(value)
    if kind == "i64" and isinstance(value, int) and number and value in I64:
        return value
    if kind == "time" and isinstance(value, str):
        return nanoseconds(value)
    if kind == "time" and number and time_format in DIGITS and abs(value) < 1 << 63:
        scaled = Decimal(value).scaleb(DIGITS[time_format])
        if scaled == scaled.to_integral_value() and int(scaled) in I64:
            return int(scaled)
    raise ValueError("is none")


def _raw(value):
    if isinstance(value, float):
        return _double(value)
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return _object((name, _raw(one)) for name, one in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_raw, value))}]"
    return _text(value)


def _text(value):
    """As JSON; half a surrogate pair, which no terminal takes, stays an escape."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text) else json.dumps(value)
