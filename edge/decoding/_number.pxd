# cython: language_level=3
"""One decoded value, and numbers exactly: decimal text to binary64, i64 and nanoseconds. See _number.pyx."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    int ctz64 "__builtin_ctzll"(unsigned long long) noexcept nogil

cdef enum Kind:                  # what a payload holds
    NULL_ = 0
    BOOLEAN = 1                  # i: 0 or 1
    INTEGER = 2                  # i
    DECIMAL = 3                  # (-1)^negative * mantissa * 10^exponent, and the text it came from
    FLOAT = 4                    # f
    STRING = 5                   # text, size; escaped: still with JSON escapes
    ARRAY = 6
    OBJECT = 7
    BINARY = 8
    TIMESTAMP = 9                # i: nanoseconds
    EXTENSION = 10

cdef enum Status:                # of a conversion, and of a field of the event at hand
    ABSENT = 0
    TAKEN = 1
    WRONG_TYPE = 2
    NOT_FINITE = 3
    NOT_INTEGRAL = 4
    OUT_OF_RANGE = 5
    NOT_A_TIME = 6
    LONE_SURROGATE = 7
    NOT_UTF8 = 8
    NOT_READABLE = 9             # raw or topic text that is not of the type

cdef struct Value:
    uint8_t kind
    bint negative
    bint integral                # DECIMAL: written without point and exponent
    bint inexact                 # DECIMAL: non-zero digits beyond the 19 of mantissa
    bint escaped
    int32_t exponent
    uint32_t size
    uint64_t mantissa
    int64_t i
    double f
    const uint8_t *text          # STRING, or the number as written; NULL for a msgpack number

cdef enum:
    DIGITS_MAX = 4300            # of an integer: Python's own limit

cdef int to_double(const Value *v, double *out) except -1 nogil
cdef int to_i64(const Value *v, int64_t *out) noexcept nogil
cdef int to_ns(const Value *v, int32_t power, int64_t *out) noexcept nogil
cdef int rfc3339_ns(const uint8_t *p, uint32_t size, int64_t *out) noexcept nogil
cdef const uint8_t *scan_long(const uint8_t *p, const uint8_t *end, Value *v) noexcept nogil

cdef inline uint64_t load8(const uint8_t *p) noexcept nogil:
    cdef uint64_t w
    memcpy(&w, p, 8)
    return w

cdef inline bint eight_digits(uint64_t w) noexcept nogil:
    return ((w & 0xF0F0F0F0F0F0F0F0ULL) | (((w + 0x0606060606060606ULL) & 0xF0F0F0F0F0F0F0F0ULL) >> 4)) == 0x3333333333333333ULL

cdef inline uint32_t value_of_eight(uint64_t w) noexcept nogil:
    # Mula's and Lemire's: pairs, then fours, then all eight
    w -= 0x3030303030303030ULL
    w = w * 10 + (w >> 8)
    return <uint32_t>(((w & 0x000000FF000000FFULL) * 0x000F424000000064ULL +
                       ((w >> 16) & 0x000000FF000000FFULL) * 0x0000271000000001ULL) >> 32)

cdef inline const uint8_t *digits_of(const uint8_t *p, const uint8_t *end, uint64_t *m) noexcept nogil:
    """Past the digits at p, folded into m modulo 2^64."""
    cdef uint64_t sum = m[0], w
    while end - p >= 8:
        w = load8(p)
        if not eight_digits(w):
            break
        sum = sum * 100000000 + value_of_eight(w)
        p += 8
    while p < end and <uint8_t>(p[0] - 48) <= 9:
        sum = sum * 10 + <uint8_t>(p[0] - 48)
        p += 1
    m[0] = sum
    return p

cdef inline const uint8_t *scan_number(const uint8_t *p, const uint8_t *end, Value *v) noexcept nogil:
    """Past the JSON number at p (RFC 8259 section 6) with v set to it; NULL when there is none. Never reads at end."""
    cdef const uint8_t *start = p
    cdef const uint8_t *first
    cdef uint64_t m = 0
    cdef int64_t digits
    v.negative = p < end and p[0] == c'-'
    p += v.negative
    first = p
    if p == end or <uint8_t>(p[0] - 48) > 9:
        return NULL
    p = p + 1 if p[0] == c'0' else digits_of(p, end, &m)
    digits = p - first
    if p == end or (p[0] != c'.' and (p[0] | 32) != c'e'):
        if digits < 19 or (digits == 19 and m <= <uint64_t>0x7fffffffffffffffULL):
            v.kind = INTEGER
            v.i = -<int64_t>m if v.negative else <int64_t>m
            v.text = start
            v.size = <uint32_t>(p - start)
            return p
        return scan_long(start, end, v)
    v.exponent = 0
    if p[0] == c'.':
        p += 1
        first = p
        p = digits_of(p, end, &m)
        if p == first:
            return NULL
        v.exponent = <int32_t>(first - p)
        digits += p - first
    if digits > 19 or (p < end and (p[0] | 32) == c'e'):
        return scan_long(start, end, v)
    v.kind = DECIMAL
    v.integral = v.inexact = False
    v.mantissa = m
    v.text = start
    v.size = <uint32_t>(p - start)
    return p
