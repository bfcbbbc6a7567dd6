"""`tidegate rule check FILE.wasm`: what a module asks for, needs and may do, and every reason why a gateway would refuse it. Exit status 1 if there is one."""

import json
from pathlib import Path

from edge.errors import ConfigError
from rulec.inspection import inspect, lines


def add_arguments(parser):
    parser.add_argument("file", metavar="FILE.wasm", help="the module")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(arguments):
    try:
        wasm = Path(arguments.file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{arguments.file}: {error.strerror}") from None
    found = inspect(wasm, arguments.file)
    print(json.dumps(found, ensure_ascii=False) if arguments.json else "\n".join(map(_plain, lines(found))))
    return int(bool(found["refused"]))


def _plain(text):
    """For a terminal, which names in a module must not steer."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
