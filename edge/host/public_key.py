"""Public keys as people pass them on: base64 of their 32 bytes, as `tidegate rule keygen` prints it."""

import base64
import re

from edge.errors import ConfigError


def is_public_key(text) -> bool:
    """Whether a text is a public key itself, and not the path of a file that holds one."""
    return re.fullmatch(r"[A-Za-z0-9+/]{43}=", text) is not None


def public_key(text) -> bytes:
    """The 32 bytes. Raises ConfigError."""
    if not is_public_key(text.strip()):
        raise ConfigError(f"{text.strip()[:60]!r} is no public key: it is the base64 text of 32 bytes that `tidegate rule keygen` prints")
    return base64.b64decode(text)
