# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Rows of a batch as MessagePack arrays relative to a context: the hot half of edge/codec/context.py, which says what they mean."""
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from cpython.bytes cimport PyBytes_FromStringAndSize

from edge.codec._floats cimport decimal, exponent_of
from edge.columns._batch cimport BOOL, F64, STR, TIME, Batch, Column, is_null
from edge.columns._buffer cimport Out, double_bits, put, put_byte, room

cdef enum:
    NEAR = 0xffff                # an integer that takes at most 3 bytes
    LEARNED_MAX = 6              # decimals that are worth an exponent: more digits take as many bytes as the double

cdef int64_t[4] UNITS = [1, 1000, 1000000, 1000000000]


cdef int put_big(Out *out, uint8_t tag, uint64_t v, int size) except -1:
    """A tag and the low `size` bytes of v, big-endian."""
    cdef int i
    put_byte(out, tag)
    for i in range(size - 1, -1, -1):
        put_byte(out, <uint8_t>(v >> (8 * i)))
    return 0


cdef int put_int(Out *out, int64_t v) except -1:
    """The shortest MessagePack integer."""
    if -32 <= v < 128:
        return put_byte(out, <uint8_t>v)
    if v >= 0:
        if v <= 0xff:
            return put_big(out, 0xcc, v, 1)
        if v <= 0xffff:
            return put_big(out, 0xcd, v, 2)
        if v <= 0xffffffff:
            return put_big(out, 0xce, v, 4)
        return put_big(out, 0xcf, v, 8)
    if v >= -0x80:
        return put_big(out, 0xd0, v, 1)
    if v >= -0x8000:
        return put_big(out, 0xd1, v, 2)
    if v >= -0x80000000LL:
        return put_big(out, 0xd2, v, 4)
    return put_big(out, 0xd3, v, 8)


cdef int put_text(Out *out, const uint8_t *text, uint32_t size) except -1:
    if size < 32:
        put_byte(out, 0xa0 | size)
    elif size <= 0xff:
        put_big(out, 0xd9, size, 1)
    elif size <= 0xffff:
        put_big(out, 0xda, size, 2)
    else:
        put_big(out, 0xdb, size, 4)
    return put(out, text, size)


cdef bint minus(int64_t a, int64_t b, int64_t *difference) noexcept:
    """False if a - b does not fit."""
    difference[0] = <int64_t>(<uint64_t>a - <uint64_t>b)
    return (difference[0] < 0) == (a < b)


cdef int decimals(double v) noexcept:
    """The decimals v has, 0 if it is not worth an exponent."""
    cdef int e = exponent_of(v)
    return e if e <= LEARNED_MAX else 0


cdef struct Place:               # a column's part of the context
    int64_t base                 # I64, TIME: values are relative to it
    int64_t before               # I64: the last row's value
    uint8_t exponent             # F64: decimals; TIME: unit, index into UNITS
    uint8_t wanted               # what the next context should say


cdef class RowWriter:
    """Writes rows under one context. `wasted` counts the bytes that a context made of what came since would have saved.

    places: per column (base, exponent); table: string as bytes -> index; fresh: strings that went inline, and were not in
    the table, at most `table_max` of them: they are for the next table."""

    cdef Place *places
    cdef uint32_t width
    cdef object table
    cdef readonly dict fresh
    cdef uint32_t table_max
    cdef int64_t number
    cdef uint64_t base_sequence
    cdef int64_t base_received
    cdef int clock
    cdef bint with_received
    cdef readonly uint64_t wasted

    def __cinit__(self, schema, int64_t number, uint64_t base_sequence, int64_t base_received, int clock, places, dict table, uint32_t table_max):
        cdef uint32_t i
        self.width = len(schema.fields)
        self.places = <Place *>calloc(self.width + 1, sizeof(Place))
        if self.places == NULL:
            raise MemoryError("places")
        for i in range(self.width):
            self.places[i].base = self.places[i].before = places[i][0]
            self.places[i].exponent = self.places[i].wanted = places[i][1]
        self.number = number
        self.base_sequence = base_sequence
        self.base_received = base_received
        self.clock = clock
        self.with_received = schema.time is None
        self.table = table
        self.table_max = table_max
        self.fresh = {}

    def __dealloc__(self):
        free(self.places)

    def wanted(self):
        """Per column the exponent that the next context should have."""
        return [self.places[i].wanted for i in range(self.width)]

    @staticmethod
    def exponents(Batch batch not None, wanted):
        """Per column the exponent that suits all rows of the batch and what was wanted before."""
        cdef uint32_t i, row
        cdef Column *c
        cdef int e
        cdef list out = []
        for i in range(batch.width):
            c = &batch.columns[i]
            e = wanted[i]
            for row in range(batch.n):
                if is_null(c, row):
                    continue
                if c.kind == TIME:
                    while (<int64_t *>c.values)[row] % UNITS[e]:
                        e -= 1
                elif c.kind == F64:
                    e = max(e, decimals((<double *>c.values)[row]))
            out.append(e)
        return out

    def write(self, Batch batch not None):
        """A message a row; None for a row that this context can't express."""
        cdef Out out
        cdef uint32_t row
        cdef list messages = []
        cdef dict indices = {}
        memset(&out, 0, sizeof(out))
        try:
            room(&out, 256)
            for row in range(batch.n):
                out.size = 0
                if self._row(&out, batch, row, indices):
                    messages.append(PyBytes_FromStringAndSize(<char *>out.data, out.size))
                else:
                    messages.append(None)
                    self.wasted += 200
        finally:
            free(out.data)
        return messages

    cdef bint _row(self, Out *out, Batch batch, uint32_t row, dict indices) except -1:
        cdef uint32_t i, count = self.width + 2 + self.with_received
        cdef int64_t difference
        if batch.clock != self.clock or (batch.time >= 0 and is_null(&batch.columns[batch.time], row)):
            return False
        if count < 16:
            put_byte(out, 0x90 | count)
        else:
            put_big(out, 0xdc, count, 2)
        put_int(out, self.number)
        self._relative(out, <int64_t>(batch.first_sequence + row - self.base_sequence), True)
        if self.with_received:
            if not minus(batch.received_ns, self.base_received, &difference):
                return False
            put_int(out, difference)
        for i in range(self.width):
            if not self._value(out, &batch.columns[i], i, row, indices):
                return False
        return True

    cdef int _relative(self, Out *out, int64_t difference, bint walks) except -1:
        if walks and not (-0x8000 <= difference <= NEAR):
            self.wasted += 2
        return put_int(out, difference)

    cdef bint _value(self, Out *out, Column *c, uint32_t i, uint32_t row, dict indices) except -1:
        cdef Place *place = &self.places[i]
        cdef int64_t v, difference, step
        if is_null(c, row):
            put_byte(out, 0xc0)
            return True
        if c.kind == F64:
            return self._float(out, place, (<double *>c.values)[row])
        if c.kind == BOOL:
            put_byte(out, 0xc3 if (<uint8_t *>c.values)[row] else 0xc2)
            return True
        if c.kind == STR:
            return self._string(out, c, i, (<uint32_t *>c.values)[row], indices)
        v = (<int64_t *>c.values)[row]
        if not minus(v, place.base, &difference):
            return False
        if c.kind == TIME:
            while v % UNITS[place.wanted]:
                place.wanted -= 1
            if difference % UNITS[place.exponent]:
                return False
            put_int(out, difference // UNITS[place.exponent])
            return True
        # a base near to this value would save bytes only if values stay near to each other
        step = <int64_t>(<uint64_t>v - <uint64_t>place.before)
        place.before = v
        self._relative(out, difference, -NEAR <= step <= NEAR)
        return True

    cdef bint _float(self, Out *out, Place *place, double v) except -1:
        cdef int64_t k
        cdef int e
        if decimal(v, place.exponent, &k):
            put_int(out, k)
            return True
        e = decimals(v)
        if place.exponent < e:
            place.wanted = max(place.wanted, <uint8_t>e)
            self.wasted += 6
        put_big(out, 0xcb, double_bits(v), 8)
        return True

    cdef bint _string(self, Out *out, Column *c, uint32_t i, uint32_t code, dict indices) except -1:
        cdef uint32_t start = c.dict_offsets[code], size = c.dict_offsets[code + 1] - start
        cdef bytes text
        known = indices.get((i, code))
        if known is None:
            text = PyBytes_FromStringAndSize(<char *>c.dict_bytes + start, size)
            known = self.table.get(text)
            if known is None:
                # a string may never come again: only from its second time on is it worth a place
                if text in self.fresh:
                    self.fresh[text] = True
                    self.wasted += size
                else:
                    if len(self.fresh) >= self.table_max:
                        self.fresh.clear()
                    self.fresh[text] = False
                put_text(out, c.dict_bytes + start, size)
                return True
            indices[(i, code)] = known
        put_int(out, known)
        return True
