"""The WebAssembly specification's own tests, 1.0 and 2.0, as hostile modules: `make spec`. A package of the Go module proxy has them as binary modules with what is
to be said of each, so this needs Go and is no part of `make test`.

    python spec_run.py [--first 0] [--count 100000] [--folder FOLDER]      FOLDER: where the package is already

A unit is a module. Each goes the way of an upload, once as it is and once with a rule's exports around it (hostile_modules.as_rule) where its imports allow that, beside good
rules as in hostile_run.py: it ends no process, changes no other rule's output and is stopped in time. Of those that are valid none is called malformed, and none of those that
2.0 calls invalid compiles.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

from campaign import main  # first: it finds the other folders
import hostile_modules
import rule_module as m
import wasmtime
from hostile_run import Run

from edge.host.code import check
from edge.host.engine import engine

PACKAGE = "github.com/tetratelabs/wazero@v1.9.0"
FOLDERS = ("internal/integration_test/spectest/v1/testdata", "internal/integration_test/spectest/v2/testdata")
VALID, INVALID = ("module", "assert_unlinkable", "assert_uninstantiable"), ("assert_malformed", "assert_invalid")


def fetched(folder):
    """The package's directory. Raises OSError or CalledProcessError where there is no Go, or no proxy."""
    said = subprocess.run(["go", "mod", "download", "-modcacherw", "-json", PACKAGE], cwd=folder, env={**os.environ, "GOPATH": folder}, capture_output=True, text=True,
                          timeout=600, check=True)
    return json.loads(said.stdout)["Dir"]


def modules(folder):
    """(what it is, the verdict on it, its bytes), in an order that is always the same."""
    for part in FOLDERS:
        for described in sorted(Path(folder, part).glob("*.json")):
            for command in json.loads(described.read_text())["commands"]:
                if command["type"] in VALID + INVALID and command.get("module_type", "binary") == "binary":
                    file = described.with_name(command["filename"])
                    yield f"{part.split('/')[-2]} {file.name}", command["type"], file.read_bytes()


def judge(label, verdict, wasm, fates, broken):
    """What the gateway's own reading says, and the compiler under the gateway's settings."""
    try:
        engine_takes = bool(wasmtime.Module(engine(), wasm))
    except wasmtime.WasmtimeError:
        engine_takes = False
    try:
        check(wasm)
        ours = ""
    except ValueError as error:
        ours = str(error)
    if verdict in INVALID and engine_takes and label.startswith("v2"):       # what 1.0 had not, 2.0 has
        broken.append(f"{label}: is {verdict.removeprefix('assert_')} and compiles")
    if engine_takes and ours and "a rule must not change them" not in ours:
        broken.append(f"{label}: is valid and compiles, and its code is refused: {ours}")
    fates[f"{'valid' if verdict in VALID else 'invalid'}: {'compiles' if engine_takes else 'refused'}{', changes tables' if engine_takes and ours else ''}"] += 1


def tried(it, label, wasm, rng):
    """Let it loose, as it is and as a rule."""
    it.module(label, m.with_manifest(wasm, m.MANIFEST), False)
    try:
        rule = hostile_modules.as_rule(wasm, rng)
    except (AssertionError, IndexError, KeyError, ValueError):           # it imports other things than functions, or its sections are not what they should be
        it.fates["not dressed"] += 1
        return
    it.module(f"{label} as a rule", rule, False)


def run(seed, first, count, folder):
    """The figures, and what was broken. folder: where the package is; "": it is fetched."""
    with tempfile.TemporaryDirectory(prefix="tidegate-spec-") as work:
        try:
            folder = folder or fetched(work)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"skipped: {PACKAGE} cannot be had (it takes Go and its module proxy): {error}", file=sys.stderr)
            return {"skipped": True}, []
        it, verdicts, tried_n = Run(work, seed), Counter(), 0
        for i, (label, verdict, wasm) in enumerate(modules(folder)):
            if first <= i < first + count:
                judge(label, verdict, wasm, verdicts, it.broken)
                tried(it, label, wasm, random.Random(f"{seed}/{i}"))
                tried_n += 1
                if i % 50 == 0:
                    it.checkpoint()
        if tried_n < min(count, 5000):
            it.broken.append(f"only {tried_n} modules were found: this run tried too little")
        return {"modules": tried_n, "verdicts": dict(verdicts), "fates": dict(it.fates), "overrun_ms": round(it.overrun_ns / 1e6, 1)}, it.broken


if __name__ == "__main__":
    sys.exit(main(run, __doc__, 100_000, folder=""))
