"""Whether every branch of the code in proven.py runs under its tests.

Branches of Python modules, by coverage.py, with the extensions as they are installed. Lines of Cython modules, by extensions with line tracing, which are built in
a copy of the tree, .soak/traced: coverage's plugin for Cython knows no branches, and C in an `extern` block is not seen.

    python tests/soak/coverage_run.py            what is missing, for people, behind it the results as JSON; status 1 where something is
"""

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from proven import CYTHON, CYTHON_TESTS, PYTHON, TESTS

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".soak"
TRACED = WORK / "traced"
SETTINGS = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-n0", "-m", "not slow"]
BUILD = """
import setuptools
from Cython.Build import cythonize
made = [setuptools.Extension(name[:-4].replace("/", "."), [name], extra_compile_args=["-O1", "-ffp-contract=off"], define_macros=[("CYTHON_TRACE_NOGIL", "1")] * {traced})
        for name in {names}]
setuptools.setup(name="copy", packages=[], py_modules=[], script_args=["-q", "build_ext", "--inplace", "--force"],
                 ext_modules=cythonize(made, compiler_directives={{"linetrace": {traced}, "language_level": 3}}, force=True, quiet=True))
"""
CONFIGURATION = """
[run]
branch = True
plugins = Cython.Coverage
data_file = coverage.data
include = {names}
[report]
include = {names}
"""


class Contexts:
    """A pytest plugin: what is executed is noted under the test that does it, and how long each test takes."""

    def __init__(self, coverage):
        self._coverage, self.seconds = coverage, {}

    def pytest_runtest_logstart(self, nodeid):
        self._coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration


def measured(tests=TESTS, modules=PYTHON) -> dict:
    """Runs the tests in this process, which must not have imported what they test. {"status": pytest's, "files": {name: {"missing_lines", "missing_branches", "branches",
    "missing", "excluded", "lines": {line: tests}}}, "seconds": {test: seconds}}."""
    os.environ["COVERAGE_CORE"] = "ctrace"
    import coverage
    import pytest

    os.chdir(ROOT)
    watch = coverage.Coverage(branch=True, data_file=str(WORK / "coverage.data"), include=list(modules), config_file=False)
    plugin = Contexts(watch)
    watch.erase()
    watch.start()
    status = pytest.main([*SETTINGS, *(t for t in tests if Path(t).exists())], plugins=[plugin])
    watch.stop()
    report = WORK / "coverage.json"
    watch.json_report(outfile=str(report))
    files = {}
    for name, said in json.loads(report.read_text())["files"].items():
        by_line = watch.get_data().contexts_by_lineno(str(ROOT / name))
        files[name] = {"missing_lines": said["missing_lines"], "missing_branches": said["missing_branches"], "branches": said["summary"]["num_branches"],
                       "missing": said["summary"]["missing_branches"], "excluded": said["excluded_lines"],
                       "lines": {line: sorted(c for c in contexts if c) for line, contexts in by_line.items()}}
    return {"status": int(status), "files": files, "seconds": plugin.seconds}


def known() -> dict:
    """measured(), kept in .soak until a module or a test changes."""
    WORK.mkdir(exist_ok=True)
    with open(WORK / "lock", "w") as lock:           # several parts of the mutants begin at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _known()


def _known():
    digest = sha256()
    for path in sorted(path for part in ("tests", "edge", "gateway") for path in (ROOT / part).rglob("*.py*")):
        if path.parent.name != "soak" and path.suffix != ".pyc":
            digest.update(path.read_bytes())
    digest = digest.hexdigest()[:16]
    kept = WORK / f"coverage-{digest}.json"
    if not kept.exists():
        said = subprocess.run([sys.executable, __file__, "--measure", str(kept)], stdout=sys.stderr, cwd=ROOT).returncode
        if said or not kept.exists():
            raise SystemExit(f"the tests of the log and the receiver do not pass: status {said}")
    return {"digest": digest, **json.loads(kept.read_text())}


def copy(folder):
    """The tree, with its extensions as they are installed, in a folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    built = [str(p.relative_to(ROOT)) for part in ("edge", "gateway", "firmware-sim/firmware_sim") for p in (ROOT / part).rglob("*.so")]
    for name in (*names, *built):
        if name and (ROOT / name).is_file() and not name.startswith("docs/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def build(folder, names, traced):
    """Extensions of a copied tree, compiled anew in it."""
    settings = folder / "pyproject.toml"             # pytest's, which setuptools is not to see
    settings.rename(folder / "aside")
    try:
        subprocess.run([sys.executable, "-W", "ignore", "-c", BUILD.format(names=tuple(names), traced=traced)], cwd=folder, check=True)
    finally:
        (folder / "aside").rename(settings)


def lines_of_cython() -> dict:
    """{name: lines that did not run} of the extensions, traced."""
    copy(TRACED)
    build(TRACED, CYTHON, True)
    (TRACED / "coverage.settings").write_text(CONFIGURATION.format(names=",".join(CYTHON)))
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "run", "--rcfile=coverage.settings", "-m", "pytest", *SETTINGS, *CYTHON_TESTS], cwd=TRACED, check=True, stdout=sys.stderr,
                   env={**os.environ, "COVERAGE_CORE": "ctrace"})
    subprocess.run([*coverage, "json", "-q", "--rcfile=coverage.settings", "-o", "lines.json"], cwd=TRACED, check=True)
    found = json.loads((TRACED / "lines.json").read_text())["files"]
    return {name: found[name]["missing_lines"] if name in found else ["it was not traced"] for name in CYTHON}


def covered() -> dict:
    """The campaign's results."""
    found, broken, total, missing = known(), [], 0, 0
    for name in PYTHON:
        said = found["files"].get(name)
        if said is None:
            broken.append(f"{name}: nothing of it ran")
            continue
        total, missing = total + said["branches"], missing + said["missing"]
        lines = [str(line) for line in said["missing_lines"]]
        lines += [f"{a} -> {b if b > 0 else 'end'}" for a, b in said["missing_branches"] if a not in said["missing_lines"] and b not in said["missing_lines"]]
        if lines:
            broken.append(f"{name}: {', '.join(lines)}")
    cython = lines_of_cython()
    broken += [f"{name}: {', '.join(map(str, lines))}" for name, lines in cython.items() if lines]
    excluded = sum(len(said["excluded"]) for said in found["files"].values())
    return {"branches": total, "missing": missing, "modules": len(PYTHON), "cython": len(CYTHON), "excluded_lines": excluded, "broken": broken}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--seed", "--first", "--count"):
        parser.add_argument(name, type=int, default=0, help="a campaign's; there is nothing random here")
    parser.add_argument("--measure", help="run the tests and put what coverage saw into this file")
    arguments = parser.parse_args()
    if arguments.measure:
        found = measured()
        if found["status"] == 0:
            Path(arguments.measure).write_text(json.dumps(found))
        return found["status"]
    results = covered()
    for line in results["broken"]:
        print(f"not covered: {line}", file=sys.stderr)
    print(json.dumps(results))
    return 1 if results["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
