# cython: language_level=3
"""What a rule answered to a batch. See _result.pyx."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from edge.columns._batch cimport Batch, Column

cdef enum:
    IMAGE = 8                    # address of the Result that Result.write() writes

cdef class Result:
    cdef readonly uint32_t selected_count    # filter: input rows that pass
    cdef readonly uint32_t late_count        # input rows that came too late
    cdef readonly uint32_t ignored           # input rows that the rule could not use
    cdef readonly uint32_t out_count         # rows that out() gives
    cdef bytes selected                      # bitmaps over the input rows, or None
    cdef bytes lates
    cdef Batch emitted
    cdef Answers answers

    cdef void stamp(self, Batch batch) noexcept

    cdef uint64_t image_size(self, uint32_t rows)
    cdef void write(self, uint8_t *to, uint32_t rows) noexcept
    cdef void _write_column(self, uint8_t *to, uint64_t *at, uint8_t *entry, Column *c) noexcept

cdef class Answers:
    cdef bint emits
    cdef uint32_t n_outputs
    cdef int *columns                        # for each output of the plan its column of the output schema, -1 where left out
    cdef uint8_t *widths                     # of a value, for each output of the plan
    cdef uint64_t bytes_max                  # of values, validity and strings together
    cdef object output                       # Schemas
    cdef object late

    cdef Result read(self, const uint8_t *memory, uint64_t size, uint32_t address, uint32_t rows)
    cdef Batch _rows(self, const uint8_t *memory, uint64_t size, uint32_t rows, uint32_t columns)
    cdef int _column(self, const uint8_t *memory, uint64_t size, const uint8_t *at, Batch out, uint32_t i, uint64_t *total) except -1
    cdef int _strings(self, const uint8_t *memory, uint64_t size, const uint32_t *column, const uint8_t *valid, Batch out, uint32_t i,
                      uint64_t *total) except -1
