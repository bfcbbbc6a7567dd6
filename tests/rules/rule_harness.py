"""An independent host for rules: rules/ABI.md over wasmtime-py and struct. It shares no code with edge/, so that the two check each other."""

import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import wasmtime
from wasm_bytes import leb, leb_at, sections

RULES = Path(__file__).parents[2] / "rules"
KINDS = {"f64": 1, "i64": 2, "bool": 3, "str": 4, "time": 5}
NAMES = {v: k for k, v in KINDS.items()}
FOREVER = 2**63 - 1
LEAST = -(2**63)
ENGINE = wasmtime.Engine()
_modules = {}


def manifest(wasm):
    for number, payload in sections(wasm):
        if number == 0:
            size, start = leb_at(payload, 0)
            if payload[start : start + size] == b"tidegate.rule":
                return json.loads(payload[start + size :])
    raise AssertionError("no manifest")


def export_globals(wasm):
    """The module with its mutable globals (all of them i32 with a constant start here) exported as tg$global:N, and their number."""
    out, n = bytearray(wasm[:8]), 0
    for number, payload in sections(wasm):
        if number == 6:
            n, i = leb_at(payload, 0)
            for _ in range(n):
                assert payload[i : i + 3] == b"\x7f\x01\x41"
                _, i = leb_at(payload, i + 3)
                assert payload[i] == 0x0B
                i += 1
        if number == 7:
            count, i = leb_at(payload, 0)
            names = [f"tg$global:{g}".encode() for g in range(n)]
            payload = leb(count + n) + payload[i:] + b"".join(leb(len(x)) + x + b"\3" + leb(g) for g, x in enumerate(names))
        out += bytes([number]) + leb(len(payload)) + payload
    return bytes(out), n


@dataclass
class Rows:
    """A batch as a test writes it: rows are dicts (a missing name is null); watermarks give each key's, by name, after the batch.

    A tick has no rows; its keys are those of watermarks. Keys of watermarks that no row uses stand behind those of the rows.
    """

    rows: list = field(default_factory=list)
    watermarks: dict = field(default_factory=dict)
    watermark: int = LEAST
    tick: bool = False
    received: int = 0
    first: int = 0


@dataclass
class Answer:
    selected: list = field(default_factory=list)
    late: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    ignored: int = 0


class Refused(Exception):
    """The rule does not want these parameters."""


class Area:
    """Bytes at an address, laid out from the front."""

    def __init__(self, base, size=0):
        self.base, self.bytes = base, bytearray(size)

    def put(self, data, align=8):
        self.bytes += bytes(-len(self.bytes) % align)
        self.bytes += data
        return self.base + len(self.bytes) - len(data)


class Rule:
    """One instance of a rule over a stream of `fields` ((name, kind) pairs)."""

    def __init__(self, path, fields, params=(), key=None, time=None, memory_bytes=16 << 20):
        path = RULES / "ready" / path / f"{path}.wasm" if isinstance(path, str) else path
        if path not in _modules:
            wasm = path.read_bytes()
            code, n = export_globals(wasm)
            _modules[path] = wasmtime.Module(ENGINE, code), n, manifest(wasm)
        self.module, self.n_globals, self.manifest = _modules[path]
        assert not self.module.imports
        self.fields, self.kinds, self.key, self.time, self.memory_bytes = fields, dict(fields), key, time, memory_bytes
        self.params = dict(params)
        self._instantiate()
        self._open()

    def _instantiate(self):
        self.store = wasmtime.Store(ENGINE)
        self.store.set_limits(memory_size=self.memory_bytes)
        exports = wasmtime.Instance(self.store, self.module, []).exports(self.store)
        self.memory, self.exports = exports["memory"], exports
        assert exports["tg_abi"](self.store) == 1

    def send(self, build, call, *more):
        """Lays the structure out twice, first to know its size; calls with its address."""
        size = len(build(0)[0].bytes)
        base = self.exports["tg_alloc"](self.store, size) & 0xFFFFFFFF
        assert base and base % 8 == 0
        area, address = build(base)
        self.memory.write(self.store, area.bytes, base)
        return self.exports[call](self.store, address, *more) & 0xFFFFFFFF

    def read(self, address, size):
        assert 0 < address and address + size <= self.memory.data_len(self.store), (address, size)
        return bytes(self.memory.read(self.store, address, address + size))

    def read_text(self, address, size):
        return self.read(address, size).decode() if size else ""

    def given(self):
        """(name, type, values) of the parameters that were given or have a default."""
        known = {p["name"]: p for p in self.manifest["parameters"]}
        assert not self.params.keys() - known.keys(), self.params
        for name, p in known.items():
            value = self.params.get(name, p.get("default"))
            assert value is not None or not p.get("required"), name
            if value is not None:
                values = value if p.get("list") else [value]
                yield name, p["type"], [0 if v == "0s" else v for v in values]

    def _open(self):
        def build(base):
            area, entries = Area(base), b""
            for name, kind, values in self.given():
                number = {"f64": 1, "str": 4, "field": 4}.get(kind, 2)
                if number == 4:
                    texts = [(area.put(v.encode(), 1), len(v.encode())) for v in values]
                    at = area.put(b"".join(struct.pack("<II", *t) for t in texts))
                else:
                    at = area.put(b"".join(struct.pack("<d" if number == 1 else "<q", v) for v in values))
                entries += struct.pack("<6I", area.put(name.encode(), 1), len(name.encode()), number, len(values), at, 0)
            return area, area.put(struct.pack("<II", len(entries) // 24, area.put(entries)))

        plan = struct.unpack("<10I", self.read(self.send(build, "tg_open"), 40))
        abi, self.mode, n_in, inputs, n_out, outputs, self.out_key, self.out_time, error, error_size = plan
        assert abi == 1
        if error:
            raise Refused(self.read_text(error, error_size))
        self.inputs = [self._input(i, inputs + 16 * i) for i in range(n_in)]
        self.outputs = [self._output(outputs + 16 * i) for i in range(n_out)]
        names = [o[0] for o in self.outputs if o]
        assert len(set(names)) == len(names), names
        assert (self.mode == 1) == (n_out == 0)

    def _input(self, i, address):
        name, size, kind, flags = struct.unpack("<4I", self.read(address, 16))
        name = self.read_text(name, size)
        assert flags in (0, 1) and kind in range(7)
        source = {"$key": self.key, "$time": self.time}.get(name, name)
        have = self.kinds.get(source) if name != "$time" else "time"
        if have is None:
            assert flags & 1, f"the stream has no {name}"
        else:
            assert kind in (0, KINDS[have]) or kind == 6 and have in ("f64", "i64"), (name, kind, have)
        return name, source if name != "$time" or source else "$time", have

    def _output(self, address):
        name, size, kind, flags = struct.unpack("<4I", self.read(address, 16))
        name = self.read_text(name, size)
        if kind:
            assert flags == 0
            return name, NAMES[kind]
        _, source, have = self.inputs[flags]
        return (name or source.replace("$time", "time"), have) if have else None

    def process(self, batch):
        address = self.send(lambda base: self.build(base, batch), "tg_process")
        if not address:
            return Answer()
        selected, late, rows, columns, ignored, *zeros = struct.unpack("<8I", self.read(address, 32))
        assert zeros == [0, 0, 0]
        n = len(batch.rows)
        answer = Answer(self.bits(selected, n), self.bits(late, n), [], ignored)
        assert not set(answer.selected) & set(answer.late) and ignored + len(answer.late) <= n
        if rows:
            assert self.mode == 2
            values = [self.column(columns + 24 * i, rows, o) for i, o in enumerate(self.outputs)]
            kept = [(o[0], v) for o, v in zip(self.outputs, values, strict=True) if o]
            answer.rows = [{name: v[r] for name, v in kept} for r in range(rows)]
        return answer

    def bits(self, address, n):
        if not address or not n:
            return []
        data = self.read(address, (n + 7) // 8)
        return [r for r in range(n) if data[r >> 3] >> (r & 7) & 1]

    def column(self, address, rows, output):
        if output is None:
            return None
        kind, values, valid, dict_n, offsets, text = struct.unpack("<6I", self.read(address, 24))
        assert kind == KINDS[output[1]], (output, kind)
        code, width = {1: ("d", 8), 2: ("q", 8), 3: ("B", 1), 4: ("I", 4), 5: ("q", 8)}[kind]
        got = list(struct.unpack(f"<{rows}{code}", self.read(values, rows * width)))
        present = set(range(rows)) if not valid else set(self.bits(valid, rows))
        assert all(got[r] == 0 for r in range(rows) if r not in present)
        if kind == 3:
            assert set(got) <= {0, 1}
            got = [bool(v) for v in got]
        if kind == 4 and present:
            edges = struct.unpack(f"<{dict_n + 1}I", self.read(offsets, 4 * dict_n + 4))
            assert list(edges) == sorted(edges)
            words = [self.read_text(text + a, b - a) for a, b in zip(edges, edges[1:], strict=False)]
            got = [words[v] if r in present else None for r, v in enumerate(got)]
        return [v if r in present else None for r, v in enumerate(got)]

    def build(self, base, batch):
        area = Area(base)
        area.put(b"\xa5" * 8)
        n, dictionaries = len(batch.rows), {}
        extra = {self.key: list(batch.watermarks)} if self.key else {}
        columns = b"".join(self.lay(area, batch, i, extra, dictionaries) for i in self.inputs)
        keys = marks = codes = 0
        if self.key:
            words = dictionary(batch, self.key, extra[self.key])
            keys = len(words)
            marks = area.put(b"".join(struct.pack("<q", batch.watermarks.get(w, LEAST)) for w in words))
            codes = area.put(b"".join(struct.pack("<I", words.get(row.get(self.key), 0)) for row in batch.rows))
        head = struct.pack("<IIQqqII", n, len(self.inputs), batch.first, batch.received, batch.watermark, int(batch.tick), keys)
        return area, area.put(head + struct.pack("<4IQ", marks, codes, area.put(columns), 0, 0))

    def lay(self, area, batch, declared, extra, dictionaries):
        name, source, kind = declared
        if kind is None:
            return bytes(24)
        cells = [batch.received if source == "$time" else row.get(source) for row in batch.rows]
        if source == self.time and name == "$time":
            cells = [batch.received if c is None else c for c in cells]
        valid = 0
        if None in cells:
            valid = area.put(bytes(sum((b < len(cells) and cells[b] is not None) << (b - a) for b in range(a, a + 8)) for a in range(0, len(cells), 8)))
        dict_n = offsets = text = 0
        if kind == "str":
            words = dictionary(batch, source, extra.get(source, ()))
            data, edges = b"".join(w.encode() for w in words), [0]
            for w in words:
                edges.append(edges[-1] + len(w.encode()))
            dict_n, text, offsets = len(words), area.put(data, 1), area.put(struct.pack(f"<{len(edges)}I", *edges))
            cells = [words.get(c, 0) for c in cells]
        code = {"f64": "d", "i64": "q", "bool": "B", "str": "I", "time": "q"}[kind]
        values = area.put(struct.pack(f"<{len(cells)}{code}", *(0 if c is None else c for c in cells)))
        return struct.pack("<6I", KINDS[kind], values, valid, dict_n, offsets, text)

    def snapshot(self):
        """Memory and mutable globals, as a host takes them between calls."""
        size = self.memory.data_len(self.store)
        return bytes(self.memory.read(self.store, 0, size)), [self.exports[f"tg$global:{g}"].value(self.store) for g in range(self.n_globals)]

    def restore(self, image):
        """Goes on from a snapshot in a fresh instance."""
        self._instantiate()
        memory, values = image
        self.memory.grow(self.store, (len(memory) - self.memory.data_len(self.store)) >> 16)
        self.memory.write(self.store, memory)
        for g, value in enumerate(values):
            self.exports[f"tg$global:{g}"].set_value(self.store, value)


    def saved(self):
        """The state in the rule's own form."""
        at, size = struct.unpack("<2I", self.read(self.exports["tg_save"](self.store) & 0xFFFFFFFF, 8))
        return self.read(at, size)

    def take_over(self, saved, from_state=1):
        """Whether the rule takes the state of another one."""
        def build(base):
            area = Area(base)
            return area, area.put(struct.pack("<2I", area.put(saved, 1), len(saved)))

        answer = self.send(build, "tg_migrate", from_state)
        assert answer in (0, 1)
        return answer == 1


def dictionary(batch, name, extra=()):
    """Strings of a column and their codes, by first appearance."""
    words = [row[name] for row in batch.rows if row.get(name) is not None]
    return {w: i for i, w in enumerate(dict.fromkeys([*words, *extra]))}


def same(a, b):
    """Equal, where a NaN equals a NaN."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
