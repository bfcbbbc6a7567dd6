"""The modules in git are what their sources give, from any directory; the README's example is a rule."""

import re
import shutil
import subprocess
import sys

import pytest
import wasmtime
from rule_harness import RULES, Refused, Rows, Rule
from wasm_bytes import leb, sections

from edge.host.module import Module

ziglang = pytest.importorskip("ziglang", reason="the C rules are built with ziglang==0.17.1: pip install ziglang==0.17.1")
FLAGS = [*(RULES / "c" / "flags").read_text().split(), "-Werror"]


def compile_rule(folder, name):
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, f"-I{RULES / 'c'}", "-I.", f"{name}.c", "-o", f"{name}.wasm"]
    subprocess.run(command, cwd=folder, check=True, timeout=100)
    return folder / f"{name}.wasm"


@pytest.mark.parametrize("name", ["threshold", "window", "project"])
def test_a_build_elsewhere_gives_the_same_bytes(name, tmp_path):
    for file in (f"{name}.c", "cases.samples"):
        shutil.copy(RULES / "ready" / name / file, tmp_path)
    assert compile_rule(tmp_path, name).read_bytes() == (RULES / "ready" / name / f"{name}.wasm").read_bytes()


def test_the_example_of_the_readme_works(tmp_path):
    (tmp_path / "hot.c").write_text(re.search(r"```c\n(.*?)```", (RULES / "README.md").read_text(), re.S)[1])
    rule = Rule(compile_rule(tmp_path, "hot"), [("temp", "f64")], {"value": 30.0})
    assert rule.process(Rows([{"temp": float(t)} for t in range(100)])).selected == list(range(31, 100))


def test_the_smallest_module_of_the_abi_works(tmp_path):
    wasm = bytes(wasmtime.wat2wasm(re.search(r"```wat\n(.*?)```", (RULES / "ABI.md").read_text(), re.S)[1]))
    manifest = b'\x0dtidegate.rule{"name": "small", "version": 1, "abi": 1, "summary": "", "parameters": []}'
    (tmp_path / "small.wasm").write_bytes(wasm + b"\0" + leb(len(manifest)) + manifest)
    rule = Rule(tmp_path / "small.wasm", [("temp", "f64")])
    assert rule.process(Rows([{"temp": float(t)} for t in range(100)] + [{}])).selected == list(range(31, 100))


TALLY = r"""
#include "edge_rule.h"
RULE({"name": "tally", "version": 1, "abi": 1, "summary": "Counts", "drops": "filtered", "parameters": [{"name": "length", "type": "duration"}]})
struct tally { int64_t n; };
static input word;
static output key, end, n, last;
static void open(void) {
    if (!param_given("length")) { reject("no length"); return; }
    window_every(param_i64("length"), 0, 0);
    word = input_str("word");
    key = output_key(key_input()), end = output_event_time("end"), n = output_i64("n"), last = output_str("last");
}
static void add(event e, struct tally *t) { t->n += string(e, word).size; }
static void close(const window *w, struct tally *t) {
    emit(); put_key(key); put_time(end, w->end); put_i64(n, t->n);
    if (t->n > 3) put_text(last, literal("many"));
}
WINDOWED(open, struct tally, add, close)
"""


def test_windows_of_a_rule_of_ones_own(tmp_path):
    (tmp_path / "tally.c").write_text(TALLY)
    fields, path = [("id", "str"), ("t", "time"), ("word", "str")], compile_rule(tmp_path, "tally")
    with pytest.raises(Refused, match="no length"):
        Rule(path, fields, {}, "id", "t")
    rule = Rule(path, fields, {"length": 10}, "id", "t")
    answer = rule.process(Rows([{"id": "x", "t": 1, "word": "ab"}, {"id": "y", "t": 11, "word": "abcd"}, {"id": "x", "t": 2}], {"x": 10, "y": 20}))
    assert answer.rows == [{"id": "x", "end": 10, "n": 2, "last": None}, {"id": "y", "end": 20, "n": 4, "last": "many"}]
    assert answer.ignored == 1


@pytest.mark.parametrize("path", sorted((RULES / "ready").glob("*/*.wasm")), ids=lambda p: p.stem)
def test_a_module_holds_no_path_and_no_debug_information(path):
    wasm = path.read_bytes()
    assert b"/" + b"rules/" not in wasm and b".debug_info" not in wasm and len(wasm) < 22_000
    assert Module(wasm).cases == (path.parent / "cases.samples").read_text(), "so that a gateway that it is pushed to tries them"
    assert any(number == 0 and payload.startswith(b"\4name") for number, payload in sections(wasm))
