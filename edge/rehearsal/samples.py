"""Samples: a rule's cases in plain text, documentation and test at once. docs/rules/samples.md is the same for people.

    # Above 30 degrees an event passes.        comment
    FIELD device str                           head: holds for all cases below; a case may have head lines of its own
    FIELD ts time ms
    FIELD temp f64 optional unit °C
    KEY device
    TIME ts
    PARAM value = 30.0

    CASE passes above the limit
    IN {"device": "a", "ts": 1000, "temp": 31}         step
    OUT {"device": "a", "ts": 1000, "temp": 31}        expected of the steps since the last expected line

A case is groups: steps, then all that they put out. A line is its text to the last character, so that text() gives back what was read.
"""

import difflib
import json
import re
from decimal import Decimal

from msgspec import Struct

from edge.columns.schema import KINDS
from edge.decoding.contract import TIME_FORMATS, FieldSource
from edge.errors import ConfigError
from edge.host.manifest import duration_ns
from edge.times import nanoseconds

TIME_MAX = 1 << 62                       # ns since 1970; the virtual clock goes no further
NUMBER_DIGITS_MAX = 400                  # of a number in OUT: more is no f64


class Line(Struct):
    """One line that is neither blank nor comment. number: from 1. value: see the reader of its word, below."""

    number: int
    word: str
    value: object
    text: str


class Head(Struct):
    """The stream that a case feeds, and its parameters. fields, key, time: None where the head does not say, and the manifest does."""

    stream: str = "in"
    fields: list[FieldSource] | None = None
    key: str | None = None
    time: str | None = None
    params: dict = {}
    lateness_ns: int = 0
    idle_ns: int = 30 * 10**9
    skew_ns: int = 60 * 10**9


class Group(Struct):
    """Steps, and the lines that say what they put out."""

    steps: list[Line]
    expected: list[Line]


class Case(Struct):
    """One case. line: of its CASE. place: the line after which its first step may stand. refused: the REFUSED line, None if it is to run."""

    name: str
    line: int
    head: Head
    groups: list[Group]
    place: int
    refused: Line | None = None


class Samples(Struct):
    """name: for messages, such as the file's. lines: as read."""

    name: str
    lines: list[str]
    cases: list[Case]

    def text(self, drop=(), add=None) -> str:
        """As read, but for the line numbers in `drop`, and with `add` (line number -> lines) behind those lines."""
        add, out = add or {}, []
        for number, line in enumerate(self.lines, 1):
            if number not in drop:
                out.append(line)
            out += add.get(number, ())
        return "\n".join(out)


def parse(text: str, name: str = "samples") -> Samples:
    """Raises ConfigError that names the line and says what to write."""
    return _Parser(text, name).samples


class _Parser:
    def __init__(self, text, name):
        self.name, self.number = name, 0
        self.samples = Samples(name, text.split("\n"), [])
        self.shared, self.case = _Draft(), None
        for self.number, line in enumerate(self.samples.lines, 1):
            line = line.strip()
            if line and not line.startswith("#"):
                self._take(line)
        if self.case is None:
            self._wrong("there is no case", "begin one by CASE and its name, then IN lines and OUT lines")
        self._end_case()

    def _wrong(self, what, do):
        raise ConfigError(f"{self.name}:{max(self.number, 1)}: {what}; {do}")

    def _take(self, line):
        word, *rest = line.split(None, 1)
        if word not in WORDS:
            near = difflib.get_close_matches(word.upper(), WORDS, 1)
            self._wrong(f"{word[:40]!r} begins no line", f"did you mean {near[0]}?" if near else f"a line begins with one of {', '.join(WORDS)}, or with # as a comment")
        section, reader, example = WORDS[word]
        try:
            line = Line(self.number, word, reader("".join(rest).strip()), line)
        except (ValueError, ConfigError) as error:
            self._wrong(f"{word} {error}", f"write for example: {word}{' ' * bool(example)}{example}")
        {"case": self._take_case, "head": self._take_head, "step": self._take_step, "expected": self._take_expected}[section](line)

    def _take_case(self, line):
        self._end_case()
        if any(case.name == line.value for case in self.samples.cases):
            self._wrong(f"there is a case {line.value!r} already", "give each case a name of its own")
        self.case, self.draft = Case(line.value, line.number, Head(), [], line.number), _Draft()

    def _end_case(self):
        if self.case is not None:
            if not self.case.groups and not self.case.refused:
                self.number = self.case.line
                self._wrong(f"case {self.case.name!r} has no steps", "write below it what comes in, by IN lines")
            self.case.head = self.shared.head(self.draft)
            self.samples.cases.append(self.case)

    def _take_head(self, line):
        if self.case is not None and (self.case.groups or self.case.refused):
            self._wrong(f"{line.word} stands behind the case's first step", "put it below CASE, above the first IN")
        draft = self.shared if self.case is None else self.draft
        if problem := draft.take(line):
            self._wrong(*problem)
        if self.case is not None:
            self.case.place = line.number

    def _take_step(self, line):
        if self.case is None:
            self._wrong(f"{line.word} stands above the first case", "write CASE and a name above it")
        if self.case.refused:
            self._wrong(f"{line.word} in a case that is REFUSED: nothing runs there", "make it a case of its own")
        groups = self.case.groups
        if not groups or groups[-1].expected:
            groups.append(Group([], []))
        steps = groups[-1].steps
        if line.word == "AND" and (not steps or steps[-1].word not in ("IN", "AND")):
            self._wrong("AND goes on with the batch of the IN above it, and there is none", "write IN, or move it up to that IN")
        steps.append(line)

    def _take_expected(self, line):
        if self.case is None or not (self.case.groups or line.word == "REFUSED"):
            self._wrong(f"{line.word} stands above the first step", "write first what comes in: CASE and a name, then IN")
        if line.word == "REFUSED":
            if self.case.groups or self.case.refused:
                self._wrong("REFUSED is the only line of a case below its head", "make it a case of its own")
            self.case.refused = line
        elif line.word == "IGNORED" and any(e.word == "IGNORED" for e in self.case.groups[-1].expected):
            self._wrong("IGNORED stands twice for the same steps", "write their number once")
        else:
            self.case.groups[-1].expected.append(line)


class _Draft:
    """Head lines of the file, or of one case."""

    def __init__(self):
        self.said, self.fields, self.params = {}, [], {}

    def take(self, line):
        """None, or what is wrong and what to do."""
        value = line.value
        if line.word == "FIELD":
            if any(f.name == value.name for f in self.fields):
                return f"FIELD {value.name} stands twice", "keep one"
            self.fields.append(value)
        elif line.word == "PARAM":
            if value[0] in self.params:
                return f"PARAM {value[0]} stands twice", "keep one; a list is written [1, 2]"
            self.params[value[0]] = value[1]
        elif line.word in self.said:
            return f"{line.word} stands twice", "keep one"
        else:
            self.said[line.word] = value

    def head(self, own) -> Head:
        """Of a case with head lines of its own: its fields replace these, anything else is added or takes its place."""
        said, head = self.said | own.said, Head()
        for word, name in (("STREAM", "stream"), ("KEY", "key"), ("TIME", "time"), ("LATENESS", "lateness_ns"), ("IDLE", "idle_ns"), ("SKEW", "skew_ns")):
            if word in said:
                setattr(head, name, said[word])
        head.fields = own.fields or self.fields or None
        head.params = self.params | own.params
        return head


# --- readers: what stands behind a line's word. They raise ValueError or ConfigError that goes on from the word.


def _text(text):
    if not text:
        raise ValueError("has nothing behind it")
    return text


def _nothing(text):
    if text:
        raise ValueError("has nothing behind it: it stands alone")


def _word(text):
    """A name: quoted like a JSON string where it holds spaces."""
    if text.startswith('"'):
        value = _json(text)
        if isinstance(value, str) and value:
            return value
        raise ValueError("needs a name in the quotes")
    if not text or " " in text:
        raise ValueError(f"needs one name, not {text[:40]!r}" if text else "needs a name")
    return text


def _field(text):
    """FieldSource of: NAME TYPE [TIME FORMAT] [optional] [unit TEXT]."""
    text, _, unit = text.partition(" unit ")
    words = text.split()
    if len(words) < 2 or words[1] not in KINDS:
        raise ValueError(f"needs a name and a type, which is one of {', '.join(KINDS)}")
    name, kind, *rest = words
    time_format = rest.pop(0) if rest and rest[0] in TIME_FORMATS else "ms" if kind == "time" else None
    if rest not in ([], ["optional"]):
        raise ValueError(f"{name} has {' '.join(rest)!r} behind its type, where a time may have one of {', '.join(TIME_FORMATS)}, and any field `optional`")
    return FieldSource(name, kind, required=not rest, unit=unit.strip(), time_format=time_format)


def _param(text):
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError("needs a name, = and a value")
    try:
        return name.strip(), json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(f"{name.strip()} has the value {value.strip()[:40]!r}, which is none: text and durations stand in quotes, a list in [ ]") from None


def _span(text):
    ns = duration_ns(text)
    if ns > TIME_MAX:
        raise ValueError(f"{text[:40]!r} is too long: the virtual clock goes up to the year 2116")
    return ns


def _moment(text):
    """Nanoseconds since 1970, as a duration since then or an ISO 8601 time."""
    try:
        ns = duration_ns(text) if text[:1].isdigit() and text[-1:].isalpha() and not text.endswith("Z") else nanoseconds(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:40]!r} is no time: it is a duration since the beginning, such as 10s, or a date such as 2026-03-01T06:30:00Z") from None
    if not 0 <= ns <= TIME_MAX:
        raise ValueError(f"{text[:40]!r} is a time outside of 1970 to 2116, as far as the virtual clock goes")
    return ns


def _event(text):
    """(receive time or None, payload)."""
    at = None
    if text.startswith("@"):
        moment, _, text = text[1:].partition(" ")
        at, text = _moment(moment), text.strip()
    if not text:
        raise ValueError("needs an event")
    return at, text


def _payload(text):
    return _event(text)[1] if not text.startswith("@") else _event("")


def _watermark(text):
    """(key or None, time)."""
    if not text:
        raise ValueError("needs a key and a time, or a time alone where the stream has no key")
    match = re.fullmatch(r'(?:("(?:[^"\\]|\\.)*"|.*?)\s+)?(\S+)', text)
    if match is None:
        raise ValueError(f"cannot be read: {text[:40]!r}")
    return None if match[1] is None else _word(match[1]), _moment(match[2])


def _row(text):
    value = _json(text)
    if not isinstance(value, dict):
        raise ValueError("needs a row as a JSON object")
    return value


def _count(text):
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise ValueError(f"needs a number of rows from 1 on, not {text[:40]!r}")
    return int(text)


def _json(text):
    """JSON with exact numbers; NaN, Infinity and -Infinity are numbers too."""
    try:
        return json.loads(text, parse_float=_number, parse_int=_number, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error.msg} at column {error.colno} of it") from None


def _number(text):
    if len(text) > NUMBER_DIGITS_MAX:
        raise ValueError(f"has a number of {len(text)} digits")
    try:
        return Decimal(text) if re.search("[.eE]", text) else int(text)
    except ArithmeticError:
        raise ValueError(f"has a number that is none: {text[:40]}") from None


def _object(pairs):
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("has a name twice")
    return made


WORDS = {                                # word -> section, reader, example of what stands behind it
    "STREAM": ("head", _word, "env"),
    "FIELD": ("head", _field, "temp f64 optional unit °C"),
    "KEY": ("head", _word, "device"),
    "TIME": ("head", _word, "ts"),
    "PARAM": ("head", _param, 'length = "10s"'),
    "LATENESS": ("head", _span, "2s"),
    "IDLE": ("head", _span, "30s"),
    "SKEW": ("head", _span, "1m"),
    "CASE": ("case", _text, "a window closes when the watermark reaches its end"),
    "IN": ("step", _event, '{"device": "a", "ts": 1000, "temp": 21.5}'),
    "AND": ("step", _payload, '{"device": "b", "ts": 1000, "temp": 30}'),
    "AT": ("step", _moment, "10s"),
    "ADVANCE": ("step", _span, "1m"),
    "WATERMARK": ("step", _watermark, "a 10s"),
    "RESTART": ("step", _nothing, ""),
    "OUT": ("expected", _row, '{"device": "a", "window_end": 10000, "count": 3}'),
    "LATE": ("expected", _row, '{"device": "a", "ts": 1000, "temp": 21.5}'),
    "IGNORED": ("expected", _count, "1"),
    "DEAD": ("expected", _text, "field temp: expected f64"),
    "TRAP": ("expected", _text, "unreachable"),
    "REFUSED": ("expected", _text, "parameter length is missing"),
}
