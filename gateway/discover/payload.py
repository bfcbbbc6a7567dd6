"""What a payload is: foreign bytes looked at as each format of a contract would read them."""

import json

import msgpack

CONTAINERS = bytes([*range(0x80, 0xa0), *range(0xdc, 0xe0)])     # first byte of MessagePack's maps and arrays
FORMATS = {"json": "json", "msgpack": "msgpack", "number": "raw", "boolean": "raw", "text": "raw"}      # form -> a contract's format
SAID = {"json": "JSON", "msgpack": "MessagePack", "number": "a bare number", "boolean": "true or false", "text": "bare text", "empty": "empty", "binary": "binary"}
MESSAGEPACK_MAX = 1 << 16


class Other:
    """A value of MessagePack that no field takes."""


def read(payload):
    """(form, value): form is a key of SAID; value the parsed object or array of json and msgpack, the bare value of number, boolean and text, else None."""
    if not payload:
        return "empty", None
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None:
        found = _json(text)
        if found is not None:
            return found
        if _legible(text):
            return "text", text
    if payload[0] in CONTAINERS:
        value = _messagepack(payload)
        if isinstance(value, (dict, list)):
            return "msgpack", value
    return "binary", None


def _json(text):
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, (dict, list)):
        return "json", value
    if isinstance(value, bool):
        return "boolean", value
    return ("number", value) if isinstance(value, (int, float)) else ("text", text)


def _legible(text):
    return all(c.isprintable() or c in "\t\r\n" for c in text)


def _messagepack(payload):
    """The value, or None."""
    try:
        return msgpack.unpackb(payload, strict_map_key=False, timestamp=0, ext_hook=lambda code, data: Other(), object_pairs_hook=_members,
                               max_array_len=MESSAGEPACK_MAX, max_map_len=MESSAGEPACK_MAX)
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.exceptions.UnpackException):
        return None


def _members(pairs):
    """Of a map those with a text as key: no path names the others."""
    return {key: value for key, value in pairs if isinstance(key, str)}
