"""`tidegate rule diff RULE`: where its shadow's output differs, and what both cost."""

import json

from gateway import terminal
from gateway.manage import remote


def add_arguments(parser):
    terminal.add_arguments(parser)


def run(arguments):
    with remote.open_gateway(arguments) as gateway:
        found = gateway.ask({"do": "rule.diff", "rule": arguments.rule})
    if arguments.json:
        print(json.dumps(found))
    else:
        terminal.tree(found)
