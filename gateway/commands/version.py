"""`tidegate version`."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version


def add_arguments(parser):
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(arguments):
    versions = {"tidegate": _version("tidegate"), "python": platform.python_version(), "machine": platform.machine()}
    versions |= {name: _version(name) for name in ("wasmtime", "paho-mqtt", "msgpack", "zstandard", "msgspec")}
    if arguments.json:
        print(json.dumps(versions))
    else:
        for name, text in versions.items():
            print(f"{name} {text}")


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
