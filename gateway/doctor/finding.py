"""A finding: one thing that was looked at, and what to do about it."""

from collections import namedtuple

ERROR, WARNING, NOTE, GOOD, UNKNOWN = "error", "warning", "note", "good", "unknown"
WRONG = (ERROR, WARNING)                 # what makes the exit status 1

Finding = namedtuple("Finding", "severity check what do", defaults=("",))
Finding.__doc__ = """severity: error (it does not work, or loses data), warning (it will), note (good to know), good, unknown (nothing tells). what: in a line; do: what to do."""


def text(path) -> str | None:
    """The content of a small file of sysfs or procfs without its newline; None when there is none, or it does not say."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536).strip()
    except OSError:
        return None
