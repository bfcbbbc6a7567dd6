"""Access: the file that says who may use the HTTP API, one a line.

    token:NAME ROLE SHA-256        bearer token, by its hash: the token itself is 256 random bits, so that no slow hash is needed
    cert:CN    ROLE                client certificate of api.tls.ca, by the common name of its subject

ROLE is read or write; write includes read. Lines that begin with # are comments. The file is read again when it changes: to take a right
away, remove its line.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections import namedtuple

from edge.errors import ConfigError
from gateway.ingest.entries import entries
from gateway.upkeep import stamp

ROLES = ("read", "write")
FILE_BYTES_MAX = 64 << 10
NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
TOKEN_PREFIX = "tg_"

Guest = namedtuple("Guest", "who role hash")


class Access:
    """The guests of a file. note(message) hears when a changed file cannot be used: then nobody is let in. Raises ConfigError for a first one that cannot."""

    def __init__(self, path, note=lambda message: None):
        self._path, self._note = path, note
        self._stamp, self._guests = stamp(path), read(path)         # in this order: what changes between the two is read again

    def guest(self, token=None, common_name=None):
        """Who shows this token or this certificate, as a Guest, or None."""
        self._refresh()
        found = None
        if token is not None:
            hashed = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
            for guest in self._guests:           # all of them: the time does not tell which one came near
                if hmac.compare_digest(guest.hash, hashed):
                    found = guest
        if found is None and common_name is not None:
            found = next((guest for guest in self._guests if guest.who == f"cert:{common_name}"), None)
        return found

    def _refresh(self):
        found = stamp(self._path)
        if found == self._stamp:
            return
        self._stamp = found
        try:
            self._guests = read(self._path)
        except ConfigError as error:
            self._guests = []
            self._note(f"{error}; nobody is let in")


def read(path) -> list:
    """The Guests of a file. Raises ConfigError with the line that is wrong."""
    guests = []
    for number, line in entries(path, FILE_BYTES_MAX, "let somebody in with `tidegate api --new-token NAME`"):
        words = line.split()
        kind, _, name = words[0].partition(":")
        sound = {"token": len(words) == 3 and re.fullmatch("[0-9a-f]{64}", words[2]), "cert": len(words) == 2}.get(kind)
        if not sound or not NAME.fullmatch(name) or words[1] not in ROLES:
            raise ConfigError(f"{path}: line {number} is neither 'token:NAME ROLE SHA-256' nor 'cert:CN ROLE', ROLE being read or write")
        guests.append(Guest(words[0], words[1], words[2] if kind == "token" else ""))
    return guests


def add_token(path, name, role) -> str:
    """Let NAME in; its token, which is kept nowhere. Raises ConfigError."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    _add(path, f"token:{name}", role, hashlib.sha256(token.encode()).hexdigest())
    return token


def add_certificate(path, common_name, role):
    """Let a certificate's subject in. Raises ConfigError."""
    _add(path, f"cert:{common_name}", role)


def _add(path, who, role, *hashed):
    if not NAME.fullmatch(who.partition(":")[2]):
        raise ConfigError(f"{who.partition(':')[2]!r} is no name: it has letters, digits, _ . @ - and at most 64 of them")
    if os.path.exists(path) and any(guest.who == who for guest in read(path)):
        raise ConfigError(f"{path}: {who} is in it already: remove its line first")
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:
            file.write(" ".join((who, role, *hashed)) + "\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
