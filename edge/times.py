"""Times as people write them: RFC 3339 text and nanoseconds since 1970."""

import re
from datetime import datetime, timezone


def timestamp(ns) -> str:
    """RFC 3339 in UTC, with as many digits of the second as it takes."""
    seconds, rest = divmod(ns, 10**9)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def nanoseconds(text) -> int:
    """Of an ISO 8601 time; without a zone it is UTC. Raises ValueError."""
    digits = ""
    match = re.search(r"[.,](\d{1,9})", text)
    if match:
        digits, text = match[1], text[:match.start()] + text[match.end():]
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * 86400 + since.seconds) * 10**9 + int(digits.ljust(9, "0") or 0)
