"""`tidegate`: picks the command and imports only that one, so that the daemon carries no tool's weight.

Exit status: 0 done, 1 the answer is no (a ledger that does not balance, a check that found problems), 2 it could not be done.
"""

import importlib
import os
import sys

from edge.errors import TidegateError

COMMANDS = {
    "run": "run the gateway",
    "init": "ask what a gateway needs to know, and write its configuration",
    "discover": "listen to live traffic, and propose streams for it",
    "check": "print every problem of a configuration",
    "demo": "show it: simulated devices, rules, upstream, ledger",
    "status": "what the running gateway does",
    "doctor": "what is wrong with the gateway or the machine, and what to do",
    "ledger": "in = out + held back, by stream, rule and lane",
    "receive": "be the upstream end",
    "api": "serve the HTTP management API of the running gateway",
    "otlp": "send metrics and traces of the running gateway to an OpenTelemetry collector",
    "rule": "write, test, upload and watch rules",
    "tail": "a stream's or rule's events, live",
    "passwd": "let a device's user into the listener's password file, or out of it",
    "dead-letters": "events and batches that could not be processed",
    "buffer": "list, verify, repair, export or tail the logs on disk",
    "bench": "measure speed and size against their baselines",
    "version": "print versions",
}
AUTHOR_COMMANDS = {                  # of `tidegate rule`: on the laptop, rulec.commands.NAME
    "new": "begin a rule: source, manifest, samples",
    "build": "compile a rule's folder to one .wasm file",
    "check": "what a module asks for and may do, and why it is refused if it is",
    "test": "run a rule's samples in virtual time",
    "bench": "nanoseconds an event, memory, size, compile time",
    "replay": "run events that a gateway recorded through a rule",
    "keygen": "make a key pair to sign rules with",
    "sign": "sign a module",
}
FIELD_COMMANDS = {                   # of `tidegate rule`: on a running gateway, gateway.commands.rule_NAME
    "push": "upload a module and run it",
    "ls": "rules and versions of a gateway",
    "show": "a rule or a version, whole",
    "stats": "what each rule does and costs",
    "logs": "what befell a rule: uploads, swaps, traps",
    "set": "change parameters",
    "enable": "let a rule work again",
    "disable": "let events pass a rule by",
    "diff": "where a shadow's output differs",
    "promote": "let the shadow take over",
    "rollback": "go back to the version before",
    "rm": "remove a rule or a version",
    "audit": "every decision on rules, and whether the record is whole",
}
RULE_COMMANDS = AUTHOR_COMMANDS | FIELD_COMMANDS


def main(argv=None) -> int:
    """Entry point. Returns the exit status; expected errors become one line on standard error."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["rule"]:
        return _dispatch("tidegate rule", RULE_COMMANDS, _rule_place, argv[1:])
    return _dispatch("tidegate", COMMANDS, lambda name: f"gateway.commands.{name.replace('-', '_')}", argv)


def _rule_place(name):
    return f"rulec.commands.{name}" if name in AUTHOR_COMMANDS else f"gateway.commands.rule_{name}"


def _dispatch(program, commands, place, argv):
    """Run one of a table's commands; place: its name -> its module."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage(program, commands))
        return 0 if argv else 2
    name = {"--version": "version", "-V": "version"}.get(argv[0], argv[0])
    if name not in commands:
        import difflib

        near = difflib.get_close_matches(name, commands, 1)
        print(f"{program}: there is no command {name!r}" + (f"; did you mean {near[0]}?" if near else f"; known are {', '.join(commands)}"), file=sys.stderr)
        return 2
    command = importlib.import_module(place(name))
    try:
        return command.run(_arguments(command, f"{program} {name}", commands[name], argv[1:])) or 0
    except TidegateError as error:
        for line in str(error).splitlines():
            print(f"tidegate: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _arguments(command, program, summary, argv):
    """What a command is given; the plain form of a command that reads that by itself takes no argparse, which is a megabyte."""
    plain = getattr(command, "plain_arguments", None)
    if plain is not None and (arguments := plain(argv)) is not None:
        return arguments
    import argparse

    parser = argparse.ArgumentParser(prog=program, description=summary)
    command.add_arguments(parser)
    return parser.parse_args(argv)


def _usage(program, commands):
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {what}" for name, what in commands.items()]
    return "\n".join([f"usage: {program} COMMAND [ARGUMENTS]", "", *lines, "", f"{program} COMMAND --help says more."])


def entry():
    """For the console script: exit with main's status."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
