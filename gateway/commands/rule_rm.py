"""`tidegate rule rm RULE | VERSION | RULE@shadow`: end a rule, take a version that no rule needs out of the store, or end a rule's shadow."""

import json

from gateway import terminal
from gateway.manage import remote


def add_arguments(parser):
    parser.add_argument("rule", metavar="RULE | NAME@VERSION", help="a rule; or, with an @, a version in the store, or RULE@shadow")
    parser.add_argument("--digest", action="store_true", help="what is named is the beginning of a version's digest")
    terminal.add_arguments(parser, rule=False)


def run(arguments):
    if "@" not in arguments.rule and not arguments.digest:
        return terminal.change(arguments, "rule.rm")
    with remote.open_gateway(arguments) as gateway:
        found = gateway.ask({"do": "rule.rm", "version": arguments.rule})
        if "job" in found:
            return terminal.tell(terminal.follow(gateway, found, True), arguments.json)
    print(json.dumps(found) if arguments.json else f"{terminal.plain(found['removed'])} is removed")
