"""`tidegate rule stats [RULE]`: what each rule does and costs."""

import json

from gateway import terminal
from gateway.manage import remote


def add_arguments(parser):
    parser.add_argument("rule", metavar="RULE", nargs="?", help="only this one")
    terminal.add_arguments(parser, rule=False)


def run(arguments):
    with remote.open_gateway(arguments) as gateway:
        found = gateway.ask({"do": "rule.stats", **({"rule": arguments.rule} if arguments.rule else {})})
    if arguments.json:
        print(json.dumps(found))
    elif not found:
        print("no rules")
    else:
        rows = [{"rule": name, **_flat(item)} for name, item in found.items()]
        print(terminal.table(rows, [(name.replace("_", " "), lambda r, name=name: r.get(name)) for name in dict.fromkeys(n for row in rows for n in row)]))


def _flat(item):
    """Inner tables as columns of their own."""
    flat = {}
    for name, value in item.items():
        flat |= {f"{name} {inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat
