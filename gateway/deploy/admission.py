"""Admission: whether a module may run here, found out by a child process (examine.py) that may be killed, while the daemon goes on.

One examination at a time, at most WAITING_MAX wait. The child's pipe is watched by the reactor; it ends with the child. At WALL_S the child and
what it started are killed. What the child says is data: a line that is none counts as a failure of the examination.
"""

import json
import os
import signal
import sys
from collections import deque

from edge.errors import TidegateError
from gateway.deploy import examine

WALL_S = 90.0
WAITING_MAX = 4
ANSWER_BYTES_MAX = 256 << 10
CPU_SIGNALS = (signal.SIGXCPU, signal.SIGKILL)


class Admission:
    """examine(question, done): done(report) is called from the reactor, once. A report is plain data:
    {"ok", "checks": [{"check", "said", "ms"}], "why", "fault", "details"} or, if ok, with "module" and "signed_by"."""

    def __init__(self, reactor, *, wall_s=WALL_S, command=("-m", "gateway.deploy.examine")):
        self._reactor, self._wall_s = reactor, wall_s
        self._command = [sys.executable, "-P", *command]
        self._waiting = deque()
        self._child = None

    def examine(self, question, done):
        """Raises TidegateError when too many wait."""
        if len(self._waiting) >= WAITING_MAX:
            raise TidegateError(f"{WAITING_MAX} modules wait to be examined: try again in a moment")
        self._waiting.append((question, done))
        self._next()

    def _next(self):
        if self._child is None and self._waiting:
            question, done = self._waiting.popleft()
            try:
                self._child = Child(self._reactor, self._command, question, self._wall_s, lambda report: self._ended(done, report))
            except OSError as error:
                why = error.strerror
                self._reactor.soon(lambda: done(refusal([], f"no process to examine it: {why}: free memory, or try again", "disk")))

    def _ended(self, done, report):
        self._child = None
        done(report)
        self._next()

    def close(self):
        """Kill what runs; nobody is called any more."""
        self._waiting.clear()
        if self._child is not None:
            self._child.close()
            self._child = None


class Child:
    """A process that examines. Raises OSError when it cannot be started."""

    def __init__(self, reactor, command, question, wall_s, done):
        self._reactor, self._done = reactor, done
        self._said, self._why = b"", ""
        here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)])}
        self._errors = os.memfd_create("errors")
        asked = os.memfd_create("question")
        try:
            os.write(asked, json.dumps(question).encode())
            os.lseek(asked, 0, os.SEEK_SET)
            self._pipe, end = os.pipe2(os.O_CLOEXEC)
            try:
                actions = [(os.POSIX_SPAWN_DUP2, asked, 0), (os.POSIX_SPAWN_DUP2, end, 1), (os.POSIX_SPAWN_DUP2, self._errors, 2)]
                self._pid = os.posix_spawn(command[0], command, environment, file_actions=actions, setpgroup=0, setsigmask=[])
            except OSError:
                os.close(self._pipe)
                raise
            finally:
                os.close(end)
        except OSError:
            os.close(self._errors)
            raise
        finally:
            os.close(asked)
        os.set_blocking(self._pipe, False)
        reactor.watch(self._pipe, self._read)
        self._timer = reactor.later(wall_s, lambda: self._kill(f"examining it took more than {wall_s:.0f} s: make it smaller or simpler"))

    def _read(self):
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        self._said += data
        if len(self._said) > ANSWER_BYTES_MAX:
            self._kill(f"the examination says more than {ANSWER_BYTES_MAX >> 10} KiB")
        elif not data:
            status, errors = self._end()
            self._done(self._report(status, errors))

    def _kill(self, why):
        """The pipe's end then tells that it is gone."""
        self._why, self._said = self._why or why, self._said[:ANSWER_BYTES_MAX]
        try:
            os.killpg(self._pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def _end(self):
        """(exit status, the end of what it wrote as errors)."""
        self._timer.cancel()
        self._reactor.forget(self._pipe)
        os.close(self._pipe)
        try:
            os.killpg(self._pid, signal.SIGKILL)     # the compiler that it may have left
        except (ProcessLookupError, PermissionError):
            pass
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        errors = os.pread(self._errors, 500, max(0, os.fstat(self._errors).st_size - 500)).decode("utf-8", "replace")
        os.close(self._errors)
        return status, errors

    def _report(self, status, errors):
        answers = [answer for line in self._said.split(b"\n") if isinstance(answer := _json(line), dict)]
        checks = [answer for answer in answers if "check" in answer]
        last = next((answer for answer in answers if "ok" in answer), None)
        if last is not None and not self._why:
            return {**last, "checks": checks}
        after = f" (after the check of {checks[-1]['check']})" if checks else ""
        if self._why:
            return refusal(checks, self._why + after, "rule")
        if -status in CPU_SIGNALS:
            return refusal(checks, f"examining it took more than {examine.CPU_S} s of CPU{after}, or memory ran out: make it smaller or simpler", "rule")
        said = " ".join(errors.split())[-300:]
        return refusal(checks, f"the examination failed with status {status}{after}: {said or 'nothing was said'}", "rule")

    def close(self):
        """Kill it; nobody is told."""
        self._kill("closed")
        self._end()


def refusal(checks, why, fault, details=()) -> dict:
    """A report that says no."""
    return {"ok": False, "checks": checks, "why": why, "fault": fault, "details": list(details)}


def _json(line):
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
