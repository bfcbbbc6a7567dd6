# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Run: short packets in a row, waiting to be sent. PacketIds: the QoS 2 messages of a session that are under way.

Bounds: a run is as long as its owner lets it become (1 GiB at most); packet ids are 65535, in a bitmap of 8 KiB.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy


cdef class Run:

    def __dealloc__(self):
        free(self.data)

    cdef bint append(self, const uint8_t *p, uint32_t n) noexcept nogil:
        """False: out of memory, and nothing is appended."""
        cdef uint64_t capacity = self.capacity
        cdef uint8_t *data
        if n > self.capacity - self.end:
            capacity = capacity if capacity else 64
            while capacity < <uint64_t>self.end + n:
                capacity *= 2
            if capacity > 1 << 30:
                return False
            data = <uint8_t *>realloc(self.data, capacity)
            if data == NULL:
                return False
            self.data = data
            self.capacity = <uint32_t>capacity
        memcpy(self.data + self.end, p, n)
        self.end += n
        return True

    cdef bint add(self, uint8_t first, uint16_t packet_id) noexcept nogil:
        """PUBACK, PUBREC or PUBCOMP with success: four bytes in both versions."""
        cdef uint8_t packet[4]
        packet[0] = first
        packet[1] = 2
        packet[2] = packet_id >> 8
        packet[3] = packet_id & 0xff
        return self.append(packet, 4)

    cdef void sent(self, uint32_t n) noexcept nogil:
        """The first n waiting bytes are gone. An empty run gives its memory back."""
        self.start += n
        if self.start == self.end:
            self.start = self.end = 0
            if self.capacity > 256:
                free(self.data)
                self.data = NULL
                self.capacity = 0

    def __len__(self):
        return self.end - self.start

    def __bytes__(self):
        return (<char *>self.data)[self.start:self.end] if self.end > self.start else b""

    def extend(self, bytes packet not None):
        """Append a packet. MemoryError."""
        if not self.append(<const uint8_t *><char *>packet, <uint32_t>len(packet)):
            raise MemoryError("send buffer")


cdef class PacketIds:

    def __dealloc__(self):
        free(self.bits)

    cdef bint has(self, uint16_t i) noexcept nogil:
        return self.bits != NULL and self.bits[i >> 3] >> (i & 7) & 1

    cdef bint add(self, uint16_t i) noexcept nogil:
        """False: out of memory."""
        if self.bits == NULL:
            self.bits = <uint8_t *>calloc(8192, 1)
            if self.bits == NULL:
                return False
        if not self.has(i):
            self.bits[i >> 3] |= <uint8_t>(1 << (i & 7))
            self.n += 1
        return True

    cdef bint remove(self, uint16_t i) noexcept nogil:
        """Whether it was there."""
        if not self.has(i):
            return False
        self.bits[i >> 3] &= <uint8_t>~(1 << (i & 7))
        self.n -= 1
        if self.n == 0:
            self.clear()
        return True

    cdef void clear(self) noexcept nogil:
        """Forget all of them."""
        free(self.bits)
        self.bits = NULL
        self.n = 0

    def __len__(self):
        return self.n
