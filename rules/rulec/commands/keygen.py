"""`tidegate rule keygen FILE`: a key pair to sign rules with."""

import base64

from rulec import keys
from rulec.commands.sign import needs_cryptography


def add_arguments(parser):
    parser.add_argument("file", metavar="FILE", help="where the private key goes; FILE.pub gets the public one")


def run(arguments):
    needs_cryptography()
    public = base64.b64encode(keys.generate(arguments.file)).decode()
    with open(f"{arguments.file}.pub", "w", encoding="ascii") as f:
        f.write(public + "\n")
    print(f"{arguments.file} holds the private key: keep it off the gateways. The gateways' configuration takes the public one:\n")
    print(f'[signing]\npolicy = "required"\nkeys = {{ NAME = "{public}" }}')
