"""What `tidegate run` does without, and that what it leaves of libraries still works whole."""

import json
import subprocess
import sys

import pytest

CONFIG = """
[gateway]
name = "small"
[listener]
port = 0
[broker]
host = "127.0.0.1"
[upstream]
host = "127.0.0.1"
manage = true
[streams.env]
topics = ["env/#"]
[streams.env.fields]
temp = "f64"
[rules.hot]
input = "env"
module = "threshold"
params = { field = "temp", op = ">", value = 30.0 }
[lanes.alerts]
streams = ["hot"]
"""
LOADED = """
import importlib, json, sys
from gateway.commands import run
run.plain_arguments(["-c", "tidegate.toml"])
from gateway import lean
from gateway.config import reader as config
lean.leave_out(config.load("tidegate.toml"))
for name in ("daemon", "ingest.listener", "ingest.broker", "forward.upstream", "manage.mailbox"):
    importlib.import_module(f"gateway.{name}")
"""
HEAVY = {"argparse", "asyncio", "bz2", "cryptography", "dataclasses", "decimal", "difflib", "email", "gettext", "http", "inspect", "logging", "lzma", "numbers", "optparse", "rulec",
         "shutil", "socketserver", "sqlglot", "ssl", "statistics", "subprocess", "tempfile", "traceback", "unicodedata", "unittest", "wasmtime.component"}

# Everything that the gateway asks of wasmtime-py, and what its errors ask in turn.
WASMTIME = """
import wasmtime
from edge.host.engine import engine
wasm = wasmtime.wat2wasm('(module (import "env" "f" (func $f (param i32) (result i32))) (memory (export "memory") 1 2) (global (export "g") (mut i64) (i64.const 7))'
                         '(table (export "t") 1 funcref) (func (export "go") (param i32) (result i32) (call $f (local.get 0))) (func (export "trap") unreachable))')
module = wasmtime.Module.deserialize(engine(), wasmtime.Module(engine(), wasm).serialize())
wasmtime.Module.validate(engine(), wasm)
assert [(e.name, str(type(e.type).__name__)) for e in module.exports][0] == ("memory", "MemoryType") and module.imports[0].name == "f"
store = wasmtime.Store(engine())
store.set_limits(memory_size=1 << 20, table_elements=10, instances=1, tables=4, memories=1)
store.set_epoch_deadline(1)
f = wasmtime.Func(store, wasmtime.FuncType([wasmtime.ValType.i32()], [wasmtime.ValType.i32()]), lambda x: x + 1)
exports = wasmtime.Instance(store, module, [f]).exports(store)
assert exports["go"](store, 41) == 42 and exports["memory"].data_len(store) == 65536 and exports["memory"].read(store, 0, 2) == b"\\0\\0"
assert exports["g"].value(store) == 7 and exports["t"].size(store) == 1
try:
    exports["trap"](store)
except wasmtime.Trap as trap:
    assert trap.trap_code == wasmtime.TrapCode.UNREACHABLE and trap.frames[0].func_index == 2 and "unreachable" in trap.message
for wrong in (lambda: wasmtime.Module(engine(), b"no"), lambda: wasmtime.Instance(store, module, []), lambda: wasmtime.wat2wasm("(")):
    try:
        wrong()
        raise AssertionError("no error")
    except wasmtime.WasmtimeError as error:
        assert str(error)
linker = wasmtime.Linker(engine())
linker.define(store, "env", "f", f)
print(json.dumps("works"))
"""


@pytest.fixture
def said(tmp_path):
    """What a program prints, as JSON, that has loaded what the daemon loads."""
    (tmp_path / "tidegate.toml").write_text(CONFIG)

    def run(program):
        done = subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", LOADED + program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_the_daemon_loads_nothing_heavy(said):
    loaded = said("print(json.dumps([name for name, module in sys.modules.items() if module is not None]))")
    assert "gateway.daemon" in loaded and not HEAVY & set(loaded)


def test_what_is_left_of_wasmtime_works_whole(said):
    assert said(WASMTIME) == "works"


def test_who_needs_a_module_later_has_the_real_one(said):
    assert said("import logging, decimal, urllib.request\nprint(json.dumps([str(decimal.Decimal(1)), logging.getLevelName(10), callable(urllib.request.urlopen)]))") == ["1", "DEBUG", True]


@pytest.mark.parametrize("argv, plain", [([], "tidegate.toml"), (["-c", "x.toml"], "x.toml"), (["--config", "x.toml"], "x.toml"), (["-c"], None), (["-c", "-h"], None), (["-h"], None),
                                         (["-c", "x.toml", "--log-format", "json"], None), (["--config=x.toml"], None)], ids=lambda value: "-".join(value) if isinstance(value, list) else None)
def test_the_plain_form_of_run_is_read_as_argparse_reads_it(argv, plain):
    import argparse

    from gateway.commands import run

    found = run.plain_arguments(argv)
    assert (found and found.config) == plain
    if found:
        parser = argparse.ArgumentParser()
        run.add_arguments(parser)
        assert vars(parser.parse_args(argv)) == vars(found)
