"""A rule's module: its bytes, checked before anything is compiled, and its manifest.

What is checked here needs no compiler: size, imports, exports and their signatures, memory, what kinds of globals hold state, the manifest.
Whether the code is valid WebAssembly is the compiler's to say.

A rule's state is its memory and its mutable globals. So that the host can reach all of them, mutable globals that are not exported are
exported as `tg$global:N` (N: their index), by adding to the export section. Nothing else of the module changes.
Binary format: WebAssembly Core Specification 2.0, chapter 5.
"""

import hashlib

from edge.errors import RuleError
from edge.host.manifest import Manifest

ABI = 1
MODULE_BYTES_MAX = 1 << 20
MANIFEST_SECTION = b"tidegate.rule"
CASES_SECTION = b"tidegate.cases"
SIGNATURE_SECTION = b"tidegate.signature"
CASES_BYTES_MAX = 128 << 10
SIGNATURE_BYTES_MAX = 4096
MAGIC = b"\0asm"
PAGE = 65536
I32, FUNCTION, TABLE, MEMORY, GLOBAL = 0x7F, 0, 1, 2, 3
VALUE_TYPES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128"}
FUNCTIONS = {"tg_abi": 0, "tg_alloc": 1, "tg_open": 1, "tg_process": 1}      # i32 arguments; each returns an i32
OPTIONAL_FUNCTIONS = {"tg_save": 0, "tg_migrate": 2}
EXTERNAL = ("function", "table", "memory", "global", "tag")
CUSTOM, TYPES, IMPORTS, FUNCTION_TYPES, MEMORIES, GLOBALS, EXPORTS = 0, 1, 2, 3, 5, 6, 7
AFTER_EXPORTS = {8, 9, 10, 11, 12}


class Module:
    """A checked module.

    content: the bytes without the signature that may follow them; digest: their SHA-256, hexadecimal, so that a signed module is the same rule.
    wasm: the bytes to compile, with every mutable global exported. globals: export names of the mutable globals, in index order.
    memory_pages: the least memory it asks for, in pages of 64 KiB. cases: the text of its embedded samples, or "". signature: the last
    section's bytes, or b"": not checked here. exports: names of the functions of rules/ABI.md that it has.
    Raises RuleError that says what is wrong with the module `name`.
    """

    def __init__(self, wasm: bytes, name="module"):
        self.name = name
        self.digest = hashlib.sha256(wasm).hexdigest()
        try:
            layout = Layout(wasm)
            self.content, self.signature = layout.cut_signature()
            self.digest = hashlib.sha256(self.content).hexdigest()
            if problem := next(layout.problems(), None):
                raise ValueError(problem)
            self.manifest = Manifest.read(layout.manifest)
            self.manifest_bytes = layout.manifest
            self.cases = layout.cases_text()
            self.exports = {name for name in (*FUNCTIONS, *OPTIONAL_FUNCTIONS) if name in layout.exports}
            self.memory_pages = layout.memory_pages
            self.globals = layout.mutable_names()
            self.wasm = layout.with_globals_exported()
        except ValueError as error:
            raise RuleError(f"{name}: {error}", rule=name, digest=self.digest) from None


def problems(wasm: bytes) -> list[str]:
    """All that can be seen to be wrong with a module before it is compiled; empty where Module takes it."""
    found = []
    try:
        layout = Layout(wasm)
        found.extend(layout.problems())
    except ValueError as error:          # what came before it stays said
        return [*found, str(error)]
    for attempt in (layout.cut_signature, lambda: layout.manifest is None or Manifest.read(layout.manifest), layout.cases_text, layout.with_globals_exported):
        try:
            attempt()
        except ValueError as error:
            found.append(str(error))
    return found


class Reader:
    """Reads a part of a module. Raises ValueError at its end."""

    def __init__(self, data: bytes, start=0, end=None):
        self.data, self.at, self.end = data, start, len(data) if end is None else end

    def byte(self) -> int:
        if self.at >= self.end:
            raise ValueError(f"not a WebAssembly module: it is cut off at byte {self.end}")
        self.at += 1
        return self.data[self.at - 1]

    def skip(self, count):
        if count > self.end - self.at:
            raise ValueError(f"not a WebAssembly module: byte {self.at} announces {count} bytes, {self.end - self.at} are left")
        self.at += count

    def bytes(self, count) -> bytes:
        self.skip(count)
        return self.data[self.at - count : self.at]

    def number(self) -> int:
        """An unsigned LEB128 of up to 32 bits."""
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if result > 0xFFFFFFFF:
                    break
                return result
            if shift > 28:
                break
        raise ValueError(f"not a WebAssembly module: byte {self.at} ends a number of more than 32 bits")

    def skip_number(self):
        while self.byte() >= 0x80:
            pass

    def name(self) -> str:
        try:
            return self.bytes(self.number()).decode()
        except UnicodeDecodeError:
            raise ValueError(f"not a WebAssembly module: the name before byte {self.at} is not UTF-8") from None


class Layout:
    """The sections that matter to the host. Raises ValueError."""

    def __init__(self, wasm: bytes):
        self.wasm = wasm
        if len(wasm) > MODULE_BYTES_MAX:
            raise ValueError(f"the module has {len(wasm)} bytes, the limit is {MODULE_BYTES_MAX}")
        if wasm[:4] != MAGIC:
            raise ValueError("not WebAssembly: it does not begin with \\0asm; compile the rule to a .wasm file")
        if wasm[4:8] != b"\1\0\0\0":
            kind = "a component; build a core module instead" if wasm[4:8] == b"\x0d\0\1\0" else f"version {wasm[4:8].hex()}; version 1 is supported"
            raise ValueError(f"the module is {kind}")
        self.manifest = self.cases = None
        self.signature_section = None    # (start of the section, start of its content, end)
        self.types, self.function_types = [], []         # of functions, the imported ones first
        self.imports = []                # (module.name, kind)
        self.memory_pages = None
        self.globals = []                # (value type, mutable)
        self.exports = {}                # name -> (kind, index)
        self.export_section = None       # (start of the section, start of its entries, their count, end)
        self.sections_before_exports_end = 8
        self._read_sections()

    def _read_sections(self):
        r = Reader(self.wasm, 8)
        readers = {CUSTOM: self._custom, TYPES: self._types, IMPORTS: self._imports, FUNCTION_TYPES: self._function_types,
                   MEMORIES: self._memories, GLOBALS: self._globals, EXPORTS: self._exports}
        while r.at < r.end:
            start = r.at
            number, size = r.byte(), r.number()
            part = Reader(self.wasm, r.at, r.at + size)
            r.skip(size)
            if number in readers:
                readers[number](part, start)
                if number != CUSTOM and part.at != part.end:
                    raise ValueError(f"not a WebAssembly module: section {number} at byte {start} has {part.end - part.at} bytes too many")
            if number != CUSTOM and number not in AFTER_EXPORTS:
                self.sections_before_exports_end = r.at

    def _custom(self, r, start):
        name = r.bytes(r.number())
        if name == MANIFEST_SECTION:
            if self.manifest is not None:
                raise ValueError("the module has two manifests (custom sections tidegate.rule)")
            self.manifest = r.bytes(r.end - r.at)
        elif name == CASES_SECTION:
            if self.cases is not None:
                raise ValueError("the module has two sets of samples (custom sections tidegate.cases)")
            self.cases = r.bytes(r.end - r.at)
        elif name == SIGNATURE_SECTION:
            if self.signature_section is not None or r.end != len(self.wasm):
                raise ValueError("the module has a signature (custom section tidegate.signature) that is not the last thing in it: sign it again")
            self.signature_section = (start, r.at, r.end)

    def cut_signature(self) -> tuple[bytes, bytes]:
        """The module without its signature, which is forgotten here, and the signature's bytes."""
        signature = b""
        if self.signature_section is not None:
            start, content, end = self.signature_section
            if end - content > SIGNATURE_BYTES_MAX:
                raise ValueError(f"the signature has {end - content} bytes, the limit is {SIGNATURE_BYTES_MAX}")
            signature, self.wasm, self.signature_section = self.wasm[content:end], self.wasm[:start], None
        return self.wasm, signature

    def cases_text(self) -> str:
        """The embedded samples."""
        if len(self.cases or b"") > CASES_BYTES_MAX:
            raise ValueError(f"the samples (custom section tidegate.cases) have {len(self.cases)} bytes, the limit is {CASES_BYTES_MAX}")
        try:
            return (self.cases or b"").decode()
        except UnicodeDecodeError:
            raise ValueError("the samples (custom section tidegate.cases) are not UTF-8") from None

    def _types(self, r, start):
        for _ in range(r.number()):
            if r.byte() != 0x60:
                raise ValueError(f"the module uses types other than functions (byte {r.at - 1}): build it without the GC proposal")
            self.types.append((self._value_types(r), self._value_types(r)))

    def _value_types(self, r):
        return tuple(self._value_type(r) for _ in range(r.number()))

    def _value_type(self, r):
        kind = r.byte()
        if kind in (0x63, 0x64):                                     # reference with a heap type
            r.skip_number()
        return kind

    def _imports(self, r, start):
        for _ in range(r.number()):
            name, kind = f"{r.name()}.{r.name()}", r.byte()
            if kind >= len(EXTERNAL):
                raise ValueError(f"the module imports {name} of kind {kind}; a rule imports nothing")
            self.imports.append((name, kind))
            if kind == FUNCTION:
                self.function_types.append(r.number())
            elif kind == GLOBAL:
                self.globals.append((self._value_type(r), r.byte() == 1))
            else:
                if kind == TABLE:
                    self._value_type(r)
                for _ in range(1 + (r.byte() & 1)):                  # limits, or a tag's type
                    r.skip_number()

    def _import_problems(self):
        wanted = [name for name, kind in self.imports if kind == FUNCTION]
        if wanted:
            hint = "; with AssemblyScript, compile with --use abort=" if "env.abort" in wanted else "; build it without WASI" if any(
                w.startswith("wasi") for w in wanted) else ""
            yield f"the module imports {', '.join(wanted[:8])}{', ...' if len(wanted) > 8 else ''}; a rule imports nothing{hint}"
        for name, kind in self.imports:
            if kind != FUNCTION:
                yield f"the module imports the {EXTERNAL[kind]} {name}; a rule imports nothing"

    def _function_types(self, r, start):
        self.function_types += [r.number() for _ in range(r.number())]

    def _memories(self, r, start):
        count = r.number()
        if count != 1:
            raise ValueError(f"the module has {count} memories, a rule has one")
        flags = r.byte()
        if flags > 1:
            raise ValueError("the memory is shared, 64-bit or has pages of another size: a rule has a plain 32-bit memory")
        self.memory_pages = r.number()
        if flags:
            r.number()

    def _globals(self, r, start):
        for _ in range(r.number()):
            kind, mutable = self._value_type(r), r.byte()
            self.globals.append((kind, mutable == 1))
            self._constant_expression(r)

    def _constant_expression(self, r):
        while (code := r.byte()) != 0x0B:
            if code in (0x41, 0x42, 0x23, 0xD0, 0xD2):               # i32.const i64.const global.get ref.null ref.func
                r.skip_number()
            elif code in (0x43, 0x44):                               # f32.const f64.const
                r.skip(4 if code == 0x43 else 8)
            elif code == 0xFD:                                       # v128.const
                r.skip_number()
                r.skip(16)
            elif code not in (0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E):   # add, sub, mul of i32 and i64
                raise ValueError(f"a global's initial value has instruction {code:#x} (byte {r.at - 1}): build the module without that proposal")

    def _exports(self, r, start):
        count, entries = r.number(), r.at
        for _ in range(count):
            name = r.name()
            self.exports[name] = (r.byte(), r.number())
        self.export_section = (start, entries, count, r.end)

    def problems(self):
        """What is wrong with imports, the exports of rules/ABI.md and their types, globals that cannot be saved, the manifest."""
        yield from self._import_problems()
        if self.exports.get("memory", (None,))[0] != MEMORY or self.memory_pages is None:
            yield f"the module does not export its memory as `memory`; it exports {', '.join(self.exports) or 'nothing'}"
        for name, arguments in {**FUNCTIONS, **OPTIONAL_FUNCTIONS}.items():
            kind, index = self.exports.get(name, (None, 0))
            if kind is None and name in OPTIONAL_FUNCTIONS:
                continue
            if kind != FUNCTION:
                yield f"the module does not export the function {name}; it exports {', '.join(self.exports)}"
            elif self._signature(index) != ((I32,) * arguments, (I32,)):
                yield f"the export {name} must be ({', '.join(['i32'] * arguments)}) -> i32, it is {self._spell(index)}"
        for index, (kind, mutable) in enumerate(self.globals):
            if mutable and kind not in VALUE_TYPES:
                yield f"global {index} is mutable and holds a reference: it could not be saved"
        if self.manifest is None:
            yield "the module has no manifest (custom section tidegate.rule)"

    def _signature(self, index):
        try:
            return self.types[self.function_types[index]]
        except IndexError:
            raise ValueError(f"not a WebAssembly module: function {index} has no type") from None

    def _spell(self, index):
        arguments, results = (", ".join(VALUE_TYPES.get(t, "reference") for t in side) for side in self._signature(index))
        return f"({arguments}) -> {results or 'nothing'}"

    def mutable_names(self) -> list[str]:
        """An export name for each mutable global, in index order."""
        known = {}
        for name, (kind, index) in self.exports.items():
            if kind == GLOBAL:
                known.setdefault(index, name)
        return [known.get(i, f"tg$global:{i}") for i, (_, mutable) in enumerate(self.globals) if mutable]

    def with_globals_exported(self) -> bytes:
        """The module with each mutable global exported."""
        exported = {index for kind, index in self.exports.values() if kind == GLOBAL}
        missing = [i for i, (_, mutable) in enumerate(self.globals) if mutable and i not in exported]
        if not missing:
            return self.wasm
        taken = [name for name in self.exports if name.startswith("tg$global:")]
        if taken:
            raise ValueError(f"the module exports {taken[0]}, a name that is the host's")
        added = b"".join(_name(f"tg$global:{i}") + bytes([GLOBAL]) + leb(i) for i in missing)
        if self.export_section:
            start, entries, count, end = self.export_section
            body = leb(count + len(missing)) + self.wasm[entries:end] + added
        else:
            start = end = self.sections_before_exports_end
            body = leb(len(missing)) + added
        return self.wasm[:start] + bytes([EXPORTS]) + leb(len(body)) + body + self.wasm[end:]


def with_section(wasm: bytes, name: bytes, content: bytes) -> bytes:
    """The module with a custom section added behind it."""
    body = leb(len(name)) + name + content
    return wasm + bytes([CUSTOM]) + leb(len(body)) + body


def leb(n) -> bytes:
    """LEB128 of a number that is not negative."""
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _name(text) -> bytes:
    return leb(len(text)) + text.encode()
