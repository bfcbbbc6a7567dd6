"""Values that break things: the extremes of each kind, mixed with plain ones. Every generator of these tests draws from here."""

import math
import struct

I64 = [0, 1, -1, 2, 3, 7, -7, 10, 100, -100, 2**31, -(2**31), 2**53, 2**53 + 1, -(2**53) - 1, 10**18, 5 * 10**17, 5 * 10**18, -5 * 10**18, 2**62, 2**63 - 1, 2**63 - 2,
       -(2**63), -(2**63) + 1]
F64 = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.1, 0.2, 0.3, 2.675, 1.005, 0.49999999999999994, 1e15, 1e16, 1e17, -1e16, 1e-5, 1e-4, 1e22, 1e23, 2.0**53, 2.0**63,
       -(2.0**63), 9.223372036854775e18, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, math.inf, -math.inf, math.nan, math.pi, -247163416668875.88]
STR = ["", " ", "a", "A", "b", "ab", "aB", "abc", "  ab  ", "a%b", "a_b", "%", "_", "é", "É", "ß", "日本", "日", "😀", "a😀b", "e\u0301", "ÀÉÎ", "straße", "\u00a0x\u2003", "\t", "z" * 300, "é" * 150,
       "10", "9", "1e3", "-0", "nan", "true", "null", "'", "\u0130", "Σς"]
TIME = [0, 1, -1, 10**9, -(10**9), 1704067200123456789, 1709164800000000000, 951782400000000000, -2208988800000000001, 4102444800000000000, 120 * 10**6]


def random_value(kind, rng):
    """One value of a kind; a third of them extremes."""
    edge = rng.random() < 0.33
    if kind == "i64":
        return rng.choice(I64) if edge else rng.randint(-20, 20) if rng.random() < 0.6 else rng.randint(-(2**63), 2**63 - 1)
    if kind == "f64":
        if edge:
            return rng.choice(F64)
        if rng.random() < 0.6:
            return round(rng.uniform(-50, 50), rng.randrange(4))
        return struct.unpack("<d", struct.pack("<Q", rng.getrandbits(64)))[0]
    if kind == "str":
        return rng.choice(STR) if edge or rng.random() < 0.5 else "".join(rng.choice("aAbBé%_日😀 ") for _ in range(rng.randrange(8)))
    if kind == "bool":
        return rng.random() < 0.5
    return rng.choice(TIME) if edge else rng.randint(0, 120) * 10**9 + rng.choice([0, 0, 1, 999_999_999])


def same(a, b):
    """Equal as values of SQL: NULL is NULL, NaN is NaN, 0.0 and -0.0 differ (DuckDB keeps them apart in what it puts out)."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isnan(a) and math.isnan(b) or a == b and math.copysign(1, a) == math.copysign(1, b)
    return type(a) is type(b) and a == b


def ulps(a, b):
    """How many doubles lie between a and b; 0 for two NaN."""
    if math.isnan(a) or math.isnan(b):
        return 0 if math.isnan(a) and math.isnan(b) else math.inf
    order = [struct.unpack("<q", struct.pack("<d", v))[0] for v in (a, b)]
    return abs((order[0] if order[0] >= 0 else -(2**63) - order[0]) - (order[1] if order[1] >= 0 else -(2**63) - order[1]))
