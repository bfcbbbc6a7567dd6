"""The ready-made scenarios that ship with the package."""

import re
from pathlib import Path

from .errors import ScenarioError
from .problems import near

_HERE = Path(__file__).resolve().parent
DIRECTORY = next(d for d in (_HERE / "scenarios", _HERE.parent / "scenarios") if d.is_dir())   # installed; in a checkout


def names() -> list[str]:
    """What can be run by name."""
    return sorted(p.stem for p in DIRECTORY.glob("*.toml"))


def about(name) -> str:
    """The comment at the head of a ready-made scenario."""
    text = (DIRECTORY / f"{name}.toml").read_text("utf-8")
    return " ".join(line.lstrip("# ") for line in re.match(r"(?:#.*\n)*", text).group().splitlines())


def find(name) -> Path:
    """The path of a scenario: a file's, or that of a ready-made one. Raises ScenarioError."""
    path = Path(name)
    if path.is_file() or path.suffix or "/" in name:
        return path
    if name in names():
        return DIRECTORY / f"{name}.toml"
    raise ScenarioError(name, [f"is no file and no ready-made scenario; {near(name, names())}"])
