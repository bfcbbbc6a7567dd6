"""Disks that fail: MemoryDisk loses what a power cut would lose, SmallDisk gets full, FaultyDisk refuses operations on command."""

import errno

from edge.storage.memory import File, Memory, resize, write

SECTOR, BLOCK = 512, 4096


class PowerCut(Exception):
    """The machine is off. Not an OSError: nothing under test may catch it."""


def refuse_negative(offset):
    """As the kernel does."""
    if offset < 0:
        raise OSError(errno.EINVAL, "no such offset")


class Node(File):
    """A file: its bytes now, its bytes on stable storage, and the changes between the two in order."""

    def __init__(self, data=b""):
        super().__init__(data)
        self.stable, self.changes = bytes(data), []


class MemoryDisk(Memory):
    """Files in RAM. `cut_at`: the number of the operation at which the power goes (None: never). Directory entries and file bytes are
    separate: each survives a cut for sure only after its own sync, and otherwise in any part: sectors of writes, entries one by one."""

    file = Node

    def __init__(self, files=(), seed=0, cut_at=None):
        super().__init__(files, seed)
        self.stable = dict(self.files)
        self.pending = []            # ("link", path, node) | ("unlink", path)
        self.seed = seed
        self.operations, self.cut_at = 0, cut_at
        self.trace = []

    def operate(self, name, path=""):
        if self.cut_at is not None and self.operations >= self.cut_at:
            raise PowerCut
        self.operations += 1
        self.trace.append((name, path))

    def kill(self):
        """The process dies, the machine goes on: what was written is there, and as little synced as before."""
        self.open_files, self.locked = {}, {}

    def after_cut(self, survival) -> "MemoryDisk":
        """What the next start finds. survival: probability that something un-synced survived; 0 and 1 are the extremes."""
        entries = dict(self.stable)
        for change in self.pending:
            if self.random.random() < survival:
                if change[0] == "link":
                    entries[change[1]] = change[2]
                else:
                    entries.pop(change[1], None)
        return self._next({path: self._survivor(node, survival) for path, node in entries.items()})

    def _next(self, files):
        return MemoryDisk(files, self.seed + 1)

    def _survivor(self, node, survival):
        data = bytearray(node.stable)
        for kind, offset, piece in node.changes:
            if kind == "truncate":
                if self.random.random() < survival:
                    resize(data, offset)
                continue
            while piece:
                n = SECTOR - offset % SECTOR
                if self.random.random() < survival:
                    write(data, offset, piece[:n])
                offset, piece = offset + n, piece[n:]
        return bytes(data)

    def create(self, path):
        self.operate("create", path)
        fd = super().create(path)
        self.pending.append(("link", path, self.files[path]))
        return fd

    def open(self, path):
        self.operate("open", path)
        return super().open(path)

    def pwrite(self, fd, data, offset):
        path, node = self.open_files[fd]
        self.operate("pwrite", path)
        refuse_negative(offset)
        node.changes.append(("write", offset, bytes(data)))
        return super().pwrite(fd, data, offset)

    def pread(self, fd, size, offset):
        self.operate("pread", self.open_files[fd][0])
        refuse_negative(offset)
        return super().pread(fd, size, offset)

    def truncate(self, fd, size):
        path, node = self.open_files[fd]
        self.operate("truncate", path)
        node.changes.append(("truncate", size, b""))
        super().truncate(fd, size)

    def fdatasync(self, fd):
        path, node = self.open_files[fd]
        self.operate("fdatasync", path)
        stable = bytearray(node.stable)
        for kind, offset, piece in node.changes:
            resize(stable, offset) if kind == "truncate" else write(stable, offset, piece)
        node.stable, node.changes = bytes(stable), []

    def fsync_directory(self, path):
        self.operate("fsync_directory", path)
        left = []
        for change in self.pending:
            if change[1].rpartition("/")[0] != path:
                left.append(change)
            elif change[0] == "link":
                self.stable[change[1]] = change[2]
            else:
                self.stable.pop(change[1], None)
        self.pending = left

    def rename(self, old, new):
        self.operate("rename", old)
        super().rename(old, new)
        self.pending += [("link", new, self.files[new]), ("unlink", old)]

    def unlink(self, path):
        self.operate("unlink", path)
        super().unlink(path)
        self.pending.append(("unlink", path))

    def mkdir(self, path):
        self.operate("mkdir", path)

    def listdir(self, path):
        self.operate("listdir", path)
        return super().listdir(path)

    def lock(self, directory):
        self.operate("lock", directory)
        return super().lock(directory)


class SmallDisk(MemoryDisk):
    """Full for real: a write that needs more blocks than there are gets ENOSPC. room: bytes, None: no end."""

    room = None

    def used(self):
        return sum(-(-getattr(node, "extent", 0) // BLOCK) * BLOCK for node in self.files.values())

    def pwrite(self, fd, data, offset):
        node = self.open_files[fd][1]
        extent = max(getattr(node, "extent", 0), offset + len(data))
        more = -(-extent // BLOCK) * BLOCK + -(-getattr(node, "extent", 0) // BLOCK) * -BLOCK
        if self.room is not None and more and self.used() + more > self.room:
            raise OSError(errno.ENOSPC, "no space left on device", self.open_files[fd][0])
        node.extent = extent
        return super().pwrite(fd, data, offset)

    def after_cut(self, survival):
        found = super().after_cut(survival)
        disk = SmallDisk({path: node.data for path, node in found.files.items()}, found.seed)
        for node in disk.files.values():
            node.extent = len(node.data.rstrip(b"\0"))
        disk.room = self.room
        return disk


class FaultyDisk(MemoryDisk):
    """Asks `fault(number, name)` before each operation: None lets it pass, an errno refuses it, "short" writes half, and LIE on a sync
    is what Linux does after a write-back error: EIO once, the lost pages count as clean, and the next sync succeeds."""

    LIE = "lie"

    def __init__(self, fault, files=(), seed=0):
        super().__init__(files, seed)
        self.fault = fault
        self.hit = None              # (name, fault) of the last one refused

    def operate(self, name, path=""):
        fault = self.fault(self.operations, name)
        super().operate(name, path)
        if isinstance(fault, int):
            self.hit = (name, fault)
            raise OSError(fault, errno.errorcode[fault], path)
        self.special = fault
        if fault:
            self.hit = (name, fault)

    def pwrite(self, fd, data, offset):
        node = self.open_files[fd][1]
        before, changes = bytes(node.data), list(node.changes)
        written = super().pwrite(fd, data, offset)
        if self.special == "short":
            node.data[:], node.changes = before, changes
            write(node.data, offset, bytes(data[:written // 2]))
            node.changes.append(("write", offset, bytes(data[:written // 2])))
            return written // 2
        return written

    def fdatasync(self, fd):
        path, node = self.open_files[fd]
        self.special = None
        keep = node.stable, node.changes
        super().fdatasync(fd)
        if self.special == self.LIE:
            node.stable, node.changes = keep[0], []
            raise OSError(errno.EIO, "write-back failed", path)
