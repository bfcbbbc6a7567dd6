"""The seccomp filter says what its tables say, on both machines, and the tables have the kernel's numbers."""

import ctypes
import struct

import pytest

from gateway.isolation.sandbox import ALLOWED, MACHINES, REFUSED, filter_program

KILL, EPERM, ENOSYS, ALLOW = 0x80000000, 0x00050001, 0x00050026, 0x7FFF0000
OTHERS = {"socket": (41, 198), "connect": (42, 203), "execve": (59, 221), "clone": (56, 220), "kill": (62, 129), "ptrace": (101, 117), "unlinkat": (263, 35), "dup": (32, 23)}


def verdict(machine, number, *arguments, architecture=None):
    """What the kernel would say: classic BPF as far as the filter uses it."""
    data = struct.pack("<IIQ6Q", number, architecture or MACHINES[machine][1], 0, *arguments, *[0] * (6 - len(arguments)))
    code, at, held = list(struct.iter_unpack("<HBBI", filter_program(machine))), 0, 0
    while True:
        kind, if_true, if_false, k = code[at]
        at += 1
        if kind == 0x20:
            held = struct.unpack_from("<I", data, k)[0]
        elif kind == 0x15:
            at += if_true if held == k else if_false
        elif kind == 0x45:
            at += if_true if held & k else if_false
        else:
            assert kind == 0x06
            return k


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_not_allowed_ends_the_process(machine):
    column = MACHINES[machine][0]
    for name, numbers in ALLOWED.items():
        if name not in ("read", "write", "mmap"):
            assert verdict(machine, numbers[column]) == ALLOW, name
        assert verdict(machine, numbers[column], architecture=0x40000003) == KILL        # of i386
        assert verdict(machine, numbers[column] | 0x40000000) == KILL                   # of x32
    for name, numbers in REFUSED.items():
        if numbers[column] is not None:
            assert verdict(machine, numbers[column]) == (ENOSYS if name in ("memfd_create", "clone3") else EPERM), name
    assert all(verdict(machine, numbers[column]) == KILL for numbers in OTHERS.values())
    read, write, mmap, mprotect = (ALLOWED[name][column] for name in ("read", "write", "mmap", "mprotect"))
    assert [verdict(machine, read, fd) == ALLOW for fd in range(4)] == [False, True, False, False]
    assert [verdict(machine, write, fd) == ALLOW for fd in range(4)] == [False, True, True, False]
    assert [verdict(machine, mmap, 0, 0, protection) for protection in (0, 3, 5, 7)] == [ALLOW, ALLOW, EPERM, EPERM]
    assert [verdict(machine, mprotect, 0, 0, protection) for protection in (0, 3, 5, 7)] == [ALLOW, ALLOW, ALLOW, EPERM]


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_the_kernels(machine):
    try:
        resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    except OSError:
        pytest.skip("needs libseccomp.so.2")
    column, architecture = MACHINES[machine]
    for name, numbers in {**ALLOWED, **REFUSED, **OTHERS}.items():
        if numbers[column] is not None and (known := resolve(ctypes.c_uint32(architecture), name.encode())) != -1:
            assert known == numbers[column], name
