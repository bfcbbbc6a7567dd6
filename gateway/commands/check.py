"""`tidegate check -c FILE`: every problem of a configuration, with its place, and rules checked against their modules."""

import json
import sys

from gateway import links
from gateway.config import reader as config
from gateway.deploy import rulebook, signing


def add_arguments(parser):
    parser.add_argument("-c", "--config", default="tidegate.toml", help="the configuration (tidegate.toml)")
    parser.add_argument("--json", action="store_true", help="the problems as one JSON object")
    parser.add_argument("--schema", action="store_true", help="print the configuration's JSON Schema, for editors")


def run(arguments):
    if arguments.schema:
        from gateway.config import spec

        print(json.dumps(spec.schema(), indent=1))
        return 0
    problems, file = [], config.place(arguments.config)
    try:
        loaded = config.load(file)
        problems = beyond_form(loaded)
    except config.Problems as error:
        problems = error.items + (rulebook.problems(error.sound) if error.sound else [])
    if arguments.json:
        print(json.dumps({"config": str(file), "problems": [{"place": p, "problem": w} for p, w in problems]}))
    else:
        for place, what in problems:
            print(f"{file}: {place}: {what}" if place else f"{file}: {what}", file=sys.stderr)
        if not problems:
            print(f"{file}: ok")
    return 1 if problems else 0


def beyond_form(loaded) -> list:
    """(place, problem) of a configuration whose form is right: contracts, rules, files that it names, keys."""
    return rulebook.problems(loaded) + links.problems(loaded) + signing.problems(loaded)
