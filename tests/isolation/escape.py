"""What native code in the worker can do: the sandbox is entered as gateway/isolation/worker.py does, then one thing is tried by the C library, as code that escaped would.

    escape.py CONFINED ATTEMPT FILE PARENT      descriptor 1: a socket to say "done" or "refused: why" through, 2: a memory for last words

CONFINED: "sealed" for all of it, "shut" for Landlock without seccomp, "open" for nothing, so that the attempt is seen to work without it.
"""

import ctypes
import os
import sys

from gateway.isolation import sandbox

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
X86 = os.uname().machine == "x86_64"
READ, WRITE, EXEC, PRIVATE_ANONYMOUS = 1, 2, 4, 0x22


def page(protection):
    at = libc.mmap(None, 4096, protection, PRIVATE_ANONYMOUS, -1, 0)
    return -1 if at in (None, ctypes.c_void_p(-1).value) else at


def attempts(file, parent):
    """Name -> fn() that returns -1 when it is refused."""
    name = file.encode()
    vector = (ctypes.c_char_p * 2)(b"/bin/true", None)
    iovec = (ctypes.c_size_t * 2)(page(READ | WRITE), 16)
    limit = (ctypes.c_ulong * 2)(0, 0)

    def connect():                           # to a listener of the test's, whose port stands in the file
        with open(file) as f:
            port = int(f.read())
        sock = libc.socket(2, 1, 0)
        address = (2).to_bytes(2, "little") + port.to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
        return lambda: libc.connect(sock, address, len(address))

    return {
        "a socket": lambda: libc.socket(2, 1, 0),
        "a local socket": lambda: libc.socket(1, 1, 0),
        "a pair of sockets": lambda: libc.socketpair(1, 1, 0, (ctypes.c_int * 2)()),
        "reading a key": lambda: libc.open(name, os.O_RDONLY),
        "writing the journal": lambda: libc.open(name, os.O_WRONLY | os.O_APPEND),
        "a new file": lambda: libc.open(name + b".new", os.O_WRONLY | os.O_CREAT, 0o600),
        "removing the journal": lambda: libc.unlink(name),
        "renaming the journal": lambda: libc.rename(name, name + b".old"),
        "the gateway's memory": lambda: libc.process_vm_readv(parent, iovec, 1, iovec, 0, 0),
        "the gateway's environment": lambda: libc.open(b"/proc/%d/environ" % parent, os.O_RDONLY),
        "tracing the gateway": lambda: libc.ptrace(0x4206, parent, None, None),
        "a signal to the gateway": lambda: libc.kill(parent, 0),
        "a thread's signal to the gateway": lambda: libc.syscall(234 if X86 else 131, parent, parent, 0),
        "the gateway's descriptors": lambda: libc.syscall(434, parent, 0),
        "limits of the gateway": lambda: libc.prlimit(parent, 7, None, limit),
        "another program": lambda: libc.execve(b"/bin/true", vector, None),
        "another process": lambda: libc.fork(),
        "a thread": lambda: libc.syscall(56 if X86 else 220, 0x00010900, 0, 0, 0, 0),        # CLONE_VM, FS, SIGHAND without THREAD: the kernel refuses or makes
        "another descriptor": lambda: libc.dup(1),
        "a namespace": lambda: libc.unshare(0x10000000),
        "io_uring": lambda: libc.syscall(425, 1, (ctypes.c_char * 120)()),
        "memory that is written and run": lambda: page(READ | WRITE | EXEC),
        "memory made to be written and run": lambda: libc.mprotect(page(READ | WRITE), 4096, READ | WRITE | EXEC),
        "being looked into": lambda: libc.prctl(4, 1, 0, 0, 0),
        "the socket's neighbours": lambda: libc.write(5, b"x", 1),
        "a connection": connect() if sys.argv[2] == "a connection" else None,
        "computing": lambda: page(READ | WRITE),
    }


def main():
    confined, attempt, file, parent = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    tried = attempts(file, parent)[attempt]
    if attempt == "the socket's neighbours":
        os.dup2(os.open(file, os.O_WRONLY), 5)
    if confined != "open":
        kept = os.closerange
        os.closerange = (lambda *_: None) if attempt == "the socket's neighbours" or attempt == "a connection" else kept
        sandbox.prepare(parent)
        sandbox.shut()
    if confined == "sealed":
        sandbox.seal()
    done = tried()
    os.write(1, b"done" if done != -1 else b"refused: " + os.strerror(ctypes.get_errno()).encode())
    os._exit(0)


main()
