"""The functions of the dialect: what binding.py resolves a call by, expressions.py generates code from, and the reference lists.

A function's `does` is one instruction or a function of the template (rules/sql/). All are strict: NULL if an argument is. partial: NULL too where there is
no result; the template's function then returns whether there is one (a str: 0 if not).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Function:
    name: str
    takes: tuple
    gives: str
    does: str
    summary: str = ""
    partial: bool = False
    extra: tuple = ()                # i32 constants that are passed last
    makes_text: bool = False         # it needs the arena


def _all():
    f, i, s, b, t = "f64", "i64", "str", "bool", "time"
    yield Function("abs", (f,), f, "f64.abs", "absolute value")
    yield Function("abs", (i,), i, "sql_i64_abs", partial=True)
    yield Function("sign", (f,), i, "sign", "-1, 0 or 1; 0 of NaN")
    for name in ("ceil", "floor", "sqrt", "trunc"):
        yield Function(name, (f,), f, f"f64.{name}", {"ceil": "least whole number that is not less",
                                                      "floor": "greatest whole number that is not greater",
                                                      "sqrt": "square root; NaN of negatives", "trunc": "without the fraction"}[name])
    yield Function("round", (f,), f, "sql_f64_round", "nearest whole number, halves away from zero")
    yield Function("round", (i,), i, "same")
    yield Function("round", (f, i), f, "sql_f64_round_to", "... with so many decimals; negative: tens, hundreds, ...")
    yield Function("round", (i, i), i, "sql_i64_round_to", partial=True)
    for name, summary in (("exp", "e to the x"), ("ln", "natural logarithm; -inf of 0, NaN of negatives"), ("log10", "logarithm to 10"),
                          ("log2", "logarithm to 2")):
        yield Function(name, (f,), f, f"sql_f64_{name}", summary)
    yield Function("power", (f, f), f, "sql_f64_pow", "x to the y")
    yield Function("mod", (f, f), f, "sql_f64_mod", "the same as %")
    yield Function("mod", (i, i), i, "sql_i64_mod", partial=True)
    for name, summary in (("lower", "in small letters"), ("upper", "in capitals"), ("trim", "without spaces at both ends"),
                          ("ltrim", "without spaces at the left"),
                          ("rtrim", "without spaces at the right")):
        yield Function(name, (s,), s, f"sql_str_{name}", summary, makes_text=True)
    yield Function("length", (s,), i, "sql_str_length", "number of characters (code points)")
    yield Function("substring", (s, i), s, "sql_str_substring", "from the n-th character on, counted from 1; negative: from the end", partial=True,
                   makes_text=True)
    yield Function("substring", (s, i, i), s, "sql_str_substring_n", "... at most so many characters", partial=True, makes_text=True)
    yield Function("replace", (s, s, s), s, "sql_str_replace", "the first text, with the third in all places of the second", makes_text=True)
    yield Function("contains", (s, s), b, "sql_str_contains", "whether the second text is in the first")
    yield Function("starts_with", (s, s), b, "sql_str_starts_with", "whether the first text begins with the second")
    yield Function("ends_with", (s, s), b, "sql_str_ends_with", "whether the first text ends with the second")
    for n, part in enumerate(PARTS):
        yield Function(f"extract {part}", (t,), i, "sql_time_extract", extra=(n,))
    for n, part in enumerate(PARTS[:6]):
        yield Function(f"date_trunc {part}", (t,), t, "sql_time_trunc", extra=(n,))
    for name in ("+", "-", "*"):
        word = {"+": "add", "-": "sub", "*": "mul"}[name]
        yield Function(name, (f, f), f, f"f64.{word}")
        yield Function(name, (i, i), i, f"sql_i64_{word}", partial=True)
    for left, right, gives, ops in ((t, "interval", t, "+-"), ("interval", t, t, "+"), ("interval", "interval", "interval", "+-"),
                                    (t, t, "interval", "-")):
        for name in ops:
            yield Function(name, (left, right), gives, f"sql_i64_{'add' if name == '+' else 'sub'}", partial=True)
    yield Function("/", (f, f), f, "f64.div")
    yield Function("%", (f, f), f, "sql_f64_mod")
    yield Function("%", (i, i), i, "sql_i64_mod", partial=True)
    yield Function("negative", (f,), f, "f64.neg")
    yield Function("negative", (i,), i, "sql_i64_neg", partial=True)
    yield Function("negative", ("interval",), "interval", "sql_i64_neg", partial=True)
    yield Function("||", (s, s), s, "sql_str_concat", makes_text=True)
    yield Function("like", (s, s), b, "sql_str_like", extra=(-1,))
    yield from _casts(f, i, s, b, t)


def _casts(f, i, s, b, t):
    yield Function("cast f64", (s,), f, "sql_str_to_f64", partial=True)
    yield Function("cast f64", (b,), f, "bool as f64")
    yield Function("cast i64", (f,), i, "sql_f64_to_i64", "half to even", partial=True)
    yield Function("cast i64", (s,), i, "sql_str_to_i64", partial=True)
    yield Function("cast i64", (b,), i, "i64.extend_i32_u")
    yield Function("cast i64", (t,), i, "same", "nanoseconds since 1970")
    yield Function("cast i64", ("interval",), i, "same", "nanoseconds")
    yield Function("cast bool", (s,), b, "sql_str_to_bool", partial=True)
    yield Function("cast bool", (f,), b, "f64 as bool")
    yield Function("cast bool", (i,), b, "i64 as bool")
    yield Function("cast time", (s,), t, "sql_str_to_time", partial=True)
    for kind in (f, i, b, t):
        yield Function("cast str", (kind,), s, f"sql_{kind}_to_str", makes_text=True)


PARTS = ("year", "month", "day", "hour", "minute", "second", "dow", "doy")
ALIASES = {"pow": "power", "ceiling": "ceil", "substr": "substring", "char_length": "length", "log": "log10", "lcase": "lower", "ucase": "upper"}
FUNCTIONS = {}
for _function in _all():
    FUNCTIONS.setdefault(_function.name, []).append(_function)


def resolve(name, kinds) -> Function | None:
    """The function of that name for arguments of these kinds: an exact match, else with NULLs as anything and i64 as f64. None if there is none."""
    candidates = FUNCTIONS.get(name, ())
    for fits in (lambda k, t: k == t, lambda k, t: k in (t, "null"), lambda k, t: k in (t, "null") or (k, t) == ("i64", "f64")):
        for function in candidates:
            if len(function.takes) == len(kinds) and all(map(fits, kinds, function.takes)):
                return function
    return None
