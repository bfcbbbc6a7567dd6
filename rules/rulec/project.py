"""A rule's folder: rule.toml, the source that it names, and cases.samples. The manifest is made of rule.toml, and stands nowhere else.

    name = "hot"                        version = 1      summary = "..."       language = "c"      source = "hot.c"
    [input]   stream, key, time         [input.fields]   device = "str"        temp = { type = "f64", unit = "°C", optional = true }
    [output]  key, time                 [output.fields]  (SQL: left out, the query says)
    [parameters.NAME]                   type, summary, default, required, list, min, max, choices
    [limits]                            time_ms, memory_bytes, output_bytes
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from edge import tables
from edge.columns.schema import KINDS, Field, Schema
from edge.errors import ConfigError
from edge.host.manifest import Declared, Limits, Manifest, Parameter

FILE = "rule.toml"
CASES = "cases.samples"
SOURCE_BYTES_MAX = 1 << 20
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
Kind = Literal["f64", "i64", "bool", "str", "time", "number", "any"]
Language = Literal["sql", "c", "assemblyscript", "rust"]
Whole = Annotated[int, Meta(ge=0, lt=2**31)]


class FieldTable(Struct, forbid_unknown_fields=True):
    """One field. A bare string stands for its type: temp = "f64"."""

    type: Kind
    unit: str = ""
    optional: bool = False

    DOCS = {"type": "f64, i64, bool, str or time; in input fields also number (f64 or i64) and any"}


class Side(Struct, forbid_unknown_fields=True):
    """[input], what the rule reads, or [output], what it puts out. stream: of the input, for SQL and for samples."""

    fields: dict[str, FieldTable | Kind]
    stream: Name = "in"
    key: str | None = None
    time: str | None = None

    DOCS = {"fields": 'a table of names and types, such as device = "str"'}


class ParameterTable(Parameter, forbid_unknown_fields=True, frozen=True, rename={"many": "list"}):
    DOCS = {"type": "f64, i64, bool, str, duration or field", "summary": "what it does, in a few words"}


class RuleFile(Struct, forbid_unknown_fields=True):
    """rule.toml as it stands."""

    name: Name
    version: Whole
    summary: str
    language: Language
    source: str
    input: Side
    abi: Literal[1] = 1
    state: Whole = 1
    drops: Literal["filtered", "duplicate"] = "filtered"
    output: Side | None = None
    parameters: dict[Name, ParameterTable] = {}
    limits: Limits = Limits()

    DOCS = {
        "name": "the rule's name: letters, digits, _ - .",
        "version": "a whole number, to be raised with each version that a gateway gets",
        "summary": "what the rule does, in one line",
        "language": "sql, c, assemblyscript or rust",
        "source": "the file with the rule's source, beside rule.toml",
        "input": "a table [input] with [input.fields]: what the rule reads",
    }


class Project(Struct):
    """A folder that was read. source: the file, from the folder. cases: text of its samples, or "". schema: of the input stream; None where a field is `number` or `any`."""

    folder: Path
    manifest: Manifest
    language: str
    source: str
    cases: str
    schema: Schema | None
    optional: tuple[str, ...] = ()

    def manifest_bytes(self) -> bytes:
        """The custom section tidegate.rule: JSON without what is at its default."""
        return msgspec.json.encode(_short(self.manifest))


def load(folder) -> Project:
    """Raises ConfigError with every problem of rule.toml, one a line."""
    folder = Path(folder)
    path = folder / FILE
    try:
        data = tomllib.loads(read(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    problems = []
    rule, manifest, schema = understand(data, problems)
    if rule and not problems and not (folder / rule.source).is_file():
        problems.append(("source", f"there is no file {folder / rule.source}"))
    if problems:
        raise ConfigError("\n".join(f"{path}: {place}: {what}" if place else f"{path}: {what}" for place, what in problems))
    cases = folder / CASES
    return Project(folder, manifest, rule.language, rule.source, read(cases) if cases.exists() else "", schema,
                   tuple(f.name for f in _declared(rule.input) if f.optional))


def understand(data, problems):
    """rule.toml's data as (RuleFile, Manifest, Schema of the input or None), or Nones with what is wrong appended to `problems`."""
    parameters = data.get("parameters", {})
    if isinstance(parameters, dict):
        data = {**data, "parameters": {name: {**table, "name": name} if isinstance(table, dict) else table for name, table in parameters.items()}}
    rule = tables.read(RuleFile, data, "", problems)
    if rule is None:
        return None, None, None
    _places(rule, problems)
    return rule, _manifest(rule, problems), _schema(rule, problems)


def read(path) -> str:
    """The text of a file of a project. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            data = file.read(SOURCE_BYTES_MAX + 1)
        if len(data) > SOURCE_BYTES_MAX:
            raise ConfigError(f"{path}: is longer than {SOURCE_BYTES_MAX} bytes")
        return data.decode()
    except FileNotFoundError:
        advice = "; begin a rule with `tidegate rule new NAME`" if path.name == FILE else ""
        raise ConfigError(f"{path}: there is no such file{advice}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 at byte {error.start}") from None


def _declared(side) -> list[Declared]:
    tables_of = {name: FieldTable(f) if isinstance(f, str) else f for name, f in side.fields.items()}
    return [Declared(name, f.type, f.optional, f.unit) for name, f in tables_of.items()]


def _manifest(rule, problems) -> Manifest | None:
    def made(**more):
        return Manifest(rule.name, rule.version, rule.abi, rule.summary, rule.drops, limits=rule.limits, state=rule.state, **more)

    for p in rule.parameters.values():
        try:
            Manifest.read(msgspec.json.encode(_short(made(parameters=[p]))))
        except ValueError as error:
            problems.append((f"parameters.{p.name}", str(error).removeprefix(f"the manifest's parameter {p.name}: ")))
    if problems:
        return None
    manifest = made(parameters=list(rule.parameters.values()), inputs=_declared(rule.input), outputs=_declared(rule.output) if rule.output else [],
                    key=rule.output.key if rule.output else None)
    try:
        return Manifest.read(msgspec.json.encode(_short(manifest)))
    except ValueError as error:
        problems.append(("", str(error)))


def _schema(rule, problems) -> Schema | None:
    declared = _declared(rule.input)
    loose = [f.name for f in declared if f.type not in KINDS]
    if loose:
        if rule.language == "sql":
            problems.append((f"input.fields.{loose[0]}", f"SQL needs one of the types {', '.join(KINDS)}"))
        return None
    if problems:
        return None
    return Schema(rule.input.stream, tuple(Field(f.name, f.type, f.unit) for f in declared), 1, rule.input.key, rule.input.time)


def _places(rule, problems):
    """Keys, times and the source are what their names say."""
    for place, side in (("input", rule.input), ("output", rule.output)):
        if side is None:
            continue
        types = {f.name: f.type for f in _declared(side)}
        for role, wanted in (("key", "str"), ("time", "time")):
            name = getattr(side, role)
            if name is not None and types.get(name) != wanted:
                problems.append((f"{place}.{role}", f"{name!r} is not a field of type {wanted}; put it under [{place}.fields]"))
    if rule.language == "sql" and rule.state != 1:
        problems.append(("state", "is made of the query where the language is SQL: leave it out"))
    if Path(rule.source).is_absolute() or ".." in Path(rule.source).parts:
        problems.append(("source", f"{rule.source!r} is not in the rule's folder"))


def _short(manifest) -> dict:
    """Plain data without what is at its default, so that a manifest says what its author said."""
    data = msgspec.to_builtins(manifest)
    plain = msgspec.to_builtins(Manifest("", 0, 1, ""))
    data["parameters"] = [{k: v for k, v in p.items() if v is not None and (k not in ("list", "required") or v)} for p in data["parameters"]]
    for side in ("inputs", "outputs"):
        data[side] = [{k: v for k, v in f.items() if k in ("name", "type") or v not in (False, "")} for f in data[side]]
    data["limits"] = {k: v for k, v in data["limits"].items() if v is not None}
    return {k: v for k, v in data.items() if k in ("name", "version", "abi", "summary", "drops", "parameters") or v not in (plain[k], {})}
