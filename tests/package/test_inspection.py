"""The examination of wheels finds what it is for: each fault that a cross-compiler makes, made on purpose."""

import sysconfig
import zipfile

import inspection
import package_build
import pytest

EXTENSION = next((package_build.ROOT / "edge/storage").glob(f"_crc32c*{sysconfig.get_config_var('EXT_SUFFIX')}"), None)
pytestmark = pytest.mark.skipif(EXTENSION is None or "x86_64" not in EXTENSION.name, reason="needs the extensions of an x86-64 build")


def wheel(folder, machine="x86_64", suffix=None, content=None, name=None):
    """A wheel of 21 extensions for a machine."""
    path = folder / (name or f"tidegate-1.0-cp311-cp311-manylinux_2_28_{machine}.whl")
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(21):
            archive.writestr(f"edge/_{i}{suffix or f'.cpython-311-{machine}-linux-gnu.so'}", clean() if content is None else content)
    return path


def clean():
    """An extension as it should be: without the paths that a build for the checkout leaves in it."""
    return inspection.PATHS.sub(lambda match: b"x" * len(match[0]), EXTENSION.read_bytes())


def test_a_good_wheel_passes(tmp_path):
    inspection.wheel(wheel(tmp_path))


@pytest.mark.parametrize(("fault", "made"), [
    ("would not find it", {"machine": "aarch64", "suffix": ".cpython-311-x86_64-linux-gnu.so"}),
    ("ELF machine 62, not aarch64", {"machine": "aarch64"}),
    ("not a 64-bit little-endian ELF", {"content": b"not found"}),
    ("not the name of a manylinux wheel", {"name": "tidegate-1.0-cp311-cp311-linux_x86_64.whl"}),
])
def test_a_fault_is_named(tmp_path, fault, made):
    with pytest.raises(AssertionError, match=fault):
        inspection.wheel(wheel(tmp_path, **made))


def test_a_path_of_the_building_machine_is_found(tmp_path):
    with pytest.raises(AssertionError, match="holds a path of the building machine: /home/ann/tidegate"):
        inspection.wheel(wheel(tmp_path, content=clean() + b"\0/home/ann/tidegate/edge\0"))


def test_a_library_beside_libc_is_found(tmp_path):
    assert inspection.needed_libraries(clean()) <= inspection.LIBRARIES
    foreign = clean().replace(b"\0libc.so.6\0", b"\0libz.so.9\0")
    with pytest.raises(AssertionError, match="needs .*libz.so.9"):
        inspection.wheel(wheel(tmp_path, content=foreign))
