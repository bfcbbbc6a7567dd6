# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Watermarks: how far each key of a stream has come in event time.

A watermark w promises that no event with time < w is expected any more. It is kept by key, because a device's clock is
its own: one that runs hours behind or ahead changes nobody else's windows.

- A key's watermark is the largest event time it has shown, less the allowed lateness. An event time further than
  `skew_ns` ahead of its receive time counts as receive time + skew_ns: a clock in the far future cannot close what is to come.
- A key that is silent for longer than `idle_ns` goes on by the receive clock: latest + (silence - idle) - lateness. So windows
  close when a sensor goes quiet, in that sensor's own time. After `forget_ns` of silence, or when the table is full (the longest
  silent go first), the key is forgotten: its watermark is FORGOTTEN, everything it has open is closed.
- The merged watermark is the smallest one of the keys that are not idle; computed at ticks. It never goes back.
- A stream without a key has one anonymous key.

State is a function of the batches and ticks seen, nothing else (dump and load carry it over a restart).
The idea of per-partition watermarks with idleness: Akidau et al., "The Dataflow Model", VLDB 2015; Flink's WatermarkStrategy.
"""
from libc.stdlib cimport free, realloc
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint32_t

import msgpack

from edge.columns._batch cimport Batch, Column, is_null
from edge.columns._batch import Batch as PyBatch

FORGOTTEN = INT64_MAX
SECOND_NS = 1_000_000_000
cdef uint32_t KEYS_PER_TICK = 1024       # of follow() and closing(): a call has so much time, whatever the number of keys


cdef class Watermarks:
    """One stream's event-time progress. Times and spans in nanoseconds; `capacity` bounds the keys kept."""

    def __cinit__(self, int64_t lateness_ns=0, int64_t idle_ns=30 * SECOND_NS, int64_t skew_ns=60 * SECOND_NS,
                  int64_t forget_ns=24 * 3600 * SECOND_NS, uint32_t capacity=65536):
        self.lateness_ns = lateness_ns
        self.idle_ns = idle_ns
        self.skew_ns = skew_ns
        self.forget_ns = forget_ns
        self.capacity = max(capacity, 1)
        self.names = []
        self.slots = {}
        self.merged_ns = INT64_MIN

    def __dealloc__(self):
        free(self.times)
        free(self.latest)

    def __len__(self):
        return self.n

    cpdef observe(self, Batch batch):
        """Account for a batch's rows and give it key_watermarks (as they stand after the batch) and watermark_ns."""
        cdef uint32_t keys, r, code, slot
        cdef uint32_t *codes = NULL
        cdef Column *c = NULL
        cdef int64_t t, ceiling = batch.received_ns + self.skew_ns
        if batch.key >= 0:
            c = &batch.columns[batch.key]
            codes = <uint32_t *>c.values
        keys = c.dict_n if c != NULL else 1
        self._ensure(self.n, keys)
        with nogil:
            for code in range(keys):
                self.latest[code] = INT64_MIN
            for r in range(batch.n):
                if c != NULL and is_null(c, r):
                    continue
                code = codes[r] if c != NULL else 0
                t = batch.event_time(r)
                if t > ceiling:
                    t = ceiling
                if t > self.latest[code]:
                    self.latest[code] = t
        batch.reserve_watermarks()
        for code in range(keys):
            name = self._name(batch, code)
            found = self.slots.get(name)
            if self.latest[code] == INT64_MIN:                       # in the dictionary only
                batch.key_watermarks[code] = self.times[<uint32_t>found].watermark_ns if found is not None else INT64_MIN
                continue
            if found is None:
                if self.n == self.capacity:
                    self._make_room(batch)
                found = self._add(name, self.latest[code])
            slot = found
            self._advance(slot, self.latest[code], batch.received_ns)
            batch.key_watermarks[code] = self.times[slot].watermark_ns
        batch.watermark_ns = self.merged_ns if c != NULL else batch.key_watermarks[0]

    def tick(self, schema, int64_t received_ns):
        """Let silent keys go on by the receive clock. A batch without rows whose key dictionary names the keys that moved,
        or None when none did."""
        cdef uint32_t slot = 0, code
        cdef int64_t silence, w, merged = INT64_MAX
        cdef KeyTime *k
        cdef Batch batch = None
        cdef const unsigned char[::1] view
        while slot < self.n:
            k = &self.times[slot]
            silence = received_ns - k.received_ns
            if silence <= self.idle_ns:
                merged = min(merged, k.watermark_ns)
                slot += 1
                continue
            w = INT64_MAX if silence > self.forget_ns else k.latest_ns + (silence - self.idle_ns) - self.lateness_ns
            if w > k.watermark_ns:
                if batch is None:
                    batch = PyBatch(schema)
                    batch.received_ns = received_ns
                k.watermark_ns = w
                self._announce(batch, slot)
            if w == INT64_MAX:
                self._forget(slot)               # another key now has this slot
            else:
                slot += 1
        if merged == INT64_MAX:                  # all are idle: time goes on with the one that is furthest
            for slot in range(self.n):
                merged = max(merged, self.times[slot].watermark_ns) if merged != INT64_MAX else self.times[slot].watermark_ns
        if merged != INT64_MAX and merged > self.merged_ns:
            self.merged_ns = merged
        if batch is not None:
            batch.watermark_ns = self.merged_ns
            if batch.key < 0:
                batch.watermark_ns = self.times[0].watermark_ns if self.n else INT64_MAX
        return batch

    def follow(self, schema, Watermarks live, int64_t received_ns):
        """Go to the state of `live`, which saw all that these saw, and more before. Ticks of the keys whose watermark moves by that;
        those that `live` does not know are forgotten."""
        cdef uint32_t slot
        cdef list ticks = []
        cdef Batch batch = None
        cdef int64_t w
        for slot in range(self.n):
            found = live.slots.get(self.names[slot])
            w = INT64_MAX if found is None else live.times[<uint32_t>found].watermark_ns
            if w > self.times[slot].watermark_ns:
                self.times[slot].watermark_ns = w
                batch = self._note(ticks, schema, slot, received_ns)
        self.load(live.dump())
        for batch in ticks:
            batch.watermark_ns = self.merged_ns
            if batch.key < 0:
                batch.watermark_ns = self.times[0].watermark_ns if self.n else INT64_MAX
        return ticks

    def closing(self, schema, int64_t received_ns):
        """Ticks that say of every key that it is forgotten. The state stays as it is."""
        cdef uint32_t slot
        cdef list ticks = []
        cdef Batch batch
        cdef int64_t kept
        for slot in range(self.n):
            kept, self.times[slot].watermark_ns = self.times[slot].watermark_ns, INT64_MAX
            batch = self._note(ticks, schema, slot, received_ns)
            batch.watermark_ns = self.merged_ns if batch.key >= 0 else INT64_MAX
            self.times[slot].watermark_ns = kept
        return ticks

    def shift(self, int64_t delta_ns):
        """The receive clock was set, by delta_ns: silence is counted as if it had always been right."""
        cdef uint32_t slot
        for slot in range(self.n):
            self.times[slot].received_ns += delta_ns

    def watermark(self, bytes key=b""):
        """The key's watermark, None if it is not known."""
        found = self.slots.get(key)
        return None if found is None else self.times[<uint32_t>found].watermark_ns

    def dump(self):
        """The state as bytes; load() of equal parameters reads it."""
        cdef uint32_t slot
        rows = []
        for slot in range(self.n):
            rows.append((self.names[slot], self.times[slot].latest_ns, self.times[slot].received_ns, self.times[slot].watermark_ns))
        return msgpack.packb([self.merged_ns, rows])

    def load(self, data):
        """Replace the state by a dump's. Raises ValueError when it is not one."""
        cdef uint32_t slot
        self.merged_ns, rows = msgpack.unpackb(data, strict_map_key=False, max_array_len=1 << 24)
        self.n = 0
        self.names, self.slots = [], {}
        for name, latest, received, watermark in rows[:self.capacity]:
            slot = self._add(bytes(name), latest)
            self.times[slot].received_ns = received
            self.times[slot].watermark_ns = watermark

    # --- the table

    cdef int _ensure(self, uint32_t keys, uint32_t codes) except -1:
        cdef void *p
        if keys > self.allocated:
            p = realloc(self.times, 2 * <size_t>keys * sizeof(KeyTime))
            if p == NULL:
                raise MemoryError("watermarks")
            self.times = <KeyTime *>p
            self.allocated = 2 * keys
        if codes > self.latest_allocated:
            p = realloc(self.latest, 2 * <size_t>codes * sizeof(int64_t))
            if p == NULL:
                raise MemoryError("watermarks")
            self.latest = <int64_t *>p
            self.latest_allocated = 2 * codes
        return 0

    def _add(self, bytes name, int64_t latest_ns):
        cdef uint32_t slot = self.n
        self._ensure(slot + 1, 0)
        self.times[slot].latest_ns = latest_ns
        self.times[slot].received_ns = INT64_MIN
        self.times[slot].watermark_ns = INT64_MIN
        self.names.append(name)
        self.slots[name] = slot
        self.n = slot + 1
        return slot

    cdef int _advance(self, uint32_t slot, int64_t latest_ns, int64_t received_ns) except -1:
        cdef KeyTime *k = &self.times[slot]
        k.latest_ns = max(k.latest_ns, latest_ns)
        k.received_ns = max(k.received_ns, received_ns)
        k.watermark_ns = max(k.watermark_ns, k.latest_ns - self.lateness_ns)
        return 0

    cdef int _make_room(self, Batch batch) except -1:
        """Forget the sixteenth of the keys that have been silent longest; the batch announces it."""
        cdef uint32_t slot, keep = self.capacity - max(self.capacity // 16, 1)
        order = sorted(range(self.n), key=lambda i: self._received(i))
        for slot in sorted(order[:self.n - keep], reverse=True):
            self.times[slot].watermark_ns = INT64_MAX
            self._announce(batch, slot)
            self._forget(slot)
        return 0

    cdef Batch _note(self, list ticks, schema, uint32_t slot, int64_t received_ns):
        """Put a key's watermark into the last of the ticks, or into a new one when that has KEYS_PER_TICK."""
        cdef Batch batch = ticks[len(ticks) - 1] if ticks else None
        if batch is None or (batch.key >= 0 and batch.columns[batch.key].dict_n >= KEYS_PER_TICK):
            batch = PyBatch(schema)
            batch.received_ns = received_ns
            ticks.append(batch)
        self._announce(batch, slot)
        return batch

    def _received(self, uint32_t slot):
        return self.times[slot].received_ns

    def _announce(self, Batch batch, uint32_t slot):
        cdef const unsigned char[::1] name
        cdef uint32_t code = 0
        if batch.key >= 0:
            text = self.names[slot]
            code = batch.intern(batch.key, <const unsigned char *><char *>text, <uint32_t>len(text))
        batch.reserve_watermarks()
        batch.key_watermarks[code] = self.times[slot].watermark_ns

    cdef int _forget(self, uint32_t slot) except -1:
        cdef uint32_t last = self.n - 1
        del self.slots[self.names[slot]]
        name = self.names.pop()
        if slot != last:
            self.times[slot] = self.times[last]
            self.names[slot] = name
            self.slots[name] = slot
        self.n = last
        return 0

    cdef bytes _name(self, Batch batch, uint32_t code):
        cdef Column *c
        if batch.key < 0:
            return b""
        c = &batch.columns[batch.key]
        return (<char *>c.dict_bytes)[c.dict_offsets[code]:c.dict_offsets[code + 1]]
