"""`tidegate rule rm RULE | VERSION`: end a rule, or take a version that no rule needs out of the store."""

import json

from gateway import remote, terminal


def add_arguments(parser):
    parser.add_argument("rule", metavar="RULE | NAME@VERSION", help="a rule; or, with an @, a version in the store")
    parser.add_argument("--digest", action="store_true", help="what is named is the beginning of a version's digest")
    terminal.add_arguments(parser, rule=False)


def run(arguments):
    if "@" not in arguments.rule and not arguments.digest:
        return terminal.change(arguments, "rule.rm")
    with remote.open_gateway(arguments) as gateway:
        found = gateway.ask({"do": "rule.rm", "version": arguments.rule})
    print(json.dumps(found) if arguments.json else f"{terminal.plain(found['removed'])} is removed")
