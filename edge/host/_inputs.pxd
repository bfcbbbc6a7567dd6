# cython: language_level=3
"""How a rule's input is laid out. See _inputs.pyx."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from edge.columns._batch cimport Batch

cdef struct Place:               # where a column of the input stands, in bytes from the start of the area; 0 is nowhere
    bint wanted                  # an input asks for it
    uint8_t kind
    uint32_t values, valid, dict_n, dict_offsets, dict_bytes

cdef class Inputs:
    cdef Place *places                       # the stream's columns, then the event time
    cdef uint32_t n_places
    cdef int *sources                        # for each input of the plan its place, -1 where absent
    cdef uint32_t n_inputs
    cdef uint32_t keys, key_watermarks, key_codes        # what lay_out says to write: how many, and where

    cdef uint64_t lay_out(self, Batch batch) except 0
    cdef int write(self, Batch batch, uint8_t *to, uint32_t address) except -1
