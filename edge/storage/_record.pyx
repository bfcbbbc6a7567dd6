# cython: language_level=3, boundscheck=False, wraparound=False
"""Records of a log: bytes from fields, and fields from bytes that may be damaged.

    0        4        8        12         20       28       32       34     35      36
    | marker | crc32c | length | position | first  | count  | stream | kind | flags | payload ...

Invariants: within a segment positions go up, by one where nothing was lost; the marker is the segment's salt, a random number that no payload can know, so a
record copied or forged inside a payload is never taken for one; the CRC is seeded with the salt and covers every byte after itself.
Damage costs the damaged record only: the scan goes on at the next marker whose CRC holds and whose position goes up.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy
from edge.errors import DiskError
from edge.storage._crc32c cimport crc32c_of

HEADER_BYTES = sizeof(Header)
PAYLOAD_BYTES_MAX = 64 << 20
PREAMBLE = 1                         # flag: repeats at the head of each segment, so nothing is lost with it
SEALED = 4                           # flag: the payload is encrypted (edge/storage/cipher.py)
FOLLOWS_DURABLE = 2                  # flag: all records before it were on stable storage when it was appended


cdef class Record:
    """One record. `payload` is None when only headers were asked for."""

    def opened(self, cipher) -> bool:
        """Decrypt a sealed payload in its place; False when it is not what was sealed. Raises DiskError when there is no key."""
        if self.flags & 4:
            if cipher is None:
                raise DiskError("records are encrypted: name the configuration (-c, not --data), whose gateway.encryption_key_file tells the key")
            self.payload = cipher.show(self)
            self.flags &= ~4
        return self.payload is not None

    def __repr__(self):
        return f"Record({self.position}, kind {self.kind}, stream {self.stream}, first {self.first}, count {self.count}, at {self.offset})"


cdef Record record_of(const Header *h, uint64_t offset, bint payload):
    cdef Record r = Record.__new__(Record)
    r.position, r.first, r.count, r.stream, r.kind, r.flags = h.position, h.first, h.count, h.stream, h.kind, h.flags
    r.offset = offset
    r.end = offset + sizeof(Header) + h.length
    if payload:
        r.payload = PyBytes_FromStringAndSize(<const char *>h + sizeof(Header), h.length)
    return r


def encode(uint32_t salt, uint64_t position, uint8_t kind, uint8_t flags, uint16_t stream, uint64_t first, uint32_t count,
           const uint8_t[::1] payload not None) -> bytes:
    """A record's bytes. payload: at most PAYLOAD_BYTES_MAX."""
    cdef uint32_t size = <uint32_t>payload.shape[0]
    assert payload.shape[0] <= 64 << 20, "a record's payload is at most 64 MiB"
    cdef bytes out = PyBytes_FromStringAndSize(NULL, sizeof(Header) + size)
    cdef uint8_t *p = <uint8_t *>PyBytes_AS_STRING(out)
    cdef Header *h = <Header *>p
    h.marker, h.length, h.position, h.first, h.count = salt, size, position, first, count
    h.stream, h.kind, h.flags = stream, kind, flags
    if size:
        memcpy(p + sizeof(Header), &payload[0], size)
    h.crc = crc32c_of(p + 8, sizeof(Header) - 8 + size, salt)
    return out


def decode(bytes record not None) -> Record:
    """The fields of what encode() made."""
    return record_of(<const Header *>PyBytes_AS_STRING(record), 0, True)


def fields(bytes record not None) -> tuple:
    """(size, position, kind, flags, stream, first, count) of what encode() made."""
    cdef const Header *h = <const Header *>PyBytes_AS_STRING(record)
    return len(record), h.position, h.kind, h.flags, h.stream, h.first, h.count


def position_of(bytes record not None) -> int:
    """The position in what encode() made."""
    return (<const Header *>PyBytes_AS_STRING(record)).position


cdef inline bint is_zero(const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if p[i]:
            return False
    return True


cdef class Scan:
    """Walks a segment's bytes, window by window. Feed it windows that begin at `offset`.

    records: found since the last clear; holes: (offset, end, first position lost, position after) of what is damaged;
    needed: bytes from `offset` that the next window must have to say more, 0 when more bytes of any number will do.
    """

    cdef readonly uint32_t salt
    cdef readonly uint64_t offset, expected
    cdef readonly list records, holes
    cdef readonly uint32_t needed
    cdef uint64_t good                       # offset behind the last good record
    cdef uint64_t wanted
    cdef bint payloads

    def __init__(self, uint32_t salt, uint64_t offset, uint64_t expected, *, uint64_t wanted=0, bint payloads=True):
        """offset: where a record begins; expected: its position; wanted: records before that position are not kept."""
        self.salt, self.offset, self.good, self.expected = salt, offset, offset, expected
        self.wanted, self.payloads = wanted, payloads
        self.records, self.holes = [], []

    @property
    def end(self) -> int:
        """Offset behind the last good record."""
        return self.good

    def feed(self, const uint8_t[::1] window not None, uint64_t left):
        """window: the file's bytes from `offset` on; left: how many the file holds from there, at least as many as the window."""
        cdef size_t n = window.shape[0], i = 0, skip
        cdef uint64_t base = self.offset, size
        cdef const uint8_t *p
        cdef const uint8_t *q
        cdef const Header *h
        cdef uint32_t salt = self.salt
        cdef bint good
        self.needed = 0
        if n == 0:
            return
        p = &window[0]
        while n - i >= sizeof(Header):
            h = <const Header *>(p + i)
            good = False
            if h.marker == salt and h.position >= self.expected:
                size = sizeof(Header) + <uint64_t>h.length
                if size <= left - i:
                    if size > n - i:
                        self.needed = <uint32_t>size
                        break
                    good = crc32c_of(p + i + 8, size - 8, salt) == h.crc
            if good:
                if base + i != self.good or h.position != self.expected:
                    self.holes.append((self.good, base + i, self.expected, h.position))
                if h.position >= self.wanted:
                    self.records.append(record_of(h, base + i, self.payloads))
                self.expected = h.position + 1
                i += size
                self.good = base + i
            else:
                i += 1
                q = <const uint8_t *>memchr(p + i, salt & 0xff, n - i)
                i = n if q == NULL else q - p
        if i < n and n - i < sizeof(Header) and left == n:
            i = n
        self.offset = base + i


def is_blank(const uint8_t[::1] data not None) -> bool:
    """Whether all bytes are zero."""
    return data.shape[0] == 0 or is_zero(&data[0], data.shape[0])
