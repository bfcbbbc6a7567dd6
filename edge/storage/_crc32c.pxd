# cython: language_level=3
"""CRC-32C of memory. See _crc32c.pyx."""
from libc.stdint cimport uint8_t, uint32_t

cdef uint32_t crc32c_of(const uint8_t *data, size_t size, uint32_t seed) noexcept nogil
