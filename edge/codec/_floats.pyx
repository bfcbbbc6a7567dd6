# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A float series as bytes: a head byte, then what it says (drawn in docs/format/batch.md). Bit-exact for every double.

    head 0 .. 15      decimals: an integer series k, value = k / 10^head
    head 16 + e       the same with exceptions: bitmap of the rows, then their 8 bytes each; k repeats its predecessor there
    head 32, 33       XOR with the previous value, or with the previous value of the same key
    head 34           plain, 8 bytes each
    head 35           constant, 8 bytes once

Decimals are ALP's observation (Afroozeh et al., SIGMOD 2023): what a sensor reports is nearly always a short decimal, and
then the integer of its digits says all. Dividing by an exact power of ten rounds correctly, so a |k| < 2^51 gives back the
double that any correct reader makes of the same digits. -0.0, NaN and infinities are exceptions.
XOR is Gorilla's (Pelkonen et al., VLDB 2015, section 4.1.2), for what is not decimal, such as averages.
"""
from libc.string cimport memcpy, memset
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from edge.columns._buffer cimport (
    In, Out, bits_double, count_ones, double_bits, load64, malformed, put, put_bitmap, put_byte, room, store64, take,
    take_bitmap, take_byte, trailing64, width64)
from edge.codec._series cimport Keys, Scratch, read_series, write_series

cdef enum:
    EXCEPTIONS = 16
    XOR = 32
    XOR_BY_KEY = 33
    PLAIN = 34
    SAME = 35
    SAMPLES = 32

cdef double[16] TENS = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15]
cdef double ROUND = 6755399441055744.0     # 1.5 * 2^52: adding and taking it away rounds to the nearest integer
cdef double LIMIT = 2251799813685248.0     # 2^51


cdef inline bint fits(double v, double ten, int64_t *k) noexcept nogil:
    cdef double scaled = v * ten, whole
    if not (-LIMIT < scaled < LIMIT):
        return False
    whole = (scaled + ROUND) - ROUND
    k[0] = <int64_t>whole
    return double_bits(<double>k[0] / ten) == double_bits(v)


cdef bint decimal(double v, int exponent, int64_t *k) noexcept nogil:
    return fits(v, TENS[exponent], k)


cdef int exponent_of(double v) noexcept nogil:
    cdef int e
    cdef int64_t k
    for e in range(EXPONENT_MAX + 1):
        if fits(v, TENS[e], &k):
            return e
    return -1


cdef int choose_exponent(const double *v, uint32_t n) noexcept nogil:
    """The exponent that makes a sample smallest, exceptions counted at ten bytes; -1 if plain doubles beat it."""
    cdef uint32_t i, step = (n + SAMPLES - 1) // SAMPLES, samples = 0
    cdef uint32_t need[16]
    cdef uint32_t covered = 0
    cdef int e, best = -1
    cdef uint64_t cost, least
    cdef int64_t k
    memset(need, 0, sizeof(need))
    i = 0
    e = 0
    while i < n:
        if not fits(v[i], TENS[e], &k) or (e and fits(v[i], TENS[e - 1], &k)):
            e = exponent_of(v[i])
        if e >= 0:
            need[e] += 1
        else:
            e = 0
        samples += 1
        i += step
    least = 56 * samples
    for e in range(16):
        covered += need[e]
        if need[e]:
            cost = 80 * (samples - covered) + covered * (8 + 3 * e)
            if cost < least:
                least = cost
                best = e
    return best


# --- writing

cdef int write_decimals(Out *out, const double *v, uint32_t n, int e, const Keys *keys, Scratch *s) except -1 nogil:
    """Returns 0, and writes nothing, when too many values are exceptions."""
    cdef uint32_t i, exceptions = 0
    cdef int64_t before = 0
    cdef int64_t *k = s.values
    cdef double ten = TENS[e]
    for i in range(n):
        if not fits(v[i], ten, &k[i]):
            exceptions += 1
            k[i] = before
        before = k[i]
    if exceptions > n // 3:
        return 0
    put_byte(out, e | (EXCEPTIONS if exceptions else 0))
    if exceptions:
        memset(s.bits, 0, (n + 7) // 8)
        for i in range(n):
            if double_bits(<double>k[i] / ten) != double_bits(v[i]):
                s.bits[i >> 3] |= 1 << (i & 7)
        put_bitmap(out, s.bits, n, 0)
        for i in range(n):
            if (s.bits[i >> 3] >> (i & 7)) & 1:
                put(out, &v[i], 8)
    write_series(out, k, n, keys, 0, s)
    return 1


cdef struct Bits:
    uint64_t acc
    int fill


cdef inline void put_bits(Out *out, Bits *b, uint64_t v, int width) noexcept nogil:
    """Needs 8 bytes of room. width 1 .. 64."""
    b.acc |= v << b.fill
    b.fill += width
    if b.fill >= 64:
        store64(out.data + out.size, b.acc)
        out.size += 8
        b.fill -= 64
        b.acc = v >> (width - b.fill) if b.fill else 0


cdef int write_xor(Out *out, const uint64_t *v, uint32_t n, const Keys *keys, Scratch *s) except -1 nogil:
    """keys NULL: against the previous value. Else against the previous one of the same key. First ones against 0."""
    cdef Bits b
    cdef uint64_t before = 0, x
    cdef uint64_t *last = &before
    cdef int lead = 64, trail = 0, l, t
    cdef uint32_t i
    b.acc = 0
    b.fill = 0
    if keys != NULL:
        memset(s.last, 0, <size_t>keys.n * 8)
    for i in range(n):
        room(out, 24)
        if keys != NULL:
            last = <uint64_t *>&s.last[keys.codes[i]]
        x = v[i] ^ last[0]
        last[0] = v[i]
        if x == 0:
            put_bits(out, &b, 0, 1)
            continue
        l = min(31, 64 - width64(x))
        t = trailing64(x)
        if lead < 64 and l >= lead and t >= trail:
            put_bits(out, &b, 1, 2)
        else:
            lead = l
            trail = t
            put_bits(out, &b, 3 | lead << 2 | (63 - lead - trail) << 7, 13)
        put_bits(out, &b, x >> trail, 64 - lead - trail)
    if b.fill:
        room(out, 8)
        store64(out.data + out.size, b.acc)
        out.size += (b.fill + 7) // 8
    return 0


cdef bint keys_help(const uint64_t *v, uint32_t n, const Keys *keys, Scratch *s) noexcept nogil:
    """Whether XOR by key leaves fewer significant bits than XOR in order of arrival."""
    cdef uint64_t by_key = 0, in_order = 0, before = 0
    cdef uint32_t i, k
    if keys == NULL or keys.codes == NULL or keys.n < 2 or keys.n >= n:
        return False
    memset(s.last, 0, <size_t>keys.n * 8)
    for i in range(n):
        k = keys.codes[i]
        by_key += width64(v[i] ^ <uint64_t>s.last[k])
        in_order += width64(v[i] ^ before)
        s.last[k] = before = v[i]
    return by_key < in_order


cdef int write_floats(Out *out, const double *v, uint32_t n, const Keys *keys, Scratch *s) except -1 nogil:
    """n > 0 values. May overwrite everything of s but s.codes; v may not be s.values."""
    cdef const uint64_t *bits = <const uint64_t *>v
    cdef uint32_t i = 1
    cdef int e = choose_exponent(v, n)
    cdef size_t start = out.size
    cdef bint by_key
    if e >= 0 and write_decimals(out, v, n, e, keys, s):
        return 0
    while i < n and bits[i] == bits[0]:
        i += 1
    if i == n:
        put_byte(out, SAME)
        return put(out, v, 8)
    by_key = keys_help(bits, n, keys, s)
    put_byte(out, XOR_BY_KEY if by_key else XOR)
    write_xor(out, bits, n, keys if by_key else NULL, s)
    if out.size - start > <size_t>n * 8:
        out.size = start
        put_byte(out, PLAIN)
        put(out, v, <size_t>n * 8)
    return 0


# --- reading

cdef int read_decimals(In *src, double *v, uint32_t n, int head, const Keys *keys, Scratch *s) except -1 nogil:
    cdef double ten = TENS[head & 15]
    cdef const uint8_t *raw = NULL
    cdef uint8_t *marks = <uint8_t *>v             # free until the values are known, which is after the series
    cdef uint32_t i, exceptions = 0
    if head & EXCEPTIONS:
        take_bitmap(src, s.bits, n, take_byte(src))
        exceptions = count_ones(s.bits, n)
        raw = take(src, <size_t>exceptions * 8)
        memcpy(marks, s.bits, (n + 7) // 8)
    read_series(src, s.values, n, keys, 0, s)
    if exceptions:
        memcpy(s.bits, marks, (n + 7) // 8)
    for i in range(n):
        v[i] = <double>s.values[i] / ten
    if exceptions:
        for i in range(n):
            if (s.bits[i >> 3] >> (i & 7)) & 1:
                memcpy(&v[i], raw, 8)
                raw += 8
    return 0


cdef inline uint64_t take_bits(const uint8_t *p, size_t size, size_t *at, int width) noexcept nogil:
    """`width` bits (1 .. 64) from bit *at on; the caller checked that they lie within size * 8."""
    cdef size_t byte = at[0] >> 3
    cdef int shift = at[0] & 7, i
    cdef uint64_t word = 0, high = 0
    if byte + 9 <= size:
        word = load64(p + byte)
        high = p[byte + 8]
    else:
        for i in range(<int>min(<size_t>8, size - byte)):
            word |= <uint64_t>p[byte + i] << (8 * i)
    at[0] += width
    word >>= shift
    if shift:
        word |= high << (64 - shift)
    return word if width == 64 else word & ((1ULL << width) - 1)


cdef int read_xor(In *src, uint64_t *v, uint32_t n, const Keys *keys, Scratch *s) except -1 nogil:
    cdef const uint8_t *p = src.p
    cdef size_t size = src.end - src.p, at = 0, end = size * 8
    cdef uint64_t before = 0
    cdef uint64_t *last = &before
    cdef int lead = 64, trail = 0
    cdef uint32_t i
    if keys != NULL:
        memset(s.last, 0, <size_t>keys.n * 8)
    for i in range(n):
        if keys != NULL:
            last = <uint64_t *>&s.last[keys.codes[i]]
        if at + 1 > end:
            malformed("it ends within XOR-ed floats")
        if take_bits(p, size, &at, 1):
            if at + 1 > end:
                malformed("it ends within XOR-ed floats")
            if take_bits(p, size, &at, 1):
                if at + 11 > end:
                    malformed("it ends within XOR-ed floats")
                lead = <int>take_bits(p, size, &at, 5)
                trail = 63 - lead - <int>take_bits(p, size, &at, 6)
            if lead == 64 or trail < 0:
                malformed("XOR-ed floats have an impossible window")
            if at + (64 - lead - trail) > end:
                malformed("it ends within XOR-ed floats")
            last[0] ^= take_bits(p, size, &at, 64 - lead - trail) << trail
        v[i] = last[0]
    src.p += (at + 7) // 8
    return 0


cdef int read_floats(In *src, double *v, uint32_t n, const Keys *keys, Scratch *s) except -1 nogil:
    """n > 0 values. Raises Malformed. v may not be s.values."""
    cdef int head = take_byte(src)
    cdef uint32_t i
    cdef uint64_t bits
    if head < XOR:
        return read_decimals(src, v, n, head, keys, s)
    if head == XOR:
        return read_xor(src, <uint64_t *>v, n, NULL, s)
    if head == XOR_BY_KEY:
        if keys == NULL or keys.codes == NULL:
            malformed("a column goes by key, but there are no keys")
        return read_xor(src, <uint64_t *>v, n, keys, s)
    if head == PLAIN:
        memcpy(v, take(src, <size_t>n * 8), <size_t>n * 8)
        return 0
    if head != SAME:
        malformed("unknown head of a float series")
    bits = load64(take(src, 8))
    for i in range(n):
        (<uint64_t *>v)[i] = bits
    return 0
