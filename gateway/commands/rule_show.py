"""`tidegate rule show RULE | VERSION`: all that the gateway knows of it."""

import json

from gateway import terminal
from gateway.manage import remote


def add_arguments(parser):
    parser.add_argument("rule", metavar="RULE | VERSION", help="a rule's name, a version such as hot@2, or the beginning of a digest")
    terminal.add_arguments(parser, rule=False)


def run(arguments):
    with remote.open_gateway(arguments) as gateway:
        found = gateway.ask({"do": "rule.show", "rule": arguments.rule})
    if arguments.json:
        print(json.dumps(found))
        return
    parameters = found.pop("parameters", [])
    if found.get("version"):
        found["version"]["when"] = terminal.moment(found["version"].pop("when_ns") / 1e9)
    terminal.tree({name: item for name, item in found.items() if item is not None})
    if parameters:
        print("parameters")
        columns = [(name, lambda p, name=name: p.get(name)) for name in ("name", "type", "default", "min", "max", "summary")]
        print(terminal.table(parameters, columns))
