# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Connection: one device's socket, without a protocol state machine: that is the listener's.

A connection without an unfinished packet holds no receive buffer: it reads into the pool's scratch, and only what is left
over (the beginning of a packet, or whole packets that the intake had no room for) moves into a buffer of its own, which is
freed when it is empty. So idle devices cost a socket and an object each. The rest of a large packet is received into that
buffer directly, or a packet that comes in small pieces would be copied again and again.

Bounds: one receive() takes 256 KiB at most (fairness). A buffer grows to the packet's limit, or to one receive() of whole
packets. All buffers together stay below Pool.held_max; the connection that would pass it is dropped (FAULT_MEMORY).
"""
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove
from edge.mqtt._intake cimport Intake
from edge.mqtt._mqtt cimport FAULT_MEMORY, Flow, Frame, STOP_FAULT, STOP_FULL, STOP_MORE, STOP_OTHER, Taken, frame
from edge.mqtt._mqtt_session cimport Run
import os
from gateway import secure as ssl

from edge.errors import ConfigError

cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_recv "recv"(int fd, void *buffer, size_t size, int flags)
    ssize_t c_send "send"(int fd, const void *buffer, size_t size, int flags)
    int MSG_DONTWAIT, MSG_NOSIGNAL

cdef enum:
    LEFT_BYTES_MAX = 32 << 10        # the beginning of a packet up to here is copied to the scratch, to go on there

MORE, OTHER, FULL, FAULT, CLOSED = STOP_MORE, STOP_OTHER, STOP_FULL, STOP_FAULT, -1


cdef extern from *:
    """
    #ifdef __GLIBC__
    #include <malloc.h>
    static void give_back(void) { malloc_trim(0); }
    #else
    static void give_back(void) { }
    #endif
    """
    void give_back() nogil


def give_memory_back():
    """Pages that are free go back to the system: after a large block glibc keeps the next ones of its size."""
    with nogil:
        give_back()


cdef class Pool:

    def __cinit__(self, Intake intake not None, *, uint32_t packet_bytes_max, uint32_t scratch_size=1 << 18, uint64_t held_max=8 << 20):
        if packet_bytes_max > intake.bytes_max:
            raise ConfigError(f"packets of {packet_bytes_max} bytes do not fit the intake of {intake.bytes_max}: allow smaller ones")
        self.intake = intake
        self.scratch_size = scratch_size
        self.held_max = held_max
        self.scratch = <uint8_t *>malloc(LEFT_BYTES_MAX + <size_t>scratch_size)
        if self.scratch == NULL:
            raise MemoryError("receive buffer")

    def __dealloc__(self):
        free(self.scratch)


cdef class Connection:

    def __cinit__(self, Pool pool not None, sock, Flow flow not None):
        self.pool = pool
        self.sock = sock
        self.fd = sock.fileno()
        self.tls = isinstance(sock, ssl.SSLSocket)
        self.flow = flow

    def __dealloc__(self):
        self.resize(0)

    cdef bint resize(self, uint64_t capacity) noexcept nogil:
        """Make `held` that large (0: free it). False: the pool or the machine has no memory."""
        cdef uint8_t *held
        if capacity == 0:
            free(self.held)
            self.held = NULL
            self.start = self.end = 0
        else:
            if capacity > self.capacity and self.pool.held + (capacity - self.capacity) > self.pool.held_max:
                return False
            held = <uint8_t *>realloc(self.held, capacity)
            if held == NULL:
                return False
            self.held = held
        self.pool.held += capacity
        self.pool.held -= self.capacity
        self.capacity = <uint32_t>capacity
        return True

    cdef ssize_t read(self, uint8_t *p, size_t n) except -2:
        """Bytes received; 0: the peer is done; -1: nothing there. OSError."""
        cdef ssize_t got
        cdef int e
        self.more = False
        if not self.tls:
            with nogil:
                got = c_recv(self.fd, p, n, MSG_DONTWAIT)
                e = errno
            if got < 0 and e != EAGAIN and e != EINTR:
                raise OSError(e, os.strerror(e))
            return got
        cdef size_t filled = 0
        cdef size_t part
        while filled < n:
            try:
                part = self.sock.recv_into(PyMemoryView_FromMemory(<char *>p + filled, n - filled, PyBUF_WRITE))
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return filled if filled else -1
            if part == 0:
                return filled                    # the end is seen again at the next read
            filled += part
        self.more = True
        return filled

    def receive(self, uint32_t size_max=1 << 18):
        """Read once, size_max bytes at most, and deal with the packets. MORE, OTHER, FULL, FAULT or CLOSED. OSError.

        After OTHER take packet(), then go on with resume(); after FULL come back with resume() when the intake is empty.
        """
        cdef ssize_t got
        cdef uint64_t room
        cdef uint32_t left = self.end - self.start
        size_max = min(size_max, self.pool.scratch_size)
        if left <= LEFT_BYTES_MAX:
            if left:
                memcpy(self.pool.scratch, self.held + self.start, left)
            got = self.read(self.pool.scratch + left, size_max)
            self.whole = got == size_max
            if got <= 0:
                return CLOSED if got == 0 else MORE
            self.bytes_received += got
            self.resize(0)
            return self.deal(self.pool.scratch, left + <uint32_t>got)
        if self.start:
            memmove(self.held, self.held + self.start, self.end - self.start)
            self.end -= self.start
            self.start = 0
        if self.end == self.capacity:
            room = 2 * <uint64_t>self.capacity
            if room > <uint64_t>self.flow.packet_bytes_max + 1024:
                room = max(<uint64_t>self.flow.packet_bytes_max, <uint64_t>self.capacity) + 1024
            if not self.resize(room):
                self.fault = FAULT_MEMORY
                return FAULT
        got = self.read(self.held + self.end, min(size_max, self.capacity - self.end))
        self.whole = got == size_max
        if got <= 0:
            return CLOSED if got == 0 else MORE
        self.bytes_received += got
        self.end += <uint32_t>got
        return self.resume()

    def resume(self):
        """Deal with bytes received earlier. As receive()."""
        return self.deal(NULL, 0)

    cdef deal(self, const uint8_t *fresh, uint32_t n):
        cdef const uint8_t *p = fresh
        cdef Taken taken
        cdef Frame f
        cdef int stop
        if fresh == NULL:
            p = self.held + self.start
            n = self.end - self.start
        with nogil:
            stop = self.flow.take(p, n, self.pool.intake, &taken)
        if stop == STOP_FAULT:
            self.fault = taken.fault
            return FAULT
        if stop == STOP_OTHER:
            frame(p + taken.consumed, n - taken.consumed, &f)
            self.size_next = f.size
        if fresh == NULL:
            self.start += <uint32_t>taken.consumed
            if self.start == self.end:
                self.resize(0)
        elif taken.consumed < n:
            n -= <uint32_t>taken.consumed
            if not self.resize(max(n, 512)):
                self.fault = FAULT_MEMORY
                return FAULT
            memcpy(self.held, fresh + taken.consumed, n)
            self.end = n
        return stop

    def packet(self):
        """The packet that OTHER announced, whole."""
        cdef uint32_t size = self.size_next
        assert 0 < size <= self.end - self.start
        data = (<char *>self.held)[self.start:self.start + size]
        self.start += size
        self.size_next = 0
        if self.start == self.end:
            self.resize(0)
        return data

    @property
    def waiting(self):
        """Bytes not sent yet."""
        return self.flow.answers.end - self.flow.answers.start

    @property
    def owes(self):
        """Whether acknowledgements wait for the disk."""
        return self.flow.acks.end != 0

    def acknowledge(self):
        """The events are durable: send their acknowledgements. Bytes left to send. OSError."""
        cdef Run acks = self.flow.acks
        if not self.flow.answers.append(acks.data, acks.end):
            raise OSError("out of memory for acknowledgements")
        acks.sent(acks.end)
        self.flow.acknowledged()
        return self.flush()

    def flush(self):
        """Send what is to be sent. Bytes left to send. OSError."""
        cdef Run run = self.flow.answers
        cdef ssize_t sent
        cdef int e
        while run.start < run.end:
            if self.tls:
                try:
                    sent = self.sock.send(PyMemoryView_FromMemory(<char *>run.data + run.start, run.end - run.start, PyBUF_READ))
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    break
            else:
                with nogil:
                    sent = c_send(self.fd, run.data + run.start, run.end - run.start, MSG_DONTWAIT | MSG_NOSIGNAL)
                    e = errno
                if sent < 0:
                    if e == EAGAIN or e == EINTR:
                        break
                    raise OSError(e, os.strerror(e))
            run.sent(<uint32_t>sent)
        return run.end - run.start

    def close(self):
        """Free the buffers; the socket is the owner's to close. Events already taken stay in the intake."""
        self.resize(0)
        self.fd = -1
