"""The file system and the card under the data directory. `root` is where sysfs and procfs are found: "" in the world, a folder in tests."""

import errno
import glob
import os
import statistics
import time

from gateway.doctor.finding import ERROR, GOOD, NOTE, UNKNOWN, WARNING, Finding, text

SPARE_BYTES = 64 << 20               # for checkpoints, rules, and the system's own log
SYNCS = 24
SYNC_S, SYNC_MAX_S = 0.05, 1.0       # slower than this is slow
WORDS = {"0x01": "normal", "0x02": "80 % of the spare blocks are used up", "0x03": "90 % of the spare blocks are used up"}


def space(free_bytes, used_bytes, quotas_bytes):
    """Whether the quotas still fit. quotas_bytes: what the logs may use together; None when no configuration says it."""
    free = f"{free_bytes / 1e6:,.0f} MB are free"
    if free_bytes < SPARE_BYTES:
        yield Finding(ERROR, "disk space", free, "make room; the gateway stops taking events when the disk is full")
    elif quotas_bytes is not None and (missing := quotas_bytes - used_bytes + SPARE_BYTES - free_bytes) > 0:
        yield Finding(WARNING, "disk space", f"{free}; the quotas may take {quotas_bytes / 1e6:,.0f} MB, of which {used_bytes / 1e6:,.0f} are used: {missing / 1e6:,.0f} MB too few",
                      "make room, or lower journal.quota, journal.dead_letters or lanes.*.quota, so that quotas come before the full disk")
    else:
        yield Finding(GOOD, "disk space", free)


def bytes_below(directory) -> int:
    """What is really taken on the disk."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue
    return total


def mount_of(directory, root=""):
    """(device, mount point, kind, options) of the file system that holds a directory, or None."""
    best, directory = None, os.path.realpath(directory)
    for line in (text(f"{root}/proc/self/mounts") or "").splitlines():
        device, point, kind, options, *_ = line.split()
        point = point.replace("\\040", " ")
        if (directory == point or directory.startswith(point.rstrip("/") + "/")) and (best is None or len(point) >= len(best[1])):
            best = device, point, kind, options.split(",")
    return best


def mounted(mount, root=""):
    """Read-only, and errors that the file system has noted. mount: of mount_of()."""
    if mount is None:
        yield Finding(UNKNOWN, "file system", "/proc/self/mounts does not name it")
        return
    device, point, kind, options = mount
    if "ro" in options:
        yield Finding(ERROR, "file system", f"{point} ({device}) is mounted read-only", "look for I/O errors (dmesg); a card at its end goes read-only: copy the directory away, replace it")
    else:
        yield Finding(GOOD, "file system", f"{point} is {kind} on {device}, writable")
    if kind in ("tmpfs", "overlay"):
        yield Finding(WARNING, "file system", f"the data directory is on {kind}: it does not outlive a restart of {'the machine' if kind == 'tmpfs' else 'the container'}",
                      "put gateway.data on a disk, or on a volume")
    count = text(f"{root}/sys/fs/ext4/{os.path.basename(device)}/errors_count")
    if count not in (None, "0", ""):
        yield Finding(ERROR, "file system", f"{device} has noted {count} errors", "run fsck while it is not mounted; copy the data away first (docs/operations.md, moving to another card)")


def syncs(directory, fdatasync=os.fdatasync, clock=time.perf_counter):
    """How long a write of 4 KiB takes until it is on the disk, measured."""
    path = os.path.join(directory, f".doctor-{os.getpid()}")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        severity = UNKNOWN if error.errno in (errno.EACCES, errno.EPERM) else ERROR
        yield Finding(severity, "write latency", f"{directory}: cannot be written: {error.strerror}",
                      "run it as the gateway's user" if severity == UNKNOWN else "free space, or replace the card (dmesg)")
        return
    try:
        took = []
        for n in range(SYNCS):
            before = clock()
            os.pwrite(fd, os.urandom(4096), 4096 * n)
            fdatasync(fd)
            took.append(clock() - before)
    except OSError as error:
        yield Finding(ERROR, "write latency", f"a test write failed: {error.strerror}", "free space, or replace the card (dmesg)")
        return
    finally:
        os.close(fd)
        os.unlink(path)
    median, longest = statistics.median(took), max(took)
    said = f"{SYNCS} writes of 4 KiB to the disk: median {median * 1e3:.1f} ms, longest {longest * 1e3:.1f} ms"
    if median > SYNC_S or longest > SYNC_MAX_S:
        yield Finding(WARNING, "write latency", said, "each acknowledgement waits for one: use an A1/A2 or industrial card, or an SSD; look what else writes")
    else:
        yield Finding(GOOD, "write latency", said)


def cards(root=""):
    """SD cards and eMMC: who they are, and the life that they say is left."""
    for folder in sorted(glob.glob(f"{root}/sys/block/mmcblk*/device")):
        name = folder.split("/")[-2]
        said = " ".join(part for part in (text(f"{folder}/type"), text(f"{folder}/name"), text(f"{folder}/manfid"), text(f"{folder}/date")) if part)
        used, spare = text(f"{folder}/life_time"), text(f"{folder}/pre_eol_info")
        if not used:
            yield Finding(NOTE, "card", f"{name} ({said}) does not say how worn it is, as SD cards don't", "plan its replacement by the bytes written: `tidegate status`")
            continue
        worst = max((int(part, 16) for part in used.split()), default=0)
        state = f"{name} ({said}): " + (f"{10 * (worst - 1)} to {10 * worst} % of its life used" if worst <= 10 else "its estimated life is used up")
        if spare and spare.lower() in ("0x02", "0x03"):
            yield Finding(ERROR if spare == "0x03" else WARNING, "card", f"{state}; {WORDS[spare.lower()]}", "replace it: docs/operations.md, moving to another card")
        elif worst >= 9:
            yield Finding(ERROR if worst > 10 else WARNING, "card", state, "replace it: docs/operations.md, moving to another card")
        else:
            yield Finding(GOOD, "card", state)
