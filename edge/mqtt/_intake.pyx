# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Intake: one turn's raw events, a fixed arena. Topics: their names, interned.

Bounds and what happens at them: put() answers False when the arena or the event table is full (the reader stops
reading: back-pressure); Topics.intern() answers NO_TOPIC when the table is full (the owner clears it between two turns,
when no event refers to it: names come back at their next use).
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from edge.columns._hash cimport hash_bytes
from edge.mqtt._permission cimport forbidden


cdef class Topics:
    """Topic names and their ids. Bounded in number and in bytes."""

    def __cinit__(self, uint32_t capacity=16384, uint32_t bytes_max=1 << 20):
        cdef uint32_t slots = 64
        while slots < 2 * capacity:
            slots *= 2
        self.capacity = capacity
        self.bytes_capacity = bytes_max
        self.mask = slots - 1
        self.topics = <TopicSlot *>malloc(<size_t>capacity * sizeof(TopicSlot))
        self.slots = <uint32_t *>calloc(slots, 4)
        self.bytes_ = <uint8_t *>malloc(bytes_max)
        if self.topics == NULL or self.slots == NULL or self.bytes_ == NULL:
            raise MemoryError("topic table")

    def __dealloc__(self):
        free(self.topics)
        free(self.slots)
        free(self.bytes_)

    cdef uint32_t intern(self, const uint8_t *name, uint32_t size) noexcept nogil:
        """The topic's id, or NO_TOPIC when the table is full."""
        cdef uint64_t h = hash_bytes(name, size)
        cdef uint32_t i = <uint32_t>h & self.mask, j
        cdef TopicSlot *t
        while self.slots[i]:
            t = &self.topics[self.slots[i] - 1]
            if t.hash == h and t.size == size and memcmp(self.bytes_ + t.offset, name, size) == 0:
                return self.slots[i] - 1
            i = (i + 1) & self.mask
        if self.n == self.capacity or self.bytes_used + size > self.bytes_capacity:
            return NO_TOPIC
        j = self.n
        t = &self.topics[j]
        t.hash = h
        t.size = size
        t.offset = self.bytes_used
        t.stream = -2
        t.forbidden = forbidden(name, size)
        memcpy(self.bytes_ + self.bytes_used, name, size)
        self.bytes_used += size
        self.n = j + 1
        self.slots[i] = j + 1
        return j

    def __len__(self):
        return self.n

    @property
    def nearly_full(self):
        """More than three quarters used: clear at the next turn."""
        return 4 * self.n > 3 * self.capacity or 4 * self.bytes_used > 3 * self.bytes_capacity

    def clear(self):
        """Forget all names. Only while no intake holds events."""
        self.n = self.bytes_used = 0
        memset(self.slots, 0, (<size_t>self.mask + 1) * 4)

    def id_of(self, bytes name):
        """Intern a name; None when the table is full."""
        cdef uint32_t i = self.intern(name, <uint32_t>len(name))
        return None if i == NO_TOPIC else i

    def name(self, uint32_t i):
        """The topic's bytes."""
        if i >= self.n:
            raise IndexError("no such topic id")
        return (<char *>self.bytes_)[self.topics[i].offset:self.topics[i].offset + self.topics[i].size]


cdef class Intake:
    """Raw events of one turn, in order of arrival."""

    def __cinit__(self, Topics topics, uint32_t events_max=16384, uint32_t bytes_max=4 << 20):
        self.topics = topics
        self.events_max = events_max
        self.bytes_max = bytes_max
        self.events = <RawEvent *>malloc(<size_t>events_max * sizeof(RawEvent))
        self.arena = <uint8_t *>malloc(bytes_max)
        if self.events == NULL or self.arena == NULL:
            raise MemoryError("intake")

    def __dealloc__(self):
        free(self.events)
        free(self.arena)

    cdef bint put(self, uint32_t topic, const uint8_t *payload, uint32_t size, uint16_t packet_id, uint8_t flags) noexcept nogil:
        """Copy an event in; False when there is no room for it this turn."""
        cdef RawEvent *e
        if self.closed or self.n == self.events_max or size > self.bytes_max - self.used:
            return False
        e = &self.events[self.n]
        e.topic = topic
        e.offset = self.used
        e.size = size
        e.packet_id = packet_id
        e.flags = flags
        memcpy(self.arena + self.used, payload, size)
        self.used += size
        self.n += 1
        self.owed += (flags & QOS_MASK) != 0
        self.resent += (flags & DUP) != 0
        return True

    cpdef void clear(self):
        """Forget the events, keep the memory."""
        self.n = self.used = self.owed = self.resent = 0

    def add(self, bytes topic, bytes payload, uint16_t packet_id=0, uint8_t flags=0):
        """Put an event from Python. False when there is no room; then clear and try again."""
        cdef uint32_t i = self.topics.intern(topic, <uint32_t>len(topic))
        return i != NO_TOPIC and self.put(i, payload, <uint32_t>len(payload), packet_id, flags)

    def resent_rows(self, int32_t stream, rejected):
        """Which rows of the stream's batch came with MQTT's DUP flag: a bitmap, the first row its lowest bit, or None where none did. rejected: the decoder's list."""
        if not self.resent:
            return None
        cdef bytes bitmap = PyBytes_FromStringAndSize(NULL, (self.n + 7) // 8)
        cdef uint8_t *bits = <uint8_t *>PyBytes_AS_STRING(bitmap)
        cdef uint32_t i, row = 0, found = 0
        cdef set dead = {index for index, _ in rejected}
        memset(bits, 0, (self.n + 7) // 8)
        for i in range(self.n):
            if self.topics.topics[self.events[i].topic].stream == stream and not (dead and i in dead):
                if self.events[i].flags & DUP:
                    bits[row >> 3] |= <uint8_t>(1 << (row & 7))
                    found += 1
                row += 1
        return bitmap if found else None

    def __len__(self):
        return self.n

    @property
    def half_full(self):
        """Time to empty it, before it holds its readers back."""
        return 2 * self.n >= self.events_max or 2 * self.used >= self.bytes_max

    @property
    def size_bytes(self):
        """Payload bytes held."""
        return self.used

    def __getitem__(self, uint32_t i):
        """(topic, payload, packet id, flags) of event i."""
        if i >= self.n:
            raise IndexError("no such event")
        cdef RawEvent *e = &self.events[i]
        return self.topics.name(e.topic), (<char *>self.arena)[e.offset:e.offset + e.size], e.packet_id, e.flags
