"""A disk in memory: a whole gateway's files in RAM, for rules that are tried out. Nothing of it outlives the process."""

import errno
import random

from edge.storage.disk import Disk


class File:
    """A file: its bytes."""

    def __init__(self, data=b""):
        self.data = bytearray(data)


class Memory(Disk):
    """Files in RAM, by path; directories are there by themselves. What is written is stable. entropy() depends on `seed` alone, so that
    a trial gives the same each time."""

    file = File

    def __init__(self, files=(), seed=0):
        self.files = {path: self.file(data) for path, data in dict(files).items()}
        self.open_files, self.locked = {}, {}          # descriptor -> (path, File), descriptor -> directory
        self.fd = 100
        self.random = random.Random(seed)

    def _file(self, path):
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return self.files[path]

    def _opened(self, path):
        self.fd += 1
        self.open_files[self.fd] = (path, self.files[path])
        return self.fd

    def create(self, path):
        if path in self.files:
            raise FileExistsError(errno.EEXIST, "file exists", path)
        self.files[path] = self.file()
        return self._opened(path)

    def open(self, path):
        self._file(path)
        return self._opened(path)

    def close(self, fd):
        if fd in self.locked:
            del self.locked[fd]
        else:
            del self.open_files[fd]

    def pwrite(self, fd, data, offset):
        write(self.open_files[fd][1].data, offset, bytes(data))
        return len(data)

    def pread(self, fd, size, offset):
        return bytes(self.open_files[fd][1].data[offset:offset + size])

    def truncate(self, fd, size):
        resize(self.open_files[fd][1].data, size)

    def fdatasync(self, fd):
        pass

    def fsync_directory(self, path):
        pass

    def rename(self, old, new):
        self.files[new] = self._file(old)
        del self.files[old]

    def unlink(self, path):
        self._file(path)
        del self.files[path]

    def mkdir(self, path):
        pass

    def listdir(self, path):
        return [p[len(path) + 1:] for p in self.files if p.startswith(path + "/") and "/" not in p[len(path) + 1:]]

    def size(self, fd):
        return len(self.open_files[fd][1].data)

    def free_bytes(self, path):
        return 1 << 40

    def lock(self, directory):
        if directory in self.locked.values():
            raise BlockingIOError(errno.EWOULDBLOCK, "locked", directory)
        self.fd += 1
        self.locked[self.fd] = directory
        return self.fd

    def entropy(self, size):
        return self.random.randbytes(size)


def write(data, offset, piece):
    """Put bytes into a bytearray, which grows by zeros up to `offset`."""
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset:offset + len(piece)] = piece


def resize(data, size):
    """Cut a bytearray off, or lengthen it by zeros."""
    del data[size:]
    data.extend(bytes(size - len(data)))
