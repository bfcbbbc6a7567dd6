"""Contracts: what a stream's payloads hold and where, and which topics belong to it. docs/contracts.md is the same for people.

A field's source is one of
    topic          the whole topic name
    topic[N]       its level N, counted from 0
    a.b[0].c       a path in the payload: members by dots, elements by [N]; ["any name"] is a member whose name holds
                   dots, brackets or is `topic`
Without a source a field is the payload's member of exactly its own name; for format raw, the payload itself.

A field's mask changes its value before anything keeps it, and its stream's dead letters hold no payload:
    drop           null, once the value was found to be of its type
    hash           a text becomes 16 hexadecimal digits of its keyed BLAKE2b: equal texts stay equal, and nobody without the key finds them out by trying
    truncate:N     a text is cut to its first N characters, an f64 to N decimals
"""

import json
import re

from edge.columns.schema import KINDS, Field, Schema
from edge.errors import ConfigError

FORMATS = ("json", "msgpack", "raw")
TIME_FORMATS = ("s", "ms", "us", "ns", "rfc3339")
STEPS_MAX = 32                  # of a path: bounds the recursion of the decoder
FIELDS_MAX = 1024
INDEX_MAX = 1_000_000
TOPIC_BYTES_MAX = 65535         # MQTT 3.1.1 section 4.7.3

_STEP = re.compile(r'\[(?P<index>\d{1,9})\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]|(?P<dot>\.?)(?P<name>[^.\[\]"]+)')
_MASK = re.compile(r"drop|hash|truncate:(\d{1,3})")
_TOPIC = re.compile(r"topic(?:\[(\d{1,5})\])?\Z")


class FieldSource:
    """One field: `kind` is a key of KINDS, `source` and `mask` as in the module's text, `time_format` one of TIME_FORMATS (times only).

    After construction `topic` tells a topic field, and `level` which (-1: all of it); else `path` is a tuple of str members
    and int indexes, empty for the payload itself. Raises ConfigError.
    """

    __slots__ = ("name", "kind", "source", "required", "unit", "time_format", "topic", "level", "path", "mask", "kept")

    def __init__(self, name, kind, source=None, *, required=True, unit="", time_format=None, mask=None):
        where = f"field {name}"
        if not isinstance(name, str) or not name:
            raise ConfigError(f"field {name!r}: a field's name is a text that is not empty")
        if kind not in KINDS:
            raise ConfigError(f"{where}: unknown type {kind!r}; use one of {', '.join(KINDS)}")
        if (kind == "time") != (time_format is not None):
            raise ConfigError(f"{where}: {'a time needs a format' if kind == 'time' else f'format belongs to times, not to {kind}'}; "
                              f"{'give one of ' + ', '.join(TIME_FORMATS) if kind == 'time' else 'leave it out'}")
        if time_format is not None and time_format not in TIME_FORMATS:
            raise ConfigError(f"{where}: unknown time format {time_format!r}; use one of {', '.join(TIME_FORMATS)}")
        self.name, self.kind, self.source, self.required = name, kind, source, bool(required)
        self.unit, self.time_format = unit, time_format
        self.mask, self.kept = _mask(mask, kind, where)
        topic = _TOPIC.match(source) if isinstance(source, str) else None
        self.topic = topic is not None
        self.level = int(topic[1]) if topic and topic[1] else -1
        self.path = () if self.topic else (name,) if source is None else parse_path(source, where)
        for step in self.path:
            _utf8(step, where)


def _mask(text, kind, where):
    """(None, "drop", "hash" or "truncate", N of truncate). Raises ConfigError."""
    if text is None:
        return None, 0
    match = _MASK.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise ConfigError(f"{where}: unknown mask {text!r}; use drop, hash or truncate:N")
    how = text.partition(":")[0]
    if kind not in {"drop": KINDS, "hash": ("str",), "truncate": ("str", "f64")}[how]:
        raise ConfigError(f"{where}: mask {text} does not go with {kind}; hash takes str, truncate str and f64, drop any")
    return how, int(match[1] or 0)


def parse_path(source, where="source"):
    """A payload path's steps: str for a member, int for an element. Raises ConfigError."""
    steps, at = [], 0
    while isinstance(source, str) and at < len(source):
        match = _STEP.match(source, at)
        if not match or (match["name"] and bool(match["dot"]) != bool(steps)):
            break
        try:
            steps.append(int(match["index"]) if match["index"] else json.loads(match["quoted"]) if match["quoted"] else match["name"])
        except ValueError:
            break
        at = match.end()
    if not isinstance(source, str) or at != len(source) or not steps:
        raise ConfigError(f"{where}: cannot read {source!r} as a source at character {at}; write topic, topic[N], or a path "
                          f'such as a.b, a[0].b or ["a.b"].c')
    if len(steps) > STEPS_MAX or any(isinstance(s, int) and s > INDEX_MAX for s in steps):
        raise ConfigError(f"{where}: {source!r} goes too far; at most {STEPS_MAX} steps and index {INDEX_MAX}")
    return tuple(steps)


def _utf8(text, where):
    try:
        return str(text).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{where}: {text!r} has half a surrogate pair; write whole characters") from None


class Contract:
    """A stream's contract. fields: FieldSource in column order. `key`, `time`, `id` and `sequence` name fields of their kind:
    key str, time time, id str or i64, sequence i64. `qos` is the subscription's.

    mask_key: of 16 to 64 bytes, for fields with mask hash. `schema` is the columns' edge.columns.schema.Schema. Raises ConfigError: which stream, which field, what is wrong, what to do.
    """

    def __init__(self, name, topics, fields, *, format="json", version=1, key=None, time=None, id=None, sequence=None, qos=1,
                 mask_key=None):
        where = f"stream {name}"
        self.name, self.format, self.version, self.qos = name, format, version, qos
        self.key, self.time, self.id, self.sequence = key, time, id, sequence
        self.topics, self.fields, self.mask_key = tuple(topics), tuple(fields), mask_key
        if not self.topics or isinstance(topics, str):
            raise ConfigError(f"{where}: topics must be a list of at least one topic filter")
        try:
            for topic in self.topics:
                check_filter(topic)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if format not in FORMATS:
            raise ConfigError(f"{where}: unknown format {format!r}; use one of {', '.join(FORMATS)}")
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version < 1 << 31:
            raise ConfigError(f"{where}: version {version!r} must be a whole number from 1")
        if isinstance(qos, bool) or qos not in (0, 1, 2):
            raise ConfigError(f"{where}: qos {qos!r} must be 0, 1 or 2")
        if not 1 <= len(self.fields) <= FIELDS_MAX:
            raise ConfigError(f"{where}: {len(self.fields)} fields; a stream has 1 to {FIELDS_MAX}")
        self._check_roles(where)
        if format == "raw":
            self._bind_raw(where)
        try:
            self.schema = Schema(name, tuple(Field(f.name, f.kind, f.unit) for f in self.fields), version, key, time)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def _check_roles(self, where):
        kinds = {f.name: f.kind for f in self.fields}
        for role, allowed in (("key", ("str",)), ("time", ("time",)), ("id", ("str", "i64")), ("sequence", ("i64",))):
            name = getattr(self, role)
            if name is not None and kinds.get(name) not in allowed:
                found = f"is {kinds[name]}" if name in kinds else "is not a field"
                raise ConfigError(f"{where}: {role} {name!r} {found}; name a field of type {' or '.join(allowed)}")
        if self.id is not None and self.sequence is not None:
            raise ConfigError(f"{where}: id and sequence both tell what was sent again; keep one")
        for field in self.fields:
            if field.mask == "drop" and field.name in (self.key, self.time):
                raise ConfigError(f"{where}: {field.name} is the {'key' if field.name == self.key else 'time'} and cannot be dropped; hash a key instead")
            if field.mask == "hash" and self.mask_key is None:
                raise ConfigError(f"{where}: field {field.name} is hashed and there is no key for it: set gateway.mask_key_file")

    def _bind_raw(self, where):
        bare = [f for f in self.fields if not f.topic]
        if len(bare) > 1:
            raise ConfigError(f"{where}: a raw payload is one value, but {', '.join(f.name for f in bare)} read it; "
                              f"keep one and take the others from the topic")
        for field in bare:
            if field.source is not None:
                raise ConfigError(f"{where}: field {field.name}: a raw payload has no {field.source!r}; leave the source out")
            field.path = ()

    @property
    def masked(self) -> bool:
        """A field has a mask."""
        return any(field.mask for field in self.fields)

    def matches(self, topic: bytes) -> bool:
        """Whether one of the filters takes the topic."""
        return any(topic_matches(f, topic) for f in self.topics)


def check_filter(text):
    """Validate a topic filter by MQTT 3.1.1 section 4.7. Raises ConfigError."""
    if not isinstance(text, str) or not text:
        raise ConfigError(f"topic filter {text!r} is empty or no text; write one such as sensors/+/data")
    if "\0" in text or len(_utf8(text, "topic filter")) > TOPIC_BYTES_MAX:
        raise ConfigError(f"topic filter {text[:40]!r} holds a NUL or is longer than {TOPIC_BYTES_MAX} bytes")
    levels = text.split("/")
    for i, level in enumerate(levels):
        if "#" in level and (level != "#" or i != len(levels) - 1):
            raise ConfigError(f"topic filter {text!r}: # stands alone in the last level")
        if "+" in level and level != "+":
            raise ConfigError(f"topic filter {text!r}: + stands alone in its level")


def topic_matches(filter_text: str, topic: bytes) -> bool:
    """MQTT 3.1.1 section 4.7: + is one level, a last # is the parent and all below; a leading wildcard takes no $-topic."""
    wanted, levels = filter_text.encode().split(b"/"), topic.split(b"/")
    if topic.startswith(b"$") and wanted[0] in (b"+", b"#"):
        return False
    for i, level in enumerate(wanted):
        if level == b"#":
            return len(levels) >= i
        if i >= len(levels) or level not in (b"+", levels[i]):
            return False
    return len(wanted) == len(levels)
