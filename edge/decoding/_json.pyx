# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A JSON reader (RFC 8259) over bytes that end where they end: no terminator is needed, nothing behind them is read.

It accepts and rejects what Python's `json.loads(data.decode())` does, and gives the same values:
NaN, Infinity and -Infinity are numbers; of equal names the last wins; escaped halves of surrogate pairs are accepted in strings;
control characters in strings, a byte order mark, invalid UTF-8 anywhere and integers of more than 4300 digits are rejected.
One bound differs: more than DEPTH_MAX open objects and arrays are rejected as too deep.
"""
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp

from edge.decoding._number cimport DECIMAL, INTEGER, to_double

cdef double INFINITE = float("inf"), NOT_A_NUMBER = float("nan")


cdef const uint8_t *utf8_run(const uint8_t *p, const uint8_t *end) noexcept nogil:
    """Past the characters beyond ASCII at p (RFC 3629: no overlong forms, no surrogates); NULL where they are not UTF-8."""
    cdef uint8_t c, low, high
    cdef int more
    while p < end and p[0] >= 0x80:
        c = p[0]
        low, high = 0x80, 0xBF
        if 0xC2 <= c <= 0xDF:
            more = 1
        elif 0xE0 <= c <= 0xEF:
            more = 2
            if c == 0xE0:
                low = 0xA0
            elif c == 0xED:
                high = 0x9F
        elif 0xF0 <= c <= 0xF4:
            more = 3
            if c == 0xF0:
                low = 0x90
            elif c == 0xF4:
                high = 0x8F
        else:
            return NULL
        if end - p <= more or not low <= p[1] <= high:
            return NULL
        if more >= 2 and p[2] & 0xC0 != 0x80:
            return NULL
        if more == 3 and p[3] & 0xC0 != 0x80:
            return NULL
        p += more + 1
    return p


cdef bint is_utf8(const uint8_t *p, const uint8_t *end) noexcept nogil:
    while p < end:
        while end - p >= 8 and load8(p) & 0x8080808080808080ULL == 0:
            p += 8
        while p < end and p[0] < 0x80:
            p += 1
        p = utf8_run(p, end)
        if p == NULL:
            return False
    return True


cdef inline int hex_digit(uint8_t c) noexcept nogil:
    if <uint8_t>(c - 48) <= 9:
        return c - 48
    c |= 32
    return c - 87 if c'a' <= c <= c'f' else -1


cdef inline uint32_t hex4(const uint8_t *p) noexcept nogil:
    """The number of four hexadecimal digits; above 0xFFFF when they are none."""
    cdef uint32_t value = 0
    cdef int i, d
    for i in range(4):
        d = hex_digit(p[i])
        if d < 0:
            return 0x10000
        value = value * 16 + <uint32_t>d
    return value


cdef const uint8_t *odd_string(const uint8_t *p, const uint8_t *end, Reader *r, bint *escaped) noexcept nogil:
    """The rest of a string from a byte that is not plain ASCII text."""
    cdef const uint8_t *q
    while p < end:
        if p[0] == c'"':
            return p + 1
        if p[0] == c'\\':
            escaped[0] = True
            if end - p < 2:
                return fail(r, end)
            if p[1] == c'u':
                if end - p < 6 or hex4(p + 2) > 0xFFFF:
                    return fail(r, p)
                p += 6
            elif p[1] in (c'"', c'\\', c'/', c'b', c'f', c'n', c'r', c't'):
                p += 2
            else:
                return fail(r, p)
        elif p[0] < 32:
            return fail(r, p)
        elif p[0] < 128:
            p += 1
        else:
            q = utf8_run(p, end)
            if q == NULL:
                return fail(r, p)
            p = q
    return fail(r, end)


cdef uint32_t unescape(const uint8_t *text, uint32_t size, uint8_t *out, bint *lone) noexcept nogil:
    """A scanned string's UTF-8 into out, which has room for size bytes; the bytes written.

    lone is set when half a surrogate pair stands alone; it is written like any other character of its number.
    """
    cdef const uint8_t *p = text
    cdef const uint8_t *end = text + size
    cdef uint8_t *o = out
    cdef uint32_t c, d
    lone[0] = False
    while p < end:
        if p[0] != c'\\':
            o[0] = p[0]
            o += 1
            p += 1
            continue
        c = p[1]
        p += 2
        if c != c'u':
            o[0] = 8 if c == c'b' else 12 if c == c'f' else 10 if c == c'n' else 13 if c == c'r' else 9 if c == c't' else <uint8_t>c
            o += 1
            continue
        c = hex4(p)
        p += 4
        if 0xD800 <= c < 0xDC00 and end - p >= 6 and p[0] == c'\\' and p[1] == c'u':
            d = hex4(p + 2)
            if 0xDC00 <= d < 0xE000:
                c = 0x10000 + ((c - 0xD800) << 10) + (d - 0xDC00)
                p += 6
        if 0xD800 <= c < 0xE000:
            lone[0] = True
        o = put_utf8(o, c)
    return <uint32_t>(o - out)


cdef inline uint8_t *put_utf8(uint8_t *o, uint32_t c) noexcept nogil:
    if c < 0x80:
        o[0] = <uint8_t>c
        return o + 1
    if c < 0x800:
        o[0] = <uint8_t>(0xC0 | c >> 6)
        o[1] = <uint8_t>(0x80 | c & 63)
        return o + 2
    if c < 0x10000:
        o[0] = <uint8_t>(0xE0 | c >> 12)
        o[1] = <uint8_t>(0x80 | c >> 6 & 63)
        o[2] = <uint8_t>(0x80 | c & 63)
        return o + 3
    o[0] = <uint8_t>(0xF0 | c >> 18)
    o[1] = <uint8_t>(0x80 | c >> 12 & 63)
    o[2] = <uint8_t>(0x80 | c >> 6 & 63)
    o[3] = <uint8_t>(0x80 | c & 63)
    return o + 4


cdef const uint8_t *read_word(const uint8_t *p, const uint8_t *end, Reader *r, Value *v) noexcept nogil:
    """true, false, null, NaN, Infinity."""
    if p[0] == c't' and end - p >= 4 and memcmp(p, b"true", 4) == 0:
        v.kind, v.i = BOOLEAN, 1
        return p + 4
    if p[0] == c'f' and end - p >= 5 and memcmp(p, b"false", 5) == 0:
        v.kind, v.i = BOOLEAN, 0
        return p + 5
    if p[0] == c'n' and end - p >= 4 and memcmp(p, b"null", 4) == 0:
        v.kind = NULL_
        return p + 4
    if p[0] == c'N' and end - p >= 3 and memcmp(p, b"NaN", 3) == 0:
        v.kind, v.f = FLOAT, NOT_A_NUMBER
        return p + 3
    if p[0] == c'I' and end - p >= 8 and memcmp(p, b"Infinity", 8) == 0:
        v.kind, v.f = FLOAT, INFINITE
        return p + 8
    if p[0] == c'-' and end - p >= 9 and memcmp(p, b"-Infinity", 9) == 0:
        v.kind, v.f = FLOAT, -INFINITE
        return p + 9
    return fail(r, p)


cdef const uint8_t *member_name(const uint8_t *p, const uint8_t *end, Reader *r) noexcept nogil:
    """Past `"name" :`."""
    cdef bint escaped
    p = expect(p, end, c'"', r)
    if p == NULL:
        return NULL
    p = scan_string(p, end, r, &escaped)
    if p == NULL:
        return NULL
    return expect(p, end, c':', r)


cdef const uint8_t *skip_container(const uint8_t *p, const uint8_t *end, Reader *r) noexcept nogil:
    """Past the object or array at p, without recursion."""
    cdef uint32_t base = r.depth
    cdef uint8_t closer
    cdef Value v
    cdef bint opened
    while True:                                  # p is at a value
        opened = p[0] == c'{' or p[0] == c'['
        p = open_(p, r) if opened else read_scalar(p, end, r, &v)
        if p == NULL:
            return NULL
        while True:                              # p is behind a value, or behind an opening bracket
            closer = r.closers[r.depth - 1]
            p = blank(p, end)
            if p < end and p[0] == closer:
                r.depth -= 1
                p += 1
                opened = False
                if r.depth == base:
                    return p
                continue
            if not opened:
                p = expect(p, end, c',', r)
                if p == NULL:
                    return NULL
            break
        if closer == c'}':
            p = member_name(p, end, r)
            if p == NULL:
                return NULL
        p = blank(p, end)
        if p == end:
            return fail(r, p)


# --- whole documents as Python objects: tools and tests

cdef object build_string(const uint8_t *text, uint32_t size, bint escaped):
    cdef uint8_t *out
    cdef bint lone
    cdef uint32_t n
    if not escaped:
        return (<char *>text)[:size].decode()
    out = <uint8_t *>malloc(size)
    if out == NULL:
        raise MemoryError("string")
    try:
        n = unescape(text, size, out, &lone)
        return (<char *>out)[:n].decode("utf-8", "surrogatepass")
    finally:
        free(out)


cdef object build_number(Value *v):
    cdef double d
    if v.kind == INTEGER:
        return v.i
    if v.kind == DECIMAL and v.integral:
        return int((<char *>v.text)[:v.size])
    to_double(v, &d)
    return d


cdef const uint8_t *build(const uint8_t *p, const uint8_t *end, Reader *r, list out) except? NULL:
    """Append the value at p to out. Recursion is bounded by DEPTH_MAX."""
    cdef Value v
    cdef const uint8_t *name
    cdef bint escaped, members
    cdef list items
    cdef dict table
    p = blank(p, end)
    if p == end:
        return fail(r, p)
    if p[0] != c'{' and p[0] != c'[':
        p = read_scalar(p, end, r, &v)
        if p != NULL:
            out.append(None if v.kind == NULL_ else v.i != 0 if v.kind == BOOLEAN else
                       build_string(v.text, v.size, v.escaped) if v.kind == STRING else build_number(&v))
        return p
    members = p[0] == c'{'
    items, table = [], {}
    p = open_(p, r)
    if p == NULL:
        return NULL
    p = blank(p, end)
    if p < end and p[0] == r.closers[r.depth - 1]:
        p += 1
    else:
        while True:
            if members:
                name = expect(p, end, c'"', r)
                if name == NULL:
                    return NULL
                p = scan_string(name, end, r, &escaped)
                if p == NULL:
                    return NULL
                key = build_string(name, <uint32_t>(p - name - 1), escaped)
                p = expect(p, end, c':', r)
                if p == NULL:
                    return NULL
            p = build(p, end, r, items)
            if p == NULL:
                return NULL
            if members:
                table[key] = items.pop()
            p = blank(p, end)
            if p < end and p[0] == r.closers[r.depth - 1]:
                p += 1
                break
            p = expect(p, end, c',', r)
            if p == NULL:
                return NULL
    r.depth -= 1
    out.append(table if members else items)
    return p


def loads(bytes data):
    """The document's value. Raises ValueError: not JSON at byte N, or nested too deep."""
    cdef Reader r
    cdef const uint8_t *start = data
    cdef const uint8_t *end = start + len(data)
    cdef const uint8_t *p
    cdef list out = []
    r.depth = r.fault = 0
    p = build(start, end, &r, out)
    if p != NULL:
        p = blank(p, end)
        if p != end:
            p = fail(&r, p)
    if p == NULL:
        raise ValueError(f"{'too deep' if r.fault == TOO_DEEP else 'not JSON'} at byte {r.at - start}")
    return out[0]
