# cython: language_level=3
"""An integer series: n values of 64 bits as the cheapest of six predictions and two packings. See _series.pyx."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from edge.columns._buffer cimport In, Out

cdef struct Keys:                # which key each value belongs to
    const uint32_t *codes        # NULL: no keys; else one code a value, each < n
    uint32_t n

cdef struct Scratch:             # working memory of one call; `block` owns it all
    void *block
    int64_t *values              # rows
    int64_t *divided             # rows
    int64_t *residuals           # rows
    int64_t *candidate           # rows
    int64_t *firsts              # rows
    uint32_t *codes              # rows
    uint8_t *bits                # ceil(rows / 8)
    int64_t *last                # keys
    uint8_t *seen                # keys

cdef int allocate(Scratch *s, uint32_t rows, uint32_t keys) except -1 nogil
cdef void release(Scratch *s) noexcept nogil

# `alphabet` > 0: the values are dictionary codes < alphabet, new ones in ascending order; keys is then not used.
cdef int write_series(Out *out, const int64_t *v, uint32_t n, const Keys *keys, uint32_t alphabet, Scratch *s) except -1 nogil
cdef int read_series(In *src, int64_t *v, uint32_t n, const Keys *keys, uint32_t alphabet, Scratch *s) except -1 nogil
