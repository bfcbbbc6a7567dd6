"""Modules that mean harm, by seed: `module(seed, index)` gives (what it is, its bytes), the same ones each time.

Families: code that does not end, grows or recurses; every value that crosses the ABI gone wild; modules that are hard to compile; exports, imports
and sections that should not be; a good module with bytes changed; and what binaryen makes of random bytes (`wasm-opt -ttf`), with the exports of
rules/ABI.md put around it.
"""

import json
import random
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import rule_module as m
import wasmtime
import wasm_bytes
from wasm_bytes import leb, leb_at

ROOT = Path(__file__).resolve().parents[2]
WILD = (0, 1, 3, 4, 7, 8, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x3FFFC, 0x3FFFF, 0x40000, 0x40001, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
EMIT_PLAN = [1, 2, 1, m.PLAN + 40, 3, m.PLAN + 56, 0, m.NONE, 0, 0]
OUTPUTS = f"""{m.text(0x90, "key")} {m.text(0x98, "v")} {m.text(0x9c, "b")} {m.data(m.PLAN + 56, 0x90, 3, 4, 0, 0x98, 1, 1, 0, 0x9c, 1, 3, 0)}"""
RESULT = [(m.RESULT, (0, 0, 2, m.OUT, 0, 0, 0, 0)),
          (m.OUT, (4, 0x700, 0x720, 2, 0x730, 0x740, 1, 0x780, 0, 0, 0, 0, 3, 0x790, 0, 0, 0, 0)),
          (0x700, (0, 1)), (0x720, (3,)), (0x730, (0, 1, 3)), (0x780, (0, 0x3FF00000, 0, 0x40000000)), (0x790, (0x0701,))]
FEATURES = ("--enable-simd", "--enable-bulk-memory", "--enable-sign-ext", "--enable-mutable-globals", "--enable-nontrapping-float-to-int")
BINARYEN = shutil.which("wasm-opt")


def module(seed, index) -> tuple[str, bytes]:
    """The index-th module of a seed: (label, bytes)."""
    rng = random.Random(f"{seed}/{index}")
    family = FAMILIES[index % len(FAMILIES)]
    return f"{family.__name__} {index}", family(rng)


# --- code that goes on

LOOPS = ("(loop $l (br $l))", "(loop $l (memory.fill (i32.const 0x9000) (i32.const 1) (i32.const 0x10000)) (br $l))",
         "(loop $l (memory.copy (i32.const 0x9000) (i32.const 0x9001) (i32.const 0x20000)) (br $l))",
         "(loop $l (drop (memory.grow (i32.const 1))) (br $l))", "(loop $l (drop (call $down (i32.const 0))) (br $l))",
         "(drop (call $deep (i32.const 0)))", "(drop (call $ping (i32.const 0)))", "(drop (call_indirect (param i32) (result i32) (i32.const 0) (i32.const 99)))",
         "(drop (i32.div_u (i32.const 1) (i32.const 0)))", "(drop (i32.trunc_f64_s (f64.const nan)))", "(unreachable)",
         "(drop (i32.load (i32.const -4)))", "(i64.store (i32.const 0x7fffffff) (i64.const -1))", "(f64.store offset=0xffffffff (i32.const 64) (f64.const 1))",
         "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))",
         "(loop $l (i32.store (i32.const 0x900) (i32.add (i32.load (i32.const 0x900)) (i32.const 1))) (br_if $l (i32.load (i32.const 0x900))))")
FUNCTIONS = """(func $down (param i32) (result i32) (if (result i32) (i32.gt_u (local.get 0) (i32.const 1000)) (then (i32.const 0))
    (else (call $down (i32.add (local.get 0) (i32.const 1))))))
  (func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))
  (func $ping (param i32) (result i32) (i32.add (call $pong (local.get 0)) (i32.const 1)))
  (func $pong (param i32) (result i32) (i32.add (call $ping (local.get 0)) (i32.const 1)))
  (table 4 funcref) (elem (i32.const 0) $down $deep)"""


def goes_on(rng):
    """An endless loop, recursion, growth or a trap in any of the functions, at once or after some calls."""
    code = rng.choice(LOOPS)
    where = rng.choice(("process", "process", "process", "opens", "alloc", "start"))
    if rng.random() < 0.5 and where == "process":     # only from the n-th call on
        code = f"(global.set $n (i32.add (global.get $n) (i32.const 1))) (if (i32.gt_u (global.get $n) (i32.const {rng.randrange(1, 6)})) (then {code}))"
    body = f"{FUNCTIONS} (global $n (mut i32) (i32.const 0))"
    if where == "start":
        return m.module(f"{body} (func $s {code}) (start $s)")
    result = {"process": 0, "opens": m.PLAN, "alloc": m.AREA}[where]
    return m.module(body, **{where: f"{code} (i32.const {result})"})


# --- values that cross the ABI


def wild_values(rng):
    """Plan, result or columns with some words of any value."""
    plan, words = list(EMIT_PLAN), [(at, list(values)) for at, values in RESULT]
    for _ in range(rng.randrange(1, 4)):
        if rng.random() < 0.3:
            plan[rng.randrange(len(plan))] = _word(rng)
        else:
            _, values = rng.choice(words)
            values[rng.randrange(len(values))] = _word(rng)
    body = OUTPUTS + m.text(0x740, "aé") + "".join(m.data(at, *values) for at, values in words)
    returned = _word(rng) if rng.random() < 0.2 else m.RESULT
    return m.module(body, process=f"(i32.const {returned - (1 << 32) if returned > 0x7FFFFFFF else returned})", plan=plan, pages=rng.choice((1, 4, 16)))


def _word(rng):
    return rng.choice(WILD) if rng.random() < 0.7 else rng.getrandbits(32)


def huge_output(rng):
    """As many rows, strings or bytes as the numbers can say."""
    words = [(at, list(values)) for at, values in RESULT]
    rows = rng.choice((1 << 10, 1 << 16, 1 << 20, (1 << 32) - 1))
    words[0][1][2] = rows
    words[1][1][3] = rng.choice((2, rows))
    words[1][1][1] = words[1][1][7] = words[1][1][13] = rng.choice((0x700, 0x8000))
    return m.module(OUTPUTS + "".join(m.data(at, *values) for at, values in words), process=f"(i32.const {m.RESULT})", plan=EMIT_PLAN, pages=rng.choice((4, 64, 200)))


# --- hard to compile, or not a rule at all


def bomb(rng):
    """Small to write, dear to compile."""
    n = rng.choice((100, 1000, 5000))
    return m.module(rng.choice((
        lambda: "(func)" * 12 * n,
        lambda: f"(func (param i32) {'(block ' * n} (br_table {' '.join(map(str, range(n)))} 0 (local.get 0)) {')' * n})",
        lambda: f"(func (local {'i64 ' * min(10 * n, 49000)}))",
        lambda: f"(func (result f64) (f64.const 1) {'(f64.const 1.5) f64.add ' * 10 * n})",
        lambda: f"(func (param i32) (result i32) (local.get 0) {'(if (result i32) (then (i32.const 1)) (else (i32.const 2))) ' * n})",
        lambda: "".join(f"(global (mut i64) (i64.const {i}))" for i in range(n)),
        lambda: f"(table {rng.choice((10, 1000, 100_000, 10_000_000))} funcref)",
        lambda: "".join(f'(data (i32.const {0x9000 + i}) "x")' for i in range(n)),
        lambda: f'(func (export "{"e" * 10 * n}"))',
        lambda: "".join(f'(func (export "e{i}") (param f32 f64 i32 i64))' for i in range(n))))())


IMPORTS = ('(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))', '(import "env" "abort" (func (param i32 i32 i32 i32)))',
           '(import "env" "memory" (memory 1))', '(import "env" "table" (table 1 funcref))', '(import "env" "g" (global i32))', '(import "" "" (func))',
           '(import "tidegate" "open_socket" (func (result i32)))')


def not_a_rule(rng):
    """Exports that are missing or of another type, imports, a manifest that lies."""
    given = {"memory": '(memory (export "memory") 4)', "tg_abi": '(func (export "tg_abi") (result i32) (i32.const 1))',
             "tg_alloc": f'(func (export "tg_alloc") (param i32) (result i32) (i32.const {m.AREA}))',
             "tg_open": f'(func (export "tg_open") (param i32) (result i32) (i32.const {m.PLAN}))',
             "tg_process": '(func (export "tg_process") (param i32) (result i32) (i32.const 0))'}
    name = rng.choice(list(given))
    kind = rng.randrange(5)
    if kind == 0:
        del given[name]
    elif kind == 1 and name != "memory":
        given[name] = f'(func (export "{name}") {rng.choice(("(param i64)", "(result f64) (f64.const 0)", "(param i32 i32) (result i32) (i32.const 0)", ""))})'
    elif kind == 2:
        given[name] = f'(global (export "{name}") (mut i32) (i32.const 0))' + ('(memory 1)' if name == "memory" else "")
    imports = rng.choice(IMPORTS) if kind == 3 else ""
    data = f'{m.text(0x80, "t")} {m.data(m.PLAN, 1, 1, 1, m.PLAN + 40, 0, 0, m.NONE, m.NONE, 0, 0)} {m.data(m.PLAN + 40, 0x80, 1, 1, 0)}' if "memory" in given and kind != 2 else ""
    if imports and "memory" in imports:
        given["memory"] = ""
    manifest = rng.choice(MANIFESTS)() if kind == 4 else m.MANIFEST
    try:
        return m.with_manifest(wasmtime.wat2wasm(f"(module {imports} {' '.join(given.values())} {data})"), manifest)
    except wasmtime.WasmtimeError:
        return m.with_manifest(b"\0asm\1\0\0\0", manifest)


MANIFESTS = (lambda: b"", lambda: b"{" * 1000, lambda: b"\xff\xfe", lambda: json.dumps(m.MANIFEST | {"abi": 2}).encode(), lambda: b'{"name": 1}',
             lambda: json.dumps(m.MANIFEST | {"parameters": [{"name": "p", "type": "f64", "summary": "x", "default": "y"}]}).encode(),
             lambda: json.dumps(m.MANIFEST | {"limits": {"memory_bytes": -1}}).encode(), lambda: b"[" * 60_000, lambda: b"x" * 70_000)


def changed_bytes(rng):
    """A good module with some bytes changed, cut out or repeated."""
    wasm = bytearray(_good(rng.choice(("threshold", "window", "dedup", "deadband"))))
    for _ in range(rng.choice((1, 1, 1, 3))):
        at = rng.randrange(8, len(wasm))
        change = rng.choice((0, 1, 1, 1, 1, 2, 3))
        if change == 0:
            wasm[at] = rng.getrandbits(8)
        elif change == 1:
            wasm[at] ^= 1 << rng.randrange(8)
        elif change == 2:
            del wasm[at:at + rng.randrange(1, 8)]
        else:
            wasm[at:at] = wasm[at:at + rng.randrange(1, 16)]
    return bytes(wasm)


@cache
def _good(name):
    return (ROOT / "rules/ready" / name / f"{name}.wasm").read_bytes()


# --- random modules


def random_code(rng):
    """What binaryen makes of random bytes, called through the exports of rules/ABI.md; without binaryen changed_bytes."""
    if not BINARYEN:
        return changed_bytes(rng)
    with tempfile.TemporaryDirectory() as folder:
        seed, made = Path(folder, "seed"), Path(folder, "made.wasm")
        seed.write_bytes(rng.randbytes(rng.choice((300, 1500, 4000, 12_000))))
        subprocess.run([BINARYEN, "-ttf", *FEATURES, seed, "-o", made], capture_output=True, check=True)
        return as_rule(made.read_bytes(), rng)


def as_rule(wasm, rng):
    """A module of binaryen's with a rule's exports, which call functions of its own; its imports become functions that do nothing."""
    sections = {number: payload for number, payload in wasm_bytes.sections(wasm) if number}
    types, functions, code = (_entries(sections.get(n, b"\0")) for n in (1, 3, 10))
    imported = _imported(sections.pop(2, b"\0"))
    exports = _exported(sections.get(7, b"\0"))
    type_count, base = types[0], functions[0] + len(imported)
    signatures = _signatures(sections.get(1, b"\0"))
    plain = [index for name, kind, index in exports if kind == 0 and index >= len(imported)
             and signatures[_number_at(functions[1], index - len(imported))] == (b"", b"")]
    call = b"".join(b"\x10" + leb(rng.choice(plain)) for _ in range(rng.randrange(1, 4))) if plain else b""
    sections[1] = leb(type_count + 2) + types[1] + b"\x60\0\1\x7f" + b"\x60\1\x7f\1\x7f"
    sections[3] = leb(base + 4) + b"".join(map(leb, imported)) + functions[1] + leb(type_count) + 3 * leb(type_count + 1)
    bodies = [_nothing(signatures[t]) for t in imported]
    bodies_after = [b"\0\x41\1\x0b", b"\0" + b"\x41" + _sleb(m.AREA) + b"\x0b", b"\0\x41" + _sleb(m.PLAN) + b"\x0b", b"\0" + call + b"\x41" + _sleb(rng.choice((0, m.RESULT))) + b"\x0b"]
    sections[10] = leb(base + 4) + b"".join(leb(len(b)) + b for b in bodies) + code[1] + b"".join(leb(len(b)) + b for b in bodies_after)
    names = [(name, kind, index) for name, kind, index in exports if not name.startswith("tg_") and name != "memory"]
    names += [("memory", 2, 0)] + [(name, 0, base + i) for i, name in enumerate(("tg_abi", "tg_alloc", "tg_open", "tg_process"))]
    sections[7] = leb(len(names)) + b"".join(leb(len(n)) + n.encode() + bytes([kind]) + leb(i) for n, kind, i in names)
    sections[5] = b"\1\0\x10"
    data = _entries(sections.get(11, b"\0"))
    sections[11] = leb(data[0] + 3) + data[1] + b"".join(b"\0\x41" + _sleb(at) + b"\x0b" + leb(len(d)) + d for at, d in (
        (0x80, b"t"), (m.PLAN, b"".join(w.to_bytes(4, "little") for w in (1, 1, 1, m.PLAN + 40, 0, 0, m.NONE, m.NONE, 0, 0, 0x80, 1, 1, 0))), (m.RESULT, bytes(32))))
    if 12 in sections:
        sections[12] = leb(data[0] + 3)
    order = [1, 3, 4, 5, 6, 7, 8, 9, 12, 10, 11]
    out = b"\0asm\1\0\0\0" + b"".join(bytes([n]) + leb(len(sections[n])) + sections[n] for n in order if n in sections)
    return m.with_manifest(out, m.MANIFEST)


def _sleb(n):
    out = bytearray()
    while True:
        byte, n = n & 127, n >> 7
        if n == 0 and not byte & 64:
            return bytes(out) + bytes([byte])
        out.append(byte | 128)


def _entries(payload):
    count, at = leb_at(payload, 0)
    return count, payload[at:]


def _number_at(numbers, index):
    at = 0
    for _ in range(index + 1):
        value, at = leb_at(numbers, at)
    return value


def _names(payload, at):
    size, at = leb_at(payload, at)
    return payload[at:at + size], at + size


def _imported(payload):
    """Type indices of imported functions. binaryen imports nothing else."""
    count, at = leb_at(payload, 0)
    types = []
    for _ in range(count):
        _, at = _names(payload, at)
        _, at = _names(payload, at)
        assert payload[at] == 0, "binaryen imports functions only"
        kind, at = leb_at(payload, at + 1)
        types.append(kind)
    return types


def _exported(payload):
    count, at = leb_at(payload, 0)
    found = []
    for _ in range(count):
        name, at = _names(payload, at)
        kind = payload[at]
        index, at = leb_at(payload, at + 1)
        found.append((name.decode(), kind, index))
    return found


def _signatures(payload):
    count, at = leb_at(payload, 0)
    found = []
    for _ in range(count):
        parameters, at = _names(payload, at + 1)
        results, at = _names(payload, at)
        found.append((parameters, results))
    return found


def _nothing(signature):
    zero = {0x7F: b"\x41\0", 0x7E: b"\x42\0", 0x7D: b"\x43" + bytes(4), 0x7C: b"\x44" + bytes(8)}
    return b"\0" + b"".join(zero[t] for t in signature[1]) + b"\x0b"


FAMILIES = (goes_on, wild_values, random_code, changed_bytes, goes_on, wild_values, random_code, not_a_rule, huge_output, wild_values, random_code, bomb)
