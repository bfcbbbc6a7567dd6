"""What a module must be before it is compiled, and how its hidden state is made reachable."""

import pytest
import wasmtime
from hypothesis import given, strategies as st

import rule_module as m
from edge.errors import RuleError
from edge.host.module import Layout, Module
from edge.host.rule import Rule

GLOBALS = """(global $a (mut i32) (i32.const -7)) (global (mut i64) (i64.const 1)) (global i32 (i32.const 3)) (global (mut f64) (f64.const 2))
  (global (export "seen") (mut f32) (f32.const 1)) (global (mut v128) (v128.const i32x4 1 2 3 4))"""


def test_mutable_globals_become_reachable():
    module = m.checked(m.module(GLOBALS))
    assert module.globals == ["tg$global:0", "tg$global:1", "tg$global:3", "seen", "tg$global:5"]
    exported = {e.name for e in wasmtime.Module(wasmtime.Engine(), module.wasm).exports}
    assert exported >= {*module.globals, "memory", "tg_process"}


@pytest.mark.parametrize("wat", ["(module (global (mut i32) (i32.const 1)) (func))", "(module (memory 1) (global (mut i32) (i32.const 1)))",
                                 '(module (func) (global (mut i64) (i64.const 5)) (data "x") (start 0))', "(module (func))"])
def test_globals_are_exported_without_an_export_section_too(wat):
    layout = Layout(bytes(wasmtime.wat2wasm(wat)))
    names = [e.name for e in wasmtime.Module(wasmtime.Engine(), layout.with_globals_exported()).exports]
    assert names == layout.mutable_names()


def replaced(old, new):
    wat = """(module (memory (export "memory") 1) (func (export "tg_abi") (result i32) (i32.const 1)) (func (export "tg_alloc") (param i32) (result i32) (i32.const 8))
      (func (export "tg_open") (param i32) (result i32) (i32.const 8)) (func (export "tg_process") (param i32) (result i32) (i32.const 8)))"""
    assert old in wat
    return m.with_manifest(wasmtime.wat2wasm(wat.replace(old, new)), m.MANIFEST)


@pytest.mark.parametrize(("wasm", "says"), [
    (b"", "not WebAssembly"), (b"\x7fELF" + bytes(60), "not WebAssembly"), (b"\0asm\x0d\0\1\0", "a component"), (b"\0asm\2\0\0\0", "version"),
    (bytes(2 << 20), "the limit is"), (replaced('(func (export "tg_open") (param i32)', '(func (export "tg_open") (param i64)'), r"tg_open must be \(i32\) -> i32, it is \(i64\) -> i32"),
    (replaced('"tg_process"', '"process"'), "does not export the function tg_process"), (replaced('(export "memory")', ""), "does not export its memory"),
    (replaced("(module ", '(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))) '), "wasi_snapshot_preview1.fd_write; a rule imports nothing; build it without WASI"),
    (replaced("(module ", '(module (import "env" "abort" (func)) '), "--use abort="), (replaced("(module ", '(module (import "env" "memory" (table 1 funcref)) '), "imports the table env.memory"),
    (replaced("(module ", "(module (global (mut funcref) (ref.null func)) "), "holds a reference"),
    (replaced('(memory (export "memory") 1)', '(memory (export "memory") i64 1)'), "plain 32-bit"),
    (m.module('(global (mut i32) (i32.const 1)) (func (export "tg$global:0"))'), "a name that is the host's"), (m.module(manifest=b"{"), "manifest"),
    (m.module(manifest={**m.MANIFEST, "abi": 2}), "ABI 2"), (m.module(manifest={**m.MANIFEST, "wat": 2}), "unknown field `wat`"), (m.module(manifest=b"\xff"), "manifest"),
    (m.module(manifest={**m.MANIFEST, "parameters": [{"name": "a", "type": "f64", "summary": "", "default": "x"}]}), "parameter a: a value of it is 'x'"),
    (m.with_manifest(m.module(), m.MANIFEST), "two manifests"),
])
def test_what_is_wrong_with_a_module_is_said(wasm, says):
    with pytest.raises(RuleError, match=says):
        Module(wasm, "probe")


def test_every_beginning_of_a_module_is_refused():
    wasm = m.module(GLOBALS)
    for end in range(len(wasm)):
        with pytest.raises(RuleError):
            Module(wasm[:end], "probe")


@given(st.lists(st.tuples(st.integers(8, 700), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_modules_are_read_or_refused(changes):
    wasm = bytearray(m.module(GLOBALS))
    for at, value in changes:
        wasm[at % len(wasm)] = value
    try:
        Module(bytes(wasm), "probe")
    except RuleError:
        pass


def test_code_that_is_not_valid_is_refused_by_the_compiler(cache):
    broken = m.module(process="(i32.const 77)").replace(b"\x41\xcd\x00\x0b", b"\x41\xcd\x00\xff")
    with pytest.raises(RuleError, match="not a module for rules"):
        Rule("probe", m.checked(broken), {}, m.STREAM, cache=cache)


@pytest.mark.parametrize(("wat", "says"), [
    ("(table.set (i32.const 0) (ref.null func))", "table.set"), ("(table.copy (i32.const 0) (i32.const 0) (i32.const 0))", "table.copy"), ("(table.fill (i32.const 0) (ref.null func) (i32.const 0))", "table.fill"),
    ("(drop (table.grow (ref.null func) (i32.const 1)))", "table.grow"), ("(table.init $e (i32.const 0) (i32.const 0) (i32.const 0))", "table.init"), ("(elem.drop $e)", "elem.drop"), ("(data.drop $d)", "data.drop")])
def test_code_that_changes_what_is_not_saved_is_refused(cache, wat, says):
    wasm = m.module(f'(table 1 funcref) (elem $e func 0) (data $d "x") (func (drop (v128.const i64x2 1 2)) {wat})')
    with pytest.raises(RuleError, match=f"uses {says}"):
        Rule("probe", m.checked(wasm), {}, m.STREAM, cache=cache)


def test_every_instruction_is_read_over(cache):
    """All kinds of immediates, with bytes in them that look like table.set (0x26)."""
    wasm = m.module("""(table 2 funcref) (elem (i32.const 0) func 0 1) (data $d "&&&") (type $i (func (result i32))) (func $v (param i32 f64 v128) (result i32) (local i64 v128 funcref)
      (drop (i32.const 0x26)) (drop (i64.const -0x2600000000)) (drop (f32.const 38)) (drop (f64.const 6.1e-155)) (drop (v128.const i8x16 38 38 38 38 38 38 38 38 38 38 38 38 38 38 38 38))
      (drop (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 (local.get 2) (local.get 2))) (drop (i32x4.extract_lane 3 (local.get 2))) (local.set 2 (v128.load32_lane offset=38 3 (i32.const 0) (local.get 2)))
      (v128.store offset=38 (i32.const 0) (v128.load32_zero offset=38 (i32.const 0))) (drop (f64x2.sqrt (local.get 2))) (drop (i64x2.extmul_high_i32x4_u (local.get 2) (local.get 2)))
      (memory.init $d (i32.const 0) (i32.const 0) (i32.const 0)) (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)) (memory.copy (i32.const 0) (i32.const 0) (i32.const 0))
      (drop (table.size)) (drop (table.get (i32.const 0))) (drop (ref.is_null (ref.func 0))) (drop (i32.trunc_sat_f64_u (local.get 1))) (drop (i32.extend8_s (local.get 0)))
      (drop (select (result i32) (i32.const 1) (i32.const 2) (i32.const 0))) (drop (block (result f64) (f64.const 1)))
      (block $a (block $b (br_table $a $b $a (i32.const 38)))) (drop (memory.grow (memory.size))) (if (i32.const 0) (then (return (call_indirect (type $i) (i32.const 0)))) (else nop)) (i32.load16_s offset=38 (i32.const 0)))""")
    Rule("probe", m.checked(wasm), {}, m.STREAM, cache=cache)
