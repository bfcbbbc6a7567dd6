# cython: language_level=3
"""A batch: events of one stream as typed columns in plain C memory. See _batch.pyx for the class's contract."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    F64 = 1
    I64 = 2
    BOOL = 3
    STR = 4
    TIME = 5

cdef struct DictSlot:            # open addressing; a slot belongs to the current rows when generation matches
    uint32_t generation
    uint32_t code
    uint64_t hash

cdef struct Column:
    uint8_t kind                 # F64 .. TIME
    bint has_nulls               # False: every row is valid and `valid` need not be read
    uint8_t *valid               # bitmap, least significant bit first, ceil(capacity / 8) bytes
    void *values                 # F64 double[n]; I64, TIME int64[n]; BOOL uint8[n]; STR uint32 codes[n]; 0 where null
    uint32_t dict_n              # STR: distinct strings, in order of first appearance
    uint32_t *dict_offsets       # STR: dict_n + 1 positions in dict_bytes
    uint8_t *dict_bytes          # STR: UTF-8
    uint32_t dict_capacity       # strings that dict_offsets has room for
    uint32_t dict_bytes_capacity
    DictSlot *slots
    uint32_t slot_mask
    uint32_t generation

cdef class Batch:
    cdef readonly object schema
    cdef uint32_t n              # rows
    cdef uint32_t capacity       # rows there is memory for
    cdef uint32_t width          # columns
    cdef Column *columns
    cdef int key                 # position of the key column, -1 if none
    cdef int time                # position of the event-time column, -1 if none
    cdef public uint64_t first_sequence
    cdef public int64_t received_ns
    cdef public uint8_t clock    # 0 wall clock trusted, 1 not yet synchronised, 2 re-timed afterwards
    cdef int64_t *key_watermarks # key column's dict_n entries, or NULL: set by Watermarks, not stored
    cdef uint32_t key_watermarks_capacity
    cdef public int64_t watermark_ns

    cpdef void clear(self)
    cdef int _grow_dict(self, Column *c, uint32_t strings) except -1 nogil
    cdef int reserve_dict(self, uint32_t column, uint32_t strings, uint32_t size) except -1 nogil
    cdef list _column(self, uint32_t i)
    cdef int reserve(self, uint32_t rows) except -1 nogil
    cdef int reserve_watermarks(self) except -1 nogil
    cdef uint32_t add_row(self) except? 0xffffffff nogil
    cdef void pop_row(self) noexcept nogil
    cdef void set_null(self, uint32_t column, uint32_t row) noexcept nogil
    cdef void set_f64(self, uint32_t column, uint32_t row, double value) noexcept nogil
    cdef void set_i64(self, uint32_t column, uint32_t row, int64_t value) noexcept nogil
    cdef void set_bool(self, uint32_t column, uint32_t row, bint value) noexcept nogil
    cdef int set_str(self, uint32_t column, uint32_t row, const uint8_t *text, uint32_t size) except -1 nogil
    cdef uint32_t intern(self, uint32_t column, const uint8_t *text, uint32_t size) except? 0xffffffff nogil
    cdef int64_t event_time(self, uint32_t row) noexcept nogil
    cdef Batch gather(self, const uint8_t *bitmap)
    cdef int append_rows(self, Batch other, uint32_t start, uint32_t stop) except -1

cdef inline bint bit(const uint8_t *bitmap, uint32_t i) noexcept nogil:
    return (bitmap[i >> 3] >> (i & 7)) & 1

cdef inline bint is_null(Column *column, uint32_t row) noexcept nogil:
    return column.has_nulls and not bit(column.valid, row)
