"""The layout of a rule's signature: the custom section `tidegate.signature`, and the bytes that are signed. docs/rules/signing.md.

    section   u8 format (1) | key id: the first 8 bytes of the SHA-256 of the public key | Ed25519 signature, 64 bytes (RFC 8032)
    signed    "tidegate rule 1" NUL | SHA-256 of the module's content (what stands before the section) | manifest, as it stands in the module

No cryptography here: rulec signs, the gateway's admission verifies.
"""

import hashlib

from edge.errors import RuleError
from edge.host.module import MODULE_BYTES_MAX, SIGNATURE_SECTION, Module, with_section

FORMAT = 1
CONTEXT = b"tidegate rule 1\0"
ID_BYTES, SIGNATURE_BYTES = 8, 64


def message(module: Module) -> bytes:
    """The bytes that are signed."""
    return CONTEXT + bytes.fromhex(module.digest) + module.manifest_bytes


def key_id(public: bytes) -> bytes:
    """Tells which key signed, before anything is verified."""
    return hashlib.sha256(public).digest()[:ID_BYTES]


def signed(module: Module, public: bytes, signature: bytes) -> bytes:
    """The module's file with this signature, in the place of any before. Raises RuleError when that makes it too large."""
    wasm = with_section(module.content, SIGNATURE_SECTION, bytes([FORMAT]) + key_id(public) + signature)
    if len(wasm) > MODULE_BYTES_MAX:
        raise RuleError(f"{module.name}: with a signature it has {len(wasm)} bytes, the limit is {MODULE_BYTES_MAX}")
    return wasm


def parts(module: Module) -> tuple[bytes, bytes]:
    """(key id, signature) of a signed module. Raises RuleError for a section of another layout."""
    section = module.signature
    if len(section) != 1 + ID_BYTES + SIGNATURE_BYTES or section[0] != FORMAT:
        raise RuleError(f"{module.name}: its signature has {len(section)} bytes of a layout that is not known here: sign it again", digest=module.digest)
    return section[1:1 + ID_BYTES], section[1 + ID_BYTES:]
