"""Key pairs that sign rules: Ed25519 (RFC 8032), the private key as PKCS 8 in PEM, which OpenSSL reads too."""

import os
from pathlib import Path

from edge.errors import ConfigError, RuleError
from edge.host import signature
from edge.host.module import Module


def generate(path) -> bytes:
    """A new private key in a file that only its owner may read. The public key, 32 bytes. Raises ConfigError; a key that is there stays."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = Ed25519PrivateKey.generate()
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}: the key is written nowhere else; name another file") from None
    return private.public_key().public_bytes_raw()


def sign(wasm: bytes, private) -> bytes:
    """A module's file signed by a private key (load()). Raises RuleError for what is no module."""
    module = Module(wasm)
    return signature.signed(module, private.public_key().public_bytes_raw(), private.sign(signature.message(module)))


def load(path):
    """The private key in a file. Raises ConfigError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(Path(path).read_bytes(), None)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}: `tidegate rule keygen` makes a key") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: is no private key: {str(error).splitlines()[0]}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"{path}: is a key of another kind than Ed25519: `tidegate rule keygen` makes one")
    return private


def read_module(path) -> bytes:
    """A .wasm file's bytes. Raises RuleError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise RuleError(f"{path}: {error.strerror}") from None
