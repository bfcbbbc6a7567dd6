"""The hashes of release/lock.txt: `python release/lock.py` fetches the wheels of every machine and Python that a package may be built for, and writes the SHA-256
of each behind its line. After a version there was changed; what is installed at a build has to have one of them (release/package.py)."""

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).resolve().parent / "lock.txt"
MACHINES = ("aarch64", "x86_64")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LINE = re.compile(r"^([\w-]+)==(\S+)(?:\s*\\\n\s*--hash=sha256:[0-9a-f]{64})*$", re.M)


def options(machine, python) -> list[str]:
    """pip's, for wheels that run on a machine with this version of Python, and for nothing else."""
    platforms = [f"--platform={tag}_{machine}" for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "linux")]
    return ["-q", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms]


def pinned(text=None) -> dict[str, str]:
    """Name -> version."""
    return {match[1]: match[2] for match in LINE.finditer(LOCK.read_text() if text is None else text)}


def hashed(text, hashes) -> str:
    """The lock's text with these hashes. hashes: name -> set of SHA-256."""
    return LINE.sub(lambda match: " \\\n    ".join([f"{match[1]}=={match[2]}", *(f"--hash=sha256:{digest}" for digest in sorted(hashes[match[1]]))]), text)


def main():
    text, found = LOCK.read_text(), {}
    with tempfile.TemporaryDirectory(prefix="tidegate-lock-") as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text("\n".join(f"{name}=={version}" for name, version in pinned(text).items()))
        for machine in MACHINES:
            for python in PYTHONS:
                subprocess.run([sys.executable, "-m", "pip", "download", *options(machine, python), "-r", wanted, "-d", Path(folder) / f"{machine}-{python}"], check=True)
        for wheel in Path(folder).glob("*/*.whl"):
            found.setdefault(wheel.name.split("-")[0].lower().replace("_", "-"), set()).add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    LOCK.write_text(hashed(text, found))


if __name__ == "__main__":
    main()
