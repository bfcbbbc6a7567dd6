# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Repeats: which events a device has sent before, because it saw no PUBACK. For streams whose contract names an `id` or a `sequence`.

- An event is a repeat when its key had the same id among its last `ids_max` events that were taken. With a sequence the rest of the row must
  be the same too: a device that counts from 0 again after a restart repeats nothing.
- What bears MQTT's DUP flag is a repeat, too, when that is so of any of the last `window` events of the stream with its key: a broker that lost the
  connection sends all again that it had under way, which can be far more than `ids_max` of one key.
- A repeat changes nothing here. So the state is a function of the events taken, in their order: note() of what sift() let through gives the same.
- An event whose key or id is null is never a repeat, and is not remembered. A stream without a key has one anonymous key.
- At `keys_max` keys the sixteenth of them that has been silent longest, counted in events of the stream, is forgotten.
- An id that is a text, and a row, are told by 64 bits of a hash: an event is taken for a repeat by mistake once in 2^64 / ids_max events.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

import msgpack

from edge.columns._batch cimport BOOL, STR, Batch, Column, is_null

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t fold(uint64_t a, uint64_t b) {
        unsigned __int128 m = (unsigned __int128)a * b;
        return (uint64_t)m ^ (uint64_t)(m >> 64);
    }
    static inline int holds(const uint64_t *ids, uint32_t n, uint64_t id) {
        uint64_t found = 0;
        for (uint32_t i = 0; i < n; i++) found |= ids[i] == id;
        return found != 0;
    }
    """
    uint64_t fold(uint64_t a, uint64_t b) noexcept nogil
    bint holds(const uint64_t *ids, uint32_t n, uint64_t id) noexcept nogil

cdef enum:
    UNSEEN = 0xfffffffe
    OLDER_MAX = 64               # events with the same lowest bits of their marks that are looked at: what lies behind them is no repeat


cdef uint64_t hash_text(const uint8_t *p, uint32_t n) noexcept nogil:
    """The mixing step of wyhash, a word at a time."""
    cdef uint64_t h = 0xa0761d6478bd642fULL ^ n, w
    while n >= 8:
        memcpy(&w, p, 8)
        h = fold(w ^ 0xe7037ed1a0b428dbULL, h ^ 0x8ebc6af09c88c6e3ULL)
        p += 8
        n -= 8
    w = 0
    memcpy(&w, p, n)
    return fold(w ^ 0xe7037ed1a0b428dbULL, h ^ 0x589965cc75374cc3ULL)


cdef class Repeats:
    """Of one stream. schema: its columns; field: the name of its id or sequence; whole: the rest of the row counts too; window: a power of two, twice what
    a broker is told that it may have under way (Receive Maximum)."""

    def __cinit__(self, schema, field, bint whole, uint32_t keys_max=65536, uint32_t ids_max=32, uint32_t window=8192):
        if window & (window - 1) or not window:
            raise ValueError(f"the window is a power of two, not {window}")
        self.field = schema.index(field)
        self.whole = whole
        self.keys_max, self.ids_max = max(keys_max, 1), max(ids_max, 1)
        self.stride = sizeof(Slot) + 8 * self.ids_max
        self.tag = [1, field, bool(whole), schema.key, self.ids_max, [[f.name, f.kind] for f in schema.fields] if whole else None]
        self.names, self.slots = [], {}
        self.window = window
        self.recent = <uint64_t *>calloc(window, 8)
        self.newest = <uint32_t *>calloc(window, 4)
        self.older = <uint32_t *>calloc(window, 4)
        if self.recent == NULL or self.newest == NULL or self.older == NULL:
            raise MemoryError("ids of a stream")

    def __dealloc__(self):
        free(self.memory)
        free(self.known)
        free(self.recent)
        free(self.newest)
        free(self.older)

    def __len__(self):
        """Keys known."""
        return self.n

    def sift(self, Batch batch not None, bytes resent=None):
        """The batch without its repeats, itself when it has none. The rows that stay are remembered. resent: a bitmap of the rows that bear DUP."""
        cdef bytes bitmap = PyBytes_FromStringAndSize(NULL, (batch.n + 7) // 8)
        cdef uint8_t *fresh = <uint8_t *>PyBytes_AS_STRING(bitmap)
        memset(fresh, 0, (batch.n + 7) // 8)
        if resent is not None and 8 * len(resent) < batch.n:
            raise ValueError(f"{8 * len(resent)} bits for {batch.n} rows")
        return batch if self._walk(batch, fresh, NULL if resent is None else PyBytes_AS_STRING(resent)) == batch.n else batch.gather(fresh)

    def note(self, Batch batch not None):
        """Remember all rows of a batch that was sifted before."""
        self._walk(batch, NULL, NULL)

    # --- in a checkpoint

    def dump(self):
        """(names, ids, recent): three images; pages of the second change only where keys had events, of the third one in 512 events."""
        return (msgpack.packb([self.tag, self.clock, self.names]), (<char *>self.memory)[:<size_t>self.n * self.stride] if self.n else b"",
                (<char *>self.recent)[:8 * <size_t>min(self.clock, <uint64_t>self.window)])

    def load(self, names, ids, recent=b""):
        """Replace the state by a dump's; one of another contract is left. Without `recent`, as an older version's or of another window, it fills anew. Raises ValueError when it is none."""
        tag, clock, known = msgpack.unpackb(names, max_array_len=1 << 24)
        if tag != self.tag:
            return
        cdef bytes data = bytes(ids), marks = bytes(recent)
        cdef Slot *s
        cdef uint32_t i
        if len(data) != len(known) * self.stride:
            raise ValueError(f"{len(data)} bytes of ids of {len(known)} keys")
        self._reserve(len(known))
        memcpy(self.memory, PyBytes_AS_STRING(data), len(data))
        for i in range(<uint32_t>len(known)):
            s = self.slot(i)
            if s.n > self.ids_max or s.next >= self.ids_max:
                self.n = 0
                raise ValueError("a key has more ids than it may")
        self.n, self.clock = len(known), clock
        self.names = [bytes(name) for name in known]
        self.slots = {name: i for i, name in enumerate(self.names)}
        while self.n > self.keys_max:
            self._make_room()
        self._restore(marks if len(marks) == 8 * min(clock, self.window) else b"")

    # --- inside

    cdef Slot *slot(self, uint32_t i) noexcept nogil:
        return <Slot *>(self.memory + <size_t>i * self.stride)

    cdef uint32_t _walk(self, Batch batch, uint8_t *fresh, const char *resent) except? 0xffffffff:
        """Take the rows, but for repeats where `fresh` is given, in which the bits of those taken are set. How many were."""
        cdef Column *key = &batch.columns[batch.key] if batch.key >= 0 else NULL
        cdef uint32_t r, taken = 0, code = 0
        cdef uint64_t mark, own
        cdef Slot *s
        cdef uint64_t *ids
        self._know(key)
        for r in range(batch.n):
            if (key == NULL or not is_null(key, r)) and not is_null(&batch.columns[self.field], r):
                if key != NULL:
                    code = (<uint32_t *>key.values)[r]
                mark = self._mark(batch, r)
                own = fold(mark ^ 0x589965cc75374cc3ULL, self.known[code].hash)
                if resent != NULL and resent[r >> 3] >> (r & 7) & 1 and self._came(own):
                    continue
                if self.known[code].slot == UNSEEN:
                    self.known[code].slot = self._slot_for(batch, code)
                s = self.slot(self.known[code].slot)
                ids = <uint64_t *>(s + 1)
                if fresh != NULL and holds(ids, s.n, mark):
                    continue
                ids[s.next] = mark
                s.next = s.next + 1 if s.next + 1 < self.ids_max else 0
                if s.n < self.ids_max:
                    s.n += 1
                self._keep(own)
                s.used = self.clock
            if fresh != NULL:
                fresh[r >> 3] |= <uint8_t>(1 << (r & 7))
            taken += 1
        return taken

    cdef int _know(self, Column *key) except -1:
        """The keys of the batch at hand."""
        cdef uint32_t i, keys = key.dict_n if key != NULL else 1
        self._reserve_codes(keys)
        for i in range(keys):
            self.known[i].slot = UNSEEN
            self.known[i].hash = 0xa0761d6478bd642fULL
            if key != NULL:
                self.known[i].hash ^= hash_text(key.dict_bytes + key.dict_offsets[i], key.dict_offsets[i + 1] - key.dict_offsets[i])
        return 0

    cdef void _keep(self, uint64_t mark) noexcept nogil:
        """Another event is taken."""
        cdef uint32_t *newest = &self.newest[mark & (self.window - 1)]
        cdef uint32_t at = <uint32_t>self.clock & (self.window - 1)
        self.recent[at] = mark
        self.older[at] = newest[0]
        newest[0] = <uint32_t>self.clock
        self.clock += 1

    cdef bint _came(self, uint64_t mark) noexcept nogil:
        """Whether one of the last `window` events has this mark."""
        cdef uint32_t n = self.newest[mark & (self.window - 1)]
        cdef int i
        for i in range(OLDER_MAX):
            if <uint32_t>self.clock - n > self.window:           # its place was taken by another
                break
            if self.recent[n & (self.window - 1)] == mark:
                return True
            n = self.older[n & (self.window - 1)]
        return False

    cdef int _restore(self, bytes marks) except -1:
        """The last events, as `recent` in a dump has them."""
        cdef uint64_t clock = self.clock, n
        cdef const uint64_t *old = <const uint64_t *>PyBytes_AS_STRING(marks)
        memset(self.recent, 0, 8 * <size_t>self.window)
        memset(self.newest, 0, 4 * <size_t>self.window)
        self.clock = clock - <uint64_t>len(marks) // 8
        for n in range(self.clock, clock):
            self._keep(old[n & (self.window - 1)])
        return 0

    cdef uint64_t _mark(self, Batch batch, uint32_t row) noexcept nogil:
        """What tells the event from others of its key."""
        cdef uint32_t i, code
        cdef uint64_t h, w
        cdef Column *c = &batch.columns[self.field]
        if not self.whole and c.kind != STR:
            return (<uint64_t *>c.values)[row]
        h = 0x8ebc6af09c88c6e3ULL
        for i in range(self.field if not self.whole else 0, self.field + 1 if not self.whole else batch.width):
            c = &batch.columns[i]
            if is_null(c, row):
                w = 0x1d8e4e27c47d124fULL
            elif c.kind == STR:
                code = (<uint32_t *>c.values)[row]
                w = hash_text(c.dict_bytes + c.dict_offsets[code], c.dict_offsets[code + 1] - c.dict_offsets[code])
            elif c.kind == BOOL:
                w = (<uint8_t *>c.values)[row]
            else:
                w = (<uint64_t *>c.values)[row]
            h = fold(h ^ 0xa0761d6478bd642fULL, w ^ 0xe7037ed1a0b428dbULL) + w
        return h

    cdef uint32_t _slot_for(self, Batch batch, uint32_t code) except? 0xffffffff:
        cdef Column *c
        cdef Slot *s
        cdef bytes name = b""
        cdef uint32_t i
        if batch.key >= 0:
            c = &batch.columns[batch.key]
            name = (<char *>c.dict_bytes)[c.dict_offsets[code]:c.dict_offsets[code + 1]]
        found = self.slots.get(name)
        if found is not None:
            return found
        if self.n >= self.keys_max:
            self._make_room()
            for i in range(c.dict_n if batch.key >= 0 else 1):       # slots have moved
                self.known[i].slot = UNSEEN
        self._reserve(self.n + 1)
        s = self.slot(self.n)
        memset(s, 0, self.stride)
        self.names.append(name)
        self.slots[name] = self.n
        self.n += 1
        return self.n - 1

    cdef int _make_room(self) except -1:
        """Forget the sixteenth of the keys that have been silent longest."""
        cdef uint32_t i, last
        order = sorted(range(self.n), key=lambda i: self._used(i))
        for i in sorted(order[:max(self.keys_max // 16, 1)], reverse=True):
            last = self.n - 1
            del self.slots[self.names[i]]
            name = self.names.pop()
            if i != last:
                memcpy(self.slot(i), self.slot(last), self.stride)
                self.names[i] = name
                self.slots[name] = i
            self.n = last
        return 0

    def _used(self, uint32_t i):
        return self.slot(i).used

    def _reserve(self, uint32_t keys):
        cdef void *p
        if keys > self.allocated:
            p = realloc(self.memory, 2 * <size_t>keys * self.stride)
            if p == NULL:
                raise MemoryError("ids of a stream")
            self.memory = <uint8_t *>p
            self.allocated = 2 * keys

    def _reserve_codes(self, uint32_t codes):
        cdef void *p
        if codes > self.known_allocated:
            p = realloc(self.known, 2 * <size_t>codes * sizeof(Known))
            if p == NULL:
                raise MemoryError("ids of a stream")
            self.known = <Known *>p
            self.known_allocated = 2 * codes
