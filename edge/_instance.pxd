# cython: language_level=3
"""A rule's instance: one store, one memory. See _instance.pyx; its state is the business of _state.pyx."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from edge._batch cimport Batch
from edge._result cimport Answers, Result
from edge._wasmtime cimport wasmtime_context_t, wasmtime_func_t, wasmtime_global_t, wasmtime_memory_t

cdef struct Place:               # where a column of the input stands in the area, addresses; 0 is nowhere
    bint wanted                  # an input asks for it
    uint8_t kind
    uint32_t values, valid, dict_n, dict_offsets, dict_bytes

cdef class Instance:
    cdef readonly str name
    cdef readonly object module              # edge.module.Module
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
    cdef Place *places                       # the stream's columns, then the event time
    cdef uint32_t n_places
    cdef int *sources                        # for each input of the plan its place, -1 where absent
    cdef uint32_t n_inputs

    cdef uint32_t _call(self, wasmtime_func_t *function, what, uint32_t first, uint32_t second, uint32_t rows) except? 0xffffffff
    cdef int _reserve(self, uint64_t size) except -1
    cdef uint8_t *_area(self, uint64_t size) except NULL
    cdef uint64_t _layout(self, Batch batch, uint32_t *head) except 0
    cdef int _write(self, Batch batch, uint32_t *head) except -1
    cpdef Result process(self, Batch batch)
    cdef Result _process(self, Batch batch)

cdef int copy_struct(void *to, source, size_t size) except -1    # one of wasmtime-py's structures
