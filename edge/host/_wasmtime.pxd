# cython: language_level=3
"""What the hot path uses of Wasmtime's C API, and the watchdog over running calls. See _wasmtime.pyx."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <stddef.h>
    typedef struct wasmtime_context wasmtime_context_t;
    typedef struct wasmtime_error wasmtime_error_t;
    typedef struct wasm_trap_t wasm_trap_t;
    typedef struct wasm_engine_t wasm_engine_t;
    typedef struct { uint64_t store_id; void *private_; } wasmtime_func_t;
    typedef struct { struct { uint64_t store_id; uint32_t private1; } a; uint32_t private2; } wasmtime_memory_t;
    typedef struct { uint64_t store_id; uint32_t private1, private2, private3; } wasmtime_global_t;
    typedef union { int32_t i32; int64_t i64; double f64; uint8_t v128[16]; void *funcref; } wasmtime_val_raw_t;
    typedef union { int64_t i64; uint8_t bytes[16]; struct { uint64_t store_id; uint32_t private1, private2; void *private3; } ref; } wasmtime_val_of;
    typedef struct { uint8_t kind; wasmtime_val_of of; } wasmtime_val_t;
    typedef wasmtime_error_t *(*tg_call_fn)(wasmtime_context_t *, const wasmtime_func_t *, wasmtime_val_raw_t *, size_t, wasm_trap_t **);
    typedef uint8_t *(*tg_data_fn)(const wasmtime_context_t *, const wasmtime_memory_t *);
    typedef size_t (*tg_size_fn)(const wasmtime_context_t *, const wasmtime_memory_t *);
    typedef void (*tg_deadline_fn)(wasmtime_context_t *, uint64_t);
    typedef void (*tg_global_get_fn)(wasmtime_context_t *, const wasmtime_global_t *, wasmtime_val_t *);
    typedef wasmtime_error_t *(*tg_global_set_fn)(wasmtime_context_t *, const wasmtime_global_t *, const wasmtime_val_t *);
    """
    ctypedef struct wasmtime_context_t:
        pass
    ctypedef struct wasmtime_error_t:
        pass
    ctypedef struct wasm_trap_t:
        pass
    ctypedef struct wasm_engine_t:
        pass
    ctypedef struct wasmtime_func_t:
        pass
    ctypedef struct wasmtime_memory_t:
        pass
    ctypedef struct wasmtime_global_t:
        pass
    ctypedef union wasmtime_val_raw_t:
        int32_t i32
        int64_t i64
    ctypedef union wasmtime_val_of:
        uint8_t bytes[16]
    ctypedef struct wasmtime_val_t:
        uint8_t kind
        wasmtime_val_of of
    ctypedef wasmtime_error_t *(*tg_call_fn)(wasmtime_context_t *, const wasmtime_func_t *, wasmtime_val_raw_t *, size_t, wasm_trap_t **) noexcept nogil
    ctypedef uint8_t *(*tg_data_fn)(const wasmtime_context_t *, const wasmtime_memory_t *) noexcept nogil
    ctypedef size_t (*tg_size_fn)(const wasmtime_context_t *, const wasmtime_memory_t *) noexcept nogil
    ctypedef void (*tg_deadline_fn)(wasmtime_context_t *, uint64_t) noexcept nogil
    ctypedef void (*tg_global_get_fn)(wasmtime_context_t *, const wasmtime_global_t *, wasmtime_val_t *) noexcept nogil
    ctypedef wasmtime_error_t *(*tg_global_set_fn)(wasmtime_context_t *, const wasmtime_global_t *, const wasmtime_val_t *) noexcept nogil

cdef tg_data_fn memory_data
cdef tg_size_fn memory_size
cdef tg_global_get_fn global_get
cdef tg_global_set_fn global_set

cdef int64_t now_ns() noexcept nogil                 # monotonic, for counters of time spent
cdef int call(wasmtime_context_t *context, const wasmtime_func_t *function, uint32_t first, uint32_t second, int64_t budget_ns,
              uint32_t *result, wasmtime_error_t **error, wasm_trap_t **trap) noexcept nogil
