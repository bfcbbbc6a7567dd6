# cython: language_level=3
"""The shared memory between the daemon and the worker. See _channel.pyx."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from edge.columns._batch cimport Batch
from edge.host._inputs cimport Inputs
from edge.host._result cimport Answers, Result

cdef enum:
    PAYLOAD = 128
    BEGUN = 64                   # where the serial of the request stands whose module code was begun

cdef struct Head:                # 56 bytes at the start of the memory; a request's, then its answer's
    uint32_t kind                # what is asked; how it went
    uint32_t number              # of the instance or of the code that is meant
    uint32_t serial              # counts requests; an answer has its request's
    uint32_t dead                # the instance is only good for being thrown away
    uint64_t size                # bytes of payload
    uint64_t a                   # as the kind says
    int64_t run_ns               # the instance's, since it was made
    uint64_t memory_bytes
    uint32_t area, area_size

cdef class Channel:
    cdef uint8_t *memory         # Head | serial of the request whose module code was begun, u32 | payload at PAYLOAD
    cdef uint64_t size
    cdef int fd
    cdef Head head               # this side's own copy of the last one that came

    cdef int _put(self, parts, uint64_t *size) except -1

cdef class Asker(Channel):
    cdef int clock               # CPU time of the worker
    cdef uint8_t *copy           # of an answer's payload
    cdef uint64_t copy_room
    cdef uint64_t used           # bytes of the memory that requests and answers have used since it was last let go
    cdef int64_t took
    cdef bint busy

    cdef int _begin(self) except -1
    cdef int _finish(self, Head *head, int64_t cpu_ns, int64_t wall_ns) except -1
    cdef int _copy(self) except -1
    cdef int _exchange(self, int64_t cpu_ns, int64_t wall_ns) except -1
    cdef int _recv(self, int64_t cpu_ns, int64_t wall_ns) noexcept nogil
    cdef int _let_go(self) except -1
