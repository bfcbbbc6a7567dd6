"""Entries: the lines of a file that an operator keeps: users, guests of the API, permits."""

from edge.errors import ConfigError


def entries(path, bytes_max, missing):
    """(number, line) of a file of bytes_max characters at most, without empty lines and those that begin with #. missing: what to do where there is no file.
    Raises ConfigError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(bytes_max + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: is missing: {missing}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(text) > bytes_max:
        raise ConfigError(f"{path}: has more than {bytes_max} bytes")
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
