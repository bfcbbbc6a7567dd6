"""Small modules in WAT for the host's tests, and a stream to feed them."""

import json

import wasmtime
from wasm_bytes import leb

from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.host.module import Module

STREAM = Schema("s", (Field("id", "str"), Field("t", "f64", "C"), Field("n", "i64"), Field("ok", "bool"), Field("at", "time")), key="id", time="at")
AREA = 0x8000                            # the modules below give the host the memory from here on
PLAN, RESULT, OUT = 0x100, 0x400, 0x600
NONE = 0xFFFFFFFF
MANIFEST = {"name": "probe", "version": 1, "abi": 1, "summary": "for tests"}


def u32(*values) -> str:
    """Little-endian words as a WAT data string."""
    return "".join(f"\\{b:02x}" for v in values for b in (v & 0xFFFFFFFF).to_bytes(4, "little"))


def data(address, *values) -> str:
    return f'(data (i32.const {address}) "{u32(*values)}")'


def text(address, string) -> str:
    return f'(data (i32.const {address}) "{"".join(f"{chr(92)}{b:02x}" for b in string.encode())}")'


def module(body="", *, process="(i32.const 0)", pages=4, alloc=f"(i32.const {AREA})", opens=f"(i32.const {PLAN})", manifest=MANIFEST, plan=None) -> bytes:
    """A module with the ABI's exports. plan: the Plan's ten words; default a filter that reads field t."""
    plan = plan or [1, 1, 1, PLAN + 40, 0, 0, NONE, NONE, 0, 0]
    wat = f"""(module (memory (export "memory") {pages})
      {text(0x80, "t")} {data(PLAN, *plan)} {data(PLAN + 40, 0x80, 1, 1, 0)}
      (func (export "tg_abi") (result i32) (i32.const 1))
      (func (export "tg_alloc") (param i32) (result i32) {alloc})
      (func (export "tg_open") (param i32) (result i32) {opens})
      (func (export "tg_process") (param $batch i32) (result i32) {process})
      {body})"""
    return with_manifest(wasmtime.wat2wasm(wat), manifest)


def with_manifest(wasm, manifest) -> bytes:
    payload = leb(len("tidegate.rule")) + b"tidegate.rule" + (manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode())
    return bytes(wasm) + b"\0" + leb(len(payload)) + payload


def rows(n=10):
    return [{"id": f"d{i % 3}", "t": float(i), "n": i, "ok": i % 2 == 0, "at": 10**9 * i} for i in range(n)]


def batch(n=10, **changes) -> Batch:
    return Batch.from_rows(STREAM, [{**row, **changes} for row in rows(n)], received_ns=10**12)


ABOVE_4 = """(local $r i32) (local $at i32) (local $rows i32) (local $values i32)
  (local.set $rows (i32.load (local.get $batch)))
  (local.set $values (i32.load offset=4 (i32.load offset=48 (local.get $batch))))
  (memory.fill (i32.const 0x600) (i32.const 0) (i32.const 1024))
  (block $done (loop $next
    (br_if $done (i32.ge_u (local.get $r) (local.get $rows)))
    (local.set $at (i32.add (i32.const 0x600) (i32.shr_u (local.get $r) (i32.const 3))))
    (i32.store8 (local.get $at) (i32.or (i32.load8_u (local.get $at))
      (i32.shl (f64.gt (f64.load (i32.add (local.get $values) (i32.shl (local.get $r) (i32.const 3)))) (f64.const 4)) (i32.and (local.get $r) (i32.const 7)))))
    (local.set $r (i32.add (local.get $r) (i32.const 1))) (br $next)))
  (i32.store (i32.const 0x400) (i32.const 0x600))
  (i32.const 0x400)"""


def checked(wasm) -> Module:
    return Module(wasm, "probe")
