# cython: language_level=3
"""A float series: n doubles as scaled decimals, as XOR-ed bits, or plain; bit-exact. See _floats.pyx."""
from libc.stdint cimport int64_t, uint8_t, uint32_t
from edge.codec._series cimport Keys, Scratch
from edge.columns._buffer cimport In, Out

cdef enum:
    EXPONENT_MAX = 15            # decimals after the point that are tried

cdef double[16] TENS             # 10^0 .. 10^15, all exact

cdef bint decimal(double v, int exponent, int64_t *k) noexcept nogil   # True: v is k / 10^exponent, to the bit
cdef int exponent_of(double v) noexcept nogil                          # the smallest that fits, -1: none
cdef int write_floats(Out *out, const double *v, uint32_t n, const Keys *keys, Scratch *s) except -1 nogil
cdef int read_floats(In *src, double *v, uint32_t n, const Keys *keys, Scratch *s) except -1 nogil
