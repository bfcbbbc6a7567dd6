# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A MessagePack reader (github.com/msgpack/msgpack, spec.md) over bytes; never reads at or past their end.

All formats. Strings must be UTF-8, wherever they stand. Extension types are passed over, but for timestamps (type -1), which are values.
More than DEPTH_MAX open arrays and maps are too deep; a count is believed only as far as there are bytes.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from edge.decoding._json cimport DEPTH_MAX, TOO_DEEP, Reader, fail, is_utf8
from edge.decoding._number cimport (ARRAY, BINARY, BOOLEAN, DECIMAL, EXTENSION, FLOAT, INTEGER, NULL_, OBJECT, STRING, TIMESTAMP, Value)

cdef extern from *:
    bint add_overflows "__builtin_add_overflow"(int64_t, int64_t, int64_t *) noexcept nogil
    bint mul_overflows "__builtin_mul_overflow"(int64_t, int64_t, int64_t *) noexcept nogil


cdef inline uint64_t big_endian(const uint8_t *p, int width) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(width):
        value = value << 8 | p[i]
    return value


cdef inline const uint8_t *whole(int64_t value, const uint8_t *p, Value *v) noexcept nogil:
    v.kind = INTEGER
    v.i = value
    return p


cdef const uint8_t *read_text(const uint8_t *p, const uint8_t *end, uint64_t size, Reader *r, Value *v, uint8_t kind) noexcept nogil:
    if size > <uint64_t>(end - p):
        return fail(r, end)
    v.kind = kind
    v.escaped = False
    v.text = p
    v.size = <uint32_t>size
    if kind == STRING and not is_utf8(p, p + size):
        return fail(r, p)
    return p + size


cdef void read_timestamp(const uint8_t *p, uint64_t size, Value *v) noexcept nogil:
    """A timestamp's nanoseconds; one that is malformed or beyond i64 stays an extension."""
    cdef uint64_t word, ns = 0
    cdef int64_t seconds, total
    if size == 4:
        seconds = <int64_t>big_endian(p, 4)
    elif size == 8:
        word = big_endian(p, 8)
        ns = word >> 34
        seconds = <int64_t>(word & 0x3ffffffffULL)
    elif size == 12:
        ns = big_endian(p, 4)
        seconds = <int64_t>big_endian(p + 4, 8)
    else:
        return
    if ns > 999999999:
        return
    total = <int64_t>ns
    if seconds < 0 and ns:                       # so that the earliest i64 is reached without an overflow on the way
        seconds, total = seconds + 1, total - 1000000000
    if mul_overflows(seconds, 1000000000, &seconds) or add_overflows(seconds, total, &total):
        return
    v.kind = TIMESTAMP
    v.i = total


cdef const uint8_t *read_extension(const uint8_t *p, const uint8_t *end, uint64_t size, Reader *r, Value *v) noexcept nogil:
    """From the type byte on."""
    if end - p < 1 or size > <uint64_t>(end - p - 1):
        return fail(r, end)
    v.kind = EXTENSION
    if p[0] == 0xff:
        read_timestamp(p + 1, size, v)
    return p + 1 + size


cdef const uint8_t *read_head(const uint8_t *p, const uint8_t *end, Reader *r, Value *v) noexcept nogil:
    """Past a scalar, or past the head of an array or map whose number of elements or members is then v.i."""
    cdef uint8_t c
    cdef uint32_t single
    cdef float narrow
    cdef uint64_t n
    cdef int width
    if p >= end:
        return fail(r, end)
    c = p[0]
    p += 1
    if c < 0x80:
        return whole(c, p, v)
    if c >= 0xe0:
        return whole(<int8_t>c, p, v)
    if c < 0xa0:
        v.kind = OBJECT if c < 0x90 else ARRAY
        v.i = c & 15
        return p
    if c < 0xc0:
        return read_text(p, end, c & 31, r, v, STRING)
    if c == 0xc0:
        v.kind = NULL_
        return p
    if c == 0xc2 or c == 0xc3:
        v.kind = BOOLEAN
        v.i = c & 1
        return p
    if c == 0xc1:
        return fail(r, p - 1)
    if 0xd4 <= c <= 0xd8:
        return read_extension(p, end, 1ULL << (c - 0xd4), r, v)
    # from here on a number of `width` bytes follows, big-endian
    if c >= 0xdc:
        width = 2 if c & 1 == 0 else 4
    elif c >= 0xd9:
        width = 1 << (c - 0xd9)
    elif c >= 0xcc:
        width = 1 << ((c - 0xcc) & 3)
    elif c >= 0xca:
        width = 4 if c == 0xca else 8
    else:
        width = 1 << ((c - 0xc4) % 3)
    if end - p < width:
        return fail(r, end)
    n = big_endian(p, width)
    p += width
    if c >= 0xdc:
        v.kind = ARRAY if c < 0xde else OBJECT
        v.i = <int64_t>n
        return p
    if c >= 0xd9:
        return read_text(p, end, n, r, v, STRING)
    if c >= 0xd0:
        return whole(<int8_t>n if width == 1 else <int16_t>n if width == 2 else <int32_t>n if width == 4 else <int64_t>n, p, v)
    if c == 0xcf and n > 0x7fffffffffffffffULL:
        v.kind, v.negative, v.integral, v.inexact = DECIMAL, False, True, False
        v.mantissa, v.exponent, v.text = n, 0, NULL
        return p
    if c >= 0xcc:
        return whole(<int64_t>n, p, v)
    if c >= 0xca:
        v.kind = FLOAT
        if c == 0xcb:
            memcpy(&v.f, &n, 8)
        else:
            single = <uint32_t>n
            memcpy(&narrow, &single, 4)
            v.f = narrow
        return p
    if c >= 0xc7:
        return read_extension(p, end, n, r, v)
    return read_text(p, end, n, r, v, BINARY)


cdef const uint8_t *skip_items(const uint8_t *p, const uint8_t *end, Reader *r, uint64_t count) noexcept nogil:
    """Past `count` values and all that is in them, without recursion."""
    cdef uint64_t[DEPTH_MAX] left                # of each container opened here
    cdef uint32_t opened = 0
    cdef Value v
    cdef const uint8_t *start
    while True:
        while count == 0:
            if opened == 0:
                return p
            opened -= 1
            count = left[opened]
        count -= 1
        start = p
        p = read_head(p, end, r, &v)
        if p == NULL:
            return NULL
        if v.kind == ARRAY or v.kind == OBJECT:
            if r.depth + opened >= DEPTH_MAX:
                r.fault = TOO_DEEP
                r.at = start
                return NULL
            left[opened] = count
            opened += 1
            count = <uint64_t>v.i << (v.kind == OBJECT)
