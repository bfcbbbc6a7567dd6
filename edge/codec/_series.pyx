# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""An integer series as bytes: a head byte, then what its mode needs (drawn in docs/format/batch.md).

    head = mode | divisor << 3        mode: constant, values, deltas, second deltas, by key, successors
                                      divisor: 10^0, 10^3, 10^6 or 10^9 divides every value (times in whole ms)

A mode predicts each value; what is left over (the residual, modulo 2^64) is packed in one of two ways: all in one width
above their minimum (frame of reference), or each in the narrower of two widths, with a bitmap telling which (patched
frame of reference, Zukowski et al., ICDE 2006). Each mode costs one pass that fills the residuals and one that counts
their widths; sizes follow from the counts, nothing is encoded twice.

`by key` predicts the previous value of the same key: sensors walk in small steps, but a batch interleaves them.
`successors` predicts a dictionary code by what followed its predecessor last time: devices report in rounds.
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from edge.columns._buffer cimport (
    In, Out, malformed, put_bitmap, put_byte, put_packed, put_signed, take_bitmap, take_byte, take_packed,
    take_signed, unzigzag, varint_size, width64, zigzag, count_ones)

cdef enum:
    CONSTANT = 0
    VALUES = 1
    DELTAS = 2
    SECOND_DELTAS = 3
    BY_KEY = 4
    SUCCESSORS = 5
    TWO_WIDTHS = 0x80

cdef int64_t[4] POWERS = [1, 1000, 1000000, 1000000000]

cdef struct Shape:               # how to pack residuals, and what it costs
    int64_t base                 # frame of reference: the minimum
    uint8_t narrow
    uint8_t wide                 # 0xff: one width, `narrow`
    uint64_t size                # bytes


cdef int allocate(Scratch *s, uint32_t rows, uint32_t keys) except -1 nogil:
    """Working memory for series of up to `rows` values and `keys` keys. Raises MemoryError."""
    cdef size_t r = (<size_t>rows + 8) & ~<size_t>7, k = (<size_t>keys + 8) & ~<size_t>7
    cdef uint8_t *p = <uint8_t *>malloc(r * (5 * 8 + 4 + 1) + k * 9)
    if p == NULL:
        with gil:
            raise MemoryError("scratch of the column codec")
    s.block = p
    s.values = <int64_t *>p
    s.divided = s.values + r
    s.residuals = s.divided + r
    s.candidate = s.residuals + r
    s.firsts = s.candidate + r
    s.last = s.firsts + r
    s.codes = <uint32_t *>(s.last + k)
    s.bits = <uint8_t *>(s.codes + r)
    s.seen = s.bits + r
    return 0


cdef void release(Scratch *s) noexcept nogil:
    free(s.block)


# --- choosing

cdef inline int64_t sub(int64_t a, int64_t b) noexcept nogil:
    return <int64_t>(<uint64_t>a - <uint64_t>b)


cdef inline int64_t plus(int64_t a, int64_t b) noexcept nogil:
    return <int64_t>(<uint64_t>a + <uint64_t>b)


cdef int common_divisor(const int64_t *v, uint32_t n) noexcept nogil:
    """The largest i of 0..3 for which 10^(3 i) divides all values."""
    cdef int d = 3
    cdef uint32_t i
    for i in range(n):
        while v[i] % POWERS[d]:
            d -= 1
            if d == 0:
                return 0
    return d


cdef uint32_t residuals_by_key(const int64_t *v, uint32_t n, const Keys *keys, int64_t *r, Scratch *s) noexcept nogil:
    """Differences to the previous value of the same key into r; each key's first value into s.firsts. Returns their number."""
    cdef uint32_t i, k, m = 0, firsts = 0
    memset(s.seen, 0, keys.n)
    for i in range(n):
        k = keys.codes[i]
        if s.seen[k]:
            r[m] = sub(v[i], s.last[k])
            m += 1
        else:
            s.seen[k] = 1
            s.firsts[firsts] = v[i]
            firsts += 1
        s.last[k] = v[i]
    return firsts


cdef void residuals_of_successors(const int64_t *v, uint32_t n, uint32_t alphabet, int64_t *r, Scratch *s) noexcept nogil:
    cdef uint32_t i
    cdef int64_t fresh = 0, before = -1, guess
    memset(s.seen, 0, alphabet)
    for i in range(n):
        guess = s.last[before] if before >= 0 and s.seen[before] else fresh
        r[i] = v[i] - guess
        if before >= 0:
            s.seen[before] = 1
            s.last[before] = v[i]
        before = v[i]
        if before == fresh:
            fresh += 1


cdef void residuals_of(int mode, const int64_t *v, uint32_t n, int64_t *r) noexcept nogil:
    cdef uint32_t i
    if mode == DELTAS:
        for i in range(1, n):
            r[i - 1] = sub(v[i], v[i - 1])
    else:
        for i in range(2, n):
            r[i - 2] = sub(sub(v[i], v[i - 1]), sub(v[i - 1], v[i - 2]))


cdef Shape shape_of(const int64_t *r, uint32_t m) noexcept nogil:
    """The cheaper packing of m residuals."""
    cdef Shape shape
    cdef uint32_t i, count[65]
    cdef uint32_t below = 0, above
    cdef int64_t low, high
    cdef int w, wide
    cdef uint64_t bits, marks
    shape.base = 0
    shape.narrow = 0
    shape.wide = 0xff
    shape.size = 2
    if m == 0:
        return shape
    low = high = r[0]
    memset(count, 0, sizeof(count))
    for i in range(m):
        low = min(low, r[i])
        high = max(high, r[i])
        count[width64(zigzag(r[i]))] += 1
    shape.base = low
    shape.narrow = <uint8_t>width64(<uint64_t>high - <uint64_t>low)
    shape.size = 1 + varint_size(zigzag(low)) + (<uint64_t>m * shape.narrow + 7) // 8
    wide = 64
    while wide and count[wide] == 0:
        wide -= 1
    for w in range(wide):
        below += count[w]
        if below == 0:
            continue
        above = m - below
        marks = min(<uint64_t>m, 16 * <uint64_t>above)       # a lone mark costs about two bytes as runs
        bits = marks + <uint64_t>below * w + <uint64_t>above * wide
        if 5 + bits // 8 < shape.size:
            shape.size = 5 + bits // 8
            shape.narrow = <uint8_t>w
            shape.wide = <uint8_t>wide
    return shape


# --- writing

cdef int put_residuals(Out *out, int64_t *r, uint32_t m, Shape *shape, Scratch *s) except -1 nogil:
    """Packs, and overwrites r. For one width: width, base, values - base. For two: 128 + narrow, wide, bitmap, narrow, wide ones."""
    cdef uint64_t *u = <uint64_t *>r
    cdef uint64_t *large = <uint64_t *>s.candidate
    cdef uint64_t z
    cdef uint32_t i, few = 0, many = 0
    if shape.wide == 0xff:
        put_byte(out, shape.narrow)
        put_signed(out, shape.base)
        if shape.narrow:
            for i in range(m):
                u[i] -= <uint64_t>shape.base
            put_packed(out, u, m, shape.narrow)
        return 0
    put_byte(out, TWO_WIDTHS | shape.narrow)
    put_byte(out, shape.wide)
    memset(s.bits, 0, (m + 7) // 8)
    for i in range(m):
        z = zigzag(r[i])
        if width64(z) > shape.narrow:
            s.bits[i >> 3] |= 1 << (i & 7)
            large[few] = z
            few += 1
        else:
            u[many] = z
            many += 1
    put_bitmap(out, s.bits, m, 0)
    put_packed(out, u, many, shape.narrow)
    return put_packed(out, large, few, shape.wide)


cdef bint is_constant(const int64_t *v, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(1, n):
        if v[i] != v[0]:
            return False
    return True


cdef int write_series(Out *out, const int64_t *v, uint32_t n, const Keys *keys, uint32_t alphabet, Scratch *s) except -1 nogil:
    """n > 0 values. May overwrite everything of s but s.values, s.firsts (without keys) and s.codes."""
    cdef uint32_t i, firsts = 0
    cdef int mode, best = VALUES, divisor = 0
    cdef bint constant = is_constant(v, n)
    cdef Shape shape, chosen
    if not alphabet:
        divisor = common_divisor(v, 1 if constant else n)
    if constant:
        put_byte(out, CONSTANT | divisor << 3)
        return put_signed(out, v[0] // POWERS[divisor])
    if divisor:
        for i in range(n):
            s.divided[i] = v[i] // POWERS[divisor]
        v = s.divided
    memcpy(s.residuals, v, <size_t>n * 8)
    chosen = shape_of(s.residuals, n)
    for mode in range(DELTAS, SUCCESSORS + 1):
        if chosen.size <= 8:
            break
        if mode == BY_KEY:
            if keys == NULL or keys.codes == NULL or keys.n < 2 or keys.n >= n:
                continue
            firsts = residuals_by_key(v, n, keys, s.candidate, s)
            shape = shape_of(s.candidate, n - firsts)
            shape.size += 1 + shape_of(s.firsts, firsts).size
        elif mode == SUCCESSORS:
            if not alphabet:
                continue
            residuals_of_successors(v, n, alphabet, s.candidate, s)
            shape = shape_of(s.candidate, n)
        else:
            if mode == SECOND_DELTAS and n < 4:
                continue
            residuals_of(mode, v, n, s.candidate)
            shape = shape_of(s.candidate, n - (1 if mode == DELTAS else 2))
            shape.size += varint_size(zigzag(v[0])) * (1 if mode == DELTAS else 2)
        if shape.size < chosen.size:
            chosen = shape
            best = mode
            s.residuals, s.candidate = s.candidate, s.residuals
    put_byte(out, best | divisor << 3)
    if best == DELTAS or best == SECOND_DELTAS:
        put_signed(out, v[0])
    if best == SECOND_DELTAS:
        put_signed(out, sub(v[1], v[0]))
    put_residuals(out, s.residuals, n - heads(best, firsts), &chosen, s)
    if best == BY_KEY:
        write_series(out, s.firsts, firsts, NULL, 0, s)
    return 0


cdef inline uint32_t heads(int mode, uint32_t firsts) noexcept nogil:
    """Values that are given whole, without a residual."""
    return firsts if mode == BY_KEY else mode - 1 if mode == DELTAS or mode == SECOND_DELTAS else 0


# --- reading

cdef int take_residuals(In *src, int64_t *r, uint32_t m, Scratch *s) except -1 nogil:
    """What put_residuals wrote."""
    cdef uint64_t *u = <uint64_t *>r
    cdef uint64_t *small = <uint64_t *>s.candidate
    cdef uint64_t *large
    cdef int width = take_byte(src), wide
    cdef uint32_t i, few
    cdef int64_t base
    if width <= 64:
        take_signed(src, &base)
        take_packed(src, u, m, width)
        for i in range(m):
            u[i] += <uint64_t>base
        return 0
    width ^= TWO_WIDTHS
    wide = take_byte(src)
    if width >= wide or wide > 64 or m == 0:
        malformed("a series has impossible widths")
    take_bitmap(src, s.bits, m, take_byte(src))
    few = count_ones(s.bits, m)
    large = small + (m - few)
    take_packed(src, small, m - few, width)
    take_packed(src, large, few, wide)
    for i in range(m):
        if (s.bits[i >> 3] >> (i & 7)) & 1:
            r[i] = unzigzag(large[0])
            large += 1
        else:
            r[i] = unzigzag(small[0])
            small += 1
    return 0


cdef int undo_keys(In *src, int64_t *v, uint32_t n, const Keys *keys, Scratch *s) except -1 nogil:
    cdef uint32_t i, k, firsts = 0, m = 0
    if keys == NULL or keys.codes == NULL:
        malformed("a column goes by key, but there are no keys")
    memset(s.seen, 0, keys.n)
    for i in range(n):
        k = keys.codes[i]
        firsts += not s.seen[k]
        s.seen[k] = 1
    take_residuals(src, v, n - firsts, s)
    memcpy(s.divided, v, <size_t>(n - firsts) * 8)
    read_series(src, s.firsts, firsts, NULL, 0, s)
    memset(s.seen, 0, keys.n)
    firsts = 0
    for i in range(n):
        k = keys.codes[i]
        if s.seen[k]:
            v[i] = plus(s.last[k], s.divided[m])
            m += 1
        else:
            s.seen[k] = 1
            v[i] = s.firsts[firsts]
            firsts += 1
        s.last[k] = v[i]
    return 0


cdef int undo_successors(int64_t *v, uint32_t n, uint32_t alphabet, Scratch *s) except -1 nogil:
    cdef uint32_t i
    cdef int64_t fresh = 0, before = -1, guess
    memset(s.seen, 0, alphabet)
    for i in range(n):
        guess = s.last[before] if before >= 0 and s.seen[before] else fresh
        v[i] = plus(v[i], guess)
        if <uint64_t>v[i] >= alphabet:
            malformed("a dictionary code is past the dictionary")
        if before >= 0:
            s.seen[before] = 1
            s.last[before] = v[i]
        before = v[i]
        if before == fresh:
            fresh += 1
    return 0


cdef int undo_deltas(In *src, int64_t *v, uint32_t n, int mode, Scratch *s) except -1 nogil:
    cdef int64_t step = 0
    cdef uint32_t i, head = heads(mode, 0)
    if n < head:
        malformed("a series is shorter than its head")
    take_signed(src, &v[0])
    if mode == SECOND_DELTAS:
        take_signed(src, &step)
        v[1] = plus(v[0], step)
    take_residuals(src, v + head, n - head, s)
    for i in range(head, n):
        step = plus(step, v[i]) if mode == SECOND_DELTAS else v[i]
        v[i] = plus(v[i - 1], step)
    return 0


cdef int read_series(In *src, int64_t *v, uint32_t n, const Keys *keys, uint32_t alphabet, Scratch *s) except -1 nogil:
    """n > 0 values. Raises Malformed. May overwrite everything of s but s.values, s.firsts (without keys) and s.codes."""
    cdef int head = take_byte(src), mode = head & 7
    cdef uint64_t power
    cdef uint32_t i
    cdef int64_t value, fresh = 0
    if head >> 5 or (alphabet and (head >> 3 or mode == BY_KEY)):
        malformed("unknown head of a series")
    if mode == CONSTANT:
        take_signed(src, &value)
        for i in range(n):
            v[i] = value
    elif mode == VALUES:
        take_residuals(src, v, n, s)
    elif mode == DELTAS or mode == SECOND_DELTAS:
        undo_deltas(src, v, n, mode, s)
    elif mode == BY_KEY:
        undo_keys(src, v, n, keys, s)
    elif mode == SUCCESSORS and alphabet:
        take_residuals(src, v, n, s)
        undo_successors(v, n, alphabet, s)
    else:
        malformed("unknown mode of a series")
    if head >> 3:
        power = <uint64_t>POWERS[head >> 3]
        for i in range(n):
            v[i] = <int64_t>(<uint64_t>v[i] * power)
    if alphabet:
        for i in range(n):
            if <uint64_t>v[i] > <uint64_t>fresh:
                malformed("dictionary codes are not in order of first appearance")
            fresh += v[i] == fresh
        if fresh != alphabet:
            malformed("the dictionary has strings without a row")
    return 0
