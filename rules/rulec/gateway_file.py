"""What a replay needs of a gateway's configuration: the time settings of its streams, and its rules. The rest of it is the gateway's to read."""

import re
import tomllib
from pathlib import Path

import tidegate_rules
from edge.errors import ConfigError
from edge.host.manifest import duration_ns
from edge.rehearsal.recording import VERSION, Ruled, Settings, Spans

SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def read(path) -> Settings:
    """Raises ConfigError."""
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        streams = {name: _spans(table) for name, table in data["streams"].items()}
        rules = [_ruled(name, table, path.absolute().parent) for name, table in data.get("rules", {}).items()]
        return Settings(VERSION, data.get("gateway", {}).get("name", "gateway"), streams, rules)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; `tidegate check` says what is wrong with it") from None


def _spans(table) -> Spans:
    given = {f"{name}_ns": duration_ns(table[name]) for name in ("lateness", "idle", "skew") if name in table}
    return Spans(**given, **{name: table[name] for name in ("keys_max",) if name in table})


def _ruled(name, table, folder) -> Ruled:
    module = table["module"]
    path = folder / module if module.endswith(".wasm") else tidegate_rules.path(module)
    limits = {f"{key}_bytes": _size(value) for key, value in table.get("limits", {}).items() if key in ("memory", "output")}
    return Ruled(name, table["input"], str(path), table.get("params", {}), limits)


def _size(text) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    if not match or match[2] not in SIZES:
        raise ValueError(f"{text!r} is not a size")
    return round(float(match[1]) * SIZES[match[2]])
