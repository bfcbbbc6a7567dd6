"""`tidegate status`: what the running gateway does, asked over its local socket."""

import json

from gateway import control
from gateway.config import reader as config


def add_arguments(parser):
    parser.add_argument("-c", "--config", default="tidegate.toml", help="the configuration (tidegate.toml)")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(arguments):
    status = control.ask(config.load(arguments.config).gateway.data, "status")
    if arguments.json:
        print(json.dumps(status))
    else:
        _show(status)


def _show(value, indent=0):
    pad = "  " * indent
    for name, item in value.items():
        if isinstance(item, dict):
            print(f"{pad}{name}")
            _show(item, indent + 1)
        else:
            print(f"{pad}{name:24} {item}")
