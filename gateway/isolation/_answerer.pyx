# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The worker's end of the channel: see _channel.pyx. It is not in the daemon, which has no use for Wasmtime."""
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from edge.host._instance cimport Instance
from edge.host._result cimport Result
from gateway.isolation._channel cimport BEGUN, PAYLOAD, Channel, Head
from gateway.isolation._channel import DONE, GONE, RUNNING

cdef extern from *:
    """
    #include <stdatomic.h>
    #include <unistd.h>
    static void tg_fence(void) { atomic_thread_fence(memory_order_seq_cst); }
    """
    ssize_t read(int fd, void *data, size_t size) nogil
    ssize_t write(int fd, const void *data, size_t size) nogil
    void tg_fence() noexcept nogil


cdef class Answerer(Channel):
    """The worker's end."""

    def next(self) -> int:
        """Wait for a request. Its kind, GONE when the daemon is."""
        cdef char byte
        cdef ssize_t n
        with nogil:
            while True:
                n = read(self.fd, &byte, 1)
                if n >= 0 or errno != EINTR:
                    break
        if n != 1:
            return GONE
        tg_fence()
        memcpy(&self.head, self.memory, sizeof(Head))
        if self.head.kind in RUNNING:
            (<uint32_t *>(self.memory + BEGUN))[0] = self.head.serial
            tg_fence()
        return self.head.kind

    def process(self, Instance instance):
        """Answer PROCESS. Raises RuleError, and there is no answer."""
        cdef uint32_t rows = <uint32_t>self.head.a
        cdef Result result = instance.answer(self.memory + PAYLOAD, self.head.size, rows)
        cdef uint64_t size = result.image_size(rows)
        if size > self.size - PAYLOAD:
            raise instance.error(f"it put out {size} bytes, more than goes to the gateway at once", "limit")
        if size:
            result.write(self.memory + PAYLOAD, rows)
        self._reply(DONE, size, 0, instance)
        self._wake()

    def answer(self, uint32_t kind, parts=(), *, Instance instance=None, uint64_t a=0):
        cdef uint64_t size = 0
        self._put(parts, &size)
        self._reply(kind, size, a, instance)
        self._wake()

    cdef int _reply(self, uint32_t kind, uint64_t size, uint64_t a, Instance instance) except -1:
        cdef Head head
        memset(&head, 0, sizeof(head))
        head.kind, head.number, head.serial, head.size, head.a = kind, self.head.number, self.head.serial, size, a
        if instance is not None:
            head.dead, head.run_ns = instance.dead, instance.run_ns
            head.area, head.area_size = instance.area, instance.area_size
            head.memory_bytes = instance.memory_bytes()
        memcpy(self.memory, &head, sizeof(Head))
        tg_fence()
        return 0

    cdef int _wake(self) except -1:
        cdef char byte = 1
        cdef ssize_t n
        with nogil:
            while True:
                n = write(self.fd, &byte, 1)
                if n == 1 or errno != EINTR:
                    break
        return 0
