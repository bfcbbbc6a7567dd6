"""The worker: the process in which rules' instances live, without keys, files and network. gateway/isolation/workshop.py starts it and asks it.

`python -m gateway.isolation.worker PARENT`, descriptor 0 being the shared memory, 1 the socket, 2 a memory for last words. What it needs is imported and
its watchdog started before it is sealed (gateway/isolation/sandbox.py); it ends when the daemon does.
"""

import os
import sys

from gateway import lean
from gateway.isolation import sandbox

lean.leave_out_early()
lean.leave_out_openssl()
lean.leave_out_bindings()


def main() -> int:
    """Serve until the daemon is gone. What goes wrong ends the process: the daemon has all states, and starts another."""
    try:
        serve(int(sys.argv[1]))
    except sandbox.Unconfined as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


def serve(parent):
    sandbox.prepare(parent)
    lean.leave_out_bindings()
    from edge.host import _wasmtime
    from gateway.isolation._answerer import Answerer
    from gateway.isolation.hosting import Hosting

    desk = Answerer(0, sandbox.SOCKET)
    os.close(0)
    hosting = Hosting(desk)
    landlock = sandbox.shut()
    _wasmtime.watch()
    sandbox.seal()
    desk.answer(hosting.READY, a=landlock)
    hosting.serve()


if __name__ == "__main__":
    os._exit(main())
