"""Wheels for boards and servers, cross-compiled on any Linux machine: `python release/wheels.py --out dist [--machine aarch64] [--python python3.13]`.

The compiler is zig cc: no toolchain of the distribution, and the C library's floor is chosen (2.28: Debian 10 or later). A wheel is built from
the sdist, which is made first, so that nothing that lies around in the checkout gets into it. Each is then examined (release/inspection.py).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import inspection

ROOT = Path(__file__).resolve().parent.parent
MACHINES = ("aarch64", "x86_64")
GLIBC = "2.28"
CFLAGS = "-O2 -g0 -ffp-contract=off"      # no debugging: no build paths. No fused multiply-add: the same bits on every machine


def build(out, machines=MACHINES, pythons=(sys.executable,)) -> list[Path]:
    """The sdist and one examined wheel for each machine and Python, into the directory out. Returns the wheels' paths."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tidegate-wheels-") as folder:
        folder = Path(folder)
        source = unpack(sdist(out), folder)
        return [cross(source, folder, out, machine, python) for python in pythons for machine in machines]


def sdist(out) -> Path:
    """The source distribution, from the checkout."""
    name = run([sys.executable, "-W", "ignore", "-c", f"from setuptools import build_meta; print(build_meta.build_sdist({str(out.absolute())!r}))"], ROOT).split()[-1]
    return out / name


def unpack(archive, folder) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def cross(source, folder, out, machine, python) -> Path:
    """One wheel. The generated C stays in the source folder for the next."""
    tag, = run([python, "-c", "import sys; print('%d%d' % sys.version_info[:2])"]).split()
    compiler = folder / f"cc-{machine}"
    compiler.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang cc -target {machine}-linux-gnu.{GLIBC} "$@"\n')
    compiler.chmod(0o755)
    built = folder / f"{tag}-{machine}"
    environment = {**os.environ, "CC": str(compiler), "LDSHARED": f"{compiler} -shared", "CFLAGS": CFLAGS, "LDFLAGS": "-Wl,-s",
                   "SETUPTOOLS_EXT_SUFFIX": f".cpython-{tag}-{machine}-linux-gnu.so",        # else they have the building machine's, and are not found
                   "_PYTHON_HOST_PLATFORM": f"linux-{machine}"}
    isolation = ["--no-build-isolation"] if python == sys.executable else []
    run([python, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", *isolation, "-w", built, source], ROOT, environment)
    raw, = built.glob("*.whl")
    inspection.glibc_floor(raw, machine, GLIBC)
    run([sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", f"manylinux_{GLIBC.replace('.', '_')}_{machine}", raw])
    wheel, = built.glob("*.whl")
    inspection.wheel(wheel)
    return Path(shutil.copy(wheel, out))


def run(command, cwd=None, environment=None) -> str:
    """Standard output. Ends the program with what the command said when it fails."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def interpreter(name) -> str:
    """The absolute path of a Python."""
    found = shutil.which(name)
    return str(Path(found).absolute()) if found else sys.exit(f"there is no {name} here")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--machine", action="append", choices=MACHINES)
    parser.add_argument("--python", action="append", help="an interpreter with its headers; more than one may be given (this one)")
    arguments = parser.parse_args()
    for wheel in build(arguments.out, arguments.machine or MACHINES, [interpreter(name) for name in arguments.python or [sys.executable]]):
        print(f"{wheel.name}: {inspection.summary(wheel)}")


if __name__ == "__main__":
    main()
