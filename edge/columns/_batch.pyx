# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Batch: events of one stream as typed columns.

Invariants
- Row i has sequence first_sequence + i; all rows of a batch were received at received_ns.
- A string column is dictionary-coded within the batch: codes[n] < dict_n, dict_offsets ascend, the strings are
  distinct and stand in order of first appearance. A code whose row is null is 0 and means nothing.
- Values of null rows are 0, so equal batches have equal bytes.
- The memory belongs to the batch; clear() keeps it for the next rows. Not thread-safe.

    >>> from edge.columns.schema import Field, Schema
    >>> b = Batch.from_rows(Schema("s", (Field("id", "str"), Field("t", "f64"))), [{"id": "a", "t": 1.5}, {"id": "a"}])
    >>> b.rows()
    [{'id': 'a', 't': 1.5}, {'id': 'a', 't': None}]
"""
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from cpython.bytes cimport PyBytes_AsStringAndSize
from edge.columns._hash cimport hash_bytes

from edge.columns.schema import KINDS

cdef enum:
    ROWS_MIN = 64
    DICT_MIN = 16

cdef inline size_t width_of(uint8_t kind) noexcept nogil:
    return 1 if kind == BOOL else 4 if kind == STR else 8


cdef int grow(void **block, size_t size) except -1 nogil:
    cdef void *p = realloc(block[0], size)
    if p == NULL:
        with gil:
            raise MemoryError("a batch needs %d bytes" % size)
    block[0] = p
    return 0


cdef class Batch:
    """Rows of one stream. `schema` gives the columns; see the module's invariants."""

    def __cinit__(self, schema, uint32_t capacity=0):
        cdef uint32_t i
        self.schema = schema
        self.width = len(schema.fields)
        self.key = -1 if schema.key is None else schema.index(schema.key)
        self.time = -1 if schema.time is None else schema.index(schema.time)
        self.columns = <Column *>calloc(self.width if self.width else 1, sizeof(Column))
        if self.columns == NULL:
            raise MemoryError("columns")
        for i in range(self.width):
            self.columns[i].kind = KINDS[schema.fields[i].kind]
            self.columns[i].generation = 1
        self.reserve(capacity if capacity else ROWS_MIN)

    def __dealloc__(self):
        cdef uint32_t i
        if self.columns != NULL:
            for i in range(self.width):
                free(self.columns[i].valid)
                free(self.columns[i].values)
                free(self.columns[i].dict_offsets)
                free(self.columns[i].dict_bytes)
                free(self.columns[i].slots)
            free(self.columns)
        free(self.key_watermarks)

    # --- memory

    cdef int reserve(self, uint32_t rows) except -1 nogil:
        """Memory for `rows` rows in all columns. Raises MemoryError."""
        cdef uint32_t i, old = (self.capacity + 7) // 8, new
        cdef Column *c
        if rows <= self.capacity:
            return 0
        new = (rows + 7) // 8
        for i in range(self.width):
            c = &self.columns[i]
            grow(<void **>&c.values, rows * width_of(c.kind))
            grow(<void **>&c.valid, new)
            memset(c.valid + old, 0xff, new - old)
            if c.kind == STR and c.dict_offsets == NULL:
                self._grow_dict(c, DICT_MIN)
                c.dict_offsets[0] = 0
        self.capacity = rows
        return 0

    cdef int reserve_watermarks(self) except -1 nogil:
        """key_watermarks with room for every key of the dictionary."""
        cdef uint32_t keys = self.columns[self.key].dict_n if self.key >= 0 else 1
        if keys > self.key_watermarks_capacity:
            grow(<void **>&self.key_watermarks, <size_t>keys * 8)
            self.key_watermarks_capacity = keys
        return 0

    cdef int _grow_dict(self, Column *c, uint32_t strings) except -1 nogil:
        cdef uint32_t mask = 2 * DICT_MIN - 1, i, code
        cdef uint64_t h
        cdef DictSlot *slots
        while mask < 2 * strings:
            mask = 2 * mask + 1
        grow(<void **>&c.dict_offsets, (<size_t>strings + 1) * 4)
        slots = <DictSlot *>calloc(<size_t>mask + 1, sizeof(DictSlot))
        if slots == NULL:
            with gil:
                raise MemoryError("dictionary")
        free(c.slots)
        c.slots = slots
        c.slot_mask = mask
        c.dict_capacity = strings
        for code in range(c.dict_n):
            h = hash_bytes(c.dict_bytes + c.dict_offsets[code], c.dict_offsets[code + 1] - c.dict_offsets[code])
            i = <uint32_t>h & mask
            while slots[i].generation == c.generation:
                i = (i + 1) & mask
            slots[i].generation = c.generation
            slots[i].code = code
            slots[i].hash = h
        return 0

    cdef int reserve_dict(self, uint32_t column, uint32_t strings, uint32_t size) except -1 nogil:
        """Room in the column's dictionary for `strings` strings of `size` bytes in all. Raises MemoryError."""
        cdef Column *c = &self.columns[column]
        if strings > c.dict_capacity:
            self._grow_dict(c, strings)
        if c.dict_bytes == NULL or size > c.dict_bytes_capacity:
            grow(<void **>&c.dict_bytes, <size_t>size + 1)       # never NULL, not even for empty strings alone
            c.dict_bytes_capacity = size
        return 0

    cpdef void clear(self):
        """Forget the rows, keep the memory."""
        cdef uint32_t i
        cdef Column *c
        self.n = 0
        for i in range(self.width):
            c = &self.columns[i]
            if c.has_nulls:
                memset(c.valid, 0xff, (self.capacity + 7) // 8)
                c.has_nulls = False
            if c.kind == STR:
                c.dict_n = 0
                c.generation += 1
                if c.generation == 0:          # wrapped after 2^32 batches: slots of old generations would match
                    memset(c.slots, 0, (<size_t>c.slot_mask + 1) * sizeof(DictSlot))
                    c.generation = 1

    # --- writing

    cdef uint32_t add_row(self) except? 0xffffffff nogil:
        """A new row, whose every column the caller sets (set_null counts)."""
        cdef uint32_t row = self.n
        if row == self.capacity:
            self.reserve(2 * self.capacity)
        self.n = row + 1
        return row

    cdef void pop_row(self) noexcept nogil:
        """Take the last row back (a contract was broken halfway). Dictionary entries stay, unused."""
        cdef uint32_t i
        self.n -= 1
        for i in range(self.width):
            self.columns[i].valid[self.n >> 3] |= 1 << (self.n & 7)

    cdef void set_null(self, uint32_t column, uint32_t row) noexcept nogil:
        cdef Column *c = &self.columns[column]
        c.has_nulls = True
        c.valid[row >> 3] &= ~(1 << (row & 7))
        if c.kind == BOOL:
            (<uint8_t *>c.values)[row] = 0
        elif c.kind == STR:
            (<uint32_t *>c.values)[row] = 0
        else:
            (<int64_t *>c.values)[row] = 0

    cdef void set_f64(self, uint32_t column, uint32_t row, double value) noexcept nogil:
        (<double *>self.columns[column].values)[row] = value

    cdef void set_i64(self, uint32_t column, uint32_t row, int64_t value) noexcept nogil:
        (<int64_t *>self.columns[column].values)[row] = value

    cdef void set_bool(self, uint32_t column, uint32_t row, bint value) noexcept nogil:
        (<uint8_t *>self.columns[column].values)[row] = value

    cdef int set_str(self, uint32_t column, uint32_t row, const uint8_t *text, uint32_t size) except -1 nogil:
        (<uint32_t *>self.columns[column].values)[row] = self.intern(column, text, size)
        return 0

    cdef uint32_t intern(self, uint32_t column, const uint8_t *text, uint32_t size) except? 0xffffffff nogil:
        """The string's code in the column's dictionary; added if new. The text must be valid UTF-8."""
        cdef Column *c = &self.columns[column]
        cdef uint64_t h = hash_bytes(text, size)
        cdef uint32_t i = <uint32_t>h & c.slot_mask, start, code
        cdef DictSlot *s
        while True:
            s = &c.slots[i]
            if s.generation != c.generation:
                break
            if s.hash == h:
                start = c.dict_offsets[s.code]
                if c.dict_offsets[s.code + 1] - start == size and memcmp(c.dict_bytes + start, text, size) == 0:
                    return s.code
            i = (i + 1) & c.slot_mask
        if c.dict_n == c.dict_capacity:
            self._grow_dict(c, 2 * c.dict_capacity)
            i = <uint32_t>h & c.slot_mask
            while c.slots[i].generation == c.generation:
                i = (i + 1) & c.slot_mask
            s = &c.slots[i]
        code = c.dict_n
        start = c.dict_offsets[code]
        if start + size > c.dict_bytes_capacity:
            grow(<void **>&c.dict_bytes, 2 * (<size_t>start + size))
            c.dict_bytes_capacity = 2 * (start + size)
        memcpy(c.dict_bytes + start, text, size)
        c.dict_offsets[code + 1] = start + size
        c.dict_n = code + 1
        s.generation = c.generation
        s.code = code
        s.hash = h
        return code

    cdef int64_t event_time(self, uint32_t row) noexcept nogil:
        """The contract's event time, else (no such field, or null in this row) the receive time; nanoseconds."""
        if self.time < 0 or is_null(&self.columns[self.time], row):
            return self.received_ns
        return (<int64_t *>self.columns[self.time].values)[row]

    # --- whole rows

    cdef Batch gather(self, const uint8_t *bitmap):
        """A new batch of the rows whose bit is set. Sequences do not carry over: the caller gives the new ones."""
        cdef Batch out = Batch(self.schema)
        cdef uint32_t row, stop
        cdef uint64_t bits
        out.received_ns = self.received_ns
        out.clock = self.clock
        row = 0
        while row < self.n:
            if not bit(bitmap, row):
                row += 1
                while row % 64 == 0 and row + 64 <= self.n:      # few bits are set: pass the empty words by
                    memcpy(&bits, bitmap + row // 8, 8)
                    if bits:
                        break
                    row += 64
                continue
            stop = row + 1
            while stop < self.n and bit(bitmap, stop):
                stop += 1
            out.append_rows(self, row, stop)
            row = stop
        return out

    cdef int append_rows(self, Batch other, uint32_t start, uint32_t stop) except -1:
        """Copy rows start..stop of a batch of the same columns."""
        cdef uint32_t rows = stop - start, base = self.n, i, r, code, need = base + rows
        cdef size_t w
        cdef Column *a
        cdef Column *b
        assert other.width == self.width
        if need > self.capacity:
            self.reserve(max(need, 2 * self.capacity))
        for i in range(self.width):
            a = &self.columns[i]
            b = &other.columns[i]
            assert a.kind == b.kind
            if a.kind == STR:
                for r in range(rows):
                    if is_null(b, start + r):
                        self.set_null(i, base + r)
                        continue
                    code = (<uint32_t *>b.values)[start + r]
                    self.set_str(i, base + r, b.dict_bytes + b.dict_offsets[code], b.dict_offsets[code + 1] - b.dict_offsets[code])
                continue
            w = width_of(a.kind)
            memcpy(<uint8_t *>a.values + base * w, <uint8_t *>b.values + start * w, rows * w)
            if b.has_nulls:
                for r in range(rows):
                    if not bit(b.valid, start + r):
                        self.set_null(i, base + r)
        self.n = need
        return 0

    # --- Python's view: tests, notebooks, the cold paths

    def __len__(self):
        return self.n

    @classmethod
    def from_rows(cls, schema, rows, *, first_sequence=0, received_ns=0):
        """A batch from dictionaries; a missing or None value is null. Raises TypeError, OverflowError on a wrong value."""
        cdef Batch batch = cls(schema)
        batch.first_sequence = first_sequence
        batch.received_ns = received_ns
        for row in rows:
            batch.add(row)
        return batch

    def add(self, dict row):
        """Append one row from a dictionary."""
        cdef uint32_t r = self.add_row(), i
        cdef char *text
        cdef Py_ssize_t size
        cdef uint8_t kind
        for i in range(self.width):
            value = row.get(self.schema.fields[i].name)
            kind = self.columns[i].kind
            if value is None:
                self.set_null(i, r)
            elif kind == F64:
                self.set_f64(i, r, value)
            elif kind == BOOL:
                self.set_bool(i, r, value)
            elif kind == STR:
                encoded = value.encode()
                PyBytes_AsStringAndSize(encoded, &text, &size)
                self.set_str(i, r, <uint8_t *>text, <uint32_t>size)
            else:
                self.set_i64(i, r, value)

    @property
    def plain(self):
        """Whether each dictionary holds the strings of valid rows alone, in order of first appearance: as after a way through the journal."""
        cdef uint32_t i, r, seen
        cdef Column *c
        for i in range(self.width):
            c, seen = &self.columns[i], 0
            for r in range(self.n if c.kind == STR else 0):
                if not is_null(c, r) and (<uint32_t *>c.values)[r] >= seen:
                    seen = seen + 1 if (<uint32_t *>c.values)[r] == seen else c.dict_n + 1
            if c.kind == STR and seen != c.dict_n:
                return False
        return True

    def extend(self, Batch other, uint32_t start=0, stop=None):
        """Append rows of another batch of the same columns."""
        cdef uint32_t end = other.n if stop is None else min(<uint32_t>stop, other.n)
        if end > start:
            self.append_rows(other, start, end)

    def select(self, rows):
        """A new batch of the rows at these positions, ascending."""
        cdef bytearray bitmap = bytearray((self.n + 7) // 8)
        for r in rows:
            bitmap[r >> 3] |= 1 << (r & 7)
        return self.gather(<const uint8_t *><char *>bitmap)

    def column(self, name):
        """The column's values as a list, None where null."""
        return self._column(self.schema.index(name))

    cdef list _column(self, uint32_t i):
        cdef Column *c = &self.columns[i]
        cdef uint32_t r, code
        cdef list out = []
        cdef list strings = []
        if c.kind == STR:
            for r in range(c.dict_n):
                strings.append((<char *>c.dict_bytes)[c.dict_offsets[r]:c.dict_offsets[r + 1]].decode())
        for r in range(self.n):
            if is_null(c, r):
                out.append(None)
            elif c.kind == F64:
                out.append((<double *>c.values)[r])
            elif c.kind == BOOL:
                out.append((<uint8_t *>c.values)[r] != 0)
            elif c.kind == STR:
                out.append(strings[(<uint32_t *>c.values)[r]])
            else:
                out.append((<int64_t *>c.values)[r])
        return out

    def rows(self):
        """The rows as a list of dictionaries, None where null."""
        names = [f.name for f in self.schema.fields]
        return [dict(zip(names, values)) for values in zip(*[self._column(i) for i in range(self.width)])] if self.width else []

    def watermarks(self):
        """(key, its watermark) of every key in the dictionary, in its order; none before the batch was observed, or without a key."""
        cdef uint32_t code
        cdef Column *c
        if self.key < 0 or self.key_watermarks == NULL:
            return []
        c = &self.columns[self.key]
        return [((<char *>c.dict_bytes)[c.dict_offsets[code]:c.dict_offsets[code + 1]], self.key_watermarks[code])
                for code in range(min(c.dict_n, self.key_watermarks_capacity))]

    def set_watermarks(self, watermarks):
        """What watermarks() gave of a batch with the same rows."""
        cdef char *text
        cdef Py_ssize_t size
        cdef uint32_t code
        for key, at_ns in watermarks:
            if self.key < 0:
                return
            PyBytes_AsStringAndSize(key, &text, &size)
            code = self.intern(self.key, <uint8_t *>text, <uint32_t>size)
            self.reserve_watermarks()
            self.key_watermarks[code] = at_ns

    def times(self):
        """Event time of each row, nanoseconds since the epoch."""
        return [self.event_time(r) for r in range(self.n)]
