"""`tidegate rule audit`: every decision on rules, and whether the record is whole. Exit status 1 when it was tampered with."""

import json

from gateway import terminal
from gateway.manage import remote


def add_arguments(parser):
    parser.add_argument("--after", type=int, metavar="N", help="the lines after this number (default: the newest)")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (50)")
    terminal.add_arguments(parser, rule=False)


def run(arguments):
    with remote.open_gateway(arguments) as gateway:
        found = gateway.ask({"do": "rule.audit", "limit": arguments.limit, **({} if arguments.after is None else {"after": arguments.after})})
    broken = found["broken"]
    if arguments.json:
        print(json.dumps(found))
        return 1 if broken else 0
    for line in found["lines"]:
        rest = " ".join(f"{name}={terminal.cell(value)}" for name, value in line.items() if name not in ("n", "at", "who", "what", "before"))
        print(f"{line['n']:6}  {terminal.plain(line['at'])}  {terminal.plain(line['who']):16} {terminal.plain(line['what']):12} {rest}")
    number, digest = found["head"]
    if broken:
        print(f"BROKEN: {broken['file']} line {broken['line']} {broken['why']}" if broken["file"] else f"BROKEN: {broken['why']}")
        return 1
    print(f"whole up to line {number}, whose hash is {digest}")
    return 0
