"""What the worker of rules (gateway/isolation/worker.py) may do from its start on: compute, on memory that it has, and speak through one socket.

It begins as a fresh interpreter without the daemon's memory, environment or descriptors. Then, before any machine code of a module is there:

    prepare()   no privileges by exec, dies with the daemon, no core, nobody may look into it, no descriptor but the three it was given, limits
    shut()      Landlock, where the kernel has it: no file, no TCP port, no signal to another process and no abstract socket can be reached
    seal()      seccomp over all threads: what is not in ALLOWED ends the process, what is in REFUSED fails with EPERM; for good

Code made of data: mmap gives no executable memory, and mprotect none that is writable too; Wasmtime makes code executable by mprotect when it loads
a module, so that call stays. See docs/adr/0012-rules-in-a-process-of-their-own.md.

The numbers of system calls are the kernel's: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

import ctypes
import os
import resource
import signal
import struct

from edge.errors import TidegateError

SOCKET, ERRORS = 1, 2                        # descriptors that stay: to the daemon, and a small memory for last words
ERROR_BYTES = 64 << 10
ALLOWED = {                                  # name -> numbers on x86-64 and aarch64
    "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233), "brk": (12, 214), "futex": (202, 98),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113),
    "getrandom": (318, 278), "getpid": (39, 172), "gettid": (186, 178), "membarrier": (324, 283), "rseq": (334, 293), "set_robust_list": (273, 99), "close": (3, 57),
    "exit": (60, 93), "exit_group": (231, 94), "read": (0, 63), "write": (1, 64), "mmap": (9, 222),
}
REFUSED = {                                  # what libraries try on their way, and can do without
    "openat": (257, 56), "open": (2, None), "openat2": (437, 437), "stat": (4, None), "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79),
    "statx": (332, 291), "readlink": (89, None), "readlinkat": (267, 78), "access": (21, None), "faccessat": (269, 48), "getcwd": (79, 17),
    "lseek": (8, 62), "ioctl": (16, 29), "fcntl": (72, 25), "getdents64": (217, 61), "uname": (63, 160), "sysinfo": (99, 179), "prlimit64": (302, 261),
    "prctl": (157, 167), "memfd_create": (319, 279), "clone3": (435, 435),
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}           # -> column above, AUDIT_ARCH of linux/audit.h
EPERM, ENOSYS = 1, 38
PROT_WRITE, PROT_EXEC = 2, 4

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38            # linux/prctl.h
SYS_SECCOMP = (317, 277)
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 1, 1                    # linux/seccomp.h
KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
LOAD, EQUAL, ANY_BIT, GIVE = 0x20, 0x15, 0x45, 0x06                          # linux/bpf_common.h: ld w abs, jmp jeq k, jmp jset k, ret k
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16                                   # offsets in struct seccomp_data
SYS_LANDLOCK_CREATE, SYS_LANDLOCK_RESTRICT = 444, 446                        # on both machines
FILES = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}              # all rights to files that a version of Landlock knows
PORTS, SCOPES = 3, 3                         # bind and connect; abstract sockets and signals


class Unconfined(TidegateError):
    """The kernel does not give what is needed, or there is no process to be had."""


def prepare(parent):
    """parent: process id of the daemon. Raises OSError, Unconfined."""
    os.closerange(ERRORS + 1, os.sysconf("SC_OPEN_MAX"))
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise Unconfined("the gateway is gone")
    disarm()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for which, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, ERROR_BYTES), (resource.RLIMIT_MEMLOCK, 0), (resource.RLIMIT_AS, 2 * memory + (8 << 30))):
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))
    try:
        with open("/proc/self/oom_score_adj", "w") as f:
            f.write("1000")                  # if memory runs out this process goes, whose states the gateway has
    except OSError:
        pass


def disarm():
    """No privileges by exec, and nobody may look into it. Raises OSError."""
    _prctl(PR_SET_DUMPABLE, 0)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def shut() -> int:
    """Of this thread and those it makes. Returns Landlock's version; 0 where the kernel has none, and seccomp stands alone."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    version = call(SYS_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return 0
    asked = struct.pack("<3Q", FILES[min(version, 5)], PORTS, SCOPES)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = call(SYS_LANDLOCK_CREATE, asked, len(asked), 0)
    if rules < 0 or call(SYS_LANDLOCK_RESTRICT, rules, 0):
        return 0
    os.close(rules)
    return version


def seal():
    """All threads, for good: no descriptor more, and seccomp. Raises Unconfined."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    column, _ = _machine()
    program = filter_program()

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]

    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(SYS_SECCOMP[column], SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(Program(len(program) // 8, program))):
        raise Unconfined(f"seccomp: {os.strerror(ctypes.get_errno())}")


def filter_program(machine=None) -> bytes:
    """The seccomp filter, struct sock_filter by struct sock_filter."""
    column, architecture = _machine(machine)
    code = [_step(LOAD, ARCHITECTURE), _step(EQUAL, architecture, 1, 0), _step(GIVE, KILL), _step(LOAD, NUMBER)]
    for name, numbers in ALLOWED.items():
        code += [_step(EQUAL, numbers[column], 0, len(steps := _arguments(name))), *steps]
    for name, numbers in REFUSED.items():
        if numbers[column] is not None:
            code += [_step(EQUAL, numbers[column], 0, 1), _step(GIVE, ERRNO | (ENOSYS if name in ("memfd_create", "clone3") else EPERM))]
    return b"".join([*code, _step(GIVE, KILL)])


def _arguments(name):
    """What an allowed call may say; little-endian, so that the low half of an argument comes first."""
    if name in ("read", "write"):            # descriptors
        known = (SOCKET,) if name == "read" else (SOCKET, ERRORS)
        return [_step(LOAD, ARGUMENTS), *(_step(EQUAL, fd, len(known) - i, 0) for i, fd in enumerate(known)), _step(GIVE, KILL), _step(GIVE, ALLOW)]
    if name == "mmap":                       # protection
        return [_step(LOAD, ARGUMENTS + 16), _step(ANY_BIT, PROT_EXEC, 0, 1), _step(GIVE, ERRNO | EPERM), _step(GIVE, ALLOW)]
    if name == "mprotect":
        return [_step(LOAD, ARGUMENTS + 16), _step(ANY_BIT, PROT_EXEC, 0, 2), _step(ANY_BIT, PROT_WRITE, 0, 1), _step(GIVE, ERRNO | EPERM), _step(GIVE, ALLOW)]
    return [_step(GIVE, ALLOW)]


def _step(code, k, if_true=0, if_false=0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, k)


def _machine(name=None):
    name = name or os.uname().machine
    if name not in MACHINES:
        raise Unconfined(f"{name} is a machine whose system calls are not known here")
    return MACHINES[name]


def _prctl(what, value):
    if ctypes.CDLL(None, use_errno=True).prctl(what, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
