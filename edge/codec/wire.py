"""Upstream bytes, bounded: a MessagePack reader of what our messages consist of, and the zstd frame around a message.

The reader allocates nothing that the bytes do not pay for: arrays and maps are headers that the caller walks, each with the
caller's limit, and binary is a view. That is why it is not a general unpacker, whose objects are up to 64 times the input.
"""

import struct

import zstandard

from edge.errors import UpstreamError

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
WINDOW_MAX = 8 << 20
_DOUBLE = struct.Struct(">d")
_COMPRESSOR = zstandard.ZstdCompressor(level=1, write_checksum=True, write_content_size=True)


def wrap(message: bytes) -> bytes:
    """The message in a zstd frame with content size and checksum, or as it is if that is not longer. One thread at a time."""
    frame = _COMPRESSOR.compress(message)
    return frame if len(frame) < len(message) else message


def unwrap(payload, bytes_max: int):
    """The message, out of its frame if it is in one. Raises UpstreamError: damaged, or larger than bytes_max."""
    if bytes(payload[:4]) != ZSTD_MAGIC:
        if len(payload) > bytes_max:
            raise UpstreamError(f"a message has {len(payload)} bytes; {bytes_max} are allowed")
        return payload
    try:
        frame = zstandard.get_frame_parameters(payload)
        size = frame.content_size
        if size > bytes_max:                     # an unknown size reads as 2^64 - 1
            raise UpstreamError(f"a compressed message claims {size} bytes; {bytes_max} are allowed, and a size must be given")
        if frame.window_size > max(WINDOW_MAX, bytes_max) or not frame.has_checksum:
            raise UpstreamError("a compressed message has no checksum or too large a window: it is not from a gateway")
        return zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX).decompress(payload, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise UpstreamError(f"a compressed message is damaged: {error}") from None


class Reader:
    """Reads MessagePack values one after the other. Every method raises UpstreamError if the next value is something else."""

    __slots__ = ("at", "data")

    def __init__(self, data):
        self.data = memoryview(data)
        self.at = 0

    def _take(self, size):
        stop = self.at + size
        if stop > len(self.data):
            raise UpstreamError(f"a message ends too early, at byte {len(self.data)}")
        part = self.data[self.at : stop]
        self.at = stop
        return part

    def _uint(self, size):
        return int.from_bytes(self._take(size), "big")

    def _sized(self, what, fix, fix_bits, tags):
        """The size of an array, map, str or bin; `tags`: tag -> width of its size."""
        tag = self._uint(1)
        if fix is not None and tag >> fix_bits == fix >> fix_bits:
            return tag & ((1 << fix_bits) - 1)
        if tag not in tags:
            raise UpstreamError(f"a message has tag 0x{tag:02x} at byte {self.at - 1} where {what} is due")
        return self._uint(tags[tag])

    def array(self, count_max: int) -> int:
        """Header of an array; its count, at most count_max."""
        return self._bounded(self._sized("an array", 0x90, 4, {0xDC: 2, 0xDD: 4}), count_max)

    def map(self, count_max: int) -> int:
        """Header of a map; its count of pairs, at most count_max."""
        return self._bounded(self._sized("a map", 0x80, 4, {0xDE: 2, 0xDF: 4}), count_max)

    def _bounded(self, count, count_max):
        if count > count_max:
            raise UpstreamError(f"a message has {count} elements at byte {self.at}; {count_max} are allowed")
        return count

    def text(self, size_max: int = 1024) -> str:
        """A str of at most size_max bytes of UTF-8."""
        size = self._bounded(self._sized("a string", 0xA0, 5, {0xD9: 1, 0xDA: 2, 0xDB: 4}), size_max)
        try:
            return str(self._take(size), "utf-8")
        except UnicodeDecodeError:
            raise UpstreamError(f"a message has a string that is not UTF-8 before byte {self.at}") from None

    def binary(self) -> memoryview:
        """A bin, as a view of the message."""
        return self._take(self._sized("binary", None, 0, {0xC4: 1, 0xC5: 2, 0xC6: 4}))

    def integer(self, low: int = 0, high: int = (1 << 64) - 1) -> int:
        """An int within low .. high."""
        value = self.scalar()
        if type(value) is not int or not low <= value <= high:
            raise UpstreamError(f"a message has {value!r} before byte {self.at} where an integer of {low} to {high} is due")
        return value

    def scalar(self, size_max: int = 1 << 20):
        """None, bool, int, float or str; a str has at most size_max bytes."""
        if self.at >= len(self.data):
            raise UpstreamError(f"a message ends too early, at byte {self.at}")
        tag = self.data[self.at]
        if 0xA0 <= tag < 0xC0 or 0xD9 <= tag <= 0xDB:
            return self.text(size_max)
        self.at += 1
        if tag < 0x80:
            return tag
        if tag >= 0xE0:
            return tag - 256
        if tag in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[tag]
        if 0xCC <= tag <= 0xCF:
            return self._uint(1 << tag - 0xCC)
        if 0xD0 <= tag <= 0xD3:
            return int.from_bytes(self._take(1 << tag - 0xD0), "big", signed=True)
        if tag == 0xCB:
            return _DOUBLE.unpack(self._take(8))[0]
        raise UpstreamError(f"a message has tag 0x{tag:02x} at byte {self.at - 1} where a plain value is due")

    def end(self):
        """Nothing may follow."""
        if self.at != len(self.data):
            raise UpstreamError(f"{len(self.data) - self.at} bytes follow a message")
