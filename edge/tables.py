"""TOML tables into structs, every mistake named: a mistake in one place does not hide the next.

A problem is (place such as "lanes.alerts.age", what is wrong and what to do). A struct's DOCS says of each field what it means, for those that are missing.
"""

import re
from types import NoneType, UnionType
from typing import get_args, get_origin

import msgspec
from msgspec import Struct


def read(kind, data, place, problems, quantity=None):
    """The table `data` as a struct of this kind, or None with what is wrong appended to `problems`. quantity: msgspec's dec_hook, for types of one's own."""
    if not isinstance(data, dict):
        problems.append((place, f"must be a table, not {_said(data)}"))
        return None
    fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
    values = {}
    for name in data:
        if name not in fields:
            problems.append((at(place, name), f"unknown key{near(name, fields)}"))
    for name, f in fields.items():
        if name in data:
            values[f.name] = _value(f.type, data[name], at(place, name), problems, quantity)
        elif f.required:
            problems.append((at(place, name), f"is missing: {kind.DOCS[f.name.rstrip('_')]}"))
    return None if problems else kind(**values)


def at(place, name):
    """The place of a name in a table."""
    return f"{place}.{name}" if place else name


def near(name, known):
    """What an unknown name may be meant to be, to end a message with."""
    import difflib  # seldom needed

    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _value(kind, data, place, problems, quantity):
    origin, arguments = get_origin(kind), get_args(kind)
    struct = next((a for a in (kind, *arguments) if isinstance(a, type) and issubclass(a, Struct)), None)
    if origin is dict and isinstance(data, dict):
        return {name: _value(arguments[1], _named(arguments[0], name, place, problems) and item, at(place, name), problems, quantity)
                for name, item in data.items()}
    short = [a for a in arguments if a not in (struct, NoneType)] if _is_union(kind) else []     # a bare string may stand for a whole table
    if struct is not None and (isinstance(data, dict) or not short):
        return read(struct, data, place, problems, quantity)
    if struct is not None:
        kind = short[0]
    try:
        return msgspec.convert(data, kind, dec_hook=quantity)
    except (msgspec.ValidationError, ValueError) as error:
        problems.append((place, _plain(str(error), kind, data)))
        return None


def _is_union(kind):
    return get_origin(kind) is UnionType or str(get_origin(kind)) == "typing.Union"


def _named(kind, name, place, problems):
    try:
        msgspec.convert(name, kind)
    except msgspec.ValidationError:
        problems.append((at(place, name), "a name has letters, digits, _ - . and at most 64 of them"))
    return True


def _plain(message, kind, data):
    message = re.sub(r" - at `.*`$", "", message)
    if "matching regex" in message:
        return f"{data!r} is no name: it has letters, digits, _ - . and at most 64 of them, and begins with no - or ."
    if message.startswith("Invalid enum value"):
        known = [str(value) for value in get_args(kind) if isinstance(value, (str, int))]
        return f"{data!r} is not known here" + (f"; known are {', '.join(known)}" if known else "")
    return f"{message}, not {_said(data)}" if message.startswith("Expected") else message


def _said(data):
    return "a table" if isinstance(data, dict) else "a list" if isinstance(data, list) else repr(data)
