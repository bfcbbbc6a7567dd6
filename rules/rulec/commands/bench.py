"""`tidegate rule bench FILE.wasm`: nanoseconds an event, memory, size, compile time, on this machine."""

import json
import os
import sys

from rulec.measure import lines, measure
from rulec.subject import find


def add_arguments(parser):
    parser.add_argument("path", nargs="?", default=".", metavar="FILE.wasm|FOLDER", help="the module, or a rule's folder (.)")
    parser.add_argument("--input", metavar="FILE.samples", help="samples that say parameters, fields and usual values (those of the module, or beside it)")
    parser.add_argument("--case", metavar="NAME", help="the case whose parameters count (the first that runs)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to measure (2)")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(arguments):
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"tidegate: other work is on this machine (load {busy:.1f}): the figures are worse for it", file=sys.stderr)
    found = measure(find([arguments.path, *([arguments.input] if arguments.input else [])]), arguments.case, arguments.seconds)
    print(json.dumps(found, ensure_ascii=False) if arguments.json else "\n".join(lines(found)))
