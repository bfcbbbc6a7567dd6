"""Machine code from modules: compiled by a child process under limits, kept in a private cache, and mapped from there.

The daemon never compiles: the compiler takes tens of megabytes, and a module can be written to make it take seconds and gigabytes.
The child limits itself before it reads the module: 10 s of CPU, 512 MiB of addresses; the parent ends it after 60 s.

Cache: KEY.cwasm is the code, as Wasmtime serialises it, KEY.sum its SHA-256 in hexadecimal; KEY is a hash of module, Wasmtime library, settings and
machine. Both are written beside, synced and renamed, the sum last. The cache keeps the 64 that were compiled last. Mapped code runs unchecked: the directory is the user's alone (0700),
code whose sum is wrong is not mapped, and code that does not load (made by another version, or for another CPU) is compiled again.
"""

import hashlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from edge.errors import DiskError, RuleError
from edge.host.code import check
from edge.host.engine import SETTINGS, Unloadable, new_engine

COMPILE_CPU_S = 10
COMPILE_WALL_S = 60
COMPILE_BYTES = 512 << 20
CODE_BYTES_MAX = 64 << 20
KEPT_MAX = 64
INVALID, OVERRUN = 3, 4                  # exit statuses of the child: the module is not valid or not allowed; it asks for too much


class Cache:
    """Compiled modules in a directory, which is made if need be. place: where they are loaded and instances live; this process, if none is given.
    Raises DiskError."""

    def __init__(self, directory, place=None):
        self.directory = Path(directory)
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.chmod(0o700)
            if self.directory.stat().st_uid != os.getuid():
                raise DiskError(f"{self.directory} belongs to another user: compiled rules are machine code, give the gateway a directory of its own")
        except OSError as error:
            raise DiskError(f"{self.directory}: {error.strerror}: compiled rules are kept there") from None
        if place is None:
            from edge.host.resident import Here  # a daemon whose rules live elsewhere has no use for Wasmtime

            place = Here()
        self.place = place
        library = os.stat(next(Path(find_spec("wasmtime").origin).parent.glob("*/_libwasmtime.so")))
        self._toolchain = repr((library.st_size, library.st_mtime_ns, sorted(SETTINGS.items()), os.uname().machine))

    def load(self, module):
        """The module's code at its place; compiled first if need be. Raises RuleError if it cannot be compiled, DiskError."""
        try:
            return self._loaded(module)
        except Unloadable:
            self._drop(self._path(module))
        try:
            return self._loaded(module)
        except Unloadable:
            raise DiskError(f"{self._path(module)}: the code that was just compiled does not load: check the disk") from None

    def _loaded(self, module):
        return self.place.load(self._path(module), self.code(module), lambda: self.code(module))

    def code(self, module) -> bytes:
        """The module's machine code, compiled first if need be. Raises RuleError if it cannot be compiled, DiskError."""
        path = self._path(module)
        try:
            code = path.read_bytes()
            if path.with_suffix(".sum").read_text() == hashlib.sha256(code).hexdigest():
                return code
        except (OSError, UnicodeDecodeError):
            pass
        self._drop(path)
        return self._compile(module)

    def _path(self, module):
        key = hashlib.sha256(module.wasm + self._toolchain.encode()).hexdigest()[:40]
        return self.directory / f"{key}.cwasm"

    def _drop(self, path):
        path.with_suffix(".sum").unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def _compile(self, module) -> bytes:
        path = self._path(module)
        code = _run_child(module)
        try:
            _write(path, code)
            _write(path.with_suffix(".sum"), hashlib.sha256(code).hexdigest().encode())
            _sync(self.directory)
            self._tidy()
        except OSError as error:
            raise DiskError(f"{path}: {error.strerror}: compiled rules are kept there") from None
        return code

    def _tidy(self):
        """Remove what a crash left beside, and the oldest beyond KEPT_MAX."""
        for left in self.directory.glob("*.*.*"):
            left.unlink(missing_ok=True)
        for old in sorted(self.directory.glob("*.cwasm"), key=lambda p: p.stat().st_mtime_ns)[:-KEPT_MAX]:
            old.with_suffix(".sum").unlink(missing_ok=True)
            old.unlink(missing_ok=True)


def _run_child(module) -> bytes:
    """The child's output: machine code. Raises RuleError."""
    import subprocess  # seldom needed, and a megabyte

    def refuse(why, code="refused"):
        raise RuleError(f"{module.name}: {why}", rule=module.name, digest=module.digest, code=code)

    here = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-P", "-m", "edge.host.compile", str(COMPILE_CPU_S), str(COMPILE_BYTES)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)])}
    try:
        done = subprocess.run(command, input=module.wasm, capture_output=True, timeout=COMPILE_WALL_S, env=environment)
    except subprocess.TimeoutExpired:
        refuse(f"compiling it took more than {COMPILE_WALL_S} s", "limit")
    said = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode == INVALID:
        refuse(f"it is not a module for rules: {said}")
    if done.returncode == OVERRUN or done.returncode < 0:
        refuse(f"compiling it took more than {COMPILE_CPU_S} s of CPU or {COMPILE_BYTES >> 20} MiB of memory: make it smaller", "limit")
    if done.returncode:
        refuse(f"the compiler failed (status {done.returncode}): {said[-500:]}")
    return done.stdout


def _write(path, data):
    """Atomically: the file is there whole, and on the disk, or not at all."""
    beside = path.with_suffix(f"{path.suffix}.{os.getpid()}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.rename(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _sync(directory):
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def main() -> int:
    """The child: a module on standard input, its machine code on standard output. Arguments: seconds of CPU, bytes of addresses."""
    import resource

    import wasmtime

    seconds, size = map(int, sys.argv[1:])
    compiler = new_engine()
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        wasm = sys.stdin.buffer.read()
        code = wasmtime.Module(compiler, wasm).serialize()
        check(wasm)
    except (wasmtime.WasmtimeError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return INVALID
    except MemoryError:
        return OVERRUN
    if len(code) > CODE_BYTES_MAX:
        return OVERRUN
    sys.stdout.buffer.write(code)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
