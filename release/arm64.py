"""The arm64 package at work on an x86 machine: installed into a minimal Debian root and run there by qemu's user emulation of a Cortex-A53.

    python release/arm64.py dist/tidegate_VERSION_arm64.deb

As root. The root file system is made once and kept in the cache (up to 6 minutes); then it takes 1 to 3. It shows that the package installs, that code
and extensions are right for the processor, that rules compile there, that a fleet's events come through with a balanced ledger, with pages of 4 KiB and of 16, and that what comes
out is the same to the bit as here. It shows nothing about speed, and no systemd runs.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidegate"
SUITE = "bookworm"
PACKAGES = "python3,adduser"
PROCESSOR = "cortex-a53"         # of a Raspberry Pi 3 and Zero 2 W; the emulator's default has instructions that no such board has
PAGE = 16384                     # of a Raspberry Pi 5's kernel; the emulator's is otherwise 4096
SIZE_MAX = 35_000_000
HOSTILE = "120"                  # modules
# The checksum of every record, by the processor's instruction and by table.
CHECKSUM = """
import os
from edge.storage._crc32c import by_instruction, crc32c, crc32c_by_table
data = os.urandom(20000)
assert crc32c(b"123456789") == 0xE3069283 and all(crc32c(data[:n]) == crc32c_by_table(data[:n]) for n in range(0, 20000, 997))
print("checksums by", "instruction" if by_instruction() else "table")
"""
# Rows by stream, encoded as batches: equal digests are equal bytes on the wire. Standard input: the lines of `tidegate rule replay`.
ENCODE = """
import hashlib, json, sys
from edge.codec.batches import encode_batch
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
streams = {}
for line in sys.stdin:
    row = json.loads(line)
    for name in ("received", "sequence", "epoch", "gateway"):
        row.pop(name, None)
    streams.setdefault(row.pop("stream"), []).append(row)
kinds = {float: "f64", int: "i64", str: "str", bool: "bool"}
for name, rows in sorted(streams.items()):
    types = {}
    for row in rows:
        types |= {field: kinds[type(value)] for field, value in row.items() if value is not None and types.get(field) != "f64"}
    schema = Schema(name, tuple(Field(field, kind) for field, kind in sorted(types.items())))
    whole = [{f: float(v) if v is not None and types[f] == "f64" else v for f, v in row.items()} for row in rows]
    message = encode_batch(Batch.from_rows(schema, whole, first_sequence=0), gateway="g", epoch=1)
    print(name, len(rows), len(message), hashlib.sha256(message).hexdigest())
"""


class Board:
    """A file system of arm64, whose commands run emulated."""

    def __init__(self, folder):
        self.root, self.page = folder, 4096

    def call(self, *command, stdin=None, status=0):
        """Standard output of a command in the root; ends the program when its exit status is another."""
        enter = 'mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" "$@"'
        done = subprocess.run(["unshare", "-m", "-p", "-f", "--kill-child", "sh", "-c", enter, self.root, *command], input=stdin, capture_output=True, text=True,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", "QEMU_CPU": PROCESSOR, "QEMU_PAGESIZE": str(self.page), "DEBIAN_FRONTEND": "noninteractive"})
        if done.returncode != status:
            sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout


def base() -> Path:
    """The cached archive of a minimal Debian with Python, for arm64."""
    archive = CACHE / f"{SUITE}-arm64.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = archive.with_suffix(".part.tar")
        subprocess.run(["mmdebstrap", "-q", "--arch=arm64", "--variant=minbase", f"--include={PACKAGES}", SUITE, part], check=True)
        part.rename(archive)
    return archive


def installed(board, deb):
    """Install the package, and look at what it made."""
    shutil.copy(deb, board.root / "tmp")
    board.call("dpkg", "-i", f"/tmp/{deb.name}")
    assert board.call("tidegate", "check") == "/etc/tidegate/tidegate.toml: ok\n"
    versions = json.loads(board.call("tidegate", "version", "--json"))
    assert versions["machine"] == "aarch64", versions
    assert not board.call("sh", "-c", "command -v gcc cc pip || true")
    site = board.root / "opt/tidegate/lib/site-packages"
    size = sum(p.lstat().st_size for p in (board.root / "opt/tidegate").rglob("*") if not p.is_dir())
    wasmtime = sum(p.lstat().st_size for p in (site / "wasmtime").rglob("*") if not p.is_dir())
    assert size - wasmtime <= SIZE_MAX, f"{size - wasmtime} bytes beyond Python and wasmtime"
    checksums = board.call("/opt/tidegate/bin/python3", "-I", "-c", CHECKSUM).strip()
    return f"{size / 1e6:.1f} MB with byte code, of it wasmtime {wasmtime / 1e6:.1f} MB; Python {versions['python']}; {checksums}"


def demonstrated(board, folder="/tmp/demo"):
    """A daemon, a fleet and a receiver there: rules are compiled, the ledger balances, the receiver has exactly what was acknowledged."""
    said = board.call("tidegate", "demo", "--seconds", "8", "--devices", "20", "--keep", folder, "--json")
    result = json.loads(said.splitlines()[-1])
    assert result["ok"], json.dumps(result)[:3000]
    assert all(rule["out"] for name, rule in result["rules"].items() if name != "silent"), result["rules"]
    return f"{result['fleet']['acknowledged']} events, {len(result['rules'])} rules, {result['received']['rows']} rows received; balanced"


def paged(board):
    """The same with pages of 16 KiB."""
    board.page = PAGE
    assert board.call("/opt/tidegate/bin/python3", "-I", "-c", "import os; print(os.sysconf('SC_PAGE_SIZE'))") == f"{PAGE}\n"
    said = demonstrated(board, "/tmp/paged")
    board.page = 4096
    return said


def compared(board):
    """What the rules put out of the recorded journal, here and there, and the bytes of its batches."""
    here = Path(shutil.copytree(board.root / "tmp/demo", board.root / "tmp/here"))
    replay = ["rule", "replay", "--journal", "data", "--config", "tidegate.toml"]
    native = subprocess.run([sys.executable, "-m", "gateway.cli", *replay], cwd=here, capture_output=True, text=True, check=True,
                            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "rules", ROOT / "firmware-sim")))}).stdout
    there = board.call("sh", "-c", f"cd /tmp/demo && tidegate {' '.join(replay)}")
    assert native.count("\n") > 100, native[:500]
    assert native == there, "the rules' rows differ"
    digests = subprocess.run([sys.executable, "-c", ENCODE], cwd=ROOT, input=native, capture_output=True, text=True, check=True).stdout
    assert digests == board.call("/opt/tidegate/bin/python3", "-I", "-c", ENCODE, stdin=there), "encoded batches differ"
    return f"{native.count(chr(10))} rows equal to the bit, and the batches of {len(digests.splitlines())} streams"


def attacked(board):
    """Hostile modules beside good rules there: none ends the process or changes what another rule puts out, and each is stopped."""
    for part in ("tests/soak", "tests/hostile", "tests/host", "tests/log", "rules/ready"):
        shutil.copytree(ROOT / part, board.root / "tmp/suite" / part, ignore=shutil.ignore_patterns("__pycache__"))
    said = board.call("/opt/tidegate/bin/python3", "/tmp/suite/tests/hostile/hostile_run.py", "--seed", "1", "--count", HOSTILE, "--child-every", "30", "--emulated")
    result = json.loads(said.splitlines()[-1])
    return f"{HOSTILE} hostile modules: {', '.join(f'{n} {fate}' for fate, n in sorted(result['fates'].items()))}; at most {result['overrun_ms']} ms late"


def removed(board):
    """remove keeps configuration and data, purge deletes both."""
    data, program = board.root / "var/lib/tidegate", board.root / "opt/tidegate"
    (data / "journal").mkdir()
    board.call("dpkg", "-r", "tidegate")
    assert (data / "journal").exists() and (board.root / "etc/tidegate/tidegate.toml").exists() and not program.exists()
    board.call("dpkg", "-P", "tidegate")
    assert not data.exists() and not (board.root / "etc/tidegate").exists()
    return "removed, purged"


def main():
    deb = Path(sys.argv[1])
    began = time.monotonic()
    archive = base()
    with tempfile.TemporaryDirectory(prefix="tidegate-arm64-", dir=CACHE) as folder:
        subprocess.run(["tar", "-xf", archive, "-C", folder, "--exclude=./dev/*"], check=True)
        board = Board(Path(folder))
        print(f"root      {time.monotonic() - began:5.0f} s", flush=True)
        for step in (installed, demonstrated, paged, compared, attacked, removed):
            began = time.monotonic()
            said = step(board, deb) if step is installed else step(board)
            print(f"{step.__name__:13} {time.monotonic() - began:4.0f} s  {said}", flush=True)


if __name__ == "__main__":
    main()
