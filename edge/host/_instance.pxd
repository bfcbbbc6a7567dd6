# cython: language_level=3
"""A rule's instance: one store, one memory. See _instance.pyx; its state is the business of _state.pyx."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from edge.columns._batch cimport Batch
from edge.host._inputs cimport Inputs
from edge.host._result cimport Answers, Result
from edge.host._wasmtime cimport wasmtime_context_t, wasmtime_func_t, wasmtime_global_t, wasmtime_memory_t

cdef class Instance:
    cdef readonly str name
    cdef readonly object module              # edge.host.module.Module
    cdef readonly object limits
    cdef readonly object plan                # after open()
    cdef readonly object output              # after bind(): Schema of what the rule puts out
    cdef readonly object late
    cdef readonly bint dead                  # it trapped: only good for being thrown away
    cdef readonly int64_t run_ns             # time spent in the module
    cdef int64_t time_ns
    cdef bint busy                           # a thread is in it
    cdef object store, memory_object, exports, schema, seen
    cdef wasmtime_context_t *context
    cdef wasmtime_memory_t memory
    cdef wasmtime_func_t f_abi, f_alloc, f_open, f_process
    cdef wasmtime_global_t *globals
    cdef uint32_t n_globals
    cdef uint32_t area, area_size            # of tg_alloc; 0 before the first call
    cdef Answers answers
    cdef Inputs inputs

    cdef uint32_t _call(self, wasmtime_func_t *function, what, uint32_t first, uint32_t second, uint32_t rows) except? 0xffffffff
    cdef int _reserve(self, uint64_t size) except -1
    cdef uint8_t *_area(self, uint64_t size) except NULL
    cpdef Result process(self, Batch batch)
    cdef Result answer(self, const uint8_t *written, uint64_t size, uint32_t rows)
    cdef int _enter(self) except -1
    cdef Result _answer(self, uint32_t rows)

cdef int copy_struct(void *to, source, size_t size) except -1    # one of wasmtime-py's structures
