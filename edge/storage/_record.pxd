# cython: language_level=3
"""A record of a log, and its bytes. See _record.pyx and docs/format/log.md."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef packed struct Header:       # little-endian; 36 bytes
    uint32_t marker              # the segment's salt
    uint32_t crc                 # CRC-32C, seeded with the salt, of all that follows: length .. end of payload
    uint32_t length              # of the payload
    uint64_t position
    uint64_t first
    uint32_t count
    uint16_t stream
    uint8_t kind
    uint8_t flags

cdef class Record:
    cdef readonly uint64_t position
    cdef readonly uint64_t first     # sequence of its first event
    cdef readonly uint32_t count     # events
    cdef readonly uint16_t stream
    cdef readonly uint8_t kind
    cdef readonly uint8_t flags
    cdef readonly bytes payload      # None where only headers were asked for
    cdef readonly uint64_t offset    # in its segment's file
    cdef readonly uint64_t end       # offset of what follows it
