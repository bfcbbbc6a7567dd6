# cython: language_level=3
"""A batch's columns as bytes and back. See _columns.pyx."""
from libc.stdint cimport uint32_t, uint64_t
from edge.columns._batch cimport Batch
from edge.columns._buffer cimport In, Out

cdef enum:
    STRING_BYTES = 80            # what a dictionary entry takes beside its text: offset and slots

cdef inline uint64_t row_bytes(Batch batch) noexcept nogil:
    """Memory a row takes while it is read: the batch's, and the scratch."""
    return 80 + 9 * <uint64_t>batch.width

# Appends the columns.
cdef int write_columns(Out *out, Batch batch) except -1 nogil
# Fills an empty batch with `rows` rows from src. The caller bounds src.budget. Raises Malformed.
cdef int read_columns(In *src, Batch batch, uint32_t rows) except -1 nogil
