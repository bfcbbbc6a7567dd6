"""Native code in the worker cannot open a socket, read a key, write the log or reach the gateway's process: each is refused, or ends the worker."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.isolation.child import spawn
from gateway.isolation.sandbox import Unconfined
from gateway.isolation.workshop import Workshop

ESCAPE = str(Path(__file__).with_name("escape.py"))
FATAL = ["a socket", "a local socket", "a pair of sockets", "removing the journal", "renaming the journal", "the gateway's memory", "tracing the gateway",
         "a signal to the gateway", "a thread's signal to the gateway", "the gateway's descriptors", "another program", "another process", "a thread",
         "another descriptor", "a namespace", "io_uring", "the socket's neighbours", "a connection"]
REFUSED = ["reading a key", "writing the journal", "a new file", "the gateway's environment", "limits of the gateway", "memory that is written and run",
           "memory made to be written and run", "being looked into"]
SHUT = ["reading a key", "writing the journal", "a new file", "removing the journal", "renaming the journal", "the gateway's environment", "a signal to the gateway", "a connection"]


@pytest.fixture(scope="module")
def workshop():
    try:
        made = Workshop()
    except Unconfined as error:
        pytest.skip(f"this kernel does not confine a process: {error}")
    yield made
    made.close()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(b"what must stay")
    return path


def attempt(confined, what, file):
    """What was said, and the exit status."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nothing = os.memfd_create("nothing")
    with ours, theirs:
        pid = spawn([ESCAPE, confined, what, str(file)], (nothing, theirs.fileno(), nothing))
        theirs.close()
        said = ours.recv(1000).decode()
    why = os.pread(nothing, 2000, 0).decode()
    os.close(nothing)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert "Traceback" not in why, why
    return said, status


@pytest.fixture
def listener(file):
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: accepted(server), daemon=True).start()
        file.write_text(str(server.getsockname()[1]))
        yield server


def accepted(server):
    try:
        server.accept()
    except OSError:
        pass


@pytest.mark.parametrize("what", FATAL)
def test_native_code_in_the_worker_is_ended_at(workshop, file, what, request):
    if what == "a connection":
        request.getfixturevalue("listener")
    assert attempt("sealed", what, file) == ("", -signal.SIGSYS)
    assert file.exists()


@pytest.mark.parametrize("what", REFUSED)
def test_native_code_in_the_worker_is_refused(workshop, file, what):
    said, status = attempt("sealed", what, file)
    assert (said, status) == ("refused: Operation not permitted", 0)
    assert file.read_bytes() == b"what must stay" and not file.with_name("journal.new").exists()


@pytest.mark.parametrize("what", SHUT)
def test_landlock_refuses_it_too(workshop, file, what, request):
    if workshop.landlock < 6:
        pytest.skip(f"Landlock of version {workshop.landlock}: 6 is needed for all of it")
    if what == "a connection":
        request.getfixturevalue("listener")
    said, status = attempt("shut", what, file)
    assert said in ("refused: Permission denied", "refused: Operation not permitted") and status == 0


@pytest.mark.parametrize("what", ["a socket", "reading a key", "writing the journal", "removing the journal", "a signal to the gateway", "another descriptor",
                                  "memory that is written and run", "the socket's neighbours", "a connection"])
def test_without_the_sandbox_it_can(file, what, request):
    if what == "a connection":
        request.getfixturevalue("listener")
    assert attempt("open", what, file) == ("done", 0)


def test_it_can_compute(workshop, file):
    assert attempt("sealed", "computing", file) == ("done", 0)


EXAMINED = """
import os, sys
from gateway.deploy import examine
examine.limit()
examine.confine()
try:
    open(sys.argv[1])
    os.write(1, b"done")
except OSError as error:
    os.write(1, error.strerror.encode())
os._exit(0)
"""


def test_the_examination_of_a_pushed_module_is_confined_before_its_code_runs(workshop, file):
    done = subprocess.run([sys.executable, "-c", EXAMINED, str(file)], capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.returncode) == ("Operation not permitted", 0), done.stderr


def test_the_worker_that_runs_is_sealed_and_holds_nothing(workshop):
    pid = workshop._child._pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines() if ":\t" in line)
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 2           # its own, and the watchdog's
    if os.geteuid():
        pytest.skip("only root may look into a process that cannot be dumped")
    held = {fd.name: os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    assert set(held) == {"1", "2"} and held["1"].startswith("socket:") and held["2"].startswith("/memfd:errors")
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert {entry.partition(b"=")[0] for entry in environment if entry} == {b"PYTHONPATH", b"MALLOC_ARENA_MAX"}
    assert "what must stay" not in Path(f"/proc/{pid}/maps").read_text() and os.access(f"/proc/{pid}/mem", os.F_OK)
