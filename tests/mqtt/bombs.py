"""Bombs: small payloads that would unpack to much. Each decoder has a cap of memory; a bomb may cost 1.5 times that, and a moment."""

import contextlib
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path

import packet_shapes as shapes
import zstandard

from edge.codec.batches import MESSAGE_BYTES_MAX, decode_message
from edge.codec.wire import unwrap
from edge.decoding._json import loads
from edge.errors import TidegateError

SECONDS_MAX = 5.0
FACTOR = 1.5
ROOM = 2 << 20                           # what any Python takes meanwhile
PACKET_MAX = 256 << 10                   # the listener's, and so the cap of a payload


def resident(pid="self", key="VmRSS"):
    """Memory of a process, bytes."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(key + ":"))
    return int(line.split()[1]) * 1024


def cost(action):
    """(bytes at the most, seconds, what was said) of an action in a child of its own; a child that dies is None."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            Path("/proc/self/clear_refs").write_text("5")        # the peak begins anew
            before, began, said = resident(), time.monotonic(), "taken"
            try:
                action()
            except (TidegateError, ValueError) as error:
                said = str(error)[:200]
            os.write(write, json.dumps([resident(key="VmHWM") - before, time.monotonic() - began, said]).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return json.loads(said) if said else None


def frames():
    """zstd: a lot of nothing, with a true size, an untrue one, none, a huge window, and many frames."""
    nothing = bytes(256 << 20)
    true = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(nothing)
    yield "zstd, true size", true
    small = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(bytes(MESSAGE_BYTES_MAX))
    yield "zstd, at the cap", small
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, write_content_size=True, write_checksum=True)
    yield "zstd, wide window", zstandard.ZstdCompressor(compression_params=wide).compress(bytes(200 << 20))
    chunked = zstandard.ZstdCompressor(level=1, write_checksum=True, write_content_size=False).compressobj()
    yield "zstd, no size", chunked.compress(nothing) + chunked.flush()
    lie = bytearray(true)
    descriptor = lie[4]
    width, at = {0: 1, 1: 2, 2: 4, 3: 8}[descriptor >> 6], 5 + (not descriptor & 32)
    lie[at:at + width] = (1000).to_bytes(width, "little")
    yield "zstd, untrue size", bytes(lie)
    yield "zstd, frames in a row", small * 100


def packs():
    """MessagePack: headers that promise what never comes, and nesting."""
    for name, head in (("array", b"\xdd"), ("map", b"\xdf"), ("text", b"\xdb"), ("bytes", b"\xc6"), ("extension", b"\xc9")):
        yield f"MessagePack, {name} of 2^32", head + b"\xff\xff\xff\xff" + bytes(100)
    yield "MessagePack, deep", b"\x91" * (PACKET_MAX - 100)
    yield "MessagePack, arrays in arrays", b"\xdd\x00\x00\xff\xff" * 50_000
    yield "MessagePack, nil", b"\xdd" + struct.pack(">I", PACKET_MAX - 100) + b"\xc0" * (PACKET_MAX - 100)
    yield "MessagePack, maps", b"\xdf" + struct.pack(">I", 60_000) + b"\xa1a\x80" * 60_000
    yield "MessagePack, one key", b"\x81\xa3seq\xcf" + b"\xff" * 8


def jsons():
    """JSON: nesting, numbers, escapes, keys."""
    n = PACKET_MAX - 200
    yield "JSON, deep arrays", b"[" * n
    yield "JSON, deep objects", b'{"a":' * (n // 5)
    yield "JSON, deep and closed", b"[" * (n // 2) + b"]" * (n // 2)
    yield "JSON, a long number", b'{"seq":' + b"9" * n + b',"temp":1}'
    yield "JSON, a long fraction", b'{"seq":1,"temp":0.' + b"1" * n + b"}"
    yield "JSON, a large exponent", b'{"seq":1,"temp":1e' + b"9" * n + b"}"
    yield "JSON, escapes", b'{"seq":1,"x":"' + b"\\u0000" * (n // 6) + b'","temp":1}'
    yield "JSON, keys", b"{" + b",".join(b'"k%d":0' % i for i in range(n // 12)) + b"}"
    yield "JSON, one key again and again", b"{" + b",".join([b'"seq":1'] * (n // 8)) + b"}"
    yield "JSON, an open text", b'{"seq":1,"temp":"' + b"x" * n
    yield "JSON, blanks", b" " * n + b"{"


def at_the_decoders(broken):
    """Each bomb to its decoder, in a child; the most of each kind, in caps. Adds to `broken`."""
    worst = {}
    doors = [("unwrap", frames(), lambda b: unwrap(b, MESSAGE_BYTES_MAX), MESSAGE_BYTES_MAX),
             ("receiver", [*frames(), *packs()], lambda b: decode_message(b), MESSAGE_BYTES_MAX),
             ("json", jsons(), lambda b: loads(b), None)]
    for door, bombs, decode, cap in doors:
        for name, bomb in bombs:
            found = cost(lambda decode=decode, bomb=bomb: decode(bomb))
            if found is None:
                broken.append(f"{door}: {name}: the process died")
                continue
            used, seconds, said = found
            if cap is not None:
                worst[door] = max(worst.get(door, 0), round(used / cap, 2))
            if (cap is not None and used > FACTOR * cap + ROOM) or seconds > SECONDS_MAX:
                broken.append(f"{door}: {name}: {used} bytes, {seconds:.1f} s: {said}")
    return worst


def at_the_gateway(site, pid, broken):
    """Each payload to a real gateway. Bytes that its peak grew by: at most 1.5 times what it may have under way. Adds to `broken`."""
    cap = PACKET_MAX                     # a device sends one packet at a time; the intake and the batches have their memory since the start
    most = 0
    for topic, payloads in ((b"sensors/x/env", jsons()), (b"packed/x", packs())):
        for name, payload in payloads:
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            before, began = resident(pid), time.monotonic()
            with socket.create_connection(("127.0.0.1", site.port), 5) as client:
                client.settimeout(SECONDS_MAX)
                client.sendall(shapes.connect(False, b"bomber") + shapes.publish(topic, payload[:PACKET_MAX - 100], 1, 3))
                answer = b""
                try:
                    while b"\x40\x02\0\x03" not in answer and (more := client.recv(100)):
                        answer += more
                except TimeoutError:
                    pass
            if b"\x40\x02\0\x03" not in answer:
                broken.append(f"gateway: {name}: no PUBACK in {time.monotonic() - began:.1f} s: {answer.hex()}")
            grew = resident(pid, "VmHWM") - before
            most = max(most, grew)
            if grew > FACTOR * cap + ROOM:
                broken.append(f"gateway: {name}: {grew} bytes")
    return most


if __name__ == "__main__":
    found = []
    print(at_the_decoders(found), found, file=sys.stderr)
