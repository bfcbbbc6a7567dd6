"""docs/configuration.md and docs/tidegate.schema.json, made from the configuration's types, and docs/openapi.json: `python -m gateway.config.reference`."""

import json
import sys
from pathlib import Path

import msgspec

from gateway.config import spec
from gateway.config.units import Duration, Part, Size

SECTIONS = [("gateway", spec.Gateway), ("listener", spec.Listener), ("broker", spec.Broker), ("streams.NAME", spec.Stream),
            ("streams.NAME.fields.FIELD", spec.FieldSpec), ("rules.NAME", spec.Rule), ("rules.NAME.limits", spec.Limits),
            ("rules_limits", spec.LimitsMax), ("upstream", spec.Upstream), ("lanes.NAME", spec.Lane), ("journal", spec.Journal), ("metrics", spec.Metrics), ("signing", spec.Signing),
            ("api", spec.Api),
            ("*.tls", spec.Tls)]


def page() -> str:
    """The reference as Markdown."""
    lines = ["# Configuration", "", "Made by `make docs` from `gateway/config/spec.py`; editors read `docs/tidegate.schema.json`. `tidegate check -c FILE` prints",
             "every problem of a file at once. Durations are written `\"250ms\"`, `\"10s\"`, `\"2h\"`; sizes `\"64KiB\"`, `\"1GiB\"`, parts `\"80%\"`. Relative paths are",
             "relative to the file.", ""]
    for place, struct in SECTIONS:
        lines += [f"## `[{place}]`", "", struct.__doc__, "", "| key | default | meaning |", "|---|---|---|"]
        for f in msgspec.structs.fields(struct):
            lines.append(f"| `{f.encode_name}` | {_default(f)} | {struct.DOCS[f.encode_name]} |")
        lines.append("")
    return "\n".join(lines)


def _default(f):
    if f.required:
        return "**required**"
    value = f.default if f.default is not msgspec.NODEFAULT else f.default_factory()
    if value is None:
        return "none"
    if isinstance(value, (Duration, Size, Part)):
        return f'`"{value}"`'
    return f"`{json.dumps(value)}`"


def openapi() -> str:
    """The HTTP API's document. Needs the extra `api`."""
    from gateway.manage import api

    return json.dumps(api.document(), indent=1) + "\n"


def write(directory):
    """All of them, into a docs folder."""
    (directory / "openapi.json").write_text(openapi())
    (directory / "configuration.md").write_text(page())
    (directory / "tidegate.schema.json").write_text(json.dumps(spec.schema(), indent=1) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
