"""What must be true of a wheel that goes to a board: the right machine in each extension and in its name, no path of the building machine, nothing
but libc needed, and the C library's floor that the name says. AssertionError says what is not."""

import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

ELF_MACHINES = {"aarch64": 183, "x86_64": 62}
LIBRARIES = {b"libc.so.6", b"libm.so.6", b"libpthread.so.0"}
PATHS = re.compile(rb"/(?:home|root|tmp|work|build|builds|Users|var/tmp)/[\w./+-]{3,}")       # of a building machine


def wheel(path):
    """Examine a finished wheel."""
    tags = re.fullmatch(r"tidegate-[\w.]+-cp(\d+)-cp\1-manylinux_(\d+_\d+)_(\w+)\.whl", path.name)
    assert tags, f"{path.name}: not the name of a manylinux wheel for one CPython"
    suffix = f".cpython-{tags[1]}-{tags[3]}-linux-gnu.so"
    with zipfile.ZipFile(path) as archive:
        extensions = [name for name in archive.namelist() if ".so" in name]
        assert len(extensions) > 20, f"{path.name}: only {len(extensions)} extensions"
        for name in archive.namelist():
            content = archive.read(name)
            assert not name.endswith((".c", ".pyx", ".o")) or "/templates/" in name, f"{path.name}: {name} is a source"
            if name in extensions:
                assert name.endswith(suffix), f"{path.name}: {name} does not end in {suffix}: {tags[3]} would not find it"
                extension(content, tags[3], f"{path.name}: {name}")


def extension(content, name, place):
    """Examine the bytes of one of Tidegate's shared objects."""
    machine(content, name, place)
    paths = PATHS.findall(content)
    assert not paths, f"{place}: holds a path of the building machine: {paths[0].decode()}"
    needed = needed_libraries(content)
    assert needed <= LIBRARIES, f"{place}: needs {needed - LIBRARIES}"


def machine(content, name, place):
    """Examine which machine a shared object is for."""
    assert content[:6] == b"\x7fELF\2\1", f"{place}: not a 64-bit little-endian ELF file"
    found, = struct.unpack_from("<H", content, 18)
    assert found == ELF_MACHINES[name], f"{place}: ELF machine {found}, not {name}"


def needed_libraries(content) -> set:
    """The DT_NEEDED entries of an ELF64 file, by its program headers."""
    offset, = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", content, offset + i * size) for i in range(count)]

    def place(address):
        return next(h[2] + address - h[3] for h in headers if h[0] == 1 and h[3] <= address < h[3] + h[5])

    _, _, start, _, _, length, _, _ = next(h for h in headers if h[0] == 2)
    entries = list(struct.iter_unpack("<qQ", content[start:start + length]))
    strings = place(next(value for tag, value in entries if tag == 5))
    return {content[strings + value:content.index(b"\0", strings + value)] for tag, value in entries if tag == 1}


def glibc_floor(path, machine, highest):
    """auditwheel agrees that no symbol is younger than glibc `highest`, which is to become the wheel's tag."""
    done = subprocess.run([sys.executable, "-m", "auditwheel", "show", str(path)], capture_output=True, text=True)
    said = " ".join(done.stdout.split())
    floor = re.search(rf'manylinux_(\d+)_(\d+)_{machine}"', said)
    assert floor, f"{path.name}: auditwheel finds no manylinux tag: {said[-500:]}{done.stderr[-500:]}"
    assert (int(floor[1]), int(floor[2])) <= tuple(map(int, highest.split("."))), f"{path.name}: needs glibc {floor[1]}.{floor[2]}"


def summary(path) -> str:
    """Sizes, for people."""
    with zipfile.ZipFile(path) as archive:
        extensions = [entry for entry in archive.infolist() if entry.filename.endswith(".so")]
        return f"{path.stat().st_size / 1e6:.1f} MB, installed {sum(e.file_size for e in archive.infolist()) / 1e6:.1f} MB, {len(extensions)} extensions"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        wheel(Path(argument))
        print(f"{argument}: {summary(Path(argument))}, good")
