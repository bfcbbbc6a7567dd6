# cython: language_level=3
"""What an MQTT connection or session keeps: packets to send, packet ids seen. See _mqtt_session.pyx."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef class Run:
    """Short packets in a row, encoded, waiting to be sent."""
    cdef uint8_t *data
    cdef readonly uint32_t start     # bytes sent already
    cdef readonly uint32_t end
    cdef uint32_t capacity
    cdef bint append(self, const uint8_t *p, uint32_t n) noexcept nogil
    cdef bint add(self, uint8_t first, uint16_t packet_id) noexcept nogil
    cdef void sent(self, uint32_t n) noexcept nogil

cdef class PacketIds:
    """The packet ids of QoS 2 messages received and not yet released. A bitmap made at the first use."""
    cdef uint8_t *bits
    cdef readonly uint32_t n
    cdef bint has(self, uint16_t i) noexcept nogil
    cdef bint add(self, uint16_t i) noexcept nogil
    cdef bint remove(self, uint16_t i) noexcept nogil
    cdef void clear(self) noexcept nogil
