"""The scenario's reference as Markdown, made from its types. `python -m firmware_sim.reference README.md` renews the page."""

import json
import sys
import types
import typing
from pathlib import Path

import msgspec

from . import scenario
from .problems import bare, structs_of

BEGIN, END = "<!-- reference: made by firmware_sim.reference -->", "<!-- end of reference -->"


def render() -> str:
    """All tables, between the two markers."""
    parts = [BEGIN, _table("Top level", scenario.Scenario), _table("`[[group]]`", scenario.Group)]
    parts += [_table(f'`[[group.sensors]]` with `kind = "{tag}"`', struct) for tag, struct in structs_of(scenario.Sensor).items()]
    parts += [_table("`[group.faults]`", scenario.Faults)]
    parts += [_table(f"`{name}` of the faults", struct) for name, struct in
              (("steps", scenario.Step), ("storms", scenario.Storm), ("half_open", scenario.HalfOpen), ("slow_link", scenario.SlowLink))]
    return "\n".join([*parts, END])


def _table(title, struct):
    lines = [f"### {title}", "", struct.__doc__, "", "| key | type | default | what |", "|---|---|---|---|"]
    for field in msgspec.structs.fields(struct):
        lines.append(f"| `{field.name}` | {_type(field.type)} | {_default(field)} | {_about(field.type)} |")
    return "\n".join([*lines, ""])


def _default(field):
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
        return "all" if value and isinstance(value, list) else "none"
    if field.default is msgspec.NODEFAULT:
        return "required"
    return "" if field.default is None or isinstance(field.default, msgspec.Struct) else f"`{json.dumps(field.default)}`"


def _about(hint):
    metas = [m.description for m in typing.get_args(hint)[1:] if isinstance(m, msgspec.Meta) and m.description]
    return metas[-1] if metas else ""


def _type(hint):
    kind = bare(hint)
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return " or ".join(f"`{json.dumps(v)}`" for v in typing.get_args(kind))
    if origin in (typing.Union, types.UnionType):
        options = [o for o in typing.get_args(kind) if o is not type(None)]
        return "sensor" if structs_of(kind) else " or ".join(_type(o) for o in options)
    if origin is list:
        return f"list of {_type(typing.get_args(kind)[0])}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "table"
    return {float: "number", int: "integer", str: "text", bool: "boolean"}.get(kind, "date-time")


def main(path):
    """Replace the reference in a page."""
    page = Path(path)
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    page.write_text(before + render() + rest.partition(END)[2], "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
