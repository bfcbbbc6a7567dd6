"""What is installed is what was tested: source distribution, a wheel built from it, and the wheel at work in an environment of its own."""

import json
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from package_build import call, tracked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PACKAGES = {"edge": "edge", "gateway": "gateway", "firmware-sim/firmware_sim": "firmware_sim", "firmware-sim/scenarios": "firmware_sim/scenarios",
            "rules/ready": "tidegate_rules", "rules/rulec": "rulec", **{f"rules/{sdk}": f"rulec/sdk/{sdk}" for sdk in ("c", "assemblyscript", "rust")}}
DATA = (".py", ".wasm", ".toml", ".csv", ".pxd", ".samples", ".h", ".ts", ".rs", "/flags")


def installed_name(name):
    """Where a file of the repository stands in the wheel; None for what is no part of a package."""
    for folder, package in PACKAGES.items():
        if name.startswith(f"{folder}/"):
            return f"{package}/{name.removeprefix(f'{folder}/')}"
    return None


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Its bin directory. The dependencies are those of the tests' environment; Tidegate is not taken from there."""
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    call(sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=folder).strip())
    (site / "dependencies.pth").write_text("\n".join({sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]}))
    return folder / "bin"


def test_the_sdist_has_every_source_and_no_product(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name for name in tracked() if name.endswith((".pyx", ".pxd", ".py")) and installed_name(name)}
    assert len([name for name in wanted if name.endswith(".pxd")]) > 10
    assert wanted <= names
    assert not [name for name in names if name.endswith((".so", ".c", ".o", ".pyc")) and "/templates/" not in name or name.startswith("tests")]


def test_the_wheel_has_what_runs_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = tracked()
    wanted = {installed_name(name) for name in files if installed_name(name) and (name.endswith(DATA) or "/templates/" in name)}
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    wanted |= {installed_name(name).removesuffix(".pyx") + suffix for name in files if installed_name(name) and name.endswith(".pyx")}
    beside = {name.partition(".data/data/")[2] for name in names if ".data/" in name}
    assert {name for name in names if ".data/" not in name} == wanted
    assert beside == {f"share/doc/tidegate/{name.removeprefix('docs/')}" for name in files if name.startswith("docs/monitoring/")} != set()


def test_the_installed_gateway_runs_the_demo(environment, tmp_path):
    """Commands, extensions, ready-made rules, the demo's configuration and the simulator's scenarios, all from the wheel."""
    where = call(environment / "python", "-c", "import edge, gateway, firmware_sim, tidegate_rules as r; print(edge.__file__, gateway.__file__, "
                 "firmware_sim.__file__, r.__file__, sep='\\n')", cwd=tmp_path).split()
    assert all(Path(path).is_relative_to(environment.parent) for path in where), where
    versions = json.loads(call(environment / "tidegate", "version", "--json", cwd=tmp_path))
    assert versions["tidegate"] != "not installed"
    result = json.loads(call(environment / "tidegate", "demo", "--seconds", "2", "--devices", "10", "--keep", "demo", "--json", cwd=tmp_path).splitlines()[-1])
    assert result["ok"] and result["rules"]["climate"]["out"] > 0
    assert call(environment / "tidegate", "check", "-c", "demo/tidegate.toml", cwd=tmp_path).endswith("ok\n")
    assert "good" in call(environment / "tidegate", "buffer", "verify", "-c", "demo/tidegate.toml", cwd=tmp_path)


def test_the_installed_package_makes_rules(environment, tmp_path):
    """Templates, the SDK of C and the template of SQL, all from the wheel."""
    for language in ("sql", "c"):
        call(environment / "tidegate", "rule", "new", language, "--lang", language, cwd=tmp_path)
        call(environment / "tidegate", "rule", "build", language, cwd=tmp_path)
        assert "4 cases" in call(environment / "tidegate", "rule", "test", cwd=tmp_path / language)


def test_a_notebook_needs_one_import(environment, tmp_path):
    script = """
import edge, sys
assert "edge.codec.receiver" not in sys.modules and "edge.codec.batches" not in sys.modules
from edge.codec.batches import encode_batch
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
batch = Batch.from_rows(Schema("s", (Field("v", "i64"),)), [{"v": 1}, {"v": None}], first_sequence=7)
message = encode_batch(batch, gateway="g", epoch=1)
assert edge.decode(message) == [{"v": 1}, {"v": None}]
assert len(edge.Receiver().feed("g/l/s", message).batch) == 2
assert edge.Receiver.__module__ == "edge.codec.receiver"
"""
    call(environment / "python", "-c", script, cwd=tmp_path)
