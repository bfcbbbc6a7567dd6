"""`tidegate rule logs RULE`: what befell it since the gateway started: uploads, swaps, traps."""

import json

from gateway import terminal
from gateway.manage import remote

COLUMNS = [("when", lambda e: terminal.moment(e["at"])), ("what", lambda e: e["what"]), ("who", lambda e: e.get("who"))]


def add_arguments(parser):
    terminal.add_arguments(parser)


def run(arguments):
    with remote.open_gateway(arguments) as gateway:
        found = gateway.ask({"do": "rule.logs", "rule": arguments.rule})
    if arguments.json:
        print(json.dumps(found))
        return
    for event in found["events"]:
        print("  ".join(f"{terminal.cell(fn(event)):12}" for _, fn in COLUMNS) + "  " + terminal.plain(event["text"]))
    if not found["events"]:
        print("nothing since the gateway started; `tidegate rule audit` keeps the decisions")
