"""Quantities as people write them in a configuration: durations ("250ms", "10s", "2h"), sizes ("64KiB", "1GiB") and parts ("80%")."""

import re

_DURATION = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
_SIZE = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+|%)")


def _parse(text, units, example):
    match = _QUANTITY.fullmatch(text.strip())
    if not match or match[2] not in units:
        raise ValueError(f"{text!r} is not {example}; units are {', '.join(units)}")
    return round(float(match[1]) * units[match[2]])


class Duration(int):
    """Nanoseconds. Duration.parse("1.5s") == 1_500_000_000; raises ValueError."""

    pattern = r"^\s*\d+(\.\d+)?\s*(ns|us|ms|s|m|h|d)\s*$"
    summary = 'a duration such as "250ms" or "10s"'

    @classmethod
    def parse(cls, text):
        return cls(_parse(text, _DURATION, "a duration such as \"250ms\" or \"10s\""))

    @property
    def seconds(self) -> float:
        return self / 1e9

    def __str__(self):
        return _shortest(self, _DURATION)


class Durability(Duration):
    """How long events may wait to be made durable together: "ack" (0: not at all) or a duration. Durability.parse("10ms") == 10_000_000; raises ValueError."""

    pattern = r"^\s*(ack|\d+(\.\d+)?\s*(ns|us|ms|s|m|h|d))\s*$"
    summary = '"ack" or a duration such as "10ms"'

    @classmethod
    def parse(cls, text):
        return cls(0) if text.strip() == "ack" else super().parse(text)

    def __str__(self):
        return super().__str__() if self else "ack"


class Size(int):
    """Bytes. Size.parse("64KiB") == 65536; raises ValueError."""

    pattern = r"^\s*\d+(\.\d+)?\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*$"
    summary = 'a size such as "64KiB" or "1GiB"'

    @classmethod
    def parse(cls, text):
        return cls(_parse(text, _SIZE, "a size such as \"64KiB\" or \"1GiB\""))

    def __str__(self):
        return _shortest(self, {k: v for k, v in _SIZE.items() if "i" in k or k == "B"})


class Part(float):
    """A part of a whole, above 0 and up to 1. Part.parse("80%") == 0.8; raises ValueError."""

    pattern = r"^\s*\d+(\.\d+)?\s*%\s*$"
    summary = 'a part such as "80%"'

    @classmethod
    def parse(cls, text):
        part = cls(_parse(text, {"%": 1e9}, "a part such as \"80%\"") / 1e11)
        if not 0 < part <= 1:
            raise ValueError(f"{text!r} must be above 0% and at most 100%")
        return part

    def __str__(self):
        return f"{100 * self:g}%"


def _shortest(value, units):
    number = int(value)
    for name, unit in sorted(units.items(), key=lambda item: -item[1]):
        if number and number % unit == 0:
            return f"{number // unit}{name}"
    return f"{number}{next(iter(units))}"
