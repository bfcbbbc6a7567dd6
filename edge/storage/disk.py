"""Disk: the one seam between Tidegate and the file system. All that the core reads, writes or renames passes through it.

Thin: each method is one system call and raises OSError as it comes; who calls knows what it means. Tests put in its place a disk that
fails on command, and one that loses what a power cut would lose (tests/log).
"""

import errno
import fcntl
import os

FULL = (errno.ENOSPC, errno.EDQUOT)      # no room on it, or none for this user


class Disk:
    """The operating system's files. Paths are strings; descriptors are the system's."""

    def create(self, path: str) -> int:
        """A new file, open to read and write. FileExistsError if there is one."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def open(self, path: str) -> int:
        """A file that is there, open to read."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self, fd: int):
        os.close(fd)

    def pwrite(self, fd: int, data, offset: int) -> int:
        """Bytes written, which may be fewer than given."""
        return os.pwrite(fd, data, offset)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def truncate(self, fd: int, size: int):
        """Cut the file off, or lengthen it by a hole that reads as zeros."""
        os.ftruncate(fd, size)

    def fdatasync(self, fd: int):
        """Put the file's bytes and size on stable storage. After an error nothing is known of any byte not synced before."""
        os.fdatasync(fd)

    def fsync_directory(self, path: str):
        """Put a directory's entries on stable storage: files made, renamed and removed in it."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: str, new: str):
        os.rename(old, new)

    def unlink(self, path: str):
        os.unlink(path)

    def mkdir(self, path: str):
        """Make a directory and those above it; one that is there is good."""
        os.makedirs(path, mode=0o750, exist_ok=True)

    def listdir(self, path: str) -> list[str]:
        return os.listdir(path)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def free_bytes(self, path: str) -> int:
        """Bytes that this user may still write to the file system of `path`."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    def lock(self, directory: str) -> int:
        """Hold the directory against other processes until the descriptor is closed. BlockingIOError when another holds it."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return fd

    def entropy(self, size: int) -> bytes:
        """Random bytes that no one outside can guess."""
        return os.urandom(size)
