# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The columns of a batch as bytes objects: whole, with the batch's numbers ahead (journal, outbox), or one by one (upstream).

    payload = varint rows, varint first sequence, signed varint received (ns), clock byte, columns
"""
from libc.stdlib cimport free
from libc.string cimport memset
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize

from edge._batch cimport Batch
from edge._buffer cimport In, Out, malformed, put_byte, put_signed, put_varint, spend, take_byte, take_signed, take_varint
from edge._buffer import Malformed
from edge._columns cimport read_columns, write_columns

cdef enum:
    ROWS_MAX = 0x7fffffff


cdef Batch open_batch(schema, In *src, uint64_t rows):
    """An empty batch for so many rows; its columns' fixed memory is paid from the budget."""
    if rows > ROWS_MAX:
        malformed("it claims more than 2^31 rows")
    spend(src, 2048 * <uint64_t>len(schema.fields))
    return Batch(schema)


def payload_of(Batch batch not None, bytes head):
    """`head`, then the batch's numbers and columns."""
    cdef Out out
    cdef const uint8_t[:] prefix = head
    cdef Py_ssize_t i
    memset(&out, 0, sizeof(out))
    try:
        for i in range(len(head)):
            put_byte(&out, prefix[i])
        put_varint(&out, batch.n)
        put_varint(&out, batch.first_sequence)
        put_signed(&out, batch.received_ns)
        put_byte(&out, batch.clock)
        write_columns(&out, batch, NULL)
        return PyBytes_FromStringAndSize(<char *>out.data, out.size)
    finally:
        free(out.data)


def batch_of(payload, Py_ssize_t start, schema, uint64_t bytes_max):
    """The batch that payload_of wrote, from position `start` on; trailing bytes are refused.

    Raises Malformed, also if the batch would take more than bytes_max bytes of memory."""
    cdef Py_buffer view
    cdef In src
    cdef Batch batch
    cdef uint64_t rows
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        src.p = <const uint8_t *>view.buf + min(start, view.len)
        src.end = <const uint8_t *>view.buf + view.len
        src.budget = bytes_max
        take_varint(&src, &rows)
        batch = open_batch(schema, &src, rows)
        take_varint(&src, &batch.first_sequence)
        take_signed(&src, &batch.received_ns)
        batch.clock = take_byte(&src)
        if batch.clock > 2:
            malformed("unknown clock quality")
        read_columns(&src, batch, <uint32_t>rows)
        if src.p != src.end:
            malformed("bytes follow the last column")
        return batch
    finally:
        PyBuffer_Release(&view)


def columns_of(Batch batch not None):
    """The columns as a list of bytes, in wire order: the key column first."""
    cdef Out out
    cdef uint32_t i
    cdef size_t start = 0, stop
    cdef bytearray ends = bytearray(sizeof(size_t) * (batch.width + 1))
    cdef size_t *end = <size_t *><char *>ends
    cdef list columns = []
    memset(&out, 0, sizeof(out))
    try:
        write_columns(&out, batch, end)
        for i in range(batch.width):
            stop = end[i]
            columns.append(PyBytes_FromStringAndSize(<char *>out.data + start, stop - start) if stop > start else b"")
            start = stop
        return columns
    finally:
        free(out.data)


def batch_of_columns(columns, schema, uint64_t rows, uint64_t bytes_max):
    """The batch whose columns_of these are: bytes-like, joined. Numbers are left at 0. Raises Malformed, as batch_of does."""
    cdef Py_buffer view
    cdef In src
    cdef Batch batch
    PyObject_GetBuffer(columns, &view, PyBUF_SIMPLE)
    try:
        src.p = <const uint8_t *>view.buf
        src.end = src.p + view.len
        src.budget = bytes_max
        batch = open_batch(schema, &src, rows)
        read_columns(&src, batch, <uint32_t>rows)
        if src.p != src.end:
            malformed("bytes follow the last column")
        return batch
    finally:
        PyBuffer_Release(&view)
