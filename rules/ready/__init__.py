"""The ready-made rules: path("threshold") is the file of a rule's module."""

from pathlib import Path

_HERE = Path(__file__).parent


def names() -> list[str]:
    """Names of the ready-made rules."""
    return sorted(p.stem for p in _HERE.glob("*/*.wasm"))


def path(name) -> Path:
    """The rule's .wasm file. Raises KeyError, with the names there are."""
    file = _HERE / name / f"{name}.wasm"
    if not file.is_file():
        raise KeyError(f"there is no ready-made rule {name!r}; there are {', '.join(names())}")
    return file
