"""`tidegate rule ls`: the rules of a gateway, and the versions in its store."""

import json

from gateway import terminal
from gateway.manage import remote

RULES = [("rule", lambda r: r["rule"]), ("version", lambda r: r["version"]), ("state", lambda r: r["state"] if r["enabled"] else "disabled"),
         ("input", lambda r: r["input"]), ("lanes", lambda r: r["lanes"]), ("previous", lambda r: r["previous"]), ("shadow", lambda r: r["shadow"]),
         ("in", lambda r: r.get("in")), ("out", lambda r: r.get("out")), ("from", lambda r: "tidegate.toml" if r["configured"] else "push"),
         ("parameters", lambda r: r["params"])]
VERSIONS = [("version", lambda v: v["label"]), ("digest", lambda v: v["digest"][:12]), ("bytes", lambda v: v["size"]), ("when", lambda v: terminal.moment(v["when_ns"] / 1e9)),
            ("who", lambda v: v["who"]), ("signed by", lambda v: v["signed_by"]), ("summary", lambda v: v["summary"])]


def add_arguments(parser):
    terminal.add_arguments(parser, rule=False)


def run(arguments):
    with remote.open_gateway(arguments) as gateway:
        found = gateway.ask({"do": "rule.ls"})
    if arguments.json:
        print(json.dumps(found))
        return
    print(terminal.table(found["rules"], RULES) if found["rules"] else "no rules")
    print()
    print(terminal.table(found["versions"], VERSIONS) if found["versions"] else "no versions in the store")
