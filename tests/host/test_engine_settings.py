"""What is switched off in the engine stays off: SECURITY.md counts on it when it weighs an advisory."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
import wasmtime

from edge.host.engine import SETTINGS, engine, new_engine

ROOT = Path(__file__).parents[2]
OFF = ["wasm_relaxed_simd", "wasm_threads", "wasm_memory64", "wasm_multi_memory", "wasm_tail_call", "wasm_function_references", "wasm_gc", "wasm_exceptions",
       "wasm_stack_switching", "wasm_custom_page_sizes", "wasm_wide_arithmetic"]
REFUSED = {
    "memory64": "(module (memory i64 1))",
    "threads": "(module (memory 1 1 shared))",
    "multi-memory": "(module (memory 1) (memory 1))",
    "tail calls": "(module (func $f return_call $f))",
    "relaxed SIMD": "(module (func (param v128) (result v128) local.get 0 local.get 0 i8x16.relaxed_swizzle))",
    "garbage collection": "(module (type (struct (field i32))))",
    "exceptions": "(module (tag))",
    "custom page sizes": "(module (memory 1 (pagesize 1)))",
    "wide arithmetic": "(module (func (param i64 i64 i64 i64) (result i64 i64) local.get 0 local.get 1 local.get 2 local.get 3 i64.add128))",
    "components": "(component)",
}


def test_the_settings_say_so():
    assert SETTINGS["strategy"] == "cranelift" and not any(SETTINGS[name] for name in OFF)
    assert SETTINGS["cranelift_nan_canonicalization"] and SETTINGS["epoch_interruption"]


@pytest.mark.parametrize("feature", REFUSED)
def test_the_engine_refuses_a_module_that_needs(feature):
    """The default engine knows most of them: the settings do it, and not their absence from this wasmtime."""
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module(new_engine(), wasmtime.wat2wasm(REFUSED[feature]))


def test_the_running_engine_has_these_settings():
    assert wasmtime.Module(engine(), "(module (func (result v128) v128.const i32x4 0 0 0 0))")
    for text in REFUSED.values():
        with pytest.raises(wasmtime.WasmtimeError):
            wasmtime.Module.validate(engine(), wasmtime.wat2wasm(text))


def test_nothing_of_wasi_is_linked():
    code = [path for folder in ("edge", "gateway", "rules/rulec") for path in (ROOT / folder).rglob("*.py*") if path.suffix in (".py", ".pyx", ".pxd")]
    found = [path.name for path in code if re.search(r"define_wasi|WasiConfig|wasi_config|wasmtime_linker_define_wasi|set_wasi", path.read_text())]
    assert code and not found


def test_the_pinned_version_is_the_one_that_the_policy_names():
    pin = re.search(r'"wasmtime==([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert pin == version("wasmtime") and f"({pin})" in (ROOT / "SECURITY.md").read_text()
