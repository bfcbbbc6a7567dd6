"""`tidegate`: picks the command and imports only that one, so that the daemon carries no tool's weight.

Exit status: 0 done, 1 the answer is no (a ledger that does not balance, a check that found problems), 2 it could not be done.
"""

import argparse
import importlib
import os
import sys

from edge.errors import TidegateError

COMMANDS = {
    "run": "run the gateway",
    "check": "print every problem of a configuration",
    "demo": "show it: simulated devices, rules, upstream, ledger",
    "status": "what the running gateway does",
    "ledger": "in = out + held back, by stream, rule and lane",
    "receive": "be the upstream end",
    "dead-letters": "events and batches that could not be processed",
    "buffer": "list, verify or export the logs on disk",
    "bench": "measure speed and size against their baselines",
    "version": "print versions",
}


def main(argv=None) -> int:
    """Entry point. Returns the exit status; expected errors become one line on standard error."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if argv else 2
    name = {"--version": "version", "-V": "version"}.get(argv[0], argv[0])
    if name not in COMMANDS:
        print(f"tidegate: there is no command {name!r}; known are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command = importlib.import_module(f"gateway.commands.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=f"tidegate {name}", description=COMMANDS[name])
    command.add_arguments(parser)
    try:
        return command.run(parser.parse_args(argv[1:])) or 0
    except TidegateError as error:
        for line in str(error).splitlines():
            print(f"tidegate: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _usage():
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: tidegate COMMAND [ARGUMENTS]", "", *lines, "", "tidegate COMMAND --help says more."])


def entry():
    """For the console script: exit with main's status."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
