# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Permission: the topic filters that one connection may publish on, its names already filled in. Asked for each PUBLISH, without the interpreter.

Matching is MQTT 3.1.1 section 4.7. Topics are those that edge/mqtt/_mqtt.pyx has found well-formed: UTF-8, not empty, no wildcard.
"""
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

FILTERS_MAX = 1024                   # of one connection


cdef bint forbidden(const uint8_t *topic, uint32_t size) noexcept nogil:
    cdef uint32_t i
    if size and topic[0] == c'$':
        return True
    for i in range(size):
        if topic[i] < 0x20 or topic[i] == 0x7f or (topic[i] == 0xc2 and i + 1 < size and topic[i + 1] < 0xa0):
            return True
    return False


cdef bint matches(const uint8_t *want, uint32_t n, const uint8_t *topic, uint32_t size) noexcept nogil:
    """Whether the filter want[:n] takes the topic."""
    cdef uint32_t i = 0, k = 0
    while i < n:
        if want[i] == c'#':
            return True
        if want[i] == c'+':
            while k < size and topic[k] != c'/':
                k += 1
            i += 1
        elif k < size and want[i] == topic[k]:
            i += 1
            k += 1
        else:
            return k == size and i + 2 == n and want[i] == c'/' and want[i + 1] == c'#'      # a/# takes a, too
    return k == size


cdef class Permission:
    """filters: at most FILTERS_MAX topic filters, bytes, valid ones."""

    def __cinit__(self, filters):
        cdef uint32_t i
        filters = list(filters)
        assert len(filters) <= FILTERS_MAX, "too many filters for one connection"
        self.text = b"".join(filters)
        self.start = <const uint8_t *><char *>self.text
        self.n = len(filters)
        self.patterns = <Pattern *>malloc((self.n + 1) * sizeof(Pattern))
        if self.patterns == NULL:
            raise MemoryError("permission")
        offset = 0
        for i, text in enumerate(filters):
            self.patterns[i].offset, self.patterns[i].size = offset, len(text)
            offset += len(text)

    def __dealloc__(self):
        free(self.patterns)

    cdef bint allows(self, const uint8_t *topic, uint32_t size) noexcept nogil:
        cdef uint32_t i
        if size == self.last_size and memcmp(topic, self.last, size) == 0:
            return size != 0
        for i in range(self.n):
            if matches(self.start + self.patterns[i].offset, self.patterns[i].size, topic, size):
                if size <= sizeof(self.last):
                    memcpy(self.last, topic, size)
                    self.last_size = size
                return True
        return False

    def may(self, bytes topic not None) -> bool:
        """Whether a PUBLISH on the topic is allowed."""
        cdef const uint8_t *p = <const uint8_t *><char *>topic
        return not forbidden(p, <uint32_t>len(topic)) and self.allows(p, <uint32_t>len(topic))


def is_forbidden(bytes topic not None) -> bool:
    """Whether no device may publish on a topic, whatever its permissions."""
    return forbidden(<const uint8_t *><char *>topic, <uint32_t>len(topic))
