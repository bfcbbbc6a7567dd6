# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Bytes out and bytes in. Shapes and units stand in _buffer.pxd, the bytes in docs/format/batch.md."""
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memset
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    BITS = 0                     # forms of a bitmap
    RUNS_FROM_0 = 1
    RUNS_FROM_1 = 2


class Malformed(ValueError):
    """The bytes are not what the format allows. The caller says whose fault that is."""


cdef int malformed(const char *what) except -1 nogil:
    with gil:
        raise Malformed(what.decode())


# --- out

cdef int room(Out *out, size_t more) except -1 nogil:
    cdef size_t capacity
    cdef void *p
    if out.capacity - out.size >= more:
        return 0
    capacity = max(2 * out.capacity, out.size + more)
    p = realloc(out.data, capacity)
    if p == NULL:
        with gil:
            raise MemoryError("an encoded batch needs %d bytes" % capacity)
    out.data = <uint8_t *>p
    out.capacity = capacity
    return 0


cdef int put(Out *out, const void *data, size_t size) except -1 nogil:
    room(out, size)
    if size:
        memcpy(out.data + out.size, data, size)
    out.size += size
    return 0


cdef int put_byte(Out *out, uint8_t byte) except -1 nogil:
    room(out, 1)
    out.data[out.size] = byte
    out.size += 1
    return 0


cdef int put_varint(Out *out, uint64_t v) except -1 nogil:
    room(out, 10)
    while v >= 0x80:
        out.data[out.size] = <uint8_t>v | 0x80
        out.size += 1
        v >>= 7
    out.data[out.size] = <uint8_t>v
    out.size += 1
    return 0


cdef int put_signed(Out *out, int64_t v) except -1 nogil:
    return put_varint(out, zigzag(v))


cdef int put_packed(Out *out, const uint64_t *v, uint32_t n, int width) except -1 nogil:
    """n values of `width` bits each; every value fits. Takes ceil(n * width / 8) bytes."""
    cdef size_t size = (<size_t>n * width + 7) // 8
    cdef uint64_t acc = 0
    cdef int fill = 0
    cdef uint32_t i
    cdef uint8_t *p
    if width == 0 or n == 0:
        return 0
    room(out, size + 8)
    p = out.data + out.size
    for i in range(n):
        acc |= v[i] << fill
        fill += width
        if fill >= 64:
            store64(p, acc)
            p += 8
            fill -= 64
            acc = v[i] >> (width - fill) if fill else 0
    if fill:
        store64(p, acc)
    out.size += size
    return 0


cdef inline uint32_t run_end(const uint8_t *bits, uint32_t i, uint32_t n, int value) noexcept nogil:
    """The first position > i whose bit is not `value`, or n."""
    cdef uint8_t whole = 0xff if value else 0
    i += 1
    while i < n:
        if i & 7 == 0 and i + 8 <= n and bits[i >> 3] == whole:
            i += 8
        elif (bits[i >> 3] >> (i & 7)) & 1 == value:
            i += 1
        else:
            break
    return i


cdef int put_bitmap(Out *out, const uint8_t *bits, uint32_t n, uint8_t flag) except -1 nogil:
    """A form byte (or-ed with `flag`), then the bits themselves or the lengths of alternating runs, whichever is shorter.

    n > 0. Bits at and past n in the last byte are written as 0."""
    cdef size_t plain = (n + 7) // 8, size = 0, head
    cdef uint32_t i = 0, stop
    cdef int value = bits[0] & 1
    while i < n and size <= plain:
        stop = run_end(bits, i, n, value)
        size += varint_size(stop - i)
        value = 1 - value
        i = stop
    room(out, plain + 1 + 10)
    if size < plain or (size == plain and plain == 1):
        value = bits[0] & 1
        put_byte(out, flag | (RUNS_FROM_1 if value else RUNS_FROM_0))
        i = 0
        while i < n:
            stop = run_end(bits, i, n, value)
            put_varint(out, stop - i)
            value = 1 - value
            i = stop
        return 0
    put_byte(out, flag | BITS)
    put(out, bits, plain)
    if n & 7:
        out.data[out.size - 1] &= (1 << (n & 7)) - 1
    return 0


# --- in

cdef int spend(In *src, uint64_t size) except -1 nogil:
    if size > src.budget:
        malformed("it unpacks to more bytes than allowed")
    src.budget -= size
    return 0


cdef const uint8_t *take(In *src, size_t size) except NULL nogil:
    cdef const uint8_t *p = src.p
    if <size_t>(src.end - p) < size:
        malformed("it ends too early")
    src.p = p + size
    return p


cdef int take_byte(In *src) except -1 nogil:
    return take(src, 1)[0]


cdef int take_varint(In *src, uint64_t *v) except -1 nogil:
    cdef int shift = 0
    cdef uint8_t byte
    v[0] = 0
    while True:
        if src.p == src.end:
            malformed("it ends within a varint")
        byte = src.p[0]
        src.p += 1
        if shift == 63 and byte > 1:
            malformed("a varint is longer than 64 bits")
        v[0] |= <uint64_t>(byte & 0x7f) << shift
        if byte < 0x80:
            return 0
        shift += 7


cdef int take_signed(In *src, int64_t *v) except -1 nogil:
    cdef uint64_t u
    take_varint(src, &u)
    v[0] = unzigzag(u)
    return 0


cdef int take_packed(In *src, uint64_t *v, uint32_t n, int width) except -1 nogil:
    cdef size_t size = (<size_t>n * width + 7) // 8, at = 0, safe, byte
    cdef uint64_t mask = 0xffffffffffffffffULL if width == 64 else (1ULL << width) - 1, word
    cdef const uint8_t *p
    cdef uint8_t tail[24]
    cdef uint32_t i = 0
    cdef int shift
    if width == 0 or n == 0:
        memset(v, 0, <size_t>n * 8)
        return 0
    p = take(src, size)
    # A value spans at most 9 bytes from the one it starts in: the last ones are read from a padded copy.
    safe = size - 8 if size > 8 else 0
    while i < n and (at >> 3) < safe:
        shift = at & 7
        word = load64(p + (at >> 3)) >> shift
        if shift + width > 64:
            word |= <uint64_t>p[(at >> 3) + 8] << (64 - shift)
        v[i] = word & mask
        at += width
        i += 1
    if i == n:
        return 0
    memset(tail, 0, 24)
    memcpy(tail, p + safe, size - safe)
    while i < n:
        shift = at & 7
        byte = (at >> 3) - safe
        word = load64(tail + byte) >> shift
        if shift + width > 64:
            word |= <uint64_t>tail[byte + 8] << (64 - shift)
        v[i] = word & mask
        at += width
        i += 1
    return 0


cdef int take_bitmap(In *src, uint8_t *bits, uint32_t n, int form) except -1 nogil:
    """Fills ceil(n / 8) bytes; bits at and past n are 0. n > 0."""
    cdef uint32_t i = 0, size = (n + 7) // 8
    cdef uint64_t length, stop
    cdef int value = form == RUNS_FROM_1
    if form == BITS:
        memcpy(bits, take(src, size), size)
        if n & 7 and bits[size - 1] >> (n & 7):
            malformed("a bitmap has bits past its end")
        return 0
    if form != RUNS_FROM_0 and form != RUNS_FROM_1:
        malformed("unknown form of bitmap")
    memset(bits, 0, size)
    while i < n:
        take_varint(src, &length)
        if length == 0 or length > n - i:
            malformed("a run is empty or too long")
        stop = i + length
        if not value:
            i = <uint32_t>stop
        while i < stop:
            if i & 7 == 0 and i + 8 <= stop:
                bits[i >> 3] = 0xff
                i += 8
            else:
                bits[i >> 3] |= 1 << (i & 7)
                i += 1
        value = 1 - value
    return 0


cdef uint32_t count_ones(const uint8_t *bits, uint32_t n) noexcept nogil:
    """Ones among the first n bits."""
    cdef uint32_t i = 0, total = 0
    while i + 64 <= n:
        total += ones64(load64(bits + (i >> 3)))
        i += 64
    while i < n:
        total += (bits[i >> 3] >> (i & 7)) & 1
        i += 1
    return total
