# cython: language_level=3
"""Which topics one connection may publish on. See _permission.pyx."""
from libc.stdint cimport uint8_t, uint32_t

cdef struct Pattern:
    uint32_t offset              # in Permission.text
    uint32_t size

cdef class Permission:
    cdef bytes text              # the filters, one after the other
    cdef const uint8_t *start
    cdef Pattern *patterns
    cdef uint32_t n
    cdef uint8_t last[128]       # the topic that was allowed last: most devices have one
    cdef uint32_t last_size
    cdef bint allows(self, const uint8_t *topic, uint32_t size) noexcept nogil

# A topic that no device has a right to: it begins with $, or holds a control character (U+0000..U+001F, U+007F..U+009F).
cdef bint forbidden(const uint8_t *topic, uint32_t size) noexcept nogil
