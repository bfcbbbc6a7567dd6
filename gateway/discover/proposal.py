"""Proposal: a stream's contract out of what was heard on a pattern's topics, held against the messages by the decoder that the gateway itself has.

A type is proposed that MOST of the values have; where a few have not, it is said how many messages would be dead letters. What is less uniform than that is left out, with the reason.
"""

import re
from collections import Counter

import msgspec

from edge.columns._batch import Batch
from edge.decoding._decode import Decoder, Router
from edge.errors import ConfigError
from edge.mqtt._intake import Intake, Topics
from gateway.config import spec
from gateway.deploy import rulebook
from gateway.discover import payload
from gateway.discover.patterns import MEASURES, WILD, says
from gateway.discover.roles import Roles
from gateway.discover.sight import ELEMENTS_MAX, Sights, spelled
from gateway.discover.survey import PAYLOAD_BYTES_MAX

MOST = 0.9
FIELDS_MAX = 200
LATENESS_S_MAX = 3600                    # what goes back further is a clock that was set
CHUNK = 4096
TIMES = re.compile(r"(^|_)(ts|t|at|when|utc|epoch|date)$|time|stamp", re.I)
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")      # gateway.config.spec.Name


class Field(msgspec.Struct):
    """A field: where it is (a path, or a level of the topic), and what is proposed. often: nearly all messages have it; repeats: how often a
    value came again; note, examples: for people."""

    kind: str
    path: tuple = ()
    level: int | None = None
    format: str | None = None
    required: bool = True
    often: bool = True
    repeats: int = 0
    note: str = ""
    examples: list = []


class Proposal:
    """Of a Pattern. table: {"topics": ..., "format": ..., "fields": ...} as a configuration has it, None when nothing can be proposed; why: the reason.

    name: of the stream, given by whoever puts it beside others. fields: name -> Field. left_out: [(place, reason)]. looked, taken: messages that were kept and that the decoder takes.
    roles: key, time, sequence, id -> field. lateness_s: by how much a device's times went back.
    """

    def __init__(self, pattern):
        self.pattern, self.name = pattern, "stream"
        self.table, self.why, self.fields, self.left_out = None, "", {}, []
        self.looked, self.taken, self.reasons = sum(len(topic.kept) for topic in pattern.topics), 0, Counter()
        self.roles, self.lateness_s = {}, 0
        try:
            self._propose()
        except Impossible as reason:
            self.table, self.why = None, str(reason)

    def permits(self) -> list[str]:
        """Filters of what each device may publish, its user name (%u) in the level that tells devices apart. Not of topics that an acl_file cannot hold as they are."""
        filters = [["" if i == self.pattern.key else level for i, level in enumerate(levels)] for levels in self.pattern.filters]
        return ["/".join("%u" if i == self.pattern.key else level for i, level in enumerate(levels)) for levels in filters if re.fullmatch(r"[^\s%\x00-\x1f\x7f-\x9f]*", "/".join(levels))]

    def messages(self):
        """(topic, received_ns, payload, retained) of all that are kept."""
        return ((topic, *message) for topic in self.pattern.topics for message in topic.kept)

    def _propose(self):
        if self.pattern.refused:
            raise Impossible(self.pattern.refused)
        self.format = self._format()
        sights = Sights()
        for _, received_ns, data, _ in self.messages():
            value = self._value(data)
            if value is not None:
                sights.add(value, received_ns)
        self._choose(sights)
        self._name_levels()
        self._assign()
        self._hold()

    # --- format

    def _format(self):
        forms = Counter(payload.read(data)[0] for *_, data, _ in self.messages())
        if not forms:
            large = sum(topic.large for topic in self.pattern.topics)
            raise Impossible(f"payloads above {PAYLOAD_BYTES_MAX >> 10} KiB are not looked into" if large else "none of its messages was kept: too much came")
        formats = Counter()
        for form, count in forms.items():
            formats[payload.FORMATS.get(form)] += count
        said = ", ".join(f"{payload.SAID[form]} in {count:,}" for form, count in forms.most_common())
        best, count = formats.most_common(1)[0]
        if best is None:
            raise Impossible(f"{said} of {self.looked:,}: no contract reads it" if forms["binary"] else "all of its messages are empty")
        if count < MOST * self.looked:
            raise Impossible(f"payloads are mixed: {said} of {self.looked:,}")
        self._shape = None
        if best != "raw":                # an array among objects is a fault of its sender, not a stream's shape
            shapes = Counter(type(payload.read(data)[1]) for *_, data, _ in self.messages() if payload.FORMATS.get(payload.read(data)[0]) == best)
            shape, often = shapes.most_common(1)[0]
            self._shape = shape if often >= MOST * count else None
        self._texts = forms["text"] > (1 - MOST) * count and forms["number"] < MOST * count and forms["boolean"] < MOST * count
        return best

    def _value(self, data):
        """A message's value in the stream's format, or None. A bare value is what most are, and text where they are mixed."""
        form, value = payload.read(data)
        if payload.FORMATS.get(form) != self.format or self._shape and type(value) is not self._shape:
            return None
        if self.format == "raw" and (self._texts or form == "text"):
            return data.decode()
        return value

    # --- fields

    def _choose(self, sights):
        for path, sight in sights.of.items():
            name = self._free("_".join(map(str, path)) if path else "value")
            where = spelled(path) or "value"
            if sight.count("object", "array") == sight.present and sight.present:
                if sight.count("array") and not _even(sight):
                    self.left_out.append((where, f"an array of {min(sight.lengths)} to {'more than ' * (max(sight.lengths) > ELEMENTS_MAX)}{min(max(sight.lengths), ELEMENTS_MAX)} elements: "
                                                 f"name those that matter, as {where}[0]"))
                continue
            if any(path[:i] in sights.of and not _even(sights.of[path[:i]]) for i in range(1, len(path))):
                continue
            field = _typed(sight, name)
            if isinstance(field, str):
                self.left_out.append((where, field))
            elif len(self.fields) >= FIELDS_MAX:
                self.left_out.append((where, f"it is beyond the first {FIELDS_MAX} fields"))
            else:
                field.path, field.required, field.often, field.repeats = path, sight.present == sights.messages, sight.present >= MOST * sights.messages, sight.repeats
                field.note = _note(sight, field, sights.messages)
                field.examples = sight.examples() if field.kind == "str" else []
                self.fields[name] = field
        if sights.beyond:
            self.left_out.append(("further members", f"there are more than are looked at; {sights.beyond:,} values"))

    def _free(self, name):
        """A name that a configuration takes and no field has."""
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:56]
        name = name if PLAIN.fullmatch(name) else f"_{name}"
        number, base = 2, name
        while name in self.fields:
            name, number = f"{base}_{number}", number + 1
        return name

    def _name_levels(self):
        """The levels in which topics differ become fields."""
        levels, key = {}, self.pattern.key
        for i, level in enumerate(self.pattern.levels):
            if level == WILD:
                values = sorted({topic.levels[i] for topic in self.pattern.topics})
                name = self._free("device" if "device" not in self.fields else "topic_device") if i == key else self._free(f"level_{i}")
                levels[name] = Field("str", level=i, required=all(values), note=f"{len(values):,} of them", examples=values[:3])
        self._payload_fields = self.fields
        self.fields = levels | self.fields

    def _assign(self):
        """key, time, sequence, id; a field that says what the topic says is left out."""
        roles = Roles(self._payload_fields, self.pattern.key)
        for topic, received_ns, data, retained in self.messages():
            value = self._value(data)
            if value is not None:
                roles.see(topic, data, value, received_ns, retained)
        key = next((name for name, field in self.fields.items() if field.level is not None and field.level == self.pattern.key), roles.key)
        for name in roles.doubles():
            self.left_out.append((spelled(self.fields.pop(name).path), f"says what level {self.pattern.key} of the topic says"))
        if key == "topic_device" and "device" not in self.fields:
            key = "device"
            self.fields = {"device" if name == "topic_device" else name: field for name, field in self.fields.items()}
        counter, rising = roles.counter()
        chosen = {"key": key, "time": roles.time(), "sequence": counter, "id": None if counter else roles.names()}
        self.roles = {role: name for role, name in chosen.items() if name is not None}
        for name, field in self.fields.items():
            if field.kind == "time" and roles.lag(name):
                field.note = ", ".join(filter(None, (field.note, roles.lag(name))))
        back_s = -(-roles.back_ns(self.roles["time"]) // 10**9) if "time" in self.roles else 0
        if back_s > LATENESS_S_MAX:
            self.fields[self.roles["time"]].note += f", went back by up to {back_s:,} s"
        else:
            self.lateness_s = back_s
        if counter:
            self.fields[counter].note += f", {roles.rising(counter)}"
        for name in rising:
            self.fields[name].note += ", rises too"

    # --- held against the messages

    def _hold(self):
        """The decoder's word: what many messages miss is optional, a field that many break is left out, and what is left is counted."""
        for _ in range(2 * len(self.fields) + 1):
            if not self.fields:
                raise Impossible("no member has a type that holds" + "".join(f"; {place}: {why}" for place, why in self.left_out[:3]))
            self.table = self._tabled()
            self.reasons = self._dead()
            self.taken = self.looked - sum(self.reasons.values())
            if not self._mend():
                break
        if self.taken < MOST * self.looked:
            raise Impossible(f"{self.looked - self.taken:,} of {self.looked:,} would be dead letters: {self.reasons.most_common(1)[0][0]}")

    def _mend(self) -> bool:
        """Whether a field had to be changed."""
        broken, missing = Counter(), Counter()
        for reason, count in self.reasons.items():
            match = re.match(r"field (.*): (.*)", reason)
            if match:
                (missing if match[2] == "missing" else broken)[match[1]] += count
        missing = {name for name, count in missing.items() if count > (1 - MOST) * self.looked}
        for name in missing:
            self.fields[name].required = False
        large = {name for name, count in broken.items() if count > (1 - MOST) * self.looked}
        for name in large:
            field = self.fields.pop(name)
            self.left_out.append((spelled(field.path), f"as {field.kind} {broken[name]:,} messages of {self.looked:,} would be dead letters"))
        self.roles = {role: name for role, name in self.roles.items() if name not in large}
        return bool(missing or large)

    def _tabled(self):
        fields = {}
        for name, field in self.fields.items():
            source = f"topic[{field.level}]" if field.level is not None else None if field.path in ((name,), ()) else spelled(field.path)
            more = {"from": source, "format": field.format, "required": None if field.required else False}
            more = {word: value for word, value in more.items() if value is not None}
            fields[name] = {"type": field.kind, **more} if more else field.kind
        return {"topics": ["/".join(levels) for levels in self.pattern.filters], "format": self.format, **self.roles, "fields": fields}

    def _dead(self):
        """Reasons of the kept messages that would be dead letters, counted."""
        stream = msgspec.convert({**self.table, "fields": {name: {"type": f} if isinstance(f, str) else f for name, f in self.table["fields"].items()}}, spec.Stream)
        try:
            contract, = rulebook.contracts_of(spec.Config(streams={self.name: stream}))
        except ConfigError as error:
            raise Impossible(str(error)) from None
        router, decoder, found, chunk = Router([contract]), Decoder(contract), Counter(), []
        for topic, _, data, _ in self.messages():
            chunk.append((topic.name, data))
            if len(chunk) == CHUNK:
                found += _decoded(chunk, router, decoder, contract.schema)
                chunk = []
        return found + _decoded(chunk, router, decoder, contract.schema)


class Impossible(Exception):
    """Why no contract is proposed."""


def _decoded(chunk, router, decoder, schema):
    names = sum(len(name) for name in {name for name, _ in chunk})
    intake = Intake(Topics(bytes_max=max(1 << 16, 2 * names)), max(1, len(chunk)), max(1, sum(len(data) for _, data in chunk)))
    for name, data in chunk:
        if not intake.add(name, data):
            raise AssertionError("the intake is too small")
    if router.route(intake):
        raise AssertionError("a topic is not taken by its own pattern")
    dead = []
    decoder.decode(intake, 0, Batch(schema), dead)
    return Counter(reason for _, reason in dead)


def _even(sight):
    """Whether its arrays, if it has any, have one length that is not too large."""
    return len(sight.lengths) <= 1 and max(sight.lengths, default=0) <= ELEMENTS_MAX


def _typed(sight, name):
    """The Field of a place, or why there is none."""
    need = MOST * sight.present
    numbers = sight.count("integer", "number", "huge")
    if not sight.present:
        return "null in every message"
    if sight.count("boolean") >= need:
        return Field("bool")
    if numbers >= need:
        measured = sight.count("integer", "number")
        unit = next((unit for unit, count in sight.units.items() if measured and count == measured), None)
        if unit and (sight.near[unit] >= MOST * measured or TIMES.search(name)):
            return Field("time", format=unit)
        return Field("f64" if sight.count("number", "huge") or says(name, MEASURES) else "i64")
    if sight.count("text") >= need:
        return Field("time", format="rfc3339") if sight.moments == sight.count("text") else Field("str")
    if sight.count("timestamp") >= need:
        return Field("time", format="s")
    if sight.count("bytes", "timestamp") == sight.present:
        return "bytes that no type takes"
    return f"mixed types: {sight.said()}"


def _note(sight, field, messages):
    """What was seen, for people."""
    parts = []
    if not field.required:
        parts.append(f"in {sight.present:,} of {messages:,}")
    if field.kind in ("f64", "i64"):
        parts.append(f"{sight.least:.12g}" + (f" to {sight.most:.12g}" if sight.most > sight.least else " in every message"))
        if field.kind == "i64":
            parts[-1] += ", whole so far"
        elif not sight.count("number", "huge"):
            parts[-1] += ", whole so far, f64 by its name"
    elif field.kind == "time":
        parts.append("RFC 3339" if field.format == "rfc3339" else "a timestamp" if sight.count("timestamp") else f"{field.format} since 1970, by its size")
    elif field.kind == "bool":
        parts.append(" and ".join(str(value).lower() for value in sorted(v for v in sight.distinct if isinstance(v, bool))))
    return "; ".join(parts)
