"""Who signed a rule: Ed25519 (RFC 8032) by the `cryptography` library, which admission's child and tools import and the daemon never does."""

import base64
from pathlib import Path

from edge.errors import ConfigError, RuleError
from edge.host import signature
from edge.host.public_key import is_public_key, public_key

KEY_FILE_BYTES_MAX = 4096


def public_keys(signing) -> dict[str, bytes]:
    """The configured keys: name -> 32 bytes. signing: gateway.config.spec.Signing. Raises ConfigError that names the key."""
    keys = {}
    for name, given in signing.keys.items():
        try:
            keys[name] = public_key(given if is_public_key(given) else _text(given))
        except ConfigError as error:
            raise ConfigError(f"signing.keys.{name}: {error}") from None
    return keys


def _text(path):
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as f:
            return f.read(KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the key itself, or the path of the file that holds it") from None


def encoded(keys) -> dict[str, str]:
    """The keys as text that passes between processes."""
    return {name: base64.b64encode(key).decode() for name, key in keys.items()}


def problems(config) -> list[tuple[str, str]]:
    """What `check` says of the keys: (place, problem)."""
    try:
        public_keys(config.signing)
    except ConfigError as error:
        return [("", str(error))]
    return []


def signer(module, keys, required) -> str:
    """The name of the known key that signed a module; "" when no signature is required and it has none, or one by a key that is not known.
    Raises RuleError as verify() does: where a known key signed, the signature is right or the module is refused."""
    if not required and (not module.signature or _known(module, keys) is None):
        return ""
    return verify(module, keys)


def _known(module, keys):
    wanted, _ = signature.parts(module)
    return next((name for name, key in keys.items() if signature.key_id(key) == wanted), None)


def verify(module, keys) -> str:
    """The name of the key that signed a module. Raises RuleError when it is not signed, by no known key, or changed since."""
    def refuse(why):
        raise RuleError(f"{module.name}: {why}", rule=module.name, digest=module.digest)

    if not module.signature:
        refuse("it is not signed: `tidegate rule sign` does that, and signing.keys names whose keys are good")
    wanted, signed = signature.parts(module)
    name = _known(module, keys)
    if name is None:
        refuse(f"it is signed by a key that this gateway does not know (key id {wanted.hex()}); known are {', '.join(keys) or 'none'}: see signing.keys")
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise ConfigError("signatures cannot be verified here: pip install 'tidegate[signing]'") from None
    try:
        Ed25519PublicKey.from_public_bytes(keys[name]).verify(signed, signature.message(module))
    except InvalidSignature:
        refuse(f"its signature by {name} is wrong: the module was changed after it was signed")
    return name
