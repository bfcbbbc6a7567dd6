# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Reading a rule's Result out of its memory (rules/ABI.md, Result) into memory of the host's own.

Nothing in it is believed. Every address and length is compared with the memory's size in 64-bit arithmetic, which 32-bit values cannot
overflow; every code, offset and string is checked; a value is read from the module's memory once. One wrong value raises Wrong.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from edge.columns._batch cimport BOOL, STR, Batch, Column, bit
from edge.columns._batch import Batch as PyBatch
from edge.host.plan import EMIT, Wrong

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static uint32_t tg_count(const uint8_t *bits, size_t size) {
        uint32_t n = 0;
        uint64_t w;
        for (; size >= 8; bits += 8, size -= 8) { memcpy(&w, bits, 8); n += (uint32_t)__builtin_popcountll(w); }
        w = 0;
        memcpy(&w, bits, size);
        return n + (uint32_t)__builtin_popcountll(w);
    }
    static int tg_meet(const uint8_t *a, const uint8_t *b, size_t size) {
        for (size_t i = 0; i < size; i++) if (a[i] & b[i]) return 1;
        return 0;
    }
    static int tg_utf8(const uint8_t *s, size_t n) {       /* RFC 3629: no overlong forms, no surrogates, at most U+10FFFF */
        for (size_t i = 0; i < n;) {
            uint8_t c = s[i];
            if (c < 0x80) { i++; continue; }
            size_t more = c >= 0xc2 && c <= 0xdf ? 1 : (c & 0xf0) == 0xe0 ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 0;
            if (!more || more >= n - i) return 0;
            uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
            if (s[i + 1] < low || s[i + 1] > high) return 0;
            for (size_t k = 2; k <= more; k++) if ((s[i + k] & 0xc0) != 0x80) return 0;
            i += more + 1;
        }
        return 1;
    }
    """
    uint32_t tg_count(const uint8_t *bits, size_t size) noexcept nogil
    bint tg_meet(const uint8_t *a, const uint8_t *b, size_t size) noexcept nogil
    bint tg_utf8(const uint8_t *s, size_t n) noexcept nogil


cdef inline bint inside(uint64_t size, uint64_t address, uint64_t need, uint32_t alignment) noexcept nogil:
    return address != 0 and address % alignment == 0 and address + need <= size


cdef int must_be_inside(uint64_t size, uint32_t address, uint64_t need, uint32_t alignment, what) except -1:
    if not inside(size, address, need, alignment):
        raise Wrong(f"{what}: address {address:#x} for {need} bytes, the memory has {size:#x}")
    return 0


cdef inline uint64_t aligned(uint64_t size) noexcept nogil:
    return (size + 7) & ~<uint64_t>7


cdef inline uint32_t width_of(const Column *c) noexcept nogil:
    return 1 if c.kind == BOOL else 4 if c.kind == STR else 8


cdef inline uint32_t put(uint8_t *to, uint64_t *at, const void *data, uint64_t size) noexcept nogil:
    """Write data at at[0], which moves on. Returns the address."""
    cdef uint32_t address = <uint32_t>at[0]
    if size:
        memcpy(to + at[0], data, size)
    at[0] += aligned(size)
    return address


cdef bytes bitmap(const uint8_t *memory, uint64_t size, uint32_t address, uint32_t rows, what):
    """A copy of a bitmap over rows, bits past the last row cleared. None for address 0."""
    cdef uint32_t need = (rows + 7) // 8
    cdef bytes copy
    if address == 0 or rows == 0:
        return None
    must_be_inside(size, address, need, 1, what)
    copy = PyBytes_FromStringAndSize(NULL, need)     # not from the memory: bytes of length 1 would be the interpreter's shared ones
    memcpy(PyBytes_AS_STRING(copy), memory + address, need)
    if rows & 7:
        (<uint8_t *>PyBytes_AS_STRING(copy))[need - 1] &= (1 << (rows & 7)) - 1
    return copy


cdef class Result:
    """A rule's answer to one batch: counts, and the batches that follow from it."""

    def out(self, Batch batch):
        """The output rows: of `batch` (the input) those that passed, or what the rule emitted. Sequences are the caller's to give."""
        cdef Batch out
        if self.emitted is not None:
            return self.emitted
        if self.selected is None:
            return PyBatch(self.answers.output)
        out = batch.gather(<const uint8_t *>PyBytes_AS_STRING(self.selected))
        out.schema = self.answers.output
        return out

    def late(self, Batch batch):
        """The rows of `batch` (the input) that came too late."""
        cdef Batch out
        if self.lates is None:
            return PyBatch(self.answers.late)
        out = batch.gather(<const uint8_t *>PyBytes_AS_STRING(self.lates))
        out.schema = self.answers.late
        return out


    cdef void stamp(self, Batch batch) noexcept:
        """What is emitted came when its input did."""
        if self.emitted is not None:
            self.emitted.received_ns = batch.received_ns
            self.emitted.clock = batch.clock

    cdef uint64_t image_size(self, uint32_t rows):
        """Bytes that write() takes, for a result of a batch of so many rows; 0: there is nothing to write."""
        cdef uint64_t bits = aligned((rows + 7) // 8), at = IMAGE + 32
        cdef uint32_t i
        cdef Column *c
        if self.selected is None and self.lates is None and not self.ignored and self.emitted is None:
            return 0
        at += (bits if self.selected is not None else 0) + (bits if self.lates is not None else 0)
        if self.emitted is not None:
            at += 24 * <uint64_t>self.answers.n_outputs
            for i in range(self.emitted.width):
                c = &self.emitted.columns[i]
                at += aligned(<uint64_t>self.emitted.n * width_of(c)) + (aligned((self.emitted.n + 7) // 8) if c.has_nulls else 0)
                if c.kind == STR:
                    at += aligned(4 * (<uint64_t>c.dict_n + 1)) + aligned(c.dict_offsets[c.dict_n])
        return at

    cdef void write(self, uint8_t *to, uint32_t rows) noexcept:
        """Write it as a module would, as if `to` were its whole memory: Answers.read(to, image_size, IMAGE, rows) gives it again."""
        cdef uint32_t head[8]
        cdef uint64_t at = IMAGE + 32
        cdef uint32_t i
        memset(head, 0, 32)
        if self.selected is not None:
            head[0] = put(to, &at, PyBytes_AS_STRING(self.selected), len(self.selected))
        if self.lates is not None:
            head[1] = put(to, &at, PyBytes_AS_STRING(self.lates), len(self.lates))
        head[4] = self.ignored
        if self.emitted is not None:
            head[2], head[3] = self.emitted.n, <uint32_t>at
            memset(to + at, 0, 24 * <size_t>self.answers.n_outputs)
            at += 24 * <uint64_t>self.answers.n_outputs
            for i in range(self.answers.n_outputs):
                if self.answers.columns[i] >= 0:
                    self._write_column(to, &at, to + head[3] + 24 * <size_t>i, &self.emitted.columns[self.answers.columns[i]])
        memcpy(to + IMAGE, head, 32)

    cdef void _write_column(self, uint8_t *to, uint64_t *at, uint8_t *entry, Column *c) noexcept:
        cdef uint32_t column[6]              # kind, values, valid, dict_n, dict_offsets, dict_bytes
        cdef uint32_t n = self.emitted.n
        memset(column, 0, 24)
        column[0] = c.kind
        column[1] = put(to, at, c.values, <uint64_t>n * width_of(c))
        if c.has_nulls:
            column[2] = put(to, at, c.valid, (n + 7) // 8)
        if c.kind == STR:
            column[3] = c.dict_n
            column[4] = put(to, at, c.dict_offsets, 4 * (<uint64_t>c.dict_n + 1))
            column[5] = put(to, at, c.dict_bytes, c.dict_offsets[c.dict_n])
        memcpy(entry, column, 24)


cdef class Answers:
    """How a bound rule's Results are read. late: schema of the late rows."""

    def __cinit__(self, plan, binding, late, uint64_t bytes_max):
        cdef uint32_t i
        cdef int column = 0
        self.emits = plan.mode == EMIT
        self.n_outputs = len(binding.kept)
        self.output = binding.output
        self.late = late
        self.bytes_max = bytes_max
        self.columns = <int *>calloc(self.n_outputs + 1, sizeof(int))
        self.widths = <uint8_t *>calloc(self.n_outputs + 1, 1)
        if self.columns == NULL or self.widths == NULL:
            raise MemoryError("outputs")
        for i in range(self.n_outputs):
            self.columns[i] = -1
            if binding.kept[i]:
                self.columns[i] = column
                self.widths[i] = {"bool": 1, "str": 4}.get(binding.output.fields[column].kind, 8)
                column += 1

    def __dealloc__(self):
        free(self.columns)
        free(self.widths)

    cdef Result read(self, const uint8_t *memory, uint64_t size, uint32_t address, uint32_t rows):
        """The Result at an address (0: nothing) of a module's memory. Raises Wrong."""
        cdef Result result = Result.__new__(Result)
        cdef uint32_t head[8]
        cdef uint32_t used
        result.answers = self
        if address == 0:
            return result
        must_be_inside(size, address, 32, 4, "the Result")
        memcpy(head, memory + address, 32)
        if not self.emits:
            result.selected = bitmap(memory, size, head[0], rows, "the Result's selected bitmap")
            if result.selected is not None:
                result.selected_count = tg_count(<const uint8_t *>PyBytes_AS_STRING(result.selected), len(result.selected))
                result.out_count = result.selected_count
        result.lates = bitmap(memory, size, head[1], rows, "the Result's late bitmap")
        if result.lates is not None:
            result.late_count = tg_count(<const uint8_t *>PyBytes_AS_STRING(result.lates), len(result.lates))
            if result.selected is not None and tg_meet(<const uint8_t *>PyBytes_AS_STRING(result.selected),
                                                       <const uint8_t *>PyBytes_AS_STRING(result.lates), len(result.lates)):
                raise Wrong("a row is both selected and late")
        used = result.selected_count + result.late_count
        if used > rows or head[4] > rows - used:
            raise Wrong(f"of {rows} rows {result.selected_count} are selected, {result.late_count} late and {head[4]} ignored")
        result.ignored = head[4]
        if self.emits and head[2]:
            result.emitted = self._rows(memory, size, head[2], head[3])
            result.out_count = head[2]
        return result

    cdef Batch _rows(self, const uint8_t *memory, uint64_t size, uint32_t rows, uint32_t columns):
        cdef uint64_t total = 0
        cdef uint32_t i
        cdef Batch out
        must_be_inside(size, columns, 24 * <uint64_t>self.n_outputs, 4, "the Result's columns")
        for i in range(self.n_outputs):      # before memory is taken for them
            if self.columns[i] >= 0:
                total += <uint64_t>rows * self.widths[i] + (rows + 7) // 8
        if rows > self.bytes_max or total > self.bytes_max:
            raise Wrong(f"{rows} output rows have {total} bytes, the limit is {self.bytes_max}")
        out = PyBatch(self.output, rows)
        out.n = rows
        for i in range(self.n_outputs):
            if self.columns[i] >= 0:
                self._column(memory, size, memory + columns + 24 * i, out, self.columns[i], &total)
        return out

    cdef int _column(self, const uint8_t *memory, uint64_t size, const uint8_t *at, Batch out, uint32_t i, uint64_t *total) except -1:
        """Copy one output column. total: bytes put out so far."""
        cdef uint32_t column[6]              # kind, values, valid, dict_n, dict_offsets, dict_bytes
        cdef uint32_t rows = out.n, r, width
        cdef Column *c = &out.columns[i]
        cdef bytes valid
        cdef const uint8_t *bits = NULL
        memcpy(column, at, 24)
        if column[0] != c.kind:
            raise Wrong(f"output {i} has kind {column[0]}, the plan says {c.kind}")
        width = width_of(c)
        must_be_inside(size, column[1], <uint64_t>rows * width, width, f"output {i}'s values")
        valid = bitmap(memory, size, column[2], rows, f"output {i}'s valid bitmap")
        if valid is not None:
            bits = <const uint8_t *>PyBytes_AS_STRING(valid)
        memcpy(c.values, memory + column[1], <size_t>rows * width)
        if bits != NULL:
            for r in range(rows):
                if not bit(bits, r):
                    out.set_null(i, r)
        if c.kind == BOOL:
            for r in range(rows):
                (<uint8_t *>c.values)[r] = (<uint8_t *>c.values)[r] != 0
        elif c.kind == STR:
            self._strings(memory, size, column, bits, out, i, total)
        return 0

    cdef int _strings(self, const uint8_t *memory, uint64_t size, const uint32_t *column, const uint8_t *valid, Batch out, uint32_t i,
                      uint64_t *total) except -1:
        """Turn the copied codes into codes of the batch's own dictionary; of the module's only strings that rows use are looked at."""
        cdef Column *c = &out.columns[i]
        cdef uint32_t *codes = <uint32_t *>c.values
        cdef uint32_t n = column[3], rows = out.n, r, code, start, stop
        cdef uint32_t *known                 # code of the module's dictionary -> ours + 1
        total[0] += 4 * <uint64_t>n
        if total[0] > self.bytes_max:
            raise Wrong(f"output {i} has a dictionary of {n} strings, the limit of output is {self.bytes_max} bytes")
        if n:
            must_be_inside(size, column[4], 4 * (<uint64_t>n + 1), 4, f"output {i}'s dictionary")
        known = <uint32_t *>calloc(n if n else 1, 4)
        if known == NULL:
            raise MemoryError("dictionary")
        try:
            for r in range(rows):
                if valid != NULL and not bit(valid, r):
                    continue
                code = codes[r]
                if code >= n:
                    raise Wrong(f"output {i} has code {code} in row {r}, its dictionary has {n} strings")
                if known[code] == 0:
                    memcpy(&start, memory + column[4] + 4 * <uint64_t>code, 4)
                    memcpy(&stop, memory + column[4] + 4 * <uint64_t>code + 4, 4)
                    if start > stop:
                        raise Wrong(f"output {i}: string {code} of its dictionary goes from {start} to {stop}")
                    total[0] += stop - start
                    if total[0] > self.bytes_max:
                        raise Wrong(f"output {i}'s strings exceed the limit of {self.bytes_max} output bytes")
                    if stop > start:
                        must_be_inside(size, column[5], stop, 1, f"output {i}: string {code} of its dictionary")
                    if not tg_utf8(memory + column[5] + start, stop - start):
                        raise Wrong(f"output {i}: string {code} of its dictionary is not UTF-8")
                    known[code] = out.intern(i, memory + column[5] + start, stop - start) + 1
                codes[r] = known[code] - 1
        finally:
            free(known)
        return 0
