"""The worker comes up, confined, under the system calls that the service's unit leaves."""

import ctypes
import errno
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "release/debian/tidegate.service"
ERRNO = 0x00050000                   # SCMP_ACT_ERRNO of libseccomp
PROGRAM = """
import ctypes, sys
library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
context = ctypes.c_void_p(library.seccomp_init(int(sys.argv[1])))
for name in sys.argv[2:]:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:
        assert library.seccomp_rule_add(context, 0x7FFF0000, number, 0) == 0, name
assert library.seccomp_load(context) == 0
from gateway.isolation.choice import place
workshop = place("process", None)
print("confined", workshop.landlock)
workshop.close()
"""


def names(group):
    """System calls of a group, as systemd has them."""
    said = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True).stdout
    found = set()
    for name in re.findall(r"^    (\S+)$", said, re.M):
        found |= names(name) if name.startswith("@") else {name}
    return found


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_unit_lets_the_worker_confine_itself():
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("needs libseccomp.so.2")
    allowed = names("@default")
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.M):
        for word in line.removeprefix("~").split():
            part = names(word) if word.startswith("@") else {word}
            allowed = allowed - part if line.startswith("~") else allowed | part
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(ERRNO | errno.EPERM), *sorted(allowed)], capture_output=True, text=True, timeout=100)
    assert done.stdout.startswith("confined"), done.stderr
