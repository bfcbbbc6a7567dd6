# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The columns of a batch as bytes, lossless to the bit; the page to decode them from is docs/format/batch.md.

    columns = the key column, if the schema has one, then the others in the schema's order
    column  = [0x80 | form, validity bitmap]  values of the valid rows
    values  = I64, TIME series | F64 float series | BOOL bitmap | STR dictionary, then the series of its codes

Invariants
- A batch without rows has no bytes. A column without nulls has no bitmap, one of nulls only has nothing but.
- The dictionary holds the strings that valid rows use, distinct, in order of first appearance: bytes depend on the
  rows alone, and not on how the batch came about.
- "By key" counts on the key column's codes, code 0 where the key is null.
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from edge.columns._batch cimport BOOL, F64, STR, Batch, Column
from edge.columns._buffer cimport (
    In, Out, count_ones, malformed, put, put_bitmap, put_byte, put_varint, spend, take, take_bitmap, take_byte,
    take_varint, width64)
from edge.codec._floats cimport read_floats, write_floats
from edge.codec._series cimport Keys, Scratch, allocate, read_series, release, write_series

cdef enum:
    NULLS = 0x80
    PLAIN = 0
    FRONT_CODED = 1

cdef struct Work:
    Scratch s
    Keys keys                    # of all rows; codes NULL until the key column is known
    uint32_t *key_codes          # rows
    uint32_t *valid_codes        # rows: those of a column's valid rows
    uint32_t *order              # dictionary codes in order of first appearance
    uint64_t *values             # rows: a column's valid values
    uint8_t *valid               # ceil(rows / 8)
    void *block


cdef int open_work(Work *w, uint32_t rows, uint32_t keys) except -1 nogil:
    cdef size_t r = (<size_t>rows + 8) & ~<size_t>7, k = (<size_t>keys + 8) & ~<size_t>7
    memset(w, 0, sizeof(Work))
    w.block = malloc(r * (8 + 4 + 4 + 1) + k * 8)
    if w.block == NULL:
        with gil:
            raise MemoryError("scratch of the column codec")
    w.values = <uint64_t *>w.block
    w.key_codes = <uint32_t *>(w.values + r)
    w.valid_codes = w.key_codes + r
    w.order = w.valid_codes + r
    w.valid = <uint8_t *>(w.order + 2 * k)
    return allocate(&w.s, rows, keys)


cdef void close_work(Work *w) noexcept nogil:
    release(&w.s)
    free(w.block)


cdef inline bint bit(const uint8_t *bits, uint32_t i) noexcept nogil:
    return (bits[i >> 3] >> (i & 7)) & 1


cdef Keys keys_of_valid(Work *w, const uint8_t *valid, uint32_t n) noexcept nogil:
    """The keys of the rows whose bit is set; valid NULL: of all."""
    cdef Keys keys = w.keys
    cdef uint32_t i, m = 0
    if valid != NULL and keys.codes != NULL:
        for i in range(n):
            if bit(valid, i):
                w.valid_codes[m] = keys.codes[i]
                m += 1
        keys.codes = w.valid_codes
    return keys


# --- writing

cdef uint32_t order_codes(Work *w, Column *c, const uint8_t *valid, uint32_t n, uint32_t *dense) noexcept nogil:
    """Codes by first appearance among valid rows: per row into key_codes-like `dense` (0 where null), densely into s.values.

    w.order[new code] = the batch's code. Returns the number of strings in use."""
    cdef uint32_t *codes = <uint32_t *>c.values
    cdef uint32_t *fresh = w.order + c.dict_n       # old code -> new code + 1
    cdef uint32_t i, code, strings = 0, m = 0
    memset(fresh, 0, <size_t>c.dict_n * 4)
    for i in range(n):
        if valid != NULL and not bit(valid, i):
            dense[i] = 0
            continue
        code = codes[i]
        if fresh[code] == 0:
            w.order[strings] = code
            strings += 1
            fresh[code] = strings
        dense[i] = fresh[code] - 1
        w.s.values[m] = fresh[code] - 1
        m += 1
    return strings


cdef int put_dictionary(Out *out, Work *w, Column *c, uint32_t strings) except -1 nogil:
    """Count, form, lengths and text of the strings in w.order."""
    cdef int64_t *shared = <int64_t *>w.values      # bytes shared with the string before
    cdef int64_t *rest = w.s.firsts                 # free here: these series have no keys
    cdef const uint8_t *text
    cdef const uint8_t *before = NULL
    cdef uint32_t i, size, size_before = 0, j
    cdef uint64_t saved = 0, longest = 0
    cdef bint front
    for i in range(strings):
        text = c.dict_bytes + c.dict_offsets[w.order[i]]
        size = c.dict_offsets[w.order[i] + 1] - c.dict_offsets[w.order[i]]
        j = 0
        while j < size and j < size_before and text[j] == before[j]:
            j += 1
        shared[i] = j
        rest[i] = size
        saved += j
        longest = max(longest, <uint64_t>j)
        before = text
        size_before = size
    front = saved > 4 + <uint64_t>strings * width64(longest) // 8
    put_byte(out, FRONT_CODED if front else PLAIN)
    put_varint(out, strings)
    for i in range(strings):
        if not front:
            shared[i] = 0
        rest[i] -= shared[i]
    write_series(out, rest, strings, NULL, 0, &w.s)
    if front:
        write_series(out, shared, strings, NULL, 0, &w.s)
    for i in range(strings):
        j = <uint32_t>shared[i]
        put(out, c.dict_bytes + c.dict_offsets[w.order[i]] + j, <size_t>rest[i])
    return 0


cdef int put_strings(Out *out, Work *w, Column *c, const uint8_t *valid, uint32_t n, uint32_t m, bint is_key) except -1 nogil:
    cdef uint32_t strings = order_codes(w, c, valid, n, w.key_codes if is_key else w.valid_codes)
    if is_key:
        w.keys.codes = w.key_codes
        w.keys.n = max(1, strings)
    if m == 0:
        return 0
    put_dictionary(out, w, c, strings)
    return write_series(out, w.s.values, m, NULL, strings, &w.s)


cdef int put_bools(Out *out, Work *w, const uint8_t *values, const uint8_t *valid, uint32_t n, uint32_t m) except -1 nogil:
    cdef uint32_t i, j = 0
    memset(w.s.bits, 0, (m + 7) // 8)
    for i in range(n):
        if valid == NULL or bit(valid, i):
            w.s.bits[j >> 3] |= (values[i] != 0) << (j & 7)
            j += 1
    return put_bitmap(out, w.s.bits, m, 0)


cdef int put_column(Out *out, Work *w, Column *c, uint32_t n, bint is_key) except -1 nogil:
    cdef const uint8_t *valid = NULL
    cdef const uint64_t *values = <uint64_t *>c.values
    cdef uint32_t i, m = n
    cdef Keys keys
    if c.has_nulls:
        m = count_ones(c.valid, n)
        if m < n:
            valid = c.valid
            put_bitmap(out, valid, n, NULLS)
    if c.kind == STR:
        return put_strings(out, w, c, valid, n, m, is_key)
    if m == 0:
        return 0
    if c.kind == BOOL:
        return put_bools(out, w, <uint8_t *>c.values, valid, n, m)
    keys = keys_of_valid(w, valid, n)
    if valid != NULL:
        m = 0
        for i in range(n):
            if bit(valid, i):
                w.values[m] = values[i]
                m += 1
        values = w.values
    if c.kind == F64:
        return write_floats(out, <const double *>values, m, &keys, &w.s)
    return write_series(out, <const int64_t *>values, m, &keys, 0, &w.s)


cdef int write_columns(Out *out, Batch batch) except -1 nogil:
    """Appends the columns. Raises MemoryError."""
    cdef Work w
    cdef uint32_t i, column, keys = 1
    if batch.n == 0:
        return 0
    for i in range(batch.width):
        keys = max(keys, batch.columns[i].dict_n)
    try:
        open_work(&w, batch.n, keys)
        for i in range(batch.width):
            column = column_at(batch, i)
            put_column(out, &w, &batch.columns[column], batch.n, <int>column == batch.key)
    finally:
        close_work(&w)
    return 0


cdef inline uint32_t column_at(Batch batch, uint32_t place) noexcept nogil:
    """The column that stands at this place of the bytes: the key first."""
    if batch.key < 0 or place > <uint32_t>batch.key:
        return place
    return batch.key if place == 0 else place - 1


# --- reading

cdef bint is_utf8(const uint8_t *p, uint32_t size) noexcept nogil:
    """RFC 3629: no overlong forms, no surrogates, nothing past U+10FFFF."""
    cdef uint32_t i = 0, follow
    cdef uint8_t a, low, high
    while i < size:
        a = p[i]
        i += 1
        if a < 0x80:
            continue
        low = 0x80
        high = 0xbf
        if 0xc2 <= a <= 0xdf:
            follow = 1
        elif 0xe0 <= a <= 0xef:
            follow = 2
            if a == 0xe0:
                low = 0xa0
            elif a == 0xed:
                high = 0x9f
        elif 0xf0 <= a <= 0xf4:
            follow = 3
            if a == 0xf0:
                low = 0x90
            elif a == 0xf4:
                high = 0x8f
        else:
            return False
        while follow:
            if i == size or p[i] < low or p[i] > high:
                return False
            low = 0x80
            high = 0xbf
            i += 1
            follow -= 1
    return True


cdef int take_dictionary(In *src, Work *w, Batch batch, uint32_t column, uint32_t rows) except -1 nogil:
    """Interns the strings; their codes become 0, 1, 2 ... Returns nothing; c.dict_n tells how many."""
    cdef Column *c = &batch.columns[column]
    cdef int form = take_byte(src)
    cdef int64_t *rest = w.s.firsts
    cdef int64_t *shared = <int64_t *>w.values
    cdef uint64_t strings, size, total = 0, limit
    cdef uint32_t i, j, at
    cdef const uint8_t *text
    take_varint(src, &strings)
    if strings == 0 or strings > rows or form > FRONT_CODED:
        malformed("a dictionary has no strings, or more than rows")
    read_series(src, rest, <uint32_t>strings, NULL, 0, &w.s)
    if form == FRONT_CODED:
        read_series(src, shared, <uint32_t>strings, NULL, 0, &w.s)
    else:
        memset(shared, 0, strings * 8)
    size = 0
    for i in range(<uint32_t>strings):
        if shared[i] < 0 or rest[i] < 0 or <uint64_t>shared[i] > size or rest[i] > src.end - src.p:
            malformed("a dictionary has impossible lengths")
        size = shared[i] + rest[i]
        total += size
        if total > 0x7fffffff:
            malformed("a dictionary is larger than 2 GiB")
    spend(src, total + strings * STRING_BYTES)
    batch.reserve_dict(column, <uint32_t>strings, <uint32_t>total)
    at = 0
    for i in range(<uint32_t>strings):
        # intern copies from here, at the place where it would append: the string is built in place
        j = <uint32_t>shared[i]
        if j:
            memcpy(c.dict_bytes + at, c.dict_bytes + c.dict_offsets[i - 1], j)
        text = take(src, <size_t>rest[i])
        memcpy(c.dict_bytes + at + j, text, <size_t>rest[i])
        size = j + rest[i]
        if not is_utf8(c.dict_bytes + at, <uint32_t>size):
            malformed("a string is not UTF-8")
        if batch.intern(column, c.dict_bytes + at, <uint32_t>size) != i:
            malformed("a dictionary holds a string twice")
        at += <uint32_t>size
    return 0


cdef int take_strings(In *src, Work *w, Batch batch, uint32_t column, uint32_t n, uint32_t m) except -1 nogil:
    cdef Column *c = &batch.columns[column]
    cdef uint32_t *codes = <uint32_t *>c.values
    cdef uint32_t i
    take_dictionary(src, w, batch, column, m)
    read_series(src, w.s.values, m, NULL, c.dict_n, &w.s)
    for i in range(m):
        codes[i] = <uint32_t>w.s.values[i]
    return 0


cdef int take_bools(In *src, Work *w, uint8_t *values, uint32_t m) except -1 nogil:
    cdef uint32_t i
    take_bitmap(src, w.s.bits, m, take_byte(src))
    for i in range(m):
        values[i] = bit(w.s.bits, i)
    return 0


cdef void spread(Column *c, const uint8_t *valid, uint32_t n, uint32_t m) noexcept nogil:
    """Moves the m leading values to the valid rows, in place from the end, and puts 0 into the others."""
    cdef uint32_t i = n
    cdef uint8_t *bytes = <uint8_t *>c.values
    cdef uint32_t *codes = <uint32_t *>c.values
    cdef uint64_t *words = <uint64_t *>c.values
    while i:
        i -= 1
        if bit(valid, i):
            m -= 1
            if c.kind == BOOL:
                bytes[i] = bytes[m]
            elif c.kind == STR:
                codes[i] = codes[m]
            else:
                words[i] = words[m]
        else:
            c.valid[i >> 3] &= ~(1 << (i & 7))
            if c.kind == BOOL:
                bytes[i] = 0
            elif c.kind == STR:
                codes[i] = 0
            else:
                words[i] = 0


cdef int take_column(In *src, Work *w, Batch batch, uint32_t column, uint32_t n) except -1 nogil:
    cdef Column *c = &batch.columns[column]
    cdef const uint8_t *valid = NULL
    cdef uint32_t m = n
    cdef Keys keys
    if src.p < src.end and src.p[0] & NULLS:
        valid = w.valid
        take_bitmap(src, w.valid, n, take_byte(src) ^ NULLS)
        m = count_ones(valid, n)
        c.has_nulls = m < n
    if m and c.kind == STR:
        take_strings(src, w, batch, column, n, m)
    elif m and c.kind == BOOL:
        take_bools(src, w, <uint8_t *>c.values, m)
    elif m:
        keys = keys_of_valid(w, valid, n)
        if c.kind == F64:
            read_floats(src, <double *>c.values, m, &keys, &w.s)
        else:
            read_series(src, <int64_t *>c.values, m, &keys, 0, &w.s)
    if m < n:
        spread(c, valid, n, m)
    if <int>column == batch.key:
        w.keys.codes = <uint32_t *>c.values
        w.keys.n = max(1, c.dict_n)
    return 0


cdef int read_columns(In *src, Batch batch, uint32_t rows) except -1 nogil:
    """Fills an empty batch; on an error its content is undefined, but safe. Raises Malformed, MemoryError.

    The budget pays for the batch's memory (9 bytes a value, 80 a string and its text) and for the scratch."""
    cdef Work w
    cdef uint32_t place
    if rows == 0:
        return 0
    spend(src, rows * row_bytes(batch))
    batch.reserve(rows)
    try:
        open_work(&w, rows, rows)
        for place in range(batch.width):
            take_column(src, &w, batch, column_at(batch, place), rows)
        batch.n = rows
    finally:
        close_work(&w)
    return 0
