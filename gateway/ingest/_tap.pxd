# cython: language_level=3
"""The tap: PUBLISH out of a broker's byte stream, in bulk. See _tap.pyx."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from edge.mqtt._intake cimport Intake
from edge.mqtt._mqtt cimport Flow, Frame
from edge.mqtt._mqtt_session cimport Run

cdef class Tap:
    cdef object sock
    cdef int fd
    cdef bint tls
    cdef Intake intake
    cdef readonly Flow flow
    cdef uint8_t *data               # received bytes from `start` to `end`
    cdef uint32_t start, end, capacity
    cdef Run control                 # bytes that are paho's
    cdef uint64_t pass_left          # bytes of the packet now begun that are not here yet and go to paho ...
    cdef uint64_t skip_left          # ... or to nobody: the packet is larger than the limit
    cdef int owner                   # whose packet is half sent: nobody's, paho's, ours
    cdef readonly bint ended         # the broker closed
    cdef readonly bint full          # the last fill() stopped because the intake is full
    cdef readonly bint more          # the socket may hold more than one fill() takes
    cdef readonly int fault
    cdef readonly uint64_t bytes_received
    cdef public uint64_t skipped     # packets larger than the limit: acknowledged and not taken
    cdef int deal(self) except -1 nogil
    cdef int skip(self, const uint8_t *p) noexcept nogil
    cdef ssize_t read(self, uint8_t *p, size_t n) except -2
