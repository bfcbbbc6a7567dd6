"""A rule's manifest: what its module says about itself, and its parameters, checked against what the configuration gives.

Read from the module's custom section `tidegate.rule` (rules/ABI.md, Manifest).
"""

import math
import re
from typing import Any, Literal

import msgspec

from edge.errors import ConfigError

UNITS_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
F64, I64, STR = 1, 2, 4                  # kinds of rules/ABI.md, Params
TYPES = {"f64": F64, "i64": I64, "bool": I64, "str": STR, "duration": I64, "field": STR}
LIST_MAX = 1024
TEXT_BYTES_MAX = 4096
MANIFEST_BYTES_MAX = 64 << 10
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
Type = Literal["f64", "i64", "bool", "str", "duration", "field"]


class Parameter(msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename={"many": "list"}):
    """One parameter. min and max bound each value (durations: text or nanoseconds); choices are its allowed values."""

    name: str
    type: Type
    summary: str
    many: bool = False
    required: bool = False
    default: Any = None
    min: Any = None
    max: Any = None
    choices: list[Any] | None = None

    def values(self, given) -> list:
        """A configured value as a list of numbers or strings. Raises ValueError."""
        if self.many != isinstance(given, list):
            raise ValueError(f"must be {'a list' if self.many else 'one value'}, not {given!r}")
        given = given if self.many else [given]
        if len(given) > LIST_MAX:
            raise ValueError(f"has {len(given)} values, the limit is {LIST_MAX}")
        return [self._bounded(one) for one in given]

    def _bounded(self, given):
        value = self.value(given)
        if self.choices is not None and value not in [self.value(c) for c in self.choices]:
            raise ValueError(f"is {given!r}, must be one of {', '.join(map(repr, self.choices))}")
        if self.min is not None and value < self.value(self.min):
            raise ValueError(f"is {given!r}, must be at least {self.min}")
        if self.max is not None and value > self.value(self.max):
            raise ValueError(f"is {given!r}, must be at most {self.max}")
        return value

    def value(self, given):
        """One value of this parameter's type. Raises ValueError."""
        number = isinstance(given, (int, float)) and not isinstance(given, bool)
        if self.type == "f64" and number and math.isfinite(given):
            return float(given)
        if self.type == "i64" and number and isinstance(given, int) and -(2**63) <= given < 2**63:
            return given
        if self.type == "bool" and isinstance(given, bool):
            return int(given)
        if self.type == "duration":
            return duration_ns(given)
        if self.type in ("str", "field") and isinstance(given, str) and len(given.encode()) <= TEXT_BYTES_MAX:
            return given
        raise ValueError(f"is {given!r}, must be {'a field name' if self.type == 'field' else f'of type {self.type}'}")


class Limits(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a module says it can do with: lowers the host's limits, never raises them."""

    memory_bytes: int | None = None
    time_ms: int | None = None
    output_bytes: int | None = None


class Declared(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A field that the rule says it reads or puts out. What counts is the Plan; this is for people and tools, before anything runs."""

    name: str
    type: Literal["f64", "i64", "bool", "str", "time", "number", "any"]
    optional: bool = False
    unit: str = ""


class Manifest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """See rules/ABI.md. state: version of the bytes that tg_save gives and tg_migrate takes. key: name of the output's key field."""

    name: str
    version: int
    abi: int
    summary: str
    drops: Literal["filtered", "duplicate"] = "filtered"
    parameters: list[Parameter] = []
    limits: Limits = Limits()
    state: int = 1
    inputs: list[Declared] = []
    outputs: list[Declared] = []
    key: str | None = None

    @classmethod
    def read(cls, text: bytes) -> "Manifest":
        """Raises ValueError on anything that is not a manifest."""
        if len(text) > MANIFEST_BYTES_MAX:
            raise ValueError(f"the manifest has {len(text)} bytes, the limit is {MANIFEST_BYTES_MAX}")
        try:
            manifest = msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError as error:
            raise ValueError(f"the manifest (custom section tidegate.rule) is wrong: {error}") from None
        except UnicodeDecodeError:
            raise ValueError("the manifest (custom section tidegate.rule) is not UTF-8") from None
        manifest._check()
        return manifest

    def _check(self):
        if self.abi != 1:
            raise ValueError(f"the rule was built for ABI {self.abi}, this gateway has ABI 1")
        if not 0 <= self.version < 2**31:
            raise ValueError(f"the manifest's version is {self.version}, must be a small whole number")
        if not re.fullmatch(NAME, self.name):
            raise ValueError(f"the manifest's name is {self.name[:80]!r}: a name has letters, digits, _ - . and at most 64 of them, and begins with no - or .")
        if not 0 <= self.state < 2**31:
            raise ValueError(f"the manifest's state is {self.state}, must be a small whole number")
        seen = set()
        for p in self.parameters:
            if p.name in seen:
                raise ValueError(f"the manifest has parameter {p.name} twice")
            seen.add(p.name)
            try:
                for value in (p.min, p.max, *(p.choices or ())):
                    if value is not None:
                        p.value(value)
                if p.default is not None:
                    p.values(p.default)
            except ValueError as error:
                raise ValueError(f"the manifest's parameter {p.name}: a value of it {error}") from None

    def arguments(self, given: dict, place: str) -> dict:
        """Configured parameters, checked, with defaults: name -> (kind, values), in the manifest's order.

        Raises ConfigError that names the rule (`place`) and the parameter.
        """
        known = {p.name: p for p in self.parameters}
        for name in given:
            if name not in known:
                import difflib  # seldom needed

                near = difflib.get_close_matches(str(name), known, 1)
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise ConfigError(f"rule {place}: {self.name} has no parameter {name!r}" + (f"; did you mean {near[0]}?" if near else f"; {has}"))
        out = {}
        for p in self.parameters:
            value = given.get(p.name, p.default)
            if value is None:
                if p.required:
                    raise ConfigError(f"rule {place}: parameter {p.name} is missing: {p.summary}")
                continue
            try:
                out[p.name] = (TYPES[p.type], p.values(value))
            except ValueError as error:
                raise ConfigError(f"rule {place}: parameter {p.name} {error}") from None
        return out


def duration_ns(given) -> int:
    """"10s" as nanoseconds; a whole number is taken as nanoseconds. Raises ValueError."""
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**63:
        return int(given)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", given) if isinstance(given, str) else None
    if match and match[2] in UNITS_NS:
        result = round(float(match[1]) * UNITS_NS[match[2]])
        if result < 2**63:
            return result
    raise ValueError(f'is {given!r}, must be a duration such as "10s"; units are {", ".join(UNITS_NS)}')
