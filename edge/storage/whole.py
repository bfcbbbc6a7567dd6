"""Small files that are replaced whole, or not at all: written beside, synced, renamed, the directory synced.

A sealed file is a line of JSON and a line with its SHA-256: a file that rotted is told from one that was written so.
"""

import hashlib
import json

FRESH = ".new"
SEALED_BYTES_MAX = 16 << 20


def read(disk, path, size_max) -> bytes:
    """A file's bytes, at most size_max + 1 of them. Raises OSError."""
    fd = disk.open(path)
    try:
        return disk.pread(fd, size_max + 1, 0)
    finally:
        disk.close(fd)


def replace(disk, path, data, own=lambda fd: None):
    """Put data in the place of the file at path. own(descriptor) may give the new file another owner and mode, before there is anything in it. Durable on
    return. Raises OSError; then the file is the old one or the new one, whole."""
    disk.close(replace_and_hold(disk, path, data, own))


def replace_and_hold(disk, path, data, own=lambda fd: None) -> int:
    """As replace(), and the new file's descriptor, to write on behind data."""
    fresh = path + FRESH
    try:
        disk.unlink(fresh)
    except FileNotFoundError:
        pass
    fd = disk.create(fresh)
    try:
        own(fd)
        offset = 0
        while offset < len(data):
            offset += disk.pwrite(fd, data[offset:], offset)
        disk.fdatasync(fd)
        disk.rename(fresh, path)
        disk.fsync_directory(path.rpartition("/")[0])
    except OSError:
        disk.close(fd)
        raise
    return fd


def seal(value) -> bytes:
    """Plain data as a sealed file's bytes."""
    line = json.dumps(value, ensure_ascii=False).encode()
    return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


def unseal(data):
    """The plain data of a sealed file's bytes. Raises ValueError."""
    line, _, end = data.partition(b"\n")
    if len(data) > SEALED_BYTES_MAX or end != hashlib.sha256(line).hexdigest().encode() + b"\n":
        raise ValueError("its checksum is wrong")
    return json.loads(line)
