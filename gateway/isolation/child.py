"""One worker process of the rules: started, listened to, ended. See gateway/isolation/worker.py for its side."""

import os
import signal
import socket
import struct
import sys

from gateway.isolation import _channel as c
from gateway.isolation.sandbox import ERROR_BYTES, Unconfined

START_NS = 60 * 10**9
LOOK_US = 100_000                    # so often a wait looks at how long it has taken
F_ADD_SEALS, SEALS = 1033, 0x7       # linux/fcntl.h: no more seals, no shrinking, no growing
LAST_WORDS = 400
STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


class Child:
    """A worker that was started; ready() waits until it is confined. landlock: the version that confines it. Raises Unconfined, with what it said."""

    def __init__(self):
        memory, errors, ends = -1, -1, ()
        try:
            memory = os.memfd_create("tidegate-rules", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(memory, c.ROOM)
            _seal(memory)
            errors = os.memfd_create("errors", os.MFD_CLOEXEC)
            ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._pid = spawn(["-m", "gateway.isolation.worker"], (memory, ends[1].fileno(), errors))
            ends[1].close()
            self._socket, self._errors = ends[0], errors
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, LOOK_US))
            self.channel = c.Asker(memory, self._socket.fileno(), self._pid)
        except OSError as error:
            for end in ends:
                end.close()
            if errors >= 0:
                os.close(errors)
            raise Unconfined(f"the process of the rules cannot be started: {error.strerror}") from None
        finally:
            if memory >= 0:
                os.close(memory)

    def ready(self) -> "Child":
        """Raises Unconfined."""
        kind = self.channel.wait(START_NS)
        if kind != c.DONE:
            raise Unconfined(self.end("it does not come up in time" if kind == c.OVERDUE else ""))
        self.landlock = self.channel.a
        return self

    @property
    def memory_bytes(self) -> int | None:
        """Resident, without files and shared memory: what it has for itself. None where processes are hidden that cannot be looked into."""
        try:
            with open(f"/proc/{self._pid}/status") as f:
                return next((int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon:")), None)
        except OSError:
            return None

    def end(self, why) -> str:
        """Kill it if it lives. Returns why it went: `why`, or how it ended and its last words."""
        if self._pid is None:
            return why
        try:
            os.kill(self._pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        said = os.pread(self._errors, ERROR_BYTES, 0).decode("utf-8", "replace").split()
        self.channel.close()
        self._socket.close()
        os.close(self._errors)
        self._pid = None
        how = why or (f"signal {_signal(-status)}" if status < 0 else f"status {status}")
        return f"{how}: ...{' '.join(said)[-LAST_WORDS:]}" if said else how


def spawn(command, descriptors) -> int:
    """A fresh interpreter with these descriptors as 0, 1, 2 and nothing else of this process: no environment but where modules are. What asks this
    process to stop goes to its group, or its unit, too: the child goes on until this process lets go of the socket, because the end needs its rules."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {"PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)]), "MALLOC_ARENA_MAX": "1"}
    actions = [(os.POSIX_SPAWN_DUP2, fd, i) for i, fd in enumerate(descriptors)]
    arguments = [sys.executable, "-P", "-S", *command, str(os.getpid())]
    return os.posix_spawn(sys.executable, arguments, environment, file_actions=actions, setsigmask=STOPS, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])


def _seal(memory):
    import fcntl

    fcntl.fcntl(memory, F_ADD_SEALS, SEALS)


def _signal(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
