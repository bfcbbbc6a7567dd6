# cython: language_level=3
"""Raw events on their way from a socket to a decoder. See _intake.pyx."""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    QOS_MASK = 3
    RETAIN = 4
    DUP = 8
    NO_TOPIC = 0xffffffff

cdef struct RawEvent:
    uint32_t topic               # id in Topics
    uint32_t offset              # payload in the arena
    uint32_t size
    uint16_t packet_id           # 0 at QoS 0
    uint8_t flags                # QoS | RETAIN | DUP

cdef struct TopicSlot:
    uint64_t hash
    uint32_t offset              # name in Topics.bytes_
    uint32_t size
    bint forbidden               # to devices, see _permission.pyx
    int32_t stream               # set by the router: position of the stream, -1 none matches, -2 not looked up yet

cdef class Topics:
    cdef uint32_t n              # topics known
    cdef uint32_t capacity       # topics at most
    cdef TopicSlot *topics
    cdef uint32_t *slots         # hash table of id + 1
    cdef uint32_t mask
    cdef uint8_t *bytes_
    cdef uint32_t bytes_used
    cdef uint32_t bytes_capacity
    cdef uint32_t intern(self, const uint8_t *name, uint32_t size) noexcept nogil

cdef class Intake:
    cdef readonly Topics topics
    cdef RawEvent *events
    cdef uint32_t n
    cdef uint32_t events_max
    cdef readonly uint32_t owed  # events to be acknowledged: QoS 1 and 2
    cdef uint32_t resent         # events that bear DUP
    cdef uint8_t *arena
    cdef uint32_t used
    cdef uint32_t bytes_max
    cdef public bint closed      # takes nothing: what it holds waits for the disk
    cpdef void clear(self)
    cdef bint put(self, uint32_t topic, const uint8_t *payload, uint32_t size, uint16_t packet_id, uint8_t flags) noexcept nogil
