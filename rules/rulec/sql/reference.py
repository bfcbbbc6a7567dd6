"""docs/rules/sql.md, made from the compiler's own tables: `python -m rulec.sql.reference docs`."""

import sys
from pathlib import Path

from rulec.sql import calls
from rulec.sql.aggregates import AGGREGATES
from rulec.sql.aggregates import ALIASES as AGGREGATE_ALIASES
from rulec.sql.binding import TYPES, UNITS_NS
from rulec.sql.dialect import REFUSED, WINDOWED
from rulec.sql.functions import ALIASES, FUNCTIONS, PARTS
from rulec.sql.nodes import WORDS

HEAD = """# Rules in SQL

Made by `make docs` from the tables of the compiler (`rules/rulec/sql/`). A rule in SQL is one `SELECT` over one stream; `tidegate rule build` makes a
module of it with nothing but Python. The dialect is the streaming subset of Flink SQL, with windows in `GROUP BY`. What NULL, overflow, division and
rounding do is what DuckDB does; what is an error there is NULL here, because a stream goes on.

## Forms
**A filter**: events go on as they are.
```sql
SELECT * FROM env WHERE temp > :limit AND hum IS NOT NULL
```
**A projection**: a new row for each event that passes `WHERE`. Whatever is not a field by its own name gets one with `AS`; `*` stands for all fields.
The output's key and event time are those of the input, if they are selected as they are.
```sql
SELECT device, ts, temp * 1.8 + 32 AS fahrenheit, CASE WHEN temp > 30 THEN 'hot' ELSE 'fine' END AS class FROM env
```
**A window**: a row for each key and window, when the key's watermark passes the window's end. `GROUP BY` names the stream's key (nothing, if it has
none) and one window. `HAVING` decides which rows are put out. `window_start` and `window_end` stand for themselves; the output's event time is
`window_end`, or `window_start`, if selected.
```sql
SELECT device, window_end, avg(temp) AS temp_avg, count(*) AS n FROM env
WHERE temp > :limit AND hum IS NOT NULL
GROUP BY device, TUMBLE(ts, INTERVAL '10' SECOND)
HAVING count(*) > 3
```
| window | holds |
|---|---|
| `TUMBLE(ts, length)` | each event once: from a multiple of the length since 1970 to the next |
| `HOP(ts, hop, length)` | windows of that length that begin at each multiple of the hop; an event is in at most 64 |
| `SESSION(ts, gap)` | events of a key that lie less than the gap apart; it ends a gap after its last event; an event between two sessions joins them |

`ts` is the stream's event time (`time` on a stream whose contract names none). Lengths are `INTERVAL '10' SECOND` or a parameter of type `duration`:
`TUMBLE(ts, :every)`. An event all of whose windows are closed is late: it goes to the rule's late output. A row whose key is NULL is ignored, and
counted so.

**Memory**: `LAG(x)` is what x was in the event before of the same key, `CHANGED(x)` is true if x is not what it was: NULL is a value here, and the
first event has changed. Both look at all events of the key, also those that `WHERE` does not let pass.
```sql
SELECT * FROM env WHERE CHANGED(site) OR ts - LAG(ts) > INTERVAL '1' MINUTE
```
`LAG(x) FILTER (WHERE condition)` is x in the last event before for which the condition held. So "A, then B within 5 s" is
```sql
SELECT device, ts FROM env WHERE site = 'B' AND ts - LAG(ts) FILTER (WHERE site = 'A') <= INTERVAL '5' SECOND
```

## Parameters
`:name` is a parameter, declared in `rule.toml` under `[parameters.name]` with type `f64`, `i64`, `bool`, `str` or `duration`; without `default` it is
required. A query with keys or windows also has `max_keys` (10,000) and `max_windows` (20,000), which
bound what it remembers; where that would take more than a quarter of the rule's memory, the default is what a quarter holds.
"""

TYPES_TEXT = """## Types
| SQL | field | literal |
|---|---|---|
| DOUBLE | f64 | `2.5`, `1e3` |
| BIGINT | i64 | `10` |
| BOOLEAN | bool | `TRUE`, `FALSE` |
| VARCHAR | str | `'it''s'` |
| TIMESTAMP | time, UTC | `TIMESTAMP '2026-01-31 12:00:00.5'` |
| INTERVAL | in expressions only | `INTERVAL '90' SECOND`; units {units} |

BIGINT becomes DOUBLE where it meets one; a text beside a TIMESTAMP is read as one. Nothing else changes its type by itself: `CAST(x AS type)` or
`x::type`, to {casts}. `CAST(ts AS BIGINT)` is nanoseconds since 1970. A name that is a word of SQL, or has other characters, is written `"like
this"`.
"""

OPERATORS = """## Operators
`+ - * / %` of numbers (`/` always gives DOUBLE; BIGINT that overflows is NULL) · `||` · `= <> < <= > >=` · `AND OR NOT`, three-valued · `x IS [NOT]
NULL`, `IS [NOT] TRUE`, `IS [NOT] DISTINCT FROM` · `x [NOT] IN (a, b)` · `x [NOT] BETWEEN a AND b` · `x [NOT] LIKE 'a%_' ESCAPE '!'` · `CASE WHEN c
THEN a ELSE b END`, `CASE x WHEN v THEN a END` · TIMESTAMP +- INTERVAL, TIMESTAMP - TIMESTAMP. Texts compare by their bytes; NaN equals NaN and is
greater than all numbers.
"""

SPECIAL = [("coalesce(a, b, ...)", "one type", "the first that is not NULL"), ("nullif(a, b)", "one type", "NULL if a = b, else a"),
           ("greatest(a, b, ...)", "one type", "the greatest, NULLs left out"),
           ("least(a, b, ...)", "one type", "the least, NULLs left out"),
           ("concat(a, b, ...)", "VARCHAR", "texts one behind the other, NULLs left out")]

LIMITS = """An aggregate takes `FILTER (WHERE condition)`; of no values it is NULL, a count 0. Texts in aggregates and memories are kept up to 248 bytes, longer
ones cut at a character. `count(DISTINCT x)` is exact up to 128 values, then an estimate (HyperLogLog, standard error 3.3 %). `percentile` is exact up to
119 values, then a value whose rank is off by about 0.1 % of the values, 2 % in bad orders. [How each case comes out](sql-semantics.md): NULL, NaN, overflow, text, time.
"""


def page() -> str:
    """The reference as Markdown."""
    units = ", ".join(UNITS_NS)
    parts = [HEAD, TYPES_TEXT.format(units=units, casts=", ".join(dict.fromkeys(t for t in TYPES if t != "TEXT"))), OPERATORS, "## Functions",
             "NULL if an argument is, unless said otherwise.", "",
             "| function | of | gives | |", "|---|---|---|---|", *_functions(),
             *(f"| `{form}` | {of} | the same | {summary} |" for form, of, summary in SPECIAL),
             f"| `EXTRACT(part FROM ts)` | TIMESTAMP | BIGINT | part: {', '.join(PARTS)} (dow: 0 is Sunday) |",
             f"| `date_trunc('part', ts)` | TIMESTAMP | TIMESTAMP | part: {', '.join(PARTS[:6])} |", "",
             "Also known as: " + ", ".join(f"`{a}` ({b})" for a,
                                           b in {**ALIASES, **{k: v for k, v in calls.ALIASES.items() if v in calls.SPECIAL}}.items()) + ".", "",
             "## Aggregates", "| aggregate | of | gives | |", "|---|---|---|---|", *_aggregates(), "",
             "Also known as: " + ", ".join(f"`{a}` ({b})" for a,
                                           b in AGGREGATE_ALIASES.items() if a != "median") + "; `median(x)` is `percentile(x, 0.5)`.", "", LIMITS,
             "## What a rule cannot do", "The compiler says line, column and what to write instead.", "", "| | instead |", "|---|---|", *_refused(),
             "| subqueries | make the inner SELECT a rule, and let this one read its output |",
             "| DISTINCT | `CHANGED(x)`, or the ready-made rule `dedup` |"]
    return "\n".join(parts) + "\n"


def _refused():
    for hint in dict.fromkeys(REFUSED.values()):
        yield f"| {', '.join(word for word, other in REFUSED.items() if other == hint)} | {hint.replace(': ' + WINDOWED, '')} |"


def _spell(kind):
    return WORDS[kind].split(" ")[0]


def _functions():
    for name, forms in FUNCTIONS.items():
        if not name.isidentifier() or name in ("negative", "like"):
            continue
        for count in dict.fromkeys(len(f.takes) for f in forms):
            same = [f for f in forms if len(f.takes) == count]
            arguments = ", ".join("xyz"[:count])
            takes, gives = " or ".join(", ".join(map(_spell, f.takes)) for f in same), " or ".join(dict.fromkeys(_spell(f.gives) for f in same))
            yield f"| `{name}({arguments})` | {takes} | {gives} | {same[0].summary} |"


def _aggregates():
    for name, forms in AGGREGATES.items():
        written = {"count": "count(x)`, `count(*)", "count distinct": "count(DISTINCT x)", "percentile": "percentile(x, p)"}.get(name, f"{name}(x)")
        takes = [k for k in forms if k not in ("*", "interval")]
        gives = dict.fromkeys(_spell(forms[k].gives) for k in takes)
        gives = "the same" if len(gives) > 2 else " or ".join(gives)
        yield f"| `{written}` | {', '.join(map(_spell, takes))} | {gives} | {next(iter(forms.values())).summary} |"


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs") / "rules"
    target.mkdir(exist_ok=True)
    (target / "sql.md").write_text(page())
