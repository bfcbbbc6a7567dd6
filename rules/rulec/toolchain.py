"""Compilers of other languages: found, or the one line that installs them; run in the rule's folder, their words as they come."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from edge.errors import ConfigError, RuleError

SECONDS_MAX = 600
HERE = Path(__file__).parent


def sdk(language) -> Path:
    """The folder of a language's SDK: in the wheel rulec/sdk/LANGUAGE, in the repository rules/LANGUAGE."""
    installed = HERE / "sdk" / language
    return installed if installed.is_dir() else HERE.parent / language


def missing(what, command) -> ConfigError:
    """The error for a compiler that is not there."""
    return ConfigError(f"{what} is missing; install it with: {command}")


def find(program, *folders) -> str | None:
    """A program in one of these folders, then on the PATH."""
    return shutil.which(program, path=os.pathsep.join(str(Path(folder).absolute()) for folder in folders)) or shutil.which(program)


def every(program) -> list[str]:
    """All programs of this name on the PATH, in its order."""
    found = (shutil.which(program, path=folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder)
    return [path for path in found if path]


def run(command, folder):
    """Run a compiler. Raises RuleError with all that it said."""
    try:
        done = subprocess.run([str(part) for part in command], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        raise RuleError(f"{Path(command[0]).name} took longer than {SECONDS_MAX} s and was stopped") from None
    except OSError as error:
        raise ConfigError(f"{command[0]} cannot be run: {error.strerror}") from None
    said = done.stdout.decode(errors="replace").strip()
    if done.returncode:
        raise RuleError(said or f"{Path(command[0]).name} failed with status {done.returncode} and said nothing")
    return said


def compiled(folder, make) -> bytes:
    """The module that make(output) writes, beside nothing else: `output` is a path in a new directory. make returns the command."""
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "rule.wasm"
        run(make(output), folder)
        return output.read_bytes()
