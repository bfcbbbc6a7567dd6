"""A rule's plan: what it reads and puts out given its parameters, and how that fits an input stream.

Read from the module's memory (rules/ABI.md, Plan): nothing in it is believed unchecked.
"""

import struct

from edge.columns.schema import KIND_NAMES, KINDS, Field, Schema
from edge.errors import RuleError

FILTER, EMIT = 1, 2
ANY, NUMBER = 0, 6                       # kinds that only inputs ask for
OPTIONAL = 1
NONE = 0xFFFFFFFF
ABSENT, EVENT_TIME = -1, -2              # of Binding.sources
FIELDS_MAX = 256
NAME_BYTES_MAX = 256
ERROR_BYTES_MAX = 4096
PLAN_AT = 8                              # address of the plan in what encode() gives


class Wrong(ValueError):
    """What a module returned cannot be: which value, and what is wrong with it."""


class Plan:
    """mode: FILTER or EMIT. inputs, outputs: (name, kind, flags). key, time: positions in outputs or None. error: the rule's own refusal, or ""."""

    __slots__ = ("mode", "inputs", "outputs", "key", "time", "error")

    @classmethod
    def read(cls, memory, address) -> "Plan":
        """From a buffer over the module's memory. Raises Wrong."""
        plan = cls()
        abi, plan.mode, n_in, at_in, n_out, at_out, key, time, error, error_size = struct.unpack("<10I", _bytes(memory, address, 40, 4, "the plan"))
        plan.error = _text(memory, error, error_size, ERROR_BYTES_MAX, "the plan's error") if error else ""
        if plan.error:
            return plan
        if abi != 1 or plan.mode not in (FILTER, EMIT):
            raise Wrong(f"the plan has abi {abi} and mode {plan.mode}")
        plan.inputs = _fields(memory, at_in, n_in, "inputs")
        plan.outputs = _fields(memory, at_out, n_out, "outputs")
        if plan.mode == FILTER and n_out or plan.mode == EMIT and not n_out:
            raise Wrong(f"the plan is of mode {plan.mode} and has {n_out} outputs")
        plan.key, plan.time = plan._role(key, "key"), plan._role(time, "time")
        plan._check()
        return plan

    def encode(self) -> bytes:
        """As a module would write it: read(this, PLAN_AT) gives it again."""
        lists, tail = [], bytearray(PLAN_AT + 40)

        def put(data):
            tail.extend(data + bytes(-len(data) % 8))
            return len(tail) - len(data) - -len(data) % 8

        if self.error:
            head = (1, 0, 0, 0, 0, 0, NONE, NONE, put(self.error.encode()), len(self.error.encode()))
        else:
            for fields in (self.inputs, self.outputs):
                texts = [(name.encode(), kind, flags) for name, kind, flags in fields]
                entries = b"".join(struct.pack("<4I", put(name), len(name), kind, flags) for name, kind, flags in texts)
                lists += len(fields), put(entries)
            head = (1, self.mode, *lists, *(NONE if role is None else role for role in (self.key, self.time)), 0, 0)
        struct.pack_into("<10I", tail, PLAN_AT, *head)
        return bytes(tail)

    def _role(self, position, role):
        if position == NONE:
            return None
        if position >= len(self.outputs) and self.mode == EMIT:
            raise Wrong(f"the plan's {role} is output {position} of {len(self.outputs)}")
        return position if self.mode == EMIT else None

    def _check(self):
        for name, kind, _ in self.inputs:
            if kind not in KIND_NAMES and kind not in (ANY, NUMBER):
                raise Wrong(f"the plan's input {name!r} has kind {kind}")
        for name, kind, flags in self.outputs:
            if kind == ANY and flags >= len(self.inputs):
                raise Wrong(f"the plan's output {name!r} is like input {flags} of {len(self.inputs)}")
            if kind != ANY and (kind not in KIND_NAMES or not name):
                raise Wrong(f"the plan's output {name!r} has kind {kind}")

    def bind(self, schema: Schema, name: str, version: int) -> "Binding":
        """How the plan fits a stream, for the rule `name`. Raises RuleError naming what the stream lacks."""
        sources = [self._source(schema, name, *wanted) for wanted in self.inputs]
        if self.mode == FILTER:
            return Binding(sources, [], Schema(name, schema.fields, schema.version, schema.key, schema.time))
        fields, made = [], []
        for field, kind, flags in self.outputs:
            source = sources[flags] if kind == ANY else None
            if source == ABSENT:
                made.append(None)
                continue
            if source is None:
                fields.append(Field(field, KIND_NAMES[kind]))
            elif source == EVENT_TIME:
                fields.append(Field(field or schema.time or "time", "time"))
            else:
                fields.append(Field(field or schema.fields[source].name, schema.fields[source].kind, schema.fields[source].unit))
            made.append(fields[-1].name)
        try:
            return Binding(sources, [m is not None for m in made],
                           Schema(name, tuple(fields), version, None if self.key is None else made[self.key], None if self.time is None else made[self.time]))
        except ValueError as error:
            raise RuleError(f"rule {name}: what it puts out cannot be a stream: {error}", rule=name, code="bad output") from None

    def _source(self, schema, rule, name, kind, flags):
        if name == "$time":
            if kind not in (ANY, KINDS["time"]):
                raise RuleError(f"rule {rule}: it reads the event time as {_spell(kind)}; that is a mistake in the module", rule=rule, code="bad output")
            return EVENT_TIME
        wanted = schema.key if name == "$key" else name
        names = [f.name for f in schema.fields]
        if wanted is None or wanted not in names:
            if flags & OPTIONAL:
                return ABSENT
            if name == "$key":
                raise RuleError(f"rule {rule}: it works by key and stream {schema.stream} has none: give the stream a key", rule=rule)
            import difflib  # seldom needed

            near = difflib.get_close_matches(name, names, 1)
            raise RuleError(f"rule {rule}: stream {schema.stream} has no field {name!r}" + (f"; did you mean {near[0]}?" if near else "")
                            + f" (it has {_list(schema)})", rule=rule)
        position = names.index(wanted)
        found = KINDS[schema.fields[position].kind]
        if kind not in (ANY, found) and not (kind == NUMBER and found in (KINDS["f64"], KINDS["i64"])):
            raise RuleError(f"rule {rule}: field {wanted} of stream {schema.stream} is {_spell(found)}, the rule needs {_spell(kind)} "
                            f"(the stream has {_list(schema)})", rule=rule)
        return position


class Binding:
    """sources: for each input the column of the stream, ABSENT or EVENT_TIME. kept: for each output whether it is in the output's schema."""

    __slots__ = ("sources", "kept", "output")

    def __init__(self, sources, kept, output):
        self.sources, self.kept, self.output = sources, kept, output


def _spell(kind):
    return {ANY: "any kind", NUMBER: "a number (f64 or i64)"}.get(kind) or KIND_NAMES[kind]


def _list(schema):
    return ", ".join(f"{f.name} {f.kind}" for f in schema.fields)


def _bytes(memory, address, size, alignment, what) -> bytes:
    if address == 0 or address % alignment or address + size > len(memory):
        raise Wrong(f"{what} is at {address:#x} with {size} bytes, the memory has {len(memory):#x}")
    return bytes(memory[address : address + size])


def _text(memory, address, size, size_max, what) -> str:
    if size > size_max:
        raise Wrong(f"{what} has {size} bytes, the limit is {size_max}")
    try:
        return _bytes(memory, address, size, 1, what).decode() if size else ""
    except UnicodeDecodeError:
        raise Wrong(f"{what} is not UTF-8") from None


def _fields(memory, address, count, what):
    if count > FIELDS_MAX:
        raise Wrong(f"the plan has {count} {what}, the limit is {FIELDS_MAX}")
    if not count:
        return []
    data = _bytes(memory, address, 16 * count, 4, f"the plan's list of {what}")
    return [(_text(memory, name, size, NAME_BYTES_MAX, f"the name of one of the plan's {what}"), kind, flags)
            for name, size, kind, flags in struct.iter_unpack("<4I", data)]


def encode_params(arguments: dict, base: int) -> bytes:
    """The Params structure for an area at address `base`. arguments: name -> (kind, values), as Manifest.arguments gives them."""
    entries_at = 8
    tail_at = entries_at + 24 * len(arguments)
    entries, tail = [], bytearray()

    def put(data, alignment):
        tail.extend(bytes(-(tail_at + len(tail)) % alignment))
        tail.extend(data)
        return base + tail_at + len(tail) - len(data)

    for name, (kind, values) in arguments.items():
        encoded = name.encode()
        if kind == KINDS["str"]:
            texts = [value.encode() for value in values]
            values_at = put(b"".join(struct.pack("<II", put(text, 1), len(text)) for text in texts), 4)
        else:
            values_at = put(struct.pack(f"<{len(values)}{'d' if kind == KINDS['f64'] else 'q'}", *values), 8)
        entries.append(struct.pack("<6I", put(encoded, 1), len(encoded), kind, len(values), values_at, 0))
    return struct.pack("<II", len(arguments), base + entries_at) + b"".join(entries) + bytes(tail)
