"""What a command is about: a module and its samples, found from what somebody names on the command line."""

from pathlib import Path

from msgspec import Struct

from edge.errors import ConfigError, RuleError
from edge.host.module import Module
from edge.rehearsal.samples import Samples, parse

CASES = "cases.samples"


class Subject(Struct):
    """module: its name is the path as shown. samples: None when there are none. file: that they stand in; None when they are embedded."""

    module: Module
    samples: Samples | None
    file: Path | None


def find(paths) -> Subject:
    """Of a rule's folder, a .wasm file, a .samples file, or a .wasm and a .samples file. Raises ConfigError, RuleError.

    A folder with rule.toml is built; in another one stands a single .wasm file. Samples that are not named are those embedded in a .wasm file, else
    cases.samples beside it."""
    paths = [Path(p) for p in paths] or [Path(".")]
    wasm, samples = [p for p in paths if p.suffix == ".wasm"], [p for p in paths if p.suffix == ".samples"]
    rest = [p for p in paths if p not in wasm and p not in samples]
    if len(wasm) + len(rest) > 1 or len(samples) > 1:
        raise ConfigError(f"{', '.join(map(str, paths))}: name one rule: its folder, its .wasm file, or one of these and a .samples file")
    for path in rest:
        if not path.is_dir():
            raise ConfigError(f"{path}: there is no such folder; name a rule's folder, a .wasm file or a .samples file")
    if wasm:
        module = Module(_bytes(wasm[0]), str(wasm[0]))
    else:
        module = _module_in(rest[0] if rest else samples[0].parent)
    if samples:
        return _with_file(module, samples[0])
    if wasm and module.cases:
        return Subject(module, parse(module.cases, f"{wasm[0]} (embedded samples)"), None)
    beside = (wasm[0].parent if wasm else rest[0]) / CASES
    return _with_file(module, beside) if beside.is_file() else Subject(module, None, None)


def _with_file(module, path):
    try:
        text = _bytes(path).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 at byte {error.start}") from None
    return Subject(module, parse(text, str(path)), path)


def _module_in(folder) -> Module:
    if (folder / "rule.toml").is_file():
        from rulec.build import build

        return Module(build(folder), str(folder))
    found = sorted(folder.glob("*.wasm"))
    if len(found) != 1:
        raise RuleError(f"{folder}: there is {'no rule.toml and no .wasm file' if not found else 'more than one .wasm file'} in it; name the .wasm file, too")
    return Module(_bytes(found[0]), str(found[0]))


def _bytes(path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
