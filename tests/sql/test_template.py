"""The template in git is what its sources give, and a module of it is a rule of the ABI with what the query needs, no more."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from query_world import ENV, World

from edge.host.module import Module, Reader
from rulec import sql
from rulec.sql.template import CODE, UNREACHABLE, template

ROOT = Path(__file__).resolve().parents[2]


def test_a_build_elsewhere_gives_the_same_bytes(tmp_path):
    pytest.importorskip("ziglang", reason="the template is built with ziglang==0.17.1: pip install ziglang==0.17.1")
    for folder in ("c", "sql"):
        shutil.copytree(ROOT / "rules" / folder, tmp_path / "rules" / folder)
    shutil.copy(ROOT / "rules/rules.mk", tmp_path / "rules")
    made = tmp_path / "rules/rulec/sql/template.wasm"
    made.parent.mkdir(parents=True)
    subprocess.run(["make", "-s", "-f", "rules/rules.mk", str(made.relative_to(tmp_path)), f"PYTHON={sys.executable}"], cwd=tmp_path, check=True,
                   timeout=100)
    assert made.read_bytes() == (ROOT / "rules/rulec/sql/template.wasm").read_bytes()


def test_every_function_that_the_tables_name_is_in_the_template():
    from rulec.sql.aggregates import AGGREGATES, SLOTS
    from rulec.sql.functions import FUNCTIONS

    called = {f.does: f for forms in FUNCTIONS.values() for f in forms if f.does.startswith("sql_")}
    wasm = {"f64": "f64", "i64": "i64", "bool": "i32", "str": "i64", "time": "i64", "interval": "i64"}
    for name, f in called.items():
        takes, gives = template().types[name]
        pointer = ["i32"] if f.partial and f.gives != "str" else []
        assert list(takes) == [*(wasm[k] for k in f.takes), *["i32"] * len(f.extra), *pointer] and gives == ("i32" if pointer else wasm[f.gives]), name
    for slot in {a.slot for forms in AGGREGATES.values() for a in forms.values()} - set(SLOTS):
        assert template().constants[f"sql_{slot}_size"] % 8 == 0 and {f"sql_{slot}_merge", f"sql_{slot}_result"} <= set(template().functions)


def bodies(wasm):
    r = Reader(wasm, 8)
    while r.at < r.end:
        number, size = r.byte(), r.number()
        part = Reader(wasm, r.at, r.at + size)
        r.skip(size)
        if number == CODE:
            return [part.bytes(part.number()) for _ in range(part.number())]


def test_what_a_query_does_not_use_is_cut_out():
    small, large = (bodies(World(text).wasm) for text in ("SELECT * FROM env WHERE temp > 1", "SELECT power(temp, 2) AS p, lower(site) AS l FROM env"))
    assert len(small) == len(large) and 10 < small.count(UNREACHABLE) - large.count(UNREACHABLE)


def test_the_manifest_says_what_the_rule_reads_and_puts_out():
    wasm = sql.compile("SELECT device, window_end, avg(temp) AS a, max(site) AS s FROM env WHERE hum > :limit GROUP BY device, TUMBLE(ts, :every)",
                       schema=ENV, name="mean", version=3,
                       summary="Means", optional=("hum",), limits={"time_ms": 5}, cases="# none\n",
                       parameters=[{"name": "limit", "type": "f64", "default": 1.5, "min": 0, "summary": "above"},
                                   {"name": "every", "type": "duration", "summary": "how long"}])
    module = Module(wasm)
    manifest = module.manifest
    assert (manifest.name, manifest.version, manifest.summary, manifest.limits.time_ms, manifest.key, module.cases) == ("mean", 3, "Means", 5, "device",
        "# none\n")
    assert [(f.name, f.type, f.optional) for f in manifest.inputs] == [("hum", "f64", True), ("temp", "f64", False), ("site", "str", False)]
    assert [(f.name, f.type) for f in manifest.outputs] == [("device", "str"), ("window_end", "time"), ("a", "f64"), ("s", "str")]
    assert [(p.name, p.required) for p in manifest.parameters] == [("limit", False), ("every", True), ("max_keys", False), ("max_windows", False)]
    assert {"tg_save", "tg_migrate"} <= module.exports
