"""The sample format: whatever the text, it is samples or an error that names a line; and what was read can be written back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError
from edge.rehearsal.samples import WORDS, parse

HEAD = "FIELD device str\nFIELD ts time ms\nFIELD temp f64 optional unit °C\nKEY device\nTIME ts\n"
CASE = HEAD + 'CASE one\nIN {"device": "a", "ts": 1, "temp": 2}\n'

EXAMPLES = [f"{word} {example}" for word, (_, _, example) in WORDS.items()]
LINES = st.sampled_from(EXAMPLES) | st.builds("{} {}".format, st.sampled_from(list(WORDS)), st.text()) | st.text()


@given(st.text() | st.lists(LINES).map("\n".join))
def test_any_text_is_samples_or_an_error_with_a_line(text):
    try:
        samples = parse(text, "x.samples")
    except ConfigError as error:
        assert re.match(r"x\.samples:[1-9]\d*: .+; .+", str(error), re.S), error
    else:
        assert samples.text() == text


@given(st.binary())
def test_numbers_of_any_size_are_rows_or_an_error(data):
    for number in (data.hex(), f"1e{int.from_bytes(data, 'little')}", f"{int.from_bytes(data, 'little')}.5"):
        try:
            parse(f'{CASE}OUT {{"temp": {number}}}')
        except ConfigError:
            pass


def test_each_example_of_an_error_message_can_be_read():
    for word, (section, _, example) in WORDS.items():
        line = f"{word} {example}".strip()
        before = {"head": "", "case": "", "step": CASE, "expected": CASE if word != "REFUSED" else HEAD + "CASE one\n"}[section]
        after = {"head": CASE if word not in ("KEY", "TIME") else "CASE one\nRESTART\n", "case": "\nRESTART\n"}.get(section, "")
        if word == "FIELD":
            after = "CASE one\nRESTART\n"
        assert parse(f"{before}{line}\n{after}").cases, word


@pytest.mark.parametrize("text, line, says", [
    ("", 1, "there is no case"),
    ("# only a comment\n", 2, "there is no case"),
    ("CASE\n", 1, "CASE has nothing behind it"),
    ("case one\n", 1, "did you mean CASE?"),
    ("CASE one\n\n", 1, "case 'one' has no steps"),
    ("OUT {}\n", 1, "stands above the first step"),
    ("IN {}\n", 1, "stands above the first case"),
    (CASE + "KEY device", 8, "behind the case's first step"),
    (CASE + "CASE one\nIN {}", 8, "there is a case 'one' already"),
    (HEAD + "FIELD ts i64", 6, "FIELD ts stands twice"),
    (HEAD + "KEY ts", 6, "KEY stands twice"),
    ("FIELD temp f32", 1, "one of f64, i64, bool, str, time"),
    ("FIELD temp f64 required", 1, "'required' behind its type"),
    ("PARAM length = 10s", 1, "text and durations stand in quotes"),
    ("PARAM length", 1, "needs a name, = and a value"),
    ("LATENESS 2 sec", 1, 'such as "10s"'),
    (CASE + "AT soon", 8, "is no time"),
    (CASE + "AT 1969-01-01", 8, "outside of 1970 to 2116"),
    (CASE + "AND", 8, "needs an event"),
    (CASE + "RESTART\nAND {}", 9, "AND goes on with the batch of the IN above it"),
    (CASE + "RESTART now", 8, "it stands alone"),
    (CASE + "OUT [1]", 8, "needs a row as a JSON object"),
    (CASE + 'OUT {"a": 1', 8, "is no JSON"),
    (CASE + 'OUT {"a": 1, "a": 2}', 8, "has a name twice"),
    (CASE + "IGNORED 0", 8, "a number of rows from 1 on"),
    (CASE + "IGNORED 1\nIGNORED 1", 9, "IGNORED stands twice"),
    (CASE + "REFUSED no", 8, "make it a case of its own"),
    (CASE + "WATERMARK", 8, "needs a key and a time"),
    (CASE + 'WATERMARK "a b 10s', 8, "WATERMARK"),
])
def test_an_error_names_the_line_and_what_to_write(text, line, says):
    with pytest.raises(ConfigError) as error:
        parse(text, "x.samples")
    assert str(error.value).startswith(f"x.samples:{line}: "), error.value
    assert says in str(error.value) and "; " in str(error.value), error.value


def test_a_case_adds_to_the_head_or_takes_its_place():
    first, second = parse(f'{HEAD}PARAM a = 1\nPARAM b = 2\nIDLE 5s\nCASE one\nPARAM b = [3]\nLATENESS 1s\nRESTART\nCASE two\nFIELD n i64\nRESTART\n').cases
    assert first.head.params == {"a": 1, "b": [3]} and second.head.params == {"a": 1, "b": 2}
    assert (first.head.lateness_ns, second.head.lateness_ns) == (10**9, 0)
    assert [f.name for f in first.head.fields] == ["device", "ts", "temp"] and [f.name for f in second.head.fields] == ["n"]
    assert second.head.idle_ns == 5 * 10**9
