# cython: language_level=3
"""Bytes out and bytes in: a growable buffer, a bounded reader, varints, bitmaps and bit-packing.

Integers are little-endian; bits are packed least significant first. An unsigned varint is LEB128 (7 bits a byte,
at most 10 bytes); a signed one is the varint of its zigzag form (0, -1, 1, -2 -> 0, 1, 2, 3).
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the formats are little-endian and are read and written as memory"
    #endif
    static inline int tg_width(uint64_t v) { return v ? 64 - __builtin_clzll(v) : 0; }
    static inline int tg_ctz(uint64_t v) { return __builtin_ctzll(v); }
    static inline int tg_ones(uint64_t v) { return __builtin_popcountll(v); }
    static inline uint64_t tg_load(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
    static inline void tg_store(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }
    static inline uint64_t tg_bits(double d) { uint64_t v; memcpy(&v, &d, 8); return v; }
    static inline double tg_double(uint64_t v) { double d; memcpy(&d, &v, 8); return d; }
    """
    int width64 "tg_width"(uint64_t v) noexcept nogil        # bits needed; 0 for 0
    int trailing64 "tg_ctz"(uint64_t v) noexcept nogil       # v != 0
    int ones64 "tg_ones"(uint64_t v) noexcept nogil
    uint64_t load64 "tg_load"(const uint8_t *p) noexcept nogil
    void store64 "tg_store"(uint8_t *p, uint64_t v) noexcept nogil
    uint64_t double_bits "tg_bits"(double d) noexcept nogil
    double bits_double "tg_double"(uint64_t v) noexcept nogil

cdef struct Out:
    uint8_t *data
    size_t size
    size_t capacity

cdef struct In:
    const uint8_t *p
    const uint8_t *end
    size_t budget                # bytes the reader may still allocate for what it decodes

cdef int room(Out *out, size_t more) except -1 nogil         # at least `more` bytes past size; MemoryError
cdef int put(Out *out, const void *data, size_t size) except -1 nogil
cdef int put_byte(Out *out, uint8_t byte) except -1 nogil
cdef int put_varint(Out *out, uint64_t v) except -1 nogil
cdef int put_signed(Out *out, int64_t v) except -1 nogil
cdef int put_packed(Out *out, const uint64_t *v, uint32_t n, int width) except -1 nogil
cdef int put_bitmap(Out *out, const uint8_t *bits, uint32_t n, uint8_t flag) except -1 nogil

cdef int malformed(const char *what) except -1 nogil         # raises Malformed
cdef int spend(In *src, uint64_t size) except -1 nogil       # takes from the budget
cdef const uint8_t *take(In *src, size_t size) except NULL nogil
cdef int take_byte(In *src) except -1 nogil
cdef int take_varint(In *src, uint64_t *v) except -1 nogil
cdef int take_signed(In *src, int64_t *v) except -1 nogil
cdef int take_packed(In *src, uint64_t *v, uint32_t n, int width) except -1 nogil
cdef int take_bitmap(In *src, uint8_t *bits, uint32_t n, int form) except -1 nogil
cdef uint32_t count_ones(const uint8_t *bits, uint32_t n) noexcept nogil

cdef inline uint64_t zigzag(int64_t v) noexcept nogil:
    return (<uint64_t>v << 1) ^ <uint64_t>(v >> 63)

cdef inline int64_t unzigzag(uint64_t v) noexcept nogil:
    return <int64_t>((v >> 1) ^ (0 - (v & 1)))

cdef inline int varint_size(uint64_t v) noexcept nogil:
    return (width64(v | 1) + 6) // 7
