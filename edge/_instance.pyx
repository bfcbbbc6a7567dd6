# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Instance: a module at work for one rule, by rules/ABI.md. One call a batch; only the columns that are asked for are copied.

Life: Instance(...) -> open(arguments) -> bind(schema) -> process(batch) ... A trap, a value that cannot be, or too much time ends it (`dead`):
make a new one, and restore() what snapshot() gave before (both in _state.pyx). What the module returns is checked in _result.pyx (per batch) and plan.py (once).

The area, which the module gives by tg_alloc, holds what the host writes for a call:
    Batch 64 | Column 24 x inputs | key watermarks i64 x keys | the columns' values, validity, dictionaries | key codes u32 x rows
A column that several inputs ask for is there once. Addresses are u32; sizes are computed in 64 bits and compared with the memory.
"""
import ctypes

import wasmtime
from wasmtime import _ffi

from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory

from edge._batch cimport BOOL, STR, TIME, Batch, Column
from edge._result cimport Answers, Result
from edge._wasmtime cimport (call, memory_data, memory_size, now_ns, wasm_trap_t, wasmtime_error_t, wasmtime_func_t, wasmtime_global_t, wasmtime_memory_t)
from edge._wasmtime import instantiate

from edge.engine import engine
from edge.errors import RuleError
from edge.plan import ABSENT, EVENT_TIME, Plan, Wrong, encode_params
from edge.schema import Schema

cdef enum:
    PAGE = 65536
    AREA_MIN = 4096
    TICK = 1
    UNSYNCHRONISED = 2
    HEAD_KEY_WATERMARKS = 0                  # what _layout says to _write
    HEAD_KEY_CODES = 1
    HEAD_KEYS = 2


cdef inline uint64_t aligned(uint64_t at, uint64_t alignment) noexcept nogil:
    return (at + alignment - 1) & ~(alignment - 1)


cdef inline void put32(uint8_t *at, uint32_t value) noexcept nogil:
    memcpy(at, &value, 4)


cdef inline void put64(uint8_t *at, int64_t value) noexcept nogil:
    memcpy(at, &value, 8)


cdef class Instance:
    """One module instance for the rule `name`. code: the compiled module (wasmtime.Module). Raises RuleError where the module is at fault.

    Not for several threads at once: a second one that enters gets RuntimeError.
    """

    def __init__(self, name, module, code, limits):
        self.name = name
        self.module = module
        self.limits = limits
        self.time_ns = limits.time_ns
        self.store = wasmtime.Store(engine())
        self.store.set_limits(memory_size=limits.memory_bytes, table_elements=limits.table_elements, instances=1, tables=4, memories=1)
        if module.memory_pages * PAGE > limits.memory_bytes:
            raise self.error(f"the module asks for {module.memory_pages * PAGE} bytes of memory, the limit is {limits.memory_bytes}")
        try:
            instance = instantiate(self.store, lambda: wasmtime.Instance(self.store, code, []), limits.time_ns)
        except wasmtime.Trap as trap:
            raise self._trapped(trap, trap.trap_code == wasmtime.TrapCode.INTERRUPT, "at its start") from None
        except wasmtime.WasmtimeError as error:
            raise self.error(f"it cannot be instantiated: {error}") from None
        self._take_exports(instance)
        if self._call(&self.f_abi, "tg_abi", 0, 0, 0) != 1:
            raise self.error("it was built for another ABI than 1")

    def _take_exports(self, instance):
        cdef uint32_t i
        self.exports = exports = instance.exports(self.store)
        self.context = <wasmtime_context_t *><uintptr_t>ctypes.addressof(self.store._context().contents)
        self.memory_object = exports["memory"]
        copy_struct(&self.memory, self.memory_object._memory, sizeof(wasmtime_memory_t))
        copy_struct(&self.f_abi, exports["tg_abi"]._func, sizeof(wasmtime_func_t))
        copy_struct(&self.f_alloc, exports["tg_alloc"]._func, sizeof(wasmtime_func_t))
        copy_struct(&self.f_open, exports["tg_open"]._func, sizeof(wasmtime_func_t))
        copy_struct(&self.f_process, exports["tg_process"]._func, sizeof(wasmtime_func_t))
        self.n_globals = len(self.module.globals)
        self.globals = <wasmtime_global_t *>calloc(self.n_globals + 1, sizeof(wasmtime_global_t))
        if self.globals == NULL:
            raise MemoryError("globals")
        for i in range(self.n_globals):
            copy_struct(&self.globals[i], exports[self.module.globals[i]]._global, sizeof(wasmtime_global_t))

    def __dealloc__(self):
        free(self.globals)
        free(self.places)
        free(self.sources)

    # --- once

    def open(self, arguments):
        """Give the module its parameters (Manifest.arguments) and read its Plan."""
        size = len(encode_params(arguments, 0))
        self._reserve(size)
        encoded = encode_params(arguments, self.area)
        memcpy(self._area(size), PyBytes_AS_STRING(encoded), size)
        cdef uint32_t address = self._call(&self.f_open, "tg_open", self.area, 0, 0)
        view = PyMemoryView_FromMemory(<char *>memory_data(self.context, &self.memory), memory_size(self.context, &self.memory), PyBUF_READ)
        try:
            self.plan = Plan.read(view, address)
        except Wrong as wrong:
            raise self.wrong(wrong) from None
        finally:
            view.release()
        if self.plan.error:
            raise self.error(self.plan.error)
        return self.plan

    def bind(self, schema):
        """Fit the plan to the input stream. Returns the Schema of the output. Raises RuleError naming what the stream lacks."""
        cdef uint32_t i
        cdef int source
        binding = self.plan.bind(schema, self.name, self.module.manifest.version)
        self.schema = self.seen = schema
        self.output = binding.output
        self.late = Schema(f"{self.name}.late", schema.fields, schema.version, schema.key, schema.time)
        self.answers = Answers(self.plan, binding, self.late, self.limits.output_bytes)
        free(self.places)
        free(self.sources)
        self.n_places = len(schema.fields) + 1
        self.n_inputs = len(binding.sources)
        self.places = <Place *>calloc(self.n_places, sizeof(Place))
        self.sources = <int *>calloc(self.n_inputs + 1, sizeof(int))
        if self.places == NULL or self.sources == NULL:
            raise MemoryError("inputs")
        for i in range(self.n_inputs):
            source = binding.sources[i]
            self.sources[i] = -1
            if source != ABSENT:
                self.sources[i] = self.n_places - 1 if source == EVENT_TIME else source
                self.places[self.sources[i]].wanted = True
        return self.output

    # --- a batch

    cpdef Result process(self, Batch batch):
        """The rule's answer to a batch of the bound stream; a batch without rows is a tick. Raises RuleError, and is dead then."""
        if self.busy:
            raise RuntimeError(f"rule {self.name} is in use by another thread")
        if self.dead:
            raise self.error("it has trapped and must be made anew")
        if batch.schema is not self.seen:
            if batch.schema != self.schema:
                raise AssertionError(f"rule {self.name} is bound to another schema")
            self.seen = batch.schema
        self.busy = True
        try:
            return self._process(batch)
        finally:
            self.busy = False

    cdef Result _process(self, Batch batch):
        cdef uint32_t head[3]
        cdef uint32_t address
        self._reserve(self._layout(batch, head))
        self._layout(batch, head)            # the area may have moved
        self._write(batch, head)
        address = self._call(&self.f_process, "tg_process", self.area, 0, batch.n)
        try:
            return self.answers.read(memory_data(self.context, &self.memory), memory_size(self.context, &self.memory), address, batch)
        except Wrong as wrong:
            raise self.wrong(wrong) from None

    cdef uint64_t _layout(self, Batch batch, uint32_t *head) except 0:
        """Fill in `places` and `head` for the area as it is. Returns the bytes needed; addresses mean something only if they fit."""
        cdef uint64_t at = self.area + 64 + 24 * <uint64_t>self.n_inputs
        cdef uint32_t i, rows = batch.n
        cdef Place *p
        cdef Column *c
        head[HEAD_KEYS] = batch.columns[batch.key].dict_n if batch.key >= 0 else 0
        at = aligned(at, 8)
        head[HEAD_KEY_WATERMARKS] = <uint32_t>at if head[HEAD_KEYS] else 0
        at += 8 * <uint64_t>head[HEAD_KEYS]
        for i in range(self.n_places):
            p = &self.places[i]
            if not p.wanted:
                continue
            at = aligned(at, 8)
            p.values = <uint32_t>at
            if i == self.n_places - 1:
                p.kind = TIME
                at += 8 * <uint64_t>rows
                continue
            c = &batch.columns[i]
            p.kind = c.kind
            at += <uint64_t>rows * (1 if c.kind == BOOL else 4 if c.kind == STR else 8)
            p.valid = 0
            if c.has_nulls:
                p.valid = <uint32_t>at
                at += (rows + 7) // 8
            if c.kind == STR:
                at = aligned(at, 4)
                p.dict_n = c.dict_n
                p.dict_offsets = <uint32_t>at
                at += 4 * (<uint64_t>c.dict_n + 1)
                p.dict_bytes = <uint32_t>at
                at += c.dict_offsets[c.dict_n]
        head[HEAD_KEY_CODES] = 0
        if batch.key >= 0 and self.places[batch.key].wanted:
            head[HEAD_KEY_CODES] = self.places[batch.key].values
        elif batch.key >= 0:
            at = aligned(at, 4)
            head[HEAD_KEY_CODES] = <uint32_t>at
            at += 4 * <uint64_t>rows
        return at - self.area

    cdef int _write(self, Batch batch, uint32_t *head) except -1:
        """Write the batch into the area, which is large enough, by the layout."""
        cdef uint8_t *memory = memory_data(self.context, &self.memory)
        cdef uint8_t *at = memory + self.area
        cdef uint32_t i, rows = batch.n, r
        cdef int64_t *times
        cdef Place *p
        cdef Column *c
        memset(at, 0, 64)
        put32(at, rows)
        put32(at + 4, self.n_inputs)
        put64(at + 8, <int64_t>batch.first_sequence)
        put64(at + 16, batch.received_ns)
        put64(at + 24, batch.watermark_ns)
        put32(at + 32, (0 if rows else TICK) | (UNSYNCHRONISED if batch.clock == 1 else 0))
        put32(at + 36, head[HEAD_KEYS])
        put32(at + 40, head[HEAD_KEY_WATERMARKS])
        put32(at + 44, head[HEAD_KEY_CODES])
        put32(at + 48, self.area + 64)
        for i in range(self.n_inputs):
            memset(at + 64 + 24 * i, 0, 24)
            if self.sources[i] >= 0:
                p = &self.places[self.sources[i]]
                put32(at + 64 + 24 * i, p.kind)
                memcpy(at + 68 + 24 * i, &p.values, 20)
        if head[HEAD_KEYS]:
            if batch.key_watermarks != NULL and batch.key_watermarks_capacity >= head[HEAD_KEYS]:
                memcpy(memory + head[HEAD_KEY_WATERMARKS], batch.key_watermarks, 8 * <size_t>head[HEAD_KEYS])
            else:
                for i in range(head[HEAD_KEYS]):
                    put64(memory + head[HEAD_KEY_WATERMARKS] + 8 * <size_t>i, INT64_MIN)
        for i in range(self.n_places - 1):
            p = &self.places[i]
            if not p.wanted:
                continue
            c = &batch.columns[i]
            memcpy(memory + p.values, c.values, <size_t>rows * (1 if c.kind == BOOL else 4 if c.kind == STR else 8))
            if p.valid:
                memcpy(memory + p.valid, c.valid, (rows + 7) // 8)
            if c.kind == STR:
                memcpy(memory + p.dict_offsets, c.dict_offsets, 4 * (<size_t>c.dict_n + 1))
                if c.dict_offsets[c.dict_n]:
                    memcpy(memory + p.dict_bytes, c.dict_bytes, c.dict_offsets[c.dict_n])
        p = &self.places[self.n_places - 1]
        if p.wanted:
            times = <int64_t *>(memory + p.values)
            if batch.time >= 0 and not batch.columns[batch.time].has_nulls:
                memcpy(times, batch.columns[batch.time].values, 8 * <size_t>rows)
            else:
                for r in range(rows):
                    times[r] = batch.event_time(r)
        if batch.key >= 0 and not self.places[batch.key].wanted:
            memcpy(memory + head[HEAD_KEY_CODES], batch.columns[batch.key].values, 4 * <size_t>rows)
        return 0

    # --- the module's memory

    cdef int _reserve(self, uint64_t size) except -1:
        """An area of at least `size` bytes; powers of two, so that the module is rarely asked."""
        cdef uint64_t wanted = AREA_MIN
        if self.area and size <= self.area_size:
            return 0
        while wanted < size:
            wanted *= 2
        if wanted > <uint64_t>self.limits.memory_bytes:
            self.dead = True
            raise self.error(f"a call needs {size} bytes of its memory, which may have {self.limits.memory_bytes}: raise the rule's memory limit", "limit")
        cdef uint32_t address = self._call(&self.f_alloc, "tg_alloc", <uint32_t>wanted, 0, 0)
        if address == 0:
            self.dead = True
            raise self.error(f"it has no room for {wanted} bytes of input: raise the rule's memory limit, which is {self.limits.memory_bytes}", "limit")
        if address % 8 or address + wanted > memory_size(self.context, &self.memory):
            raise self.wrong(f"tg_alloc returned {address:#x} for {wanted} bytes, the memory has {memory_size(self.context, &self.memory):#x}")
        self.area, self.area_size = address, <uint32_t>wanted
        return 0

    cdef uint8_t *_area(self, uint64_t size) except NULL:
        if not self.area or size > self.area_size or self.area + <uint64_t>self.area_size > memory_size(self.context, &self.memory):
            raise AssertionError("the area is not there")
        return memory_data(self.context, &self.memory) + self.area

    cdef uint32_t _call(self, wasmtime_func_t *function, what, uint32_t first, uint32_t second, uint32_t rows) except? 0xffffffff:
        cdef wasmtime_error_t *error = NULL
        cdef wasm_trap_t *trap = NULL
        cdef uint32_t result = 0
        cdef int64_t budget = self.time_ns if rows <= 1024 else self.time_ns // 1024 * rows, began
        cdef int over
        with nogil:
            began = now_ns()
            over = call(self.context, function, first, second, budget, &result, &error, &trap)
            self.run_ns += now_ns() - began
        if error == NULL and trap == NULL:
            return result
        self.dead = True
        if trap != NULL:
            raise self._trapped(wasmtime.Trap._from_ptr(ctypes.cast(<uintptr_t>trap, ctypes.POINTER(_ffi.wasm_trap_t))), over, f"in {what}")
        raise self.error(f"{what} failed: {wasmtime.WasmtimeError._from_ptr(ctypes.cast(<uintptr_t>error, ctypes.POINTER(_ffi.wasmtime_error_t)))}", "trap")

    def must_rest(self):
        """Raises RuntimeError unless there is a state: between calls, not after a trap."""
        if self.dead or self.busy:
            raise RuntimeError(f"rule {self.name} has no state between calls: it {'has trapped' if self.dead else 'is running'}")

    def memory_bytes(self):
        """Size of the linear memory now."""
        return memory_size(self.context, &self.memory)

    # --- what goes wrong

    def error(self, what, code="refused", backtrace=None):
        return RuleError(f"rule {self.name}: {what}", code=code, rule=self.name, digest=self.module.digest, backtrace=backtrace)

    def wrong(self, what):
        self.dead = True
        return self.error(f"the module answered nonsense: {what}", "bad output")

    def _trapped(self, trap, over, where):
        self.dead = True
        backtrace = [f"{frame.func_name or f'function {frame.func_index}'} + {frame.func_offset:#x}" for frame in trap.frames[:32]]
        if over:
            return self.error(f"stopped {where}: it took longer than {self.limits.time_ns / 1e6:g} ms (for up to 1,024 rows)", "limit", backtrace)
        reason = next((line.strip() for line in reversed(trap.message.splitlines()) if line.strip()), "unknown")
        return self.error(f"trapped {where}: {reason.removeprefix('wasm trap: ')}", "trap", backtrace)


cdef int copy_struct(void *to, source, size_t size) except -1:
    if ctypes.sizeof(source) != size:
        raise AssertionError("wasmtime's structures are not those that were checked at import")
    memcpy(to, <void *><uintptr_t>ctypes.addressof(source), size)
    return 0
