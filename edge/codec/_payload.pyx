# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The columns of a batch as a bytes object: with the batch's numbers ahead (journal, outbox), or alone (upstream).

    payload = varint rows, varint first sequence, signed varint received (ns), clock byte, columns
"""
from libc.stdlib cimport free
from libc.string cimport memset
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize

from edge.codec._columns cimport STRING_BYTES, read_columns, row_bytes, write_columns
from edge.columns._batch cimport STR, Batch
from edge.columns._buffer cimport In, Out, malformed, put_byte, put_signed, put_varint, spend, take_byte, take_signed, take_varint
from edge.columns._buffer import Malformed

cdef enum:
    ROWS_MAX = 0x7fffffff
    COLUMN_BYTES = 2048          # an empty batch's memory for one column


def payload_of(Batch batch not None, int form):
    """The byte `form`, then the batch's numbers and columns. Raises MemoryError."""
    cdef Out out
    memset(&out, 0, sizeof(out))
    try:
        put_byte(&out, form)
        put_varint(&out, batch.n)
        put_varint(&out, batch.first_sequence)
        put_signed(&out, batch.received_ns)
        put_byte(&out, batch.clock)
        with nogil:
            write_columns(&out, batch)
        return PyBytes_FromStringAndSize(<char *>out.data, out.size)
    finally:
        free(out.data)


def columns_of(Batch batch not None):
    """The columns alone. Raises MemoryError."""
    cdef Out out
    memset(&out, 0, sizeof(out))
    try:
        with nogil:
            write_columns(&out, batch)
        return PyBytes_FromStringAndSize(<char *>out.data, out.size) if out.size else b""
    finally:
        free(out.data)


def text_size(Batch batch not None):
    """Bytes of the dictionaries of the batch's string columns: what bit-packing does not make smaller."""
    cdef uint32_t i
    cdef uint64_t total = 0
    for i in range(batch.width):
        if batch.columns[i].kind == STR:
            total += batch.columns[i].dict_offsets[batch.columns[i].dict_n]
    return total


def memory_of(Batch batch not None):
    """Bytes of its bound that a reader spends on this batch."""
    cdef uint32_t i
    cdef uint64_t total = batch.n * row_bytes(batch) + COLUMN_BYTES * <uint64_t>batch.width + text_size(batch)
    for i in range(batch.width):
        if batch.columns[i].kind == STR:
            total += STRING_BYTES * <uint64_t>batch.columns[i].dict_n
    return total


cdef Batch filled(In *src, schema, uint64_t rows):
    """The batch of so many rows whose columns are the rest of src."""
    cdef Batch batch
    if rows > ROWS_MAX:
        malformed("it claims more than 2^31 rows")
    spend(src, COLUMN_BYTES * <uint64_t>len(schema.fields))
    batch = Batch(schema)
    with nogil:
        read_columns(src, batch, <uint32_t>rows)
    if src.p != src.end:
        malformed("bytes follow the last column")
    return batch


def batch_of(payload, Py_ssize_t start, schema, uint64_t bytes_max):
    """The batch that payload_of wrote, read from position `start` on (1: past the form); trailing bytes are refused.

    Raises Malformed, also if the batch would take more than bytes_max bytes of memory."""
    cdef Py_buffer view
    cdef In src
    cdef Batch batch
    cdef uint64_t rows, first_sequence
    cdef int64_t received_ns
    cdef int clock
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        src.p = <const uint8_t *>view.buf + min(start, view.len)
        src.end = <const uint8_t *>view.buf + view.len
        src.budget = bytes_max
        take_varint(&src, &rows)
        take_varint(&src, &first_sequence)
        take_signed(&src, &received_ns)
        clock = take_byte(&src)
        if clock > 2:
            malformed("unknown clock quality")
        batch = filled(&src, schema, rows)
        batch.first_sequence = first_sequence
        batch.received_ns = received_ns
        batch.clock = clock
        return batch
    finally:
        PyBuffer_Release(&view)


def batch_of_columns(columns, schema, uint64_t rows, uint64_t bytes_max):
    """The batch whose columns_of these are; its numbers are left at 0. Raises Malformed, as batch_of does."""
    cdef Py_buffer view
    cdef In src
    PyObject_GetBuffer(columns, &view, PyBUF_SIMPLE)
    try:
        src.p = <const uint8_t *>view.buf
        src.end = src.p + view.len
        src.budget = bytes_max
        return filled(&src, schema, rows)
    finally:
        PyBuffer_Release(&view)
