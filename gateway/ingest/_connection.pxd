# cython: language_level=3
"""One device's connection: bytes in, packets dealt with, acknowledgements out. See _connection.pyx."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from edge.mqtt._intake cimport Intake
from edge.mqtt._mqtt cimport Flow

cdef class Pool:
    """Memory that all connections of a listener share."""
    cdef readonly Intake intake
    cdef uint8_t *scratch            # where connections without an unfinished large packet receive
    cdef readonly uint32_t scratch_size      # bytes of one receive; the scratch is larger by what may be left over before
    cdef readonly uint64_t held      # bytes of unfinished packets, all connections
    cdef readonly uint64_t held_max

cdef class Connection:
    cdef Pool pool
    cdef object sock
    cdef int fd
    cdef bint tls
    cdef readonly Flow flow
    cdef uint8_t *held               # the bytes after the last packet dealt with, from `start` to `end`
    cdef uint32_t start, end, capacity
    cdef uint32_t size_next          # bytes of the packet that begins at `start`, when take() left it to the caller
    cdef readonly int fault
    cdef readonly bint more          # TLS may hold bytes that epoll does not see
    cdef readonly bint whole         # the last receive() took all that it may: more waits, perhaps
    cdef readonly uint64_t bytes_received
    cdef bint resize(self, uint64_t capacity) noexcept nogil
    cdef ssize_t read(self, uint8_t *p, size_t n) except -2
    cdef deal(self, const uint8_t *fresh, uint32_t n)
