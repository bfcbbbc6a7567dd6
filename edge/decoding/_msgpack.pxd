# cython: language_level=3
"""Reading MessagePack out of a byte range. See _msgpack.pyx. Positions, Reader and faults as in _json.pxd."""
from libc.stdint cimport uint8_t, uint64_t

from edge.decoding._json cimport Reader
from edge.decoding._number cimport Value

cdef const uint8_t *read_head(const uint8_t *p, const uint8_t *end, Reader *r, Value *v) noexcept nogil
cdef const uint8_t *skip_items(const uint8_t *p, const uint8_t *end, Reader *r, uint64_t count) noexcept nogil
