# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Numbers and times, exactly.

Decimal to binary64, in this order: Clinger's fast path (mantissa and power of ten both exact in a double: one correctly rounded
operation), Eisel and Lemire's 128-bit product (D. Lemire, "Number Parsing at a Gigabyte per Second", 2021; the form of Go's
strconv), and what neither decides (subnormals, near-halves, over- and underflow) by the interpreter's own correctly rounded reader.
All agree bit for bit with float().

Times: RFC 3339 and epoch numbers to i64 nanoseconds. Decimal digits finer than a nanosecond are cut off; a binary float
is rounded to the nearest one.
"""
from libc.math cimport floor, isfinite, rint
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    int clz64 "__builtin_clzll"(unsigned long long) noexcept nogil
    bint add_overflows "__builtin_add_overflow"(int64_t, int64_t, int64_t *) noexcept nogil
    bint mul_overflows "__builtin_mul_overflow"(int64_t, int64_t, int64_t *) noexcept nogil

cdef extern from "Python.h":
    double PyOS_string_to_double(const char *, char **, void *overflow_exception) except? -1.0

cdef enum:
    POWER_MIN = -348
    POWER_MAX = 347

cdef double[23] TENS
cdef uint64_t[20] WHOLE_TENS
cdef uint64_t[696] POWER_HIGH    # 10^(POWER_MIN + i), normalized to 128 bits and cut off
cdef uint64_t[696] POWER_LOW


def _fill_tables():
    for i in range(23):
        TENS[i] = 10.0 ** i
    for i in range(20):
        WHOLE_TENS[i] = 10 ** i
    for e in range(POWER_MIN, POWER_MAX + 1):
        power = 10 ** e << 128 if e >= 0 else (1 << 1500) // 10 ** -e
        power = power >> (power.bit_length() - 128)
        POWER_HIGH[e - POWER_MIN] = power >> 64
        POWER_LOW[e - POWER_MIN] = power & 0xFFFFFFFFFFFFFFFF


_fill_tables()


cdef inline uint64_t multiply(uint64_t a, uint64_t b, uint64_t *low) noexcept nogil:
    """High half of the 128-bit product."""
    cdef uint64_t al = a & 0xffffffffULL, ah = a >> 32, bl = b & 0xffffffffULL, bh = b >> 32
    cdef uint64_t ll = al * bl, lh = al * bh, hl = ah * bl
    cdef uint64_t middle = (ll >> 32) + (lh & 0xffffffffULL) + (hl & 0xffffffffULL)
    low[0] = a * b
    return ah * bh + (lh >> 32) + (hl >> 32) + (middle >> 32)


cdef bint eisel_lemire(uint64_t m, int32_t e, double *out) noexcept nogil:
    """The double nearest to m * 10^e; False when 128 bits do not decide it, or it is not a normal number."""
    cdef uint64_t high, low, high2, low2, merged, bits
    cdef int64_t exponent
    cdef int shift
    if m == 0:
        out[0] = 0.0
        return True
    if e < POWER_MIN or e > POWER_MAX:
        return False
    shift = clz64(m)
    m <<= shift
    exponent = ((217706 * <int64_t>e) >> 16) + 64 + 1023 - shift
    high = multiply(m, POWER_HIGH[e - POWER_MIN], &low)
    if high & 0x1ff == 0x1ff and low + m < m:
        high2 = multiply(m, POWER_LOW[e - POWER_MIN], &low2)
        merged = low + high2
        if merged < low:
            high += 1
        if high & 0x1ff == 0x1ff and merged + 1 == 0 and low2 + m < m:
            return False
        low = merged
    shift = <int>(high >> 63)
    bits = high >> (shift + 9)
    exponent -= 1 ^ shift
    if low == 0 and high & 0x1ff == 0 and bits & 3 == 1:
        return False
    bits = (bits + (bits & 1)) >> 1
    if bits >> 53:
        bits >>= 1
        exponent += 1
    if exponent < 1 or exponent >= 0x7ff:
        return False
    bits = (<uint64_t>exponent << 52) | (bits & 0xfffffffffffffULL)
    memcpy(out, &bits, 8)
    return True


cdef int by_interpreter(const Value *v, double *out) except -1 nogil:
    with gil:
        text = (<char *>v.text)[:v.size]
        out[0] = PyOS_string_to_double(text, NULL, NULL)
    return 0


cdef int to_double(const Value *v, double *out) except -1 nogil:
    """TAKEN with the nearest double, NOT_FINITE, or WRONG_TYPE."""
    cdef double d, above
    if v.kind == DECIMAL:
        if not v.inexact and v.mantissa <= (1ULL << 53) and -22 <= v.exponent <= 22:
            d = <double>v.mantissa
            d = d / TENS[-v.exponent] if v.exponent < 0 else d * TENS[v.exponent]
            out[0] = -d if v.negative else d
            return TAKEN
        if eisel_lemire(v.mantissa, v.exponent, &d) and (
                not v.inexact or (v.mantissa != 0xffffffffffffffffULL and eisel_lemire(v.mantissa + 1, v.exponent, &above) and d == above)):
            out[0] = -d if v.negative else d
            return TAKEN
        by_interpreter(v, out)
        return TAKEN if isfinite(out[0]) else NOT_FINITE
    if v.kind == INTEGER:
        out[0] = <double>v.i
        return TAKEN
    if v.kind == FLOAT:
        out[0] = v.f
        return TAKEN if isfinite(v.f) else NOT_FINITE
    return WRONG_TYPE


cdef int scaled(const Value *v, int32_t power, bint cut, int64_t *out) noexcept nogil:
    """A DECIMAL times 10^power as i64; what is left of the fraction is cut off, or NOT_INTEGRAL without cut."""
    cdef int64_t e = <int64_t>v.exponent + power
    cdef uint64_t m = v.mantissa, limit = <uint64_t>INT64_MAX + v.negative
    cdef bint fraction = v.inexact
    if e < -19:
        fraction |= m != 0
        m = 0
    elif e < 0:
        fraction |= m % WHOLE_TENS[-e] != 0
        m /= WHOLE_TENS[-e]
    elif m != 0:
        if e > 19 or m > limit / WHOLE_TENS[e]:
            return OUT_OF_RANGE
        m *= WHOLE_TENS[e]                       # e is 0 if inexact: the mantissa has 19 digits then
    if fraction and not cut:
        return NOT_INTEGRAL
    if m > limit:
        return OUT_OF_RANGE
    out[0] = <int64_t>(0 - m) if v.negative else <int64_t>m
    return TAKEN


cdef int to_i64(const Value *v, int64_t *out) noexcept nogil:
    """TAKEN when the value is exactly an integer within i64, however it is written; else why not."""
    if v.kind == INTEGER:
        out[0] = v.i
        return TAKEN
    if v.kind == DECIMAL:
        return scaled(v, 0, False, out)
    if v.kind != FLOAT:
        return WRONG_TYPE
    if not isfinite(v.f):
        return NOT_FINITE
    if v.f != floor(v.f):
        return NOT_INTEGRAL
    if not -9223372036854775808.0 <= v.f < 9223372036854775808.0:
        return OUT_OF_RANGE
    out[0] = <int64_t>v.f
    return TAKEN


cdef int to_ns(const Value *v, int32_t power, int64_t *out) noexcept nogil:
    """An epoch number in units of 10^power nanoseconds as nanoseconds."""
    cdef int64_t scale = <int64_t>WHOLE_TENS[power], rest
    cdef double whole
    if v.kind == INTEGER:
        return OUT_OF_RANGE if mul_overflows(v.i, scale, out) else TAKEN
    if v.kind == DECIMAL:
        return scaled(v, power, True, out)
    if v.kind != FLOAT:
        return WRONG_TYPE
    if not isfinite(v.f):
        return NOT_FINITE
    whole = floor(v.f)
    if not -9223372036854775808.0 <= whole < 9223372036854775808.0:
        return OUT_OF_RANGE
    rest = <int64_t>rint((v.f - whole) * <double>scale)
    if mul_overflows(<int64_t>whole, scale, out) or add_overflows(out[0], rest, out):
        return OUT_OF_RANGE
    return TAKEN


cdef const uint8_t *scan_long(const uint8_t *p, const uint8_t *end, Value *v) noexcept nogil:
    """scan_number for numbers with an exponent, more than 19 digits, or beyond i64. An integer of more than DIGITS_MAX digits is none."""
    cdef const uint8_t *start = p
    cdef int64_t exponent = 0, given = 0, digits = 0
    cdef int held = 0
    cdef bint point = False, down = False
    v.kind = DECIMAL
    v.integral, v.inexact, v.mantissa, v.text = True, False, 0, start
    v.negative = p[0] == c'-'
    p += v.negative
    while p < end:
        if p[0] == c'.' and not point:
            point, v.integral = True, False
        elif <uint8_t>(p[0] - 48) > 9:
            break
        else:
            digits += 1
            exponent -= point
            if held < 19:
                v.mantissa = v.mantissa * 10 + <uint8_t>(p[0] - 48)
                held += v.mantissa != 0
            else:
                v.inexact |= p[0] != c'0'
                exponent += 1
        p += 1
    if p < end and (p[0] | 32) == c'e':
        v.integral = False
        p += 1
        if p < end and (p[0] == c'+' or p[0] == c'-'):
            down = p[0] == c'-'
            p += 1
        if p == end or <uint8_t>(p[0] - 48) > 9:
            return NULL
        while p < end and <uint8_t>(p[0] - 48) <= 9:
            if given < 1000000000:
                given = given * 10 + <uint8_t>(p[0] - 48)
            p += 1
        exponent += -given if down else given
    if v.integral and digits > DIGITS_MAX:
        return NULL
    v.exponent = <int32_t>max(-0x40000000, min(0x40000000, exponent))
    v.size = <uint32_t>(p - start)
    return p


cdef inline int two_digits(const uint8_t *p) noexcept nogil:
    """0 to 99, or a large negative number."""
    if <uint8_t>(p[0] - 48) > 9 or <uint8_t>(p[1] - 48) > 9:
        return -100000
    return (p[0] - 48) * 10 + (p[1] - 48)


cdef inline int64_t days_from_civil(int64_t y, int m, int d) noexcept nogil:
    """Days since 1970-01-01 of a date of the proleptic Gregorian calendar, year >= 0 (H. Hinnant, chrono-compatible date algorithms)."""
    cdef int64_t era, of_era, of_year
    y += 399 + 1 if m > 2 else 399               # a 400-year cycle further, so that no division is of a negative number
    era = y / 400
    of_era = y - era * 400
    of_year = (153 * (m - 3 if m > 2 else m + 9) + 2) / 5 + d - 1
    return (era - 1) * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468


cdef int rfc3339_ns(const uint8_t *p, uint32_t size, int64_t *out) noexcept nogil:
    """Nanoseconds of an RFC 3339 date-time; NOT_A_TIME, or OUT_OF_RANGE beyond the years 1677 to 2262.

    T and z may be lower case, T may be a space. Second 60 is taken at 23:59 UTC only and counts as the next day's first second.
    """
    cdef const uint8_t *end = p + size
    cdef int year, month, day, hour, minute, second, oh = 0, om = 0, n = 0
    cdef int64_t ns = 0, seconds
    cdef bint behind
    if size < 20 or p[4] != c'-' or p[7] != c'-' or p[13] != c':' or p[16] != c':' or ((p[10] | 32) != c't' and p[10] != c' '):
        return NOT_A_TIME
    year = two_digits(p) * 100 + two_digits(p + 2)
    month, day = two_digits(p + 5), two_digits(p + 8)
    hour, minute, second = two_digits(p + 11), two_digits(p + 14), two_digits(p + 17)
    if year < 0 or not 1 <= month <= 12 or not 1 <= day <= month_length(year, month) or not 0 <= hour <= 23 or not 0 <= minute <= 59:
        return NOT_A_TIME
    if not 0 <= second <= 60:
        return NOT_A_TIME
    p += 19
    if p[0] == c'.':
        p += 1
        while p < end and <uint8_t>(p[0] - 48) <= 9:
            if n < 9:
                ns = ns * 10 + (p[0] - 48)
            n += 1
            p += 1
        if n == 0:
            return NOT_A_TIME
        if n < 9:
            ns *= <int64_t>WHOLE_TENS[9 - n]
    if end - p == 6 and (p[0] == c'+' or p[0] == c'-') and p[3] == c':':
        oh, om = two_digits(p + 1), two_digits(p + 4)
        if not 0 <= oh <= 23 or not 0 <= om <= 59:
            return NOT_A_TIME
        behind = p[0] == c'-'
        if behind:
            oh, om = -oh, -om
    elif end - p != 1 or (p[0] | 32) != c'z':
        return NOT_A_TIME
    seconds = days_from_civil(year, month, day) * 86400 + (hour - oh) * 3600 + (minute - om) * 60 + second
    if second == 60 and seconds % 86400 != 0:
        return NOT_A_TIME
    if seconds < 0 and ns:                       # so that the earliest i64 is reached without an overflow on the way
        seconds, ns = seconds + 1, ns - 1000000000
    if mul_overflows(seconds, 1000000000, &seconds) or add_overflows(seconds, ns, out):
        return OUT_OF_RANGE
    return TAKEN


cdef inline int month_length(int year, int month) noexcept nogil:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31
