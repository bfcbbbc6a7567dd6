"""A module's bytes, read and written without the product's code, so that the two check each other."""


def leb(n) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def leb_at(data, at):
    """(the number there, what stands behind it)."""
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return result, at


def sections(wasm):
    """(id, payload) of each section of a core module."""
    assert wasm[:8] == b"\0asm\1\0\0\0"
    at = 8
    while at < len(wasm):
        size, start = leb_at(wasm, at + 1)
        yield wasm[at], wasm[start:start + size]
        at = start + size


def without(wasm, name) -> bytes:
    """The module without its custom section of a name."""
    kept = b""
    for number, payload in sections(wasm):
        size, start = leb_at(payload, 0) if number == 0 else (0, 0)
        if number or payload[start:start + size] != name:
            kept += bytes([number]) + leb(len(payload)) + payload
    return wasm[:8] + kept
