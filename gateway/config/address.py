"""Addresses as people give them on a command line, made into tables of the configuration."""

import re
from urllib.parse import unquote, urlsplit

import msgspec

from edge import tables
from edge.errors import ConfigError
from gateway.config import spec
from gateway.config.reader import LOOPBACK
from gateway.config.units import Duration, Size

LISTENER = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:]+\]|[^:\[\]]+):)?(?P<port>\d{1,5})")


def link(what, url, *, password_file=None, ca=None, cert=None, key=None, prefix="--") -> dict:
    """The table [broker] or [upstream] of mqtt(s)://[USER@]HOST[:PORT] and its files. what, prefix: the flag, and what those for files begin with, for messages. Raises ConfigError."""
    try:
        parts = urlsplit(url if "://" in url else f"mqtt://{url}")
        scheme, host, port, user, password = parts.scheme, parts.hostname, parts.port, parts.username, parts.password
    except ValueError as error:
        raise ConfigError(f"{what} {url}: {error}") from None
    if scheme not in ("mqtt", "mqtts") or not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"{what} {url}: not a broker's address; write mqtt://[USER@]HOST[:PORT], or mqtts://... for TLS")
    if password is not None:
        raise ConfigError(f"{what}: a password does not belong into an address, where others see it: put it into a file, and name that with {prefix}password-file")
    if scheme == "mqtt" and (ca or cert or key):
        raise ConfigError(f"{what} {url}: certificates are for mqtts://")
    if bool(cert) != bool(key):
        raise ConfigError(f"{what}: a certificate and its key go together")
    table = {"host": host, "port": port or (8883 if scheme == "mqtts" else 1883)}
    if user:
        table["username"] = unquote(user)
    if password_file:
        table["password_file"] = password_file
    if scheme == "mqtts":
        table["tls"] = {name: value for name, value in (("ca", ca), ("cert", cert), ("key", key)) if value}
    return table


def listener(what, text) -> dict:
    """The table [listener] of [HOST:]PORT; without a host it is for this machine alone. Raises ConfigError."""
    match = LISTENER.fullmatch(text.strip())
    if not match or int(match["port"]) > 65535:
        raise ConfigError(f"{what} {text}: not an address to listen on; write PORT for this machine alone, or HOST:PORT, such as 0.0.0.0:8883 for the network")
    return {"host": (match["host"] or LOOPBACK[1]).strip("[]"), "port": int(match["port"])}


def is_loopback(table) -> bool:
    """Whether only this machine can connect to a listener."""
    return table["host"] in LOOPBACK


def source(kind, table):
    """The spec.Broker or spec.Listener of a table that link() or listener() made. Raises ConfigError."""
    read = tables.read({"broker": spec.Broker, "listener": spec.Listener}[kind], table, kind, problems := [])
    if problems:
        raise ConfigError("; ".join(f"{place}: {what}" for place, what in problems))
    return read


def table_of(read) -> dict:
    """The table of a spec's struct, without what is the default."""
    table = {}
    for field in msgspec.structs.fields(read):
        value = getattr(read, field.name)
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory() if field.default_factory is not msgspec.NODEFAULT else msgspec.NODEFAULT
        if value != default:
            table[field.encode_name] = table_of(value) if isinstance(value, msgspec.Struct) else str(value) if isinstance(value, (Duration, Size)) else value
    return table
