# cython: language_level=3
"""Which events of a stream came before. See _repeats.pyx."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from edge.columns._batch cimport Batch

cdef struct Slot:                # of a key; its ids follow, ids_max of them
    uint64_t used                # Repeats.clock when an event of the key was last taken
    uint32_t n                   # ids that are there
    uint32_t next                # where the next one goes

cdef class Repeats:
    cdef readonly uint32_t keys_max, ids_max
    cdef readonly uint64_t clock # events taken
    cdef object tag              # what the state belongs to
    cdef uint32_t field          # column of the id
    cdef bint whole              # the rest of the row counts too
    cdef uint32_t n, allocated, stride
    cdef uint8_t *memory         # n slots of `stride` bytes
    cdef list names              # bytes, by slot
    cdef dict slots              # bytes -> slot
    cdef uint32_t *slot_of       # scratch: per dictionary code of the batch at hand
    cdef uint32_t slot_of_allocated

    cdef Slot *slot(self, uint32_t i) noexcept nogil
    cdef uint32_t _walk(self, Batch batch, uint8_t *fresh) except? 0xffffffff
    cdef uint32_t _slot_for(self, Batch batch, uint32_t code) except? 0xffffffff
    cdef int _make_room(self) except -1
    cdef uint64_t _mark(self, Batch batch, uint32_t row) noexcept nogil
