# cython: language_level=3
"""Event-time progress of a stream, by key. See _watermark.pyx."""
from libc.stdint cimport int64_t, uint32_t

from edge.columns._batch cimport Batch

cdef struct KeyTime:
    int64_t latest_ns            # largest event time seen, capped at its receive time + skew
    int64_t received_ns          # receive time of the key's last event
    int64_t watermark_ns         # never goes back

cdef class Watermarks:
    cdef int64_t lateness_ns, idle_ns, skew_ns, forget_ns
    cdef uint32_t capacity       # keys at most
    cdef uint32_t n
    cdef uint32_t allocated
    cdef KeyTime *times          # slot i belongs to names[i]
    cdef list names              # bytes
    cdef dict slots              # bytes -> slot
    cdef int64_t *latest         # scratch: per dictionary code of the batch at hand
    cdef uint32_t latest_allocated
    cdef readonly int64_t merged_ns

    cdef int _ensure(self, uint32_t keys, uint32_t codes) except -1
    cdef int _advance(self, uint32_t slot, int64_t latest_ns, int64_t received_ns) except -1
    cdef int _make_room(self, Batch batch) except -1
    cdef int _forget(self, uint32_t slot) except -1
    cdef Batch _note(self, list ticks, schema, uint32_t slot, int64_t received_ns)
    cdef bytes _name(self, Batch batch, uint32_t code)
    cpdef observe(self, Batch batch)
