# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Instance: a module at work for one rule, by rules/ABI.md. One call a batch; only the columns that are asked for are copied.

Life: Instance(...) -> open(arguments) -> bind(schema) -> process(batch) ... A trap, a value that cannot be, or too much time ends it (`dead`):
make a new one, and restore() what snapshot() gave before (both in _state.pyx). What the module returns is checked in _result.pyx (per batch) and plan.py (once).

What is written into its memory for a call is laid out by _inputs.pyx. Addresses are u32; sizes are computed in 64 bits and compared with the memory.
"""
import ctypes

import wasmtime
from wasmtime import _ffi

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory

from edge.columns._batch cimport Batch
from edge.host._inputs cimport Inputs
from edge.host._result cimport Answers, Result
from edge.host._wasmtime cimport (call, memory_data, memory_size, now_ns, wasm_trap_t, wasmtime_error_t, wasmtime_func_t, wasmtime_global_t, wasmtime_memory_t)
from edge.host._wasmtime import instantiate

from edge.columns.schema import Schema
from edge.errors import RuleError
from edge.host.engine import engine
from edge.host.plan import Plan, Wrong, encode_params

cdef enum:
    PAGE = 65536
    AREA_MIN = 4096


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
        binding = self.plan.bind(schema, self.name, self.module.manifest.version)
        self.schema = self.seen = schema
        self.output = binding.output
        self.late = Schema(f"{self.name}.late", schema.fields, schema.version, schema.key, schema.time)
        self.answers = Answers(self.plan, binding, self.late, self.limits.output_bytes)
        self.inputs = Inputs(binding.sources, len(schema.fields))
        return self.output

    # --- a batch

    cpdef Result process(self, Batch batch):
        """The rule's answer to a batch of the bound stream; a batch without rows is a tick. Raises RuleError, and is dead then."""
        cdef Result result
        if batch.schema is not self.seen:
            if batch.schema != self.schema:
                raise AssertionError(f"rule {self.name} is bound to another schema")
            self.seen = batch.schema
        self._enter()
        try:
            self._reserve(self.inputs.lay_out(batch))
            self.inputs.write(batch, self._area(0), self.area)
            result = self._answer(batch.n)
        finally:
            self.busy = False
        result.stamp(batch)
        return result

    cdef Result answer(self, const uint8_t *written, uint64_t size, uint32_t rows):
        """Likewise, for a batch that Inputs has written elsewhere, for the area as it is."""
        self._enter()
        try:
            memcpy(self._area(size), written, size)
            return self._answer(rows)
        finally:
            self.busy = False

    cdef int _enter(self) except -1:
        if self.busy:
            raise RuntimeError(f"rule {self.name} is in use by another thread")
        if self.dead:
            raise self.error("it has trapped and must be made anew")
        self.busy = True
        return 0

    cdef Result _answer(self, uint32_t rows):
        cdef uint32_t address = self._call(&self.f_process, "tg_process", self.area, 0, rows)
        try:
            return self.answers.read(memory_data(self.context, &self.memory), memory_size(self.context, &self.memory), address, rows)
        except Wrong as wrong:
            raise self.wrong(wrong) from None

    # --- the module's memory

    def reserve(self, uint64_t size):
        """See to an area of at least `size` bytes."""
        self.must_rest()
        self._reserve(size)

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
