# cython: language_level=3
"""A batch's columns as bytes and back. See _columns.pyx."""
from libc.stdint cimport uint32_t
from edge._batch cimport Batch
from edge._buffer cimport In, Out

# Appends the columns in wire order; ends[i] becomes out.size after the i-th of them (NULL: not wanted).
cdef int write_columns(Out *out, Batch batch, size_t *ends) except -1 nogil
# Fills an empty batch with `rows` rows from src. The caller bounds src.budget. Raises Malformed.
cdef int read_columns(In *src, Batch batch, uint32_t rows) except -1 nogil
