"""The dialect: from a query's text to sqlglot's syntax tree, and where in the text a node stands.

Keywords of what a rule cannot do are refused here, by token, each with what to write instead; what gets through is a single SELECT. All functions
parse as exp.Anonymous, whatever sqlglot knows about their names, so that binding.py has one form of call to look at.
"""

import logging
import re

from sqlglot import exp, parser, tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError
from sqlglot.tokens import TokenType as T

from edge.errors import RuleError

TEXT_BYTES_MAX = 64 << 10
NESTING_MAX = 60                     # parentheses and CASEs: bounds the recursion of parser, binder and generator
OPERATORS_MAX = 400                  # a chain a + b + c ... is as deep as it is long

WINDOWED = "SELECT device, window_end, avg(temp) AS temp_avg FROM env GROUP BY device, TUMBLE(ts, INTERVAL '10' SECOND)"
REFUSED = {                          # keyword -> what to write instead
    "JOIN": "a rule reads one stream: join upstream, or let a rule read this rule's output",
    "UNION": "a rule reads one stream: write one rule for each SELECT and send both to the same lane",
    "INTERSECT": "write the conditions of both sides in one WHERE",
    "EXCEPT": "write the condition of the other side as AND NOT (...) in WHERE",
    "ORDER BY": "a stream has no end to sort: rows come by key, then window_start",
    "SORT BY": "a stream has no end to sort: rows come by key, then window_start",
    "LIMIT": "a stream has no end to count from: thin it out by WHERE, or with the ready-made rule `sample`",
    "OFFSET": "a stream has no end to count from: leave it out",
    "FETCH": "a stream has no end to count from: leave it out",
    "OVER": "LAG(x) and CHANGED(x) work by the stream's key without OVER; for sums and averages " + f"group by a window: {WINDOWED}",
    "PARTITION BY": "LAG(x) and CHANGED(x) work by the stream's key without it",
    "QUALIFY": "write the condition in WHERE, or in HAVING for aggregates",
    "WITH": "write the expressions of the common table where they are used, or make it a rule that this one reads",
    "MATCH_RECOGNIZE": "for `A, then B within 5 s`, write WHERE state = 'B' AND ts - LAG(ts) FILTER (WHERE state = 'A') <= INTERVAL '5' SECOND; "
                       "longer patterns are C rules",
    "PIVOT": "write one aggregate a column: sum(CASE WHEN kind = 'a' THEN x END) AS a",
    "UNPIVOT": "write one rule a column",
    "LATERAL": "a rule puts out at most one row an event",
    "UNNEST": "a rule puts out at most one row an event, and a field holds one value",
    "CROSS": "a rule reads one stream",
    "INTO": "the rule's name is the output's: leave INTO out",
    "VALUES": "read a stream: SELECT ... FROM env",
    "EXISTS": "subqueries are not supported: write the condition in WHERE",
    "ROLLUP": "group by the key and one window", "CUBE": "group by the key and one window", "GROUPING SETS": "group by the key and one window",
    "TABLESAMPLE": "use the ready-made rule `sample`",
    "EMIT": "a window is put out once, when its watermark passes: leave EMIT out",
    "CURRENT_TIMESTAMP": "a rule has no clock: use the event time", "CURRENT_DATE": "a rule has no clock: use the event time",
    "CURRENT_TIME": "a rule has no clock: use the event time", "LOCALTIME": "a rule has no clock: use the event time",
    "LOCALTIMESTAMP": "a rule has no clock: use the event time", "NOW": "a rule has no clock: use the event time",
    "ILIKE": "write lower(x) LIKE 'pattern'", "RLIKE": "write LIKE, starts_with or contains", "REGEXP": "write LIKE, starts_with or contains",
    "GLOB": "write LIKE", "SIMILAR TO": "write LIKE",
}
STATEMENTS = "a rule is one SELECT: the rule's name, input and output are in rule.toml"
_WORDS = {"EMIT": "CHANGES", "NOW": "("}                             # refused only with what follows
_OPENING = {T.L_PAREN, T.L_BRACKET, T.L_BRACE, T.CASE}
_CLOSING = {T.R_PAREN, T.R_BRACKET, T.R_BRACE, T.END}
_NAMES = {T.VAR, T.IDENTIFIER, T.COLON, T.DOT, T.STRING, T.NUMBER}

logging.getLogger("sqlglot").setLevel(logging.ERROR)


class Streaming(Dialect):
    """sqlglot's standard SQL without functions of its own."""

    class Tokenizer(tokens.Tokenizer):
        IDENTIFIERS = ['"', "`"]
        KEYWORDS = {word: kind for word, kind in tokens.Tokenizer.KEYWORDS.items() if word not in ("SESSION", "FORMAT",
            "SESSION_USER") and "{" not in word and "}" not in word}

    class Parser(parser.Parser):
        FUNCTIONS = {}
        FUNCTION_PARSERS = {name: parser.Parser.FUNCTION_PARSERS[name] for name in ("CAST", "EXTRACT")}
        NO_PAREN_FUNCTION_PARSERS = {"CASE": parser.Parser.NO_PAREN_FUNCTION_PARSERS["CASE"]}

        def expression(self, instance, token=None, comments=None):
            """A node without children stands where the token just read stands: sqlglot says so only for some."""
            if token is None and isinstance(instance, (exp.Placeholder, exp.Null, exp.Boolean, exp.Var)) and self._prev:
                token = self._prev
            return super().expression(instance, token, comments)


class Source:
    """A query's text, under the rule's name. Everything that is wrong with it is raised by refuse()."""

    def __init__(self, text, name, fields=()):
        self.text, self.name, self.fields = text, name, {f.upper() for f in fields}

    def refuse(self, where, why):
        """Raises RuleError with line and column, counted from 1. where: a node, or a position in the text."""
        at = where if isinstance(where, int) else position(where)
        before = self.text[:at]
        line, column = before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1
        raise RuleError(f"{self.name}: line {line}, column {column}: {why}", rule=self.name)

    def parse(self) -> exp.Select:
        """Raises RuleError."""
        try:
            size = len(self.text.encode())
        except UnicodeEncodeError as error:
            self.refuse(error.start, "half a surrogate pair; write whole characters")
        if size > TEXT_BYTES_MAX:
            self.refuse(0, f"the query has {size} bytes; {TEXT_BYTES_MAX} at most: split it into rules")
        found = self._tokens()
        self._check_tokens(found)
        try:
            trees = Streaming().parse(self.text)
        except SqlglotError as error:
            first = (getattr(error, "errors", None) or [{}])[0]
            self.refuse(self._offset(first), f"this is not SQL: {_described(first, error)}; see docs/rules/sql.md")
        except (RecursionError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
            self.refuse(found[0].start, f"this is not SQL that can be read ({type(error).__name__}); see docs/rules/sql.md")
        if len(trees) != 1 or not isinstance(trees[0], exp.Select):
            self.refuse(found[0].start, f"this is not one SELECT; {STATEMENTS}")
        return trees[0]

    def _tokens(self):
        try:
            found = list(Streaming().tokenize(self.text))
        except (SqlglotError, RecursionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            told = re.search(r"from (\d+):(\d+)", str(error))
            at = self._offset({"line": int(told[1]), "col": int(told[2])}) if told else self._last_quote()
            self.refuse(at, "a text, name or comment that is not closed, or a character that SQL does not have")
        while found and found[-1].token_type == T.SEMICOLON:
            found.pop()
        if not found:
            self.refuse(0, f"the query is empty; write one such as {WINDOWED}")
        return found

    def _last_quote(self):
        return max(self.text.rfind(c) for c in "'\"`/") if any(c in self.text for c in "'\"`/") else 0

    def _offset(self, place):
        """sqlglot counts lines from 1, and gives the column of a token's last character."""
        lines = self.text.split("\n")
        line = min(max(place.get("line") or 1, 1), len(lines))
        at = sum(len(before) + 1 for before in lines[: line - 1]) + max((place.get("col") or 1) - 1, 0)
        at = min(at, len(self.text))
        return max(at - len((place.get("highlight") or " ")) + 1, 0)

    def _check_tokens(self, found):
        depth = operators = selects = 0
        for i, token in enumerate(found):
            before = found[i - 1].token_type if i else None
            word = token.text.upper() if token.token_type not in (T.IDENTIFIER, T.STRING, T.NUMBER) else ""
            depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
            operators += token.token_type not in _NAMES
            if depth > NESTING_MAX or operators > OPERATORS_MAX:
                self.refuse(token.start, "the query is nested too deeply or too long: split it into rules")
            if token.token_type == T.SEMICOLON:
                self.refuse(token.start, f"there is something behind the semicolon; {STATEMENTS}")
            if before in (T.COLON, T.DOT, T.ALIAS):
                continue
            if word == "SELECT" and (selects := selects + 1) > 1:
                self.refuse(token.start, "subqueries are not supported: make the inner SELECT a rule and let this one read its output")
            if word in REFUSED and self._stands(word, found[i + 1 :]):
                self.refuse(token.start, f'{word} is a word of SQL: write the field "{token.text}"' if word in self.fields
                            else f"{word} is not supported: {REFUSED[word]}")
            if word == "DISTINCT" and before not in (T.L_PAREN, T.IS, T.NOT):
                self.refuse(token.start, "DISTINCT is only for count(DISTINCT x); to drop repeated events use CHANGED(x) or the ready-made rule `dedup`")
        if found[0].text.upper() != "SELECT":
            self.refuse(found[0].start, f"a rule begins with SELECT, not with {found[0].text[:40]}; {STATEMENTS}")

    @staticmethod
    def _stands(word, after):
        following = _WORDS.get(word)
        return following is None or (after and after[0].text.upper() == following)


def _described(first, error) -> str:
    """What sqlglot says, without the names of its classes."""
    said = str(first.get("description") or error).splitlines()[0]
    incomplete = re.match(r"Required keyword: '\w+' missing for <class '[\w.]*?(\w+)'>", said)
    if incomplete:
        return f"{incomplete[1].upper()} is not complete"
    if "Unexpected token" in said:
        return f"{first.get('highlight') or 'this'} is not expected here"
    return said.split(" but got")[0].rstrip(". ")


def position(node) -> int:
    """Where the node begins in the text, as well as sqlglot knows: the first of what stands in it, else of what it stands in."""
    while node is not None:
        starts = [n.meta["start"] for n in node.walk() if "start" in n.meta]
        if starts:
            return min(starts)
        node = node.parent
    return 0
