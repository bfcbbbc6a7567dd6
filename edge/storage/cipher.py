"""Cipher: payloads of a gateway's logs, unreadable without its key. Headers of records stay as they are, so that recovery, eviction and quotas need no key.

    sealed payload    | run(16) | number(8) | ChaCha20-Poly1305 of the payload, with its tag(16) |      40 bytes more than the payload
    key of a run      keyed BLAKE2b-256 of `run`, under the gateway's key
    nonce             `number`, as 12 bytes, little-endian
    bound to          position, first, count, stream, kind of the record's header

No nonce is used twice with a key. A Cipher draws `run` from the system when it is made, 128 random bits, and counts `number` up with each payload that it seals;
a sealed payload is never changed. What is written at the same position again (after a truncation, or a crash) is another run or another number. A
record that goes to another file because a sync failed keeps its bytes, as in Log.

ChaCha20 and not AES: the cores of a Raspberry Pi 3 and 4 have no instructions for AES. `cryptography` is imported when there is a key, and not before.
"""

import struct
from collections import OrderedDict
from hashlib import blake2b

from edge.errors import ConfigError, DiskError
from edge.storage import whole

OVERHEAD = 40
RUNS_MAX = 64                        # whose keys are remembered
MARK = "encryption.json"             # in the data directory: that it is encrypted, and with which key
_BOUND = struct.Struct("<QQIHB")


class Cipher:
    """key: 32 bytes. entropy: callable, of so many random bytes. Raises ConfigError where `cryptography` is missing."""

    def __init__(self, key, entropy):
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
        except ModuleNotFoundError:
            raise ConfigError("gateway.encryption_key_file: `cryptography` is missing: install it with `pip install tidegate[encryption]`") from None
        self._aead, self._invalid, self._key = ChaCha20Poly1305, InvalidTag, key
        self._run, self._number = entropy(16), 0
        self._runs = OrderedDict()
        self._own = self._of(self._run)

    def hide(self, position, kind, stream, first, count, payload) -> bytes:
        """A payload, sealed for the record of this header."""
        number, self._number = self._number, self._number + 1
        bound = _BOUND.pack(position, first, count, stream, kind)
        return self._run + number.to_bytes(8, "little") + self._own.encrypt(number.to_bytes(12, "little"), bytes(payload), bound)

    def show(self, record) -> bytes | None:
        """The payload of a sealed record; None when it is not what was sealed."""
        data = record.payload
        if len(data) < OVERHEAD:
            return None
        bound = _BOUND.pack(record.position, record.first, record.count, record.stream, record.kind)
        try:
            return self._of(data[:16]).decrypt(data[16:24] + bytes(4), data[24:], bound)
        except self._invalid:
            return None

    def _of(self, run):
        found = self._runs.get(run)
        if found is None:
            found = self._runs[run] = self._aead(blake2b(run, key=self._key, digest_size=32, person=b"tidegate log").digest())
            while len(self._runs) > RUNS_MAX:
                self._runs.popitem(last=False)
        return found


def is_encrypted(disk, data) -> bool:
    """Whether a data directory says so. Raises DiskError."""
    try:
        return MARK in disk.listdir(data)
    except OSError as error:
        raise DiskError(f"{data}: cannot be read: {error.strerror}") from error


def cipher_of(disk, data, key, *, begin=False) -> Cipher | None:
    """The Cipher of a data directory, None for one that is not encrypted. begin: a key makes it so from here on. Raises ConfigError, and has touched nothing,
    when the key is missing or another; DiskError when the disk refuses."""
    path = f"{data}/{MARK}"
    try:
        known = whole.unseal(whole.read(disk, path, whole.SEALED_BYTES_MAX))["key"]
    except FileNotFoundError:
        known = None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is damaged: it tells which key the data has. Remove it only when gateway.encryption_key_file is surely the same as before") from None
    except OSError as error:
        raise DiskError(f"{path}: cannot be read: {error.strerror}") from error
    if key is None:
        if known is not None:
            raise ConfigError(f"{data} is encrypted: name its key as gateway.encryption_key_file; without it move the directory away and begin anew")
        return None
    mark = blake2b(b"which key", key=key, digest_size=16, person=b"tidegate log").hexdigest()
    if known not in (None, mark):
        raise ConfigError(f"{data} is encrypted with another key than that of gateway.encryption_key_file: give the right one, or move the directory away")
    cipher = Cipher(key, disk.entropy)
    if known is None and begin:
        try:
            whole.replace(disk, path, whole.seal({"key": mark}))
        except OSError as error:
            raise DiskError(f"{path}: cannot be written: {error.strerror}") from error
    return cipher
