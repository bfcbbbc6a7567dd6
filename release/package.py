"""The Debian package, for a board or a server, built on any machine: `python release/package.py --machine aarch64 dist/tidegate-*-aarch64.whl`.

All that the device gets lies in /opt/tidegate: a virtual environment made of files alone, on the distribution's Python. One folder holds the
extensions for every CPython that there is a wheel for, side by side, so that an upgrade of the distribution needs no other package. Nothing is
compiled, downloaded or resolved on the device; postinst makes byte code, the user and the data directory.
"""

import argparse
import email
import gzip
import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import tomllib
from pathlib import Path

import inspection
import lock
import manual
import sbom

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = ROOT / "release" / "debian"
ARCHITECTURES = {"aarch64": "arm64", "x86_64": "amd64"}
FORMATS = {"log": ("edge.storage.segment", "VERSION"), "identity": ("edge.identity", "VERSION"), "checkpoint": ("edge.recovery", "META_VERSION"),
           "rules": ("edge.rule_store", "VERSION")}                     # of what lies in a data directory
SIZE_MAX = 31_000_000                    # beyond Python and wasmtime, before postinst adds 4 MB of byte code: 35 MB installed
ANOTHER_MAX = 6_000_000                  # and for the extensions of each further Python
UNUSED = ["zstandard/_cffi.*"]           # the same a second time, for PyPy
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
COMMANDS = {"tidegate": "gateway.cli", "firmware-sim": "firmware_sim.cli"}


def build(out, machine, wheels, version=None, level=6) -> Path:
    """The package in the directory out. wheels: Tidegate's for the machine, one for each CPython. version: instead of pyproject.toml's. level: of xz."""
    version = version or tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    os.environ.setdefault("SOURCE_DATE_EPOCH", _commit_time())
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="tidegate-deb-") as folder:
        root = Path(folder) / "root"
        pythons, hashes = environment(root / "opt/tidegate", machine, wheels)
        site = root / "opt/tidegate/lib/site-packages"
        system(root, version, bundled(site))
        bill = sbom.document(version, ARCHITECTURES[machine], bundled(site), hashes, site, int(os.environ["SOURCE_DATE_EPOCH"]))
        _write(root / "usr/share/doc/tidegate/tidegate.cdx.json", bill)
        control(root, machine, version, pythons)
        deb = out / f"tidegate_{version}_{ARCHITECTURES[machine]}.deb"
        run(["dpkg-deb", "--root-owner-group", "-Zxz", f"-z{level}", "-b", root, deb])
    return deb


# --- /opt/tidegate

def environment(top, machine, wheels) -> tuple[list, dict]:
    """The virtual environment. Returns the versions of Python that it is for, and name -> SHA-256 of the wheels in it."""
    site = top / "lib/site-packages"
    site.mkdir(parents=True)
    pythons = sorted({tuple(map(int, re.search(r"-cp(3)(\d+)-", wheel.name).groups())): wheel for wheel in wheels}.items())
    hashes = {}
    for python, wheel in pythons:
        fresh = top / "fresh"
        for name, digest in install(fresh, machine, python, wheel).items():
            hashes.setdefault(name, set()).add(digest)
        for path in sorted(fresh.rglob("*")):
            to = site / path.relative_to(fresh)
            if path.is_dir():
                to.mkdir(exist_ok=True)
            elif not to.exists():
                path.rename(to)
        shutil.rmtree(fresh)
        link = top / f"lib/python{python[0]}.{python[1]}/site-packages"
        link.parent.mkdir()
        link.symlink_to("../site-packages")
    for folder in ("bin", "share"):                  # commands of others; and what lies in usr/share/doc
        shutil.rmtree(site / folder, ignore_errors=True)
    for path in [path for pattern in UNUSED for path in site.glob(pattern)]:
        path.unlink()
    for path in site.rglob("*.so"):
        run(["llvm-strip", path])
        path.chmod(0o644)
        inspection.machine(path.read_bytes(), machine, str(path.relative_to(top)))
    (top / "bin").mkdir()
    (top / "bin/python3").symlink_to("/usr/bin/python3")
    (top / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    return [python for python, _ in pythons], hashes


def install(folder, machine, python, wheel) -> dict:
    """Everything for one version of Python, as pip lays it for that machine, if it has the hashes of the lock. Returns name -> SHA-256 of what was locked."""
    pip = [sys.executable, "-m", "pip", "install", "--target", folder, "--no-compile", *lock.options(machine, f"{python[0]}.{python[1]}")]
    with tempfile.NamedTemporaryFile() as report:
        run([*pip, "--require-hashes", "--report", report.name, "-r", lock.LOCK])
        installed = json.load(report)["install"]
    run([*pip, wheel])
    return {re.sub(r"[-_.]+", "-", one["metadata"]["name"]).lower(): one["download_info"]["archive_info"]["hashes"]["sha256"] for one in installed}


def bundled(site) -> list[dict]:
    """Name, version and licence of every distribution in the environment."""
    found = []
    for path in sorted(site.glob("*.dist-info/METADATA")):
        said = email.message_from_string(path.read_text())
        classifiers = [c.rpartition(" :: ")[2] for c in said.get_all("Classifier", []) if c.startswith("License ::")]
        licence = said["License-Expression"] or ", ".join(classifiers) or (said["License"] or "").partition("\n")[0]
        found.append({"name": said["Name"], "version": said["Version"], "licence": licence or "see its files"})
    return found


# --- what lies elsewhere

def system(root, version, distributions):
    """Commands, configuration, units, pages."""
    for name, module in COMMANDS.items():
        _write(root / f"usr/bin/{name}", f'#!/bin/sh\nexec /opt/tidegate/bin/python3 -I -m {module} "$@"\n', 0o755)
    for place in ("etc/tidegate", "opt/tidegate"):           # the second for `tidegate init`, to know whether the first was ever changed
        _write(root / place / "tidegate.toml", (DEBIAN / "tidegate.toml").read_text())
    for unit in DEBIAN.glob("*.service"):
        _write(root / "lib/systemd/system" / unit.name, unit.read_text())
    for tree, sections in ((manual.tidegate(), _sections()), (manual.firmware_sim(), {})):
        name = tree.words[0]
        _write(root / f"usr/share/man/man1/{name}.1.gz", _gzip(manual.man(tree, version, time.strftime("%Y-%m-%d", _now()), sections)))
        _write(root / f"usr/share/bash-completion/completions/{name}", manual.completion(tree))
    pages = root / "usr/share/doc/tidegate"
    for page in (*(ROOT / "docs").glob("*.md"), *(ROOT / "docs/monitoring").iterdir()):
        _write(pages / page.relative_to(ROOT / "docs"), page.read_text())
    _write(pages / "changelog.gz", _gzip(_changelog(version)))
    _write(pages / "copyright", _copyright(distributions))


def _sections():
    return {"EXIT STATUS": ["0 done; 1 the answer is no; 2 it could not be done."],
            "FILES": ["/etc/tidegate/tidegate.toml: the configuration.", "/var/lib/tidegate: journal, outboxes, rules, checkpoints.",
                      "/opt/tidegate: the program.", "/usr/share/doc/tidegate: every key of the configuration, operations, formats."],
            "SEE ALSO": ["systemctl status tidegate, journalctl -u tidegate, firmware-sim(1)"]}


def _changelog(version):
    """Debian's form of CHANGELOG.md."""
    entries = re.findall(r"^- ((?:.|\n(?!- |#))+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    lines = "\n".join(textwrap.fill(" ".join(entry.split()), 78, initial_indent="  * ", subsequent_indent="    ") for entry in entries)
    return f"tidegate ({version}) stable; urgency=medium\n\n{lines}\n\n -- {_maintainer()}  {time.strftime('%a, %d %b %Y %H:%M:%S +0000', _now())}\n"


def _copyright(distributions):
    lines = [f"  {d['name']} {d['version']}: {d['licence']}" for d in distributions if d["name"] != "tidegate"]
    return ("Tidegate\nCopyright (C) 2026 the Tidegate maintainers\n\nThe package also holds, each under its own licence, whose text lies with it in "
            "/opt/tidegate/lib/site-packages/NAME.dist-info:\n\n" + "\n".join(lines) + "\n")


# --- the package's own files

def control(root, machine, version, pythons):
    """DEBIAN/: control, scripts, conffiles, md5sums. Ends the program when the package is too large."""
    size, wasmtime = _size(root), _size(root / "opt/tidegate/lib/site-packages/wasmtime")
    most = SIZE_MAX + ANOTHER_MAX * (len(pythons) - 1)
    print(f"{ARCHITECTURES[machine]}: {size / 1e6:.1f} MB installed, of it wasmtime {wasmtime / 1e6:.1f} MB, the rest {(size - wasmtime) / 1e6:.1f} MB (at most "
          f"{most / 1e6:.0f}); Python {', '.join(f'{a}.{b}' for a, b in pythons)}")
    if size - wasmtime > most:
        sys.exit("the package is too large: see release/lock.txt for what is left out")
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    sums = "".join(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files)
    known = {"VERSION": version, "ARCHITECTURE": ARCHITECTURES[machine], "SIZE": str(-(-size // 1024)), "PYTHON": depends(pythons), "MAINTAINER": _maintainer(),
             "FORMATS": " ".join(f"{name}={getattr(importlib.import_module(place), key)}" for name, (place, key) in FORMATS.items())}
    for name in ("control", *SCRIPTS):
        text = re.sub(r"@([A-Z]+)@", lambda match: known[match[1]], (DEBIAN / name).read_text())
        _write(root / "DEBIAN" / name, text, 0o755 if name in SCRIPTS else 0o644)
    _write(root / "DEBIAN/conffiles", "/etc/tidegate/tidegate.toml\n")
    _write(root / "DEBIAN/md5sums", sums)


def depends(pythons) -> str:
    """The Depends on python3 that lets these versions alone: [(3, 11), (3, 13)] leaves 3.12 out."""
    (major, first), (_, last) = pythons[0], pythons[-1]
    gaps = [f"python3 (<< {major}.{minor}) | python3 (>= {major}.{minor + 1}~)" for minor in range(first, last) if (major, minor) not in pythons]
    return ", ".join([f"python3 (>= {major}.{first}~)", *gaps, f"python3 (<< {major}.{last + 1})"])


def _size(folder):
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _maintainer():
    return "The Tidegate maintainers <maintainers@tidegate.invalid>"


def _commit_time():
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or str(int(time.time()))


def _now():
    return time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))


def _gzip(text):
    return gzip.compress(text.encode(), mtime=0)


def _write(path, content, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)


def run(command):
    """Ends the program with what the command said when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", nargs="+", type=Path, help="Tidegate's wheels; those of other machines are passed over")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--machine", action="append", choices=ARCHITECTURES)
    arguments = parser.parse_args()
    for machine in arguments.machine or ARCHITECTURES:
        deb = build(arguments.out, machine, [wheel for wheel in arguments.wheels if wheel.stem.endswith(machine)])
        print(f"{deb}: {deb.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
