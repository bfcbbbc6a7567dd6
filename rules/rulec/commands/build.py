"""`tidegate rule build [DIR] [-o FILE]`: compile a rule's folder to one .wasm file."""

import sys
from pathlib import Path

from edge.errors import ConfigError, RuleError
from edge.host.module import Module
from rulec.build import build


def add_arguments(parser):
    parser.add_argument("folder", nargs="?", default=".", metavar="DIR", help="the rule's folder, with rule.toml (.)")
    parser.add_argument("-o", "--output", metavar="FILE", help="where the module goes (DIR/NAME.wasm)")


def run(arguments):
    try:
        wasm = build(arguments.folder)
    except RuleError as error:
        print(error, file=sys.stderr)
        return 1
    rule = Module(wasm).manifest
    output = Path(arguments.output or Path(arguments.folder) / f"{rule.name}.wasm")
    try:
        output.write_bytes(wasm)
    except OSError as error:
        raise ConfigError(f"{output}: {error.strerror}") from None
    print(f"{output}: {rule.name} {rule.version}, {len(wasm):,} bytes")
    return 0
