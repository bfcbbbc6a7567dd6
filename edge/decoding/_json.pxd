# cython: language_level=3
"""Reading JSON out of a byte range: the steps that the projection decoder and loads() share. See _json.pyx.

Every step takes (p, end), never reads at or past end, and returns the position behind what it read, or NULL with fault and at set.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from edge.decoding._number cimport (BOOLEAN, FLOAT, NULL_, STRING, Value, ctz64, load8, scan_number)

cdef enum:
    DEPTH_MAX = 512              # open objects and arrays

cdef enum Fault:
    MALFORMED = 1
    TOO_DEEP = 2

cdef struct Reader:
    const uint8_t *at            # where reading failed
    uint8_t fault
    uint32_t depth               # open objects and arrays
    uint8_t[DEPTH_MAX] closers   # of each: } or ]

cdef const uint8_t *odd_string(const uint8_t *p, const uint8_t *end, Reader *r, bint *escaped) noexcept nogil
cdef const uint8_t *skip_container(const uint8_t *p, const uint8_t *end, Reader *r) noexcept nogil
cdef const uint8_t *read_word(const uint8_t *p, const uint8_t *end, Reader *r, Value *v) noexcept nogil
cdef uint32_t unescape(const uint8_t *text, uint32_t size, uint8_t *out, bint *lone) noexcept nogil
cdef const uint8_t *utf8_run(const uint8_t *p, const uint8_t *end) noexcept nogil
cdef bint is_utf8(const uint8_t *p, const uint8_t *end) noexcept nogil

cdef inline const uint8_t *fail(Reader *r, const uint8_t *at) noexcept nogil:
    r.fault = MALFORMED
    r.at = at
    return NULL

cdef inline const uint8_t *blank(const uint8_t *p, const uint8_t *end) noexcept nogil:
    while p < end and p[0] <= 32 and (p[0] == 32 or p[0] == 10 or p[0] == 13 or p[0] == 9):
        p += 1
    return p

cdef inline const uint8_t *expect(const uint8_t *p, const uint8_t *end, uint8_t c, Reader *r) noexcept nogil:
    """Past blanks and then c."""
    if p < end and p[0] == c:
        return p + 1
    p = blank(p, end)
    if p == end or p[0] != c:
        return fail(r, p)
    return p + 1

cdef inline const uint8_t *open_(const uint8_t *p, Reader *r) noexcept nogil:
    """Past the { or [ at p."""
    if r.depth == DEPTH_MAX:
        r.fault = TOO_DEEP
        r.at = p
        return NULL
    r.closers[r.depth] = p[0] + 2                # ASCII: [ ] and { } are two apart
    r.depth += 1
    return p + 1

cdef inline const uint8_t *scan_string(const uint8_t *p, const uint8_t *end, Reader *r, bint *escaped) noexcept nogil:
    """Past the closing quote of the string whose content starts at p. The content is valid UTF-8; escaped tells of backslashes."""
    cdef uint64_t w, quote, slash
    escaped[0] = False
    while end - p >= 8:
        w = load8(p)
        # the lowest marked byte is exact: a borrow makes false marks only above a true one
        quote = w ^ 0x2222222222222222ULL
        slash = w ^ 0x5C5C5C5C5C5C5C5CULL
        quote = (((quote - 0x0101010101010101ULL) & ~quote) | ((slash - 0x0101010101010101ULL) & ~slash) |
                 (w - 0x2020202020202020ULL) | w) & 0x8080808080808080ULL
        if quote:
            p += ctz64(quote) >> 3
            break
        p += 8
    while p < end and p[0] != c'"' and p[0] != c'\\' and 32 <= p[0] < 128:
        p += 1
    if p < end and p[0] == c'"':
        return p + 1
    return odd_string(p, end, r, escaped)

cdef inline const uint8_t *read_scalar(const uint8_t *p, const uint8_t *end, Reader *r, Value *v) noexcept nogil:
    """Past the string, number or word at p < end; v is set."""
    cdef const uint8_t *start = p
    if p[0] == c'"':
        v.kind = STRING
        v.text = p + 1
        p = scan_string(p + 1, end, r, &v.escaped)
        v.size = <uint32_t>(p - v.text - 1)
        return p
    if p[0] == c'-' or <uint8_t>(p[0] - 48) <= 9:
        p = scan_number(p, end, v)
        if p != NULL:
            return p
    return read_word(start, end, r, v)       # -Infinity looks like a number at first

cdef inline const uint8_t *skip(const uint8_t *p, const uint8_t *end, Reader *r) noexcept nogil:
    """Past the value at p < end, checked like any other."""
    cdef Value v
    if p[0] == c'{' or p[0] == c'[':
        return skip_container(p, end, r)
    return read_scalar(p, end, r, &v)
