"""SQL to a rule: compile() turns a streaming query into a self-contained module of rules/ABI.md. docs/rules/sql.md is the language.

A text goes through dialect.py (syntax tree), query.py with binding.py and calls.py (names, kinds, functions: nodes.py), rows.py, windows.py and
vectors.py (code, expression by expression: expressions.py, aggregates.py), and is put into the template module by template.py and table.py. No tool
but Python is needed.
"""

import json
import zlib

import msgspec

from edge.errors import ConfigError, RuleError
from edge.host.manifest import Parameter
from edge.host.module import CASES_SECTION, MANIFEST_SECTION, Module
from rulec.sql import aggregates, query, rows, windows
from rulec.sql.binding import EVENT_TIME
from rulec.sql.code import Code, i32
from rulec.sql.dialect import Source
from rulec.sql.table import PARAMETER_KINDS, Table
from rulec.sql.template import template

KEYS_MAX, WINDOWS_MAX = 10000, 20000
MEMORY_BYTES = 16 << 20              # a gateway's limit for a rule that names none
STATE_BYTES_MAX = 64 << 10           # of a window's tally or a key's memory


def compile(text, *, schema, name, optional=(), version=1, summary="", parameters=(), limits=None, state=None, cases="") -> bytes:
    """The module of a query. The same arguments give the same bytes.

    schema: edge.columns.schema.Schema of the input stream; optional: names of fields that a stream may lack. parameters: edge.host.manifest.Parameter, or dicts of
    the manifest's form. limits: of the manifest. state: version of what the rule keeps, by default made of it: a query that keeps the same takes over.
    cases: text of the embedded samples.
    Raises RuleError with line and column for the query, ConfigError for the parameters.
    """
    given = [_parameter(p, name) for p in parameters]
    types = {p["name"]: p["type"] for p in given}
    source = Source(text, name, (f.name for f in schema.fields))
    tree = source.parse()
    bound = query.bind(source, tree, schema, types)
    made = template()
    read_max, made_max = made.constants["sql_inputs_max"], made.constants["sql_outputs_max"]
    if len(bound.inputs) > read_max or len(bound.outputs) > made_max:
        source.refuse(tree, f"a query reads at most {read_max} fields and puts out {made_max}: split it into rules")
    sizes = _sizes(bound, made)
    offsets = [sum(sizes[:i]) for i in range(len(sizes))]
    if sum(sizes) > STATE_BYTES_MAX:
        source.refuse(tree, f"a {'window' if bound.windowed else 'key'} would take {sum(sizes)} bytes, {STATE_BYTES_MAX} at most: split it into rules")
    own_names = {p["name"] for p in given}
    given += [p for p in _bounds(bound, made, sum(sizes), limits) if p["name"] not in own_names]
    kinds = {EVENT_TIME: "time"} | {f.name: f.kind for f in schema.fields}
    table = Table(made, bound)
    own = {"rows": rows.rows(made, table, bound, offsets)}
    if bound.windowed:
        own |= {"close": windows.close(made, table, bound, offsets)}
    if bound.form == query.HOP:
        own |= {"add": windows.add(made, table, bound, offsets)}
    if bound.form == query.SESSION:
        own |= {"merge": windows.merge(made, table, bound, offsets)}
    state = _state(bound) if state is None else state
    content = table.encode(kinds, frozenset(optional), types, max(sum(sizes), 8), state)
    own["space_end"] = _returning(table.end)
    manifest = {"name": name, "version": version, "abi": 1, "summary": summary or f"SQL on {schema.stream}", "drops": "filtered", "parameters": given,
                "limits": limits or {}, "state": state, **_fields(bound, schema, kinds, optional)}
    sections = [(MANIFEST_SECTION, json.dumps(manifest, ensure_ascii=False).encode()), *([(CASES_SECTION, cases.encode())] if cases else [])]
    wasm = made.module(own, content, sections)
    Module(wasm, name)
    return wasm


def _bounds(bound, made, kept, limits):
    """Parameters max_keys and max_windows, where the query has them. By default as many as a quarter of the rule's memory holds, of `kept` bytes each: then tg_save
    has room for a copy, and a rule closes the longest unused early where it would otherwise trap."""
    memory = (limits or {}).get("memory_bytes") or MEMORY_BYTES

    def bound_of(name, most, block, summary):
        block = -(-block // 16) * 16 if block <= 512 else 1 << (block - 1).bit_length()              # classes of the heap, rules/c/edge_rule.h
        return {"name": name, "type": "i64", "default": max(query.PER_EVENT_MAX, min(most, memory // 4 // block)), "min": 1, "max": 1000000, "summary": summary}

    if bound.form != query.SINGLE:
        memories = kept if bound.form == query.KEYED else 0
        yield bound_of("max_keys", KEYS_MAX, made.constants["sql_key_bytes"] + memories, "keys remembered; a further one closes the longest unused")
    if bound.windowed:
        yield bound_of("max_windows", WINDOWS_MAX, made.constants["sql_window_bytes"] + kept, "windows open at once")


def _parameter(given, rule) -> dict:
    """In the manifest's form. One without default is required: a query has no use for an absent one. Raises ConfigError."""
    parameter = json.loads(msgspec.json.encode(given)) if isinstance(given, Parameter) else dict(given)
    name = parameter.get("name")
    if parameter.get("type") not in PARAMETER_KINDS or parameter.get("list"):
        raise ConfigError(f"rule {rule}: parameter {name}: a query takes single values of type {', '.join(PARAMETER_KINDS)}")
    parameter = {key: value for key, value in parameter.items() if value is not None and (value is not False or key == "default")}
    return parameter | {"summary": parameter.get("summary", "")} | ({} if "default" in parameter else {"required": True})


def _sizes(bound, made):
    """Bytes of each slot of a tally, or of each memory of a key."""
    if bound.form == query.KEYED:
        return [8 + (made.constants["sql_kept_size"] if m.kind == "str" else 8) for m in bound.memories]
    return [aggregates.size(slot, made) for slot in bound.slots]


def _state(bound) -> int:
    """Differs where what the rule keeps of an event differs, not where WHERE, HAVING or what is put out does."""
    return zlib.crc32(repr((bound.form, bound.inputs, bound.parameters, bound.memories, bound.slots)).encode()) & 0x7FFFFFFF


def _fields(bound, schema, kinds, optional):
    units = {f.name: f.unit for f in schema.fields}

    def field(name, kind, unit):
        return {"name": name, "type": kind, **({"optional": True} if name in optional else {}), **({"unit": unit} if unit else {})}

    inputs = [field(n, kinds[n], units[n]) for n in bound.inputs if n != EVENT_TIME]
    ofs = [bound.unit_of(node, kinds, optional) for _, _, node in bound.outputs]
    outputs = [{"name": n, "type": kind} | ({"unit": units[bound.inputs[of]]} if of is not None and units[bound.inputs[of]] else {})
               for (n, kind, _), of in zip(bound.outputs, ofs)]
    key = bound.outputs[bound.key][0] if bound.key is not None else None
    return {"inputs": inputs, "outputs": outputs, **({"key": key} if key else {})}


def _returning(number) -> bytes:
    code = Code()
    code.emit(i32(number))
    return code.encode()


__all__ = ["ConfigError", "RuleError", "compile"]
