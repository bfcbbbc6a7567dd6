"""Passwords: the file of those who may connect to the listener, one `user:hash` a line. `tidegate passwd FILE USER` writes it.

    hash   $scrypt$ln=14,r=8,p=1$SALT$HASH      PHC string format, base64 without padding; 2**ln * r * 128 bytes of memory to compute

Lines that begin with # are comments. Secrets of one line stay out of every message.
"""

import base64
import binascii
import hashlib
import os
import re
from hmac import compare_digest

from edge.errors import ConfigError
from edge.storage import whole
from edge.storage.disk import Disk
from gateway.ingest.entries import entries

FILE_BYTES_MAX = 4 << 20
PASSWORD_BYTES_MAX = 1024
COST, BLOCK, LANES = 14, 8, 1            # 16 MiB, some 40 ms of a desktop's core and 250 ms of a Pi 3's
MEMORY_BYTES_MAX = 64 << 20
USER = re.compile(r"[^:#+/%\x00-\x1f\x7f-\x9f\s][^:#+/%\x00-\x1f\x7f-\x9f]{0,127}")
_HASH = re.compile(r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})")


def hashed(password: bytes) -> str:
    """The hash of a password, with a fresh salt."""
    salt = os.urandom(16)
    return _line(salt, _scrypt(password, salt, COST, BLOCK, LANES, 32))


def unknown() -> str:
    """A hash that no password has."""
    return _line(os.urandom(16), os.urandom(32))


def _line(salt, key):
    return f"$scrypt$ln={COST},r={BLOCK},p={LANES}${_text(salt)}${_text(key)}"


def verify(password: bytes, line: str) -> bool:
    """Whether a password has this hash. Takes its time, and lets other threads run meanwhile."""
    ln, r, p, salt, expected = _HASH.fullmatch(line).groups()
    expected = _bytes(expected)
    return compare_digest(_scrypt(password, _bytes(salt), int(ln), int(r), int(p), len(expected)), expected)


def read(path) -> dict:
    """{user: hash} of a file. Raises ConfigError with the line that is wrong."""
    users = {}
    for number, line in entries(path, FILE_BYTES_MAX, f"let somebody in with `tidegate passwd {path} USER`"):
        user, _, secret = line.rstrip().partition(":")
        if not USER.fullmatch(user) or not _sound(secret):
            raise ConfigError(f"{path}: line {number} is not 'user:hash' as `tidegate passwd {path} USER` writes it")
        if user in users:
            raise ConfigError(f"{path}: line {number}: user {user!r} stands there twice")
        users[user] = secret
    return users


def put(path, user, secret):
    """Let a user in, in the place of an older line; secret: a hash, or None to remove the user. The file is replaced whole. Raises ConfigError."""
    if not USER.fullmatch(user):
        raise ConfigError(f"{user!r} is no user name: up to 128 characters without : # + / % and control characters")
    users = read(path) if os.path.exists(path) else {}
    if secret is None and user not in users:
        raise ConfigError(f"{path}: there is no user {user!r}")
    lines = open(path, encoding="utf-8").read().splitlines() if users else []
    lines = [line for line in lines if line.startswith("#") or line.partition(":")[0] != user]
    if secret is not None:
        lines.append(f"{user}:{secret}")
    try:
        kept = os.stat(path) if users else None

        def own(file):
            os.fchmod(file, 0o640 if kept is None else kept.st_mode & 0o777)
            if kept is not None and os.geteuid() == 0:           # of the same owner, so that the gateway can still read it
                os.fchown(file, kept.st_uid, kept.st_gid)

        whole.replace(Disk(), os.path.abspath(path), "".join(f"{line}\n" for line in lines).encode(), own)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def _sound(secret):
    match = _HASH.fullmatch(secret)
    if not match:
        return False
    ln, r, p = int(match[1]), int(match[2]), int(match[3])
    try:
        _bytes(match[4]), _bytes(match[5])
    except binascii.Error:
        return False
    return 1 <= ln <= 20 and 1 <= r <= 16 and 1 <= p <= 4 and (128 * r << ln) <= MEMORY_BYTES_MAX


def _scrypt(password, salt, ln, r, p, size):
    return hashlib.scrypt(password, salt=salt, n=1 << ln, r=r, p=p, maxmem=MEMORY_BYTES_MAX + (1 << 20), dklen=size)


def _text(data):
    return base64.b64encode(data).decode().rstrip("=")


def _bytes(text):
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
