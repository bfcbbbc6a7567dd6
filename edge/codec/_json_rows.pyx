# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Rows of a batch as compact JSON objects (RFC 8259), for cloud sides that read nothing else."""
from libc.stdlib cimport free
from libc.string cimport memset
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free

from edge.columns._batch cimport BOOL, F64, I64, STR, TIME, Batch, Column, is_null
from edge.columns._buffer cimport Out, double_bits, put, put_byte, room

cdef extern from "Python.h":
    char *PyOS_double_to_string(double v, char code, int precision, int flags, int *kind) except NULL
    int Py_DTSF_ADD_DOT_0

cdef extern from "string.h":
    size_t strlen(const char *text) noexcept nogil

cdef const char *HEX = b"0123456789abcdef"


cdef int put_escaped(Out *out, const uint8_t *text, uint32_t size) except -1:
    """A JSON string: UTF-8 as it is, escapes for ", \\ and control characters."""
    cdef uint32_t i, start = 0
    cdef uint8_t a
    put_byte(out, 0x22)
    for i in range(size):
        a = text[i]
        if a >= 0x20 and a != 0x22 and a != 0x5c:
            continue
        put(out, text + start, i - start)
        start = i + 1
        put_byte(out, 0x5c)
        if a == 0x22 or a == 0x5c:
            put_byte(out, a)
        elif a == 0x0a:
            put_byte(out, 0x6e)
        else:
            put(out, b"u00", 3)
            put_byte(out, HEX[a >> 4])
            put_byte(out, HEX[a & 15])
    put(out, text + start, size - start)
    return put_byte(out, 0x22)


cdef int put_number(Out *out, uint64_t v, int digits) except -1:
    """Decimal digits of v, at least `digits` of them."""
    cdef char text[20]
    cdef int n = 0
    while v or n < digits:
        n += 1
        text[20 - n] = 0x30 + v % 10
        v //= 10
    return put(out, text + 20 - n, n)


cdef int put_time(Out *out, int64_t ns) except -1:
    """RFC 3339, UTC, as many digits of the second as it takes. All of i64 is within the years 1677 to 2262.

    Days to date: Hinnant, "chrono-compatible low-level date algorithms", civil_from_days."""
    cdef int64_t seconds = ns // 1000000000, rest = ns % 1000000000, days, second
    cdef int64_t era, doe, yoe, doy, mp, year, month
    cdef int digits = 9
    if rest < 0:
        rest += 1000000000
        seconds -= 1
    days = seconds // 86400
    second = seconds % 86400
    if second < 0:
        second += 86400
        days -= 1
    days += 719468
    era = days // 146097
    doe = days - era * 146097
    yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    month = mp + 3 if mp < 10 else mp - 9
    year = yoe + era * 400 + (1 if month <= 2 else 0)
    put_byte(out, 0x22)
    put_number(out, year, 4)
    put_byte(out, 0x2d)
    put_number(out, month, 2)
    put_byte(out, 0x2d)
    put_number(out, doy - (153 * mp + 2) // 5 + 1, 2)
    put_byte(out, 0x54)
    put_number(out, second // 3600, 2)
    put_byte(out, 0x3a)
    put_number(out, second // 60 % 60, 2)
    put_byte(out, 0x3a)
    put_number(out, second % 60, 2)
    if rest:
        while rest % 10 == 0:
            rest //= 10
            digits -= 1
        put_byte(out, 0x2e)
        put_number(out, rest, digits)
    return put(out, b'Z"', 2)


cdef int put_float(Out *out, double v) except -1:
    """The shortest digits that read back as v; null for NaN and infinities, which JSON has no word for."""
    cdef char *text
    if (double_bits(v) >> 52) & 0x7ff == 0x7ff:
        return put(out, b"null", 4)
    text = PyOS_double_to_string(v, b'r', 0, Py_DTSF_ADD_DOT_0, NULL)
    try:
        return put(out, text, strlen(text))
    finally:
        PyMem_Free(text)


cdef int put_value(Out *out, Column *c, uint32_t row) except -1:
    cdef int64_t v
    cdef uint32_t code
    if is_null(c, row):
        return put(out, b"null", 4)
    if c.kind == F64:
        return put_float(out, (<double *>c.values)[row])
    if c.kind == BOOL:
        return put(out, b"true", 4) if (<uint8_t *>c.values)[row] else put(out, b"false", 5)
    if c.kind == STR:
        code = (<uint32_t *>c.values)[row]
        return put_escaped(out, c.dict_bytes + c.dict_offsets[code], c.dict_offsets[code + 1] - c.dict_offsets[code])
    v = (<int64_t *>c.values)[row]
    if c.kind == TIME:
        return put_time(out, v)
    if v < 0:
        put_byte(out, 0x2d)
        return put_number(out, 0 - <uint64_t>v, 1)
    return put_number(out, v, 1)


cdef list names_of(Batch batch):
    """Per column what stands before its value: a comma or brace, the name, a colon."""
    cdef Out out
    cdef list names = []
    cdef bytes text
    memset(&out, 0, sizeof(out))
    try:
        for field in batch.schema.fields:
            text = field.name.encode()
            out.size = 0
            put_byte(&out, 0x2c if names else 0x7b)
            put_escaped(&out, <const uint8_t *><const char *>text, <uint32_t>len(text))
            put_byte(&out, 0x3a)
            names.append(PyBytes_FromStringAndSize(<char *>out.data, out.size))
    finally:
        free(out.data)
    return names


def json_rows(Batch batch not None):
    """One compact JSON object a row, fields in the schema's order, as a list of bytes.

    time: RFC 3339 in UTC with as many fraction digits as it takes. f64: the shortest digits that read back exactly, NaN and
    infinities as null. i64: all digits. A null field stands as null, so that all rows have all fields."""
    cdef Out out
    cdef uint32_t row, i
    cdef list names = names_of(batch)
    cdef list rows = []
    cdef bytes name
    memset(&out, 0, sizeof(out))
    try:
        room(&out, 256)
        for row in range(batch.n):
            out.size = 0
            if not names:
                put_byte(&out, 0x7b)
            for i in range(batch.width):
                name = names[i]
                put(&out, <const char *>name, len(name))
                put_value(&out, &batch.columns[i], row)
            put_byte(&out, 0x7d)
            rows.append(PyBytes_FromStringAndSize(<char *>out.data, out.size))
    finally:
        free(out.data)
    return rows
