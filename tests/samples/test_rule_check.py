"""`tidegate rule check` tells what a module is and every reason against it, in one go."""

import json

import pytest
import rule_module as m
import tidegate_rules
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st
from wasm_bytes import without

from edge.errors import RuleError
from edge.host.module import CASES_SECTION, SIGNATURE_SECTION, Module, problems, with_section
from gateway.cli import main

WINDOW = tidegate_rules.path("window")


@pytest.fixture
def check(capsys, tmp_path):
    def run(wasm, *options):
        (tmp_path / "rule.wasm").write_bytes(wasm)
        status = main(["rule", "check", str(tmp_path / "rule.wasm"), *options])
        return status, capsys.readouterr().out

    return run


def test_a_module_is_explained_in_words(check):
    status, out = check(WINDOW.read_bytes())
    assert status == 0
    for said in ('with        length = "10s", fields = ["temp"]', "reads       the stream's key str if there is one, the event time time, temp number",
                 "window_end time (the event time)", "length (duration, required): ", "8 embedded, none of them fail", "signed      no", "A gateway takes it."):
        assert said in out, out


def test_without_samples_nothing_is_made_up(check):
    status, out = check(without(WINDOW.read_bytes(), CASES_SECTION))
    assert status == 0 and "what its parameters say" in out and "none embedded" in out
    status, out = check(m.module(process=m.ABOVE_4))
    assert status == 0 and "reads       t f64" in out and "the rows of its input that pass" in out


def test_every_reason_is_told_at_once(check):
    wat = '(module (import "env" "abort" (func)) (import "env" "t" (table 1 2 funcref)) (memory 1) (global (mut funcref) (ref.null func)) (func (export "tg_abi") (param i64)))'
    status, out = check(m.with_manifest(wasmtime.wat2wasm(wat), {**m.MANIFEST, "abi": 2}), "--json")
    found = json.loads(out)
    assert status == 1 and found["imports"] == ["function env.abort", "table env.t"]
    for reason in ("imports env.abort", "imports the table env.t", "does not export its memory", "tg_abi must be", "function tg_alloc", "global 0", "ABI 2"):
        assert sum(reason in said for said in found["refused"]) == 1, found["refused"]


@pytest.mark.parametrize("wasm, says", [
    (b"not", "not WebAssembly"),
    (m.module(process="(i64.const 0)"), "not a module for rules"),
    (m.module("(table 1 funcref)", process="(table.set (i32.const 0) (ref.null func)) (i32.const 0)"), "uses table.set"),
    (m.module(pages=300), "asks for 19660800 bytes of memory"),
    (m.module(opens="(unreachable)"), "trapped in tg_open"),
    (with_section(m.module(), CASES_SECTION, b"CASE one"), "case 'one' has no steps"),
    (with_section(m.module(), CASES_SECTION, b'FIELD t f64\nCASE one\nIN {"t": 1}\nOUT {"t": 1}'), "its sample 'one' fails"),
])
def test_what_shows_only_later_is_told_too(check, wasm, says):
    status, out = check(wasm)
    assert status == 1 and says in out and "REFUSED" in out, out


def test_a_module_cannot_steer_the_terminal(check):
    status, out = check(m.with_manifest(wasmtime.wat2wasm('(module (memory 1) (func (export "\\1b[2J")))'), {**m.MANIFEST, "summary": "\x1b[1mbold\n"}))
    assert status == 1 and "\x1b" not in out and "\\x1b[2J" in out and "\\x1b[1mbold\\x0a" in out


def test_a_signature_is_seen_and_changes_no_digest(check):
    plain, signed = (json.loads(check(wasm, "--json")[1]) for wasm in (m.module(), with_section(m.module(), SIGNATURE_SECTION, b"x" * 80)))
    assert (plain["signed"], signed["signed"]) == (False, True) and plain["digest"] == signed["digest"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=4))
def test_problems_are_found_exactly_where_a_module_is_refused(changes):
    wasm = bytearray(m.module())
    for at, byte in changes:
        wasm[at % len(wasm)] = byte
    found = problems(bytes(wasm))
    try:
        Module(bytes(wasm))
    except RuleError as error:
        assert found and str(error) == f"module: {found[0]}"
    else:
        assert not found
