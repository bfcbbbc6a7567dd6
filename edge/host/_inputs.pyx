# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""How a batch is laid out for a rule (rules/ABI.md, Batch): the counterpart of _result.pyx.

The area, which the module gives by tg_alloc, holds what the host writes for a call:
    Batch 64 | Column 24 x inputs | key watermarks i64 x keys | the columns' values, validity, dictionaries | key codes u32 x rows
A column that several inputs ask for is there once. Addresses are u32 and 8-aligned areas'; sizes are computed in 64 bits.
"""
from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from edge.columns._batch cimport BOOL, STR, TIME, Batch, Column
from edge.host.plan import ABSENT, EVENT_TIME

cdef enum:
    TICK = 1
    UNSYNCHRONISED = 2


cdef inline uint64_t aligned(uint64_t at, uint64_t alignment) noexcept nogil:
    return (at + alignment - 1) & ~(alignment - 1)


cdef inline void put32(uint8_t *at, uint32_t value) noexcept nogil:
    memcpy(at, &value, 4)


cdef inline void put64(uint8_t *at, int64_t value) noexcept nogil:
    memcpy(at, &value, 8)


cdef class Inputs:
    """What a bound rule reads. sources: of a Binding; fields: how many the stream has."""

    def __cinit__(self, sources, uint32_t fields):
        cdef uint32_t i
        cdef int source
        self.n_places = fields + 1
        self.n_inputs = len(sources)
        self.places = <Place *>calloc(self.n_places, sizeof(Place))
        self.sources = <int *>calloc(self.n_inputs + 1, sizeof(int))
        if self.places == NULL or self.sources == NULL:
            raise MemoryError("inputs")
        for i in range(self.n_inputs):
            source = sources[i]
            self.sources[i] = -1
            if source != ABSENT:
                self.sources[i] = self.n_places - 1 if source == EVENT_TIME else source
                self.places[self.sources[i]].wanted = True

    def __dealloc__(self):
        free(self.places)
        free(self.sources)

    def size(self, Batch batch) -> int:
        """Bytes that a batch needs."""
        return self.lay_out(batch)

    cdef uint64_t lay_out(self, Batch batch) except 0:
        """Decide where everything stands. Returns the bytes needed."""
        cdef uint64_t at = 64 + 24 * <uint64_t>self.n_inputs
        cdef uint32_t i, rows = batch.n
        cdef Place *p
        cdef Column *c
        self.keys = batch.columns[batch.key].dict_n if batch.key >= 0 else 0
        at = aligned(at, 8)
        self.key_watermarks = <uint32_t>at if self.keys else 0
        at += 8 * <uint64_t>self.keys
        for i in range(self.n_places):
            p = &self.places[i]
            if not p.wanted:
                continue
            at = aligned(at, 8)
            p.values = <uint32_t>at
            if i == self.n_places - 1:
                p.kind = TIME
                at += 8 * <uint64_t>rows
                continue
            c = &batch.columns[i]
            p.kind = c.kind
            at += <uint64_t>rows * (1 if c.kind == BOOL else 4 if c.kind == STR else 8)
            p.valid = 0
            if c.has_nulls:
                p.valid = <uint32_t>at
                at += (rows + 7) // 8
            if c.kind == STR:
                at = aligned(at, 4)
                p.dict_n = c.dict_n
                p.dict_offsets = <uint32_t>at
                at += 4 * (<uint64_t>c.dict_n + 1)
                p.dict_bytes = <uint32_t>at
                at += c.dict_offsets[c.dict_n]
        self.key_codes = 0
        if batch.key >= 0 and self.places[batch.key].wanted:
            self.key_codes = self.places[batch.key].values
        elif batch.key >= 0:
            at = aligned(at, 4)
            self.key_codes = <uint32_t>at
            at += 4 * <uint64_t>rows
        return at

    cdef int write(self, Batch batch, uint8_t *to, uint32_t address) except -1:
        """Write the batch by lay_out(), for an area at `address` of the module's memory. `to` has room for what lay_out() said."""
        cdef uint8_t *at
        cdef uint32_t words[6]
        cdef uint32_t i, k, rows = batch.n, r
        cdef int64_t *times
        cdef Place *p
        cdef Column *c
        memset(to, 0, 64)
        put32(to, rows)
        put32(to + 4, self.n_inputs)
        put64(to + 8, <int64_t>batch.first_sequence)
        put64(to + 16, batch.received_ns)
        put64(to + 24, batch.watermark_ns)
        put32(to + 32, (0 if rows else TICK) | (UNSYNCHRONISED if batch.clock == 1 else 0))
        put32(to + 36, self.keys)
        put32(to + 40, address + self.key_watermarks if self.key_watermarks else 0)
        put32(to + 44, address + self.key_codes if self.key_codes else 0)
        put32(to + 48, address + 64)
        for i in range(self.n_inputs):
            at = to + 64 + 24 * i
            memset(at, 0, 24)
            if self.sources[i] < 0:
                continue
            p = &self.places[self.sources[i]]
            words[0], words[1], words[2], words[3], words[4], words[5] = p.kind, p.values, p.valid, p.dict_n, p.dict_offsets, p.dict_bytes
            for k in (1, 2, 4, 5):
                words[k] += address if words[k] else 0
            memcpy(at, words, 24)
        if self.keys:
            if batch.key_watermarks != NULL and batch.key_watermarks_capacity >= self.keys:
                memcpy(to + self.key_watermarks, batch.key_watermarks, 8 * <size_t>self.keys)
            else:
                for i in range(self.keys):
                    put64(to + self.key_watermarks + 8 * <size_t>i, INT64_MIN)
        for i in range(self.n_places - 1):
            p = &self.places[i]
            if not p.wanted:
                continue
            c = &batch.columns[i]
            memcpy(to + p.values, c.values, <size_t>rows * (1 if c.kind == BOOL else 4 if c.kind == STR else 8))
            if p.valid:
                memcpy(to + p.valid, c.valid, (rows + 7) // 8)
            if c.kind == STR:
                memcpy(to + p.dict_offsets, c.dict_offsets, 4 * (<size_t>c.dict_n + 1))
                if c.dict_offsets[c.dict_n]:
                    memcpy(to + p.dict_bytes, c.dict_bytes, c.dict_offsets[c.dict_n])
        p = &self.places[self.n_places - 1]
        if p.wanted:
            times = <int64_t *>(to + p.values)
            if batch.time >= 0 and not batch.columns[batch.time].has_nulls:
                memcpy(times, batch.columns[batch.time].values, 8 * <size_t>rows)
            else:
                for r in range(rows):
                    times[r] = batch.event_time(r)
        if batch.key >= 0 and not self.places[batch.key].wanted:
            memcpy(to + self.key_codes, batch.columns[batch.key].values, 4 * <size_t>rows)
        return 0
