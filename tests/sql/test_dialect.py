"""What is not in the dialect is refused where it stands, with what to write instead."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from query_world import ENV, PLAIN

from edge.columns.schema import Field, Schema
from edge.errors import ConfigError, RuleError
from rulec import sql
from rulec.sql import reference

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = [{"name": n, "type": t} for n, t in (("limit", "f64"), ("every", "duration"), ("word", "str"), ("flag", "bool"), ("k", "i64"))]
BY_KEY = "GROUP BY device, TUMBLE(ts, :every)"


def compiled(text, schema=ENV, parameters=PARAMETERS):
    return sql.compile(text, schema=schema, name="q", parameters=parameters)


REFUSALS = [    # the query, with ^ before the place that is named; what to write instead
    ("SELECT * FROM env ^JOIN other ON a = b", "reads one stream"),
    ("SELECT * FROM env, ^other", "reads one stream"),
    ("SELECT * FROM ^env e", "write FROM env"),
    ("SELECT * FROM ^other", "change [input]"),
    ("SELECT * FROM env\nWHERE temp > 1\n  ^ORDER BY ts", "rows come by key"),
    ("SELECT * FROM env ^LIMIT 3", "ready-made rule `sample`"),
    ("SELECT ^DISTINCT device FROM env", "CHANGED(x)"),
    ("SELECT device FROM env ^UNION SELECT device FROM env", "same lane"),
    ("SELECT sum(temp) ^OVER (PARTITION BY device) AS s FROM env", "TUMBLE(ts"),
    ("SELECT * FROM (^SELECT * FROM env)", "make the inner SELECT a rule"),
    ("SELECT * FROM env WHERE temp > (^SELECT 1)", "make the inner SELECT a rule"),
    ("^CREATE VIEW v AS SELECT * FROM env", "begins with SELECT"),
    ("INSERT ^INTO x SELECT * FROM env", "the rule's name is the output's"),
    ("^WITH a AS (SELECT 1) SELECT * FROM a", "where they are used"),
    ("SELECT * FROM env ^EMIT CHANGES", "leave EMIT out"),
    ("SELECT * FROM env^; DROP TABLE env", "behind the semicolon"),
    ("SELECT * FROM env ^MATCH_RECOGNIZE (PATTERN (A B) DEFINE A AS temp > 3)", "FILTER (WHERE state = 'A')"),
    ("SELECT ^tempp FROM env", "did you mean temp?"),
    ("SELECT ^temp + 1 FROM env", "temp + 1 AS name"),
    ("SELECT ^avg(temp) FROM env", "AS temp_avg"),
    ("SELECT ^avg(temp) AS a FROM env", "add GROUP BY device, TUMBLE(ts"),
    (f"SELECT device, count(*) AS c FROM env WHERE ^avg(temp) > 1 {BY_KEY}", "write it in HAVING"),
    ("SELECT * FROM env WHERE ^temp", "x <> 0"),
    ("SELECT * FROM env WHERE ^temp > 'x'", "write CAST"),
    ("SELECT * FROM env WHERE temp > :^limt", "did you mean :limit?"),
    ("SELECT * FROM env WHERE temp > :^who", "[parameters.who]"),
    ("SELECT * FROM env WHERE ts > ^CURRENT_TIMESTAMP", "no clock"),
    ("SELECT * FROM env WHERE ts > ^now()", "no clock"),
    ("SELECT * FROM env WHERE site ^ILIKE 'a%'", "lower(x) LIKE"),
    ("SELECT * FROM env WHERE ^absx(temp) > 1", "did you mean abs?"),
    ("SELECT * FROM env WHERE ^random() > 1", "no randomness"),
    ("SELECT * FROM env WHERE ^lower(temp) = 'a'", "only (VARCHAR)"),
    ("SELECT CAST(^temp AS INT) AS x FROM env", "write BIGINT"),
    ("SELECT CAST(^temp AS DATE) AS x FROM env", "TIMESTAMP"),
    ("SELECT device, count(*) AS c FROM env GROUP BY ^device", "needs a window"),
    ("SELECT site, count(*) AS c FROM env GROUP BY ^site, TUMBLE(ts, :every)", "by the stream's key, device"),
    ("SELECT count(*) AS c FROM env GROUP BY ^TUMBLE(ts, :every)", "add device to GROUP BY"),
    (f"SELECT device, ^temp FROM env {BY_KEY}", "last(temp)"),
    ("SELECT device, count(*) AS c FROM env GROUP BY device, TUMBLE(^temp, :every)", "TUMBLE(ts, ...)"),
    ("SELECT device, count(*) AS c FROM env GROUP BY device, TUMBLE(ts, ^10)", "INTERVAL '10' SECOND"),
    ("SELECT device, count(*) AS c FROM env GROUP BY device, TUMBLE(ts, INTERVAL ^'1' MONTH)", "a month has no length"),
    ("SELECT device, count(*) AS c FROM env GROUP BY device, TUMBLE(ts, INTERVAL ^'0' SECOND)", "above 0"),
    ("SELECT device, count(*) AS c FROM env GROUP BY device, HOP(ts, INTERVAL ^'9' SECOND, INTERVAL '1' SECOND)", "at most the length"),
    ("SELECT device, count(*) AS c FROM env GROUP BY device, ^HOP(ts, :every)", "a hop and a length"),
    ("SELECT device, count(*) AS c FROM env GROUP BY device, TUMBLE(ts, :^limit)", 'type "duration"'),
    (f"SELECT device, count(*) AS c FROM env {BY_KEY}, ^TUMBLE(ts, :every)", "one window only"),
    (f"SELECT device, sum(^avg(temp)) AS c FROM env {BY_KEY}", "inside another aggregate"),
    (f"SELECT device, ^sum(site) AS c FROM env {BY_KEY}", "count(x)"),
    (f"SELECT device, percentile(temp, ^2) AS c FROM env {BY_KEY}", "from 0 to 1"),
    (f"SELECT device, ^lag(temp) AS c FROM env {BY_KEY}", "without a window"),
    (f"SELECT device, ^TUMBLE_END(ts, :every) AS c FROM env {BY_KEY}", "write window_end"),
    (f"SELECT device, ^count(*) AS device FROM env {BY_KEY}", "another name"),
    (f"SELECT ^* FROM env {BY_KEY}", "name the key and aggregates"),
    (f"SELECT device, ^count(DISTINCT temp, hum) AS x FROM env {BY_KEY}", "of one x"),
    ("SELECT ^ts - LAG(ts) AS gap FROM env", "AS BIGINT"),
    ("SELECT ^lag(temp, 2) AS x FROM env", "COALESCE(LAG(x), y)"),
    ("SELECT lag(^lag(temp)) AS x FROM env", "second rule"),
    ("SELECT * FROM env WHERE ^window_start > 3", "give it a window"),
    ("SELECT * FROM env HAVING ^temp > 3", "write WHERE"),
    ("SELECT ^e.temp FROM env", "write temp"),
    ("SELECT n + ^99999999999999999999 AS x FROM env", "write it as DOUBLE"),
    ("SELECT EXTRACT(^CENTURY FROM ts) AS x FROM env", "it knows year"),
    ("SELECT ^IF(temp > 1, 1, 2) AS x FROM env", "CASE WHEN"),
    ("SELECT ^n & 3 AS x FROM env", "powers of 2"),
    ("SELECT TIMESTAMP ^'2020-13-01' AS x FROM env", "TIMESTAMP '2026-01-31"),
    ("SELECT CASE WHEN ^ok THEN 1 ELSE 'a' END AS x FROM env", "one type with CAST"),
    ("SELECT a FROM env ^WHERE", "WHERE is not complete"),
    ("SELECT * FROM env WHERE temp > 1^)", "not expected here"),
    ("SELECT ^* FROM env WHERE site = 'x", "not closed"),
    ("", "the query is empty"),
]


@pytest.mark.parametrize("query, instead", REFUSALS, ids=[q.replace("^", "") for q, _ in REFUSALS])
def test_a_refusal_names_the_place_and_what_to_write_instead(query, instead):
    before, mark, after = query.partition("^")
    text = before + after if mark else query
    with pytest.raises(RuleError) as refused:
        compiled(text)
    said = str(refused.value)
    assert instead in said and "\n" not in said
    if mark and "not closed" not in said:
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        assert abs(int(re.search(r"column (\d+)", said)[1]) - column) <= (1 if ":^" in query else 0), said
        assert f"line {line}," in said


def test_the_reference_is_up_to_date_and_its_examples_compile():
    page = (ROOT / "docs/rules/sql.md").read_text()
    assert page == reference.page(), "run `make docs`"
    examples = re.findall(r"```sql\n(.*?)```", page, re.S)
    assert len(examples) > 4 and all(map(compiled, examples))


def test_a_field_that_is_a_word_of_sql_is_written_in_quotes():
    schema = Schema("env", (Field("offset", "f64"), Field("select", "str")))
    with pytest.raises(RuleError, match='write the field "offset"'):
        compiled("SELECT * FROM env WHERE offset > 1", schema)
    assert compiled('SELECT "offset", "select" FROM env WHERE "offset" > 1', schema)


def test_a_stream_without_key_groups_by_the_window_alone():
    assert compiled("SELECT window_end, count(*) AS c FROM env GROUP BY TUMBLE(time, :every)", PLAIN)
    with pytest.raises(RuleError, match="has no key"):
        compiled("SELECT n, count(*) AS c FROM env GROUP BY n, TUMBLE(time, :every)", PLAIN)


def test_parameters_that_a_query_cannot_take_are_refused():
    for wrong in ({"name": "a", "type": "field"}, {"name": "a", "type": "f64", "list": True}):
        with pytest.raises(ConfigError, match="single values"):
            compiled("SELECT * FROM env", parameters=[wrong])


def test_the_same_query_gives_the_same_bytes():
    text = f"SELECT device, avg(temp) AS a, percentile(n, 0.5) AS p FROM env WHERE site LIKE 'a%' {BY_KEY}"
    assert compiled(text) == compiled(text)


def test_long_and_deep_queries_are_refused_in_time():
    for text in ("SELECT * FROM env WHERE " + "(" * 5000, "SELECT * FROM env WHERE " + "NOT " * 5000 + "ok",
                 "SELECT " + "temp + " * 3000 + "temp AS x FROM env",
                 "SELECT * FROM env WHERE " + "-" * 3000 + "temp > 1", "SELECT * FROM env WHERE site = '" + "x" * 70000 + "'",
                 "SELECT * FROM env WHERE " + "ok IS DISTINCT FROM (" * 55 + "ok" + ")" * 55, "SELECT * FROM env WHERE " + "CASE WHEN " * 1000):
        with pytest.raises(RuleError, match="line 1, column"):
            compiled(text)


WORDS = """SELECT FROM env WHERE GROUP BY HAVING device ts temp hum n ok site window_start window_end * , ( ) + - / % || = <> < <= > >= AND OR NOT IS NULL IN
BETWEEN LIKE ESCAPE CASE WHEN THEN ELSE END CAST AS DOUBLE BIGINT VARCHAR INTERVAL SECOND DAY TUMBLE HOP SESSION count sum avg min first DISTINCT
FILTER lag changed coalesce nullif greatest concat lower substring EXTRACT HOUR date_trunc :limit :every :nope ? @x 1 2.5 1e3 'a' "b" `c` 'x TRUE
FALSE JOIN UNION OVER LIMIT ORDER ; . [ ] { } :: -> ~ ^ & | # $1 /* -- TIMESTAMP '2026-01-01' '10' é \x00 ANY ALL EXISTS VALUES WITH TABLE LATERAL
ROLLUP PIVOT""".split()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25), st.sampled_from([[], ["SELECT"], ["SELECT", "*", "FROM", "env", "WHERE"]]))
def test_a_soup_of_words_is_compiled_or_refused_with_a_place(words, start):
    try:
        compiled(" ".join(start + words))
    except RuleError as refused:
        assert re.match(r"q: line \d+, column \d+: .+", str(refused)), refused


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_compiled_or_refused_with_a_place(text):
    try:
        compiled(text)
    except RuleError as refused:
        assert re.match(r"q: line \d+, column \d+: .+", str(refused)), refused
