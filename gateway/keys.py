"""Keys of this gateway: files whose first line is 64 hexadecimal digits, as `openssl rand -hex 32` writes them. systemd gives such a file by LoadCredential."""

import re

from edge.errors import ConfigError


def load(path, place) -> bytes:
    """The 32 bytes in a key file; place: the configuration's key that names it. What is in the file is in no message. Raises ConfigError."""
    try:
        with open(path, encoding="ascii") as file:
            line = file.readline(256).strip()
    except FileNotFoundError:
        raise ConfigError(f"{place}: {path} is missing: make it once with `openssl rand -hex 32`, readable by the gateway alone, and keep a copy elsewhere") from None
    except UnicodeDecodeError:
        line = ""
    except OSError as error:
        raise ConfigError(f"{place}: {path} cannot be read: {error.strerror}") from None
    if not re.fullmatch("[0-9A-Fa-f]{64}", line):
        raise ConfigError(f"{place}: the first line of {path} is not 64 hexadecimal digits; `openssl rand -hex 32` writes such a line")
    return bytes.fromhex(line)


def encryption_key(config) -> bytes | None:
    """The key of a configuration's data directory; None when it names none. Raises ConfigError."""
    path = config.gateway.encryption_key_file
    return None if path is None else load(path, "gateway.encryption_key_file")
