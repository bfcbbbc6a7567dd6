"""The sdist and the wheel that the tests of this folder examine: made once."""

import shutil
import sys
import tarfile

import pytest
from package_build import ROOT, call, tracked

sys.path.insert(0, str(ROOT / "release"))


@pytest.fixture(scope="session")
def sdist(tmp_path_factory):
    """The source distribution of a copy without anything generated."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in tracked():
        if (ROOT / name).is_file():
            (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "copy" / name)
    call(sys.executable, "-W", "ignore", "-c", f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})", cwd=folder / "copy")
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="session")
def wheel(sdist, tmp_path_factory):
    """The wheel that pip makes of the source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)
    source, = folder.iterdir()
    call(sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source, cwd=folder)
    return next(folder.glob("*.whl"))
