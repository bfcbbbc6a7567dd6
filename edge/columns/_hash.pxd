# cython: language_level=3
"""A hash for tables in memory that compare on a hit: a multiply-fold of 8-byte words, in the manner of wyhash. Kept nowhere."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline uint64_t hash_bytes(const uint8_t *p, uint32_t n) noexcept nogil:
    cdef uint64_t h = 0x9E3779B97F4A7C15ULL ^ (<uint64_t>n * 0xff51afd7ed558ccdULL), w
    while n >= 8:
        memcpy(&w, p, 8)
        h = (h ^ w) * 0x9FB21C651E98DF25ULL
        h ^= h >> 32
        p += 8
        n -= 8
    w = 0
    memcpy(&w, p, n)
    h = (h ^ w) * 0xD6E8FEB86659FD93ULL
    return h ^ (h >> 32)
