"""Uploads: modules on their way in, in parts, in any number of connections. A part that comes twice is taken once.

    uploads/DIGEST.part      its bytes so far; DIGEST: SHA-256 of the whole file, hexadecimal
    uploads/DIGEST.whole     all of them, verified

Nothing is synced before the end: what a power cut made of a part shows when the whole is hashed, and the upload begins anew.
"""

import hashlib
import re

from edge.errors import DiskError, RuleError
from edge.host.module import MODULE_BYTES_MAX
from edge.storage import whole

COUNT_MAX = 4
IDLE_S = 3600.0


class Uploads:
    """At most COUNT_MAX of at most MODULE_BYTES_MAX; the longest idle makes room, and one that is idle for IDLE_S goes. now: fn() -> seconds."""

    def __init__(self, disk, directory, now):
        """Takes up what is there; the wait of what was left begins anew. Raises DiskError."""
        self._disk, self._directory, self._now = disk, directory, now
        self._touched = {}               # digest -> when it was asked for last, the longest idle first
        self._growing = {}               # digest -> [descriptor, bytes so far, size]
        try:
            disk.mkdir(directory)
            for name in sorted(disk.listdir(directory)):
                match = re.fullmatch(r"([0-9a-f]{64})\.(part|whole)", name)
                if match:
                    self._touched[match[1]] = now()
                else:
                    disk.unlink(f"{directory}/{name}")
            self._expire()
        except OSError as error:
            raise self._error(error) from error

    def begin(self, digest, size) -> int:
        """How many of its bytes are there; all of them: it is complete. Raises RuleError for what can be no module's, DiskError."""
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise RuleError("digest: must be the SHA-256 of the file, 64 hexadecimal digits")
        if type(size) is not int or not 0 < size <= MODULE_BYTES_MAX:
            raise RuleError(f"the module has {size} bytes, the limit is {MODULE_BYTES_MAX}", digest=digest)
        try:
            return self._begun(digest, size)
        except OSError as error:
            self._forget(digest)
            raise self._error(error) from error

    def _begun(self, digest, size):
        self._touch(digest)
        self._expire()
        names = self._disk.listdir(self._directory)
        if f"{digest}.whole" in names:
            return size
        if digest not in self._growing:
            content = whole.read(self._disk, self._path(digest), MODULE_BYTES_MAX) if f"{digest}.part" in names else b""
            self._growing[digest] = [whole.replace_and_hold(self._disk, self._path(digest), content[:size]), len(content[:size]), size]
        self._growing[digest][2] = size
        return self._finished(digest)

    def chunk(self, digest, offset, data) -> int:
        """Take bytes from an offset on; how many are there now. Bytes behind a hole are not taken: the answer says where to go on.

        Raises RuleError when it was not begun, has more bytes than it said, or others than its digest says: then it begins anew. DiskError."""
        upload = self._growing.get(digest)
        if upload is None:
            if self.complete(digest):
                return self._size(digest)
            raise RuleError("this upload was not begun, or was idle for too long: begin it", code="unknown", digest=digest)
        fd, have, size = upload
        if type(offset) is not int or offset < 0 or offset + len(data) > size:
            raise RuleError(f"bytes {offset} to {offset}+{len(data)} are not of a file of {size} bytes", digest=digest)
        self._touch(digest)
        if offset > have:
            return have
        try:
            fresh = data[have - offset:]
            while fresh:
                written = self._disk.pwrite(fd, fresh, upload[1])
                upload[1] += written
                fresh = fresh[written:]
            return self._finished(digest)
        except OSError as error:
            raise self._error(error) from error

    def _finished(self, digest):
        fd, have, size = self._growing[digest]
        if have < size:
            return have
        content = self._disk.pread(fd, size + 1, 0)
        if hashlib.sha256(content).hexdigest() != digest:
            self._forget(digest)
            raise RuleError("the bytes that came are not those of the digest: begin the upload anew", digest=digest)
        self._disk.fdatasync(fd)
        self._disk.close(self._growing.pop(digest)[0])
        self._disk.rename(self._path(digest), self._path(digest, "whole"))
        return size

    def complete(self, digest) -> bool:
        """Whether all of it is there."""
        try:
            return digest in self._touched and f"{digest}.whole" in self._disk.listdir(self._directory)
        except OSError as error:
            raise self._error(error) from error

    def path(self, digest) -> str:
        """The file of a complete upload."""
        return self._path(digest, "whole")

    def content(self, digest) -> bytes:
        """The bytes of a complete upload. Raises RuleError when they are gone or changed."""
        try:
            data = whole.read(self._disk, self.path(digest), MODULE_BYTES_MAX)
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() != digest:
            self._forget(digest)
            raise RuleError("the upload is gone: push the module again", digest=digest)
        return data

    def drop(self, digest):
        """It is not needed any more."""
        self._forget(digest)

    # --- files

    def _touch(self, digest):
        self._touched.pop(digest, None)
        self._touched[digest] = self._now()

    def _size(self, digest):
        fd = self._disk.open(self.path(digest))
        try:
            return self._disk.size(fd)
        finally:
            self._disk.close(fd)

    def _expire(self):
        now = self._now()
        for digest, at in list(self._touched.items()):
            if len(self._touched) > COUNT_MAX or now - at > IDLE_S:
                self._forget(digest)

    def _forget(self, digest):
        self._touched.pop(digest, None)
        upload = self._growing.pop(digest, None)
        if upload is not None:
            self._disk.close(upload[0])
        for kind in ("part", "whole"):
            try:
                self._disk.unlink(self._path(digest, kind))
            except OSError:
                pass                     # the next start tries again

    def _path(self, digest, kind="part"):
        return f"{self._directory}/{digest}.{kind}"

    def close(self):
        """Let go of the files."""
        for fd, *_ in self._growing.values():
            self._disk.close(fd)
        self._growing = {}

    def _error(self, error):
        return DiskError(f"cannot write {self._directory}: {error.strerror or error}: check the disk, its free space and the permissions")
