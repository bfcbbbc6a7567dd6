# cython: language_level=3
"""Which events of a stream came before. See _repeats.pyx."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from edge.columns._batch cimport Batch, Column

cdef struct Slot:                # of a key; its ids follow, ids_max of them
    uint64_t used                # Repeats.clock when an event of the key was last taken
    uint32_t n                   # ids that are there
    uint32_t next                # where the next one goes

cdef struct Known:               # a key of the batch at hand
    uint64_t hash
    uint32_t slot

cdef class Repeats:
    cdef readonly uint32_t keys_max, ids_max, window
    cdef readonly uint64_t clock # events taken
    cdef object tag              # what the state belongs to
    cdef uint32_t field          # column of the id
    cdef bint whole              # the rest of the row counts too
    cdef uint32_t n, allocated, stride
    cdef uint8_t *memory         # n slots of `stride` bytes
    cdef list names              # bytes, by slot
    cdef dict slots              # bytes -> slot
    cdef Known *known            # scratch: per dictionary code of the batch at hand
    cdef uint32_t known_allocated
    cdef uint64_t *recent        # marks of the stream's last `window` events: that of event n at n % window
    cdef uint32_t *newest        # by the mark's lowest bits: the newest event that has them, modulo 2^32; `window` of them
    cdef uint32_t *older         # by n % window: the newest event before n that has the same lowest bits

    cdef Slot *slot(self, uint32_t i) noexcept nogil
    cdef uint32_t _walk(self, Batch batch, uint8_t *fresh, const char *resent) except? 0xffffffff
    cdef uint32_t _slot_for(self, Batch batch, uint32_t code) except? 0xffffffff
    cdef int _make_room(self) except -1
    cdef int _know(self, Column *key) except -1
    cdef int _restore(self, bytes marks) except -1
    cdef uint64_t _mark(self, Batch batch, uint32_t row) noexcept nogil
    cdef void _keep(self, uint64_t mark) noexcept nogil
    cdef bint _came(self, uint64_t mark) noexcept nogil
