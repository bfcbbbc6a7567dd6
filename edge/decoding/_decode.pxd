# cython: language_level=3
"""Raw events to rows. See _decode.pyx."""
from libc.stdint cimport uint8_t, uint32_t

from edge.decoding._json cimport Reader
from edge.decoding._projection cimport Projection
from edge.mqtt._intake cimport Intake

cdef struct Rejection:
    uint32_t event
    uint32_t field               # NONE: the payload itself
    uint32_t at                  # byte, when the payload is malformed or too deep
    uint8_t status               # Status of the field, or Fault of the payload
    uint8_t found

cdef class Decoder:
    cdef Projection plan
    cdef uint8_t format
    cdef Rejection *rejections
    cdef uint32_t rejections_n
    cdef uint32_t rejections_capacity

    cdef int read_event(self, Projection plan, Intake intake, uint32_t index, Reader *r) except -1 nogil
    cdef int reject(self, uint32_t event, uint32_t field, uint32_t at, uint8_t status) except -1 nogil
    cdef object reason(self, Rejection *r)
    cdef int read_topic(self, Intake intake, uint32_t topic) except -1 nogil

cdef const uint8_t *walk_json(Projection plan, uint32_t at, const uint8_t *p, const uint8_t *end, Reader *r) except? NULL nogil
cdef const uint8_t *walk_msgpack(Projection plan, uint32_t at, const uint8_t *p, const uint8_t *end, Reader *r) except? NULL nogil
