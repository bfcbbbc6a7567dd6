"""`tidegate rule sign FILE.wasm --key FILE`: sign a module; what the rule is, its digest, stays the same."""

import os

from edge.errors import ConfigError
from rulec import keys


def add_arguments(parser):
    parser.add_argument("file", metavar="FILE.wasm", help="the module; a signature that it has is replaced")
    parser.add_argument("--key", required=True, metavar="FILE", help="the private key, from `tidegate rule keygen`")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: the module's file itself")


def run(arguments):
    needs_cryptography()
    signed = keys.sign(keys.read_module(arguments.file), keys.load(arguments.key))
    output = arguments.output or arguments.file
    beside = f"{output}.new"
    try:
        with open(beside, "wb") as f:
            f.write(signed)
        os.replace(beside, output)
    except OSError as error:
        raise ConfigError(f"{output}: {error.strerror}: the signed module was not written") from None
    print(f"{output} is signed")


def needs_cryptography():
    """Raises ConfigError when the library is missing."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise ConfigError("signing needs a library that is not here: pip install 'tidegate[signing]'") from None
