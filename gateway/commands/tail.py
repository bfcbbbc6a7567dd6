"""`tidegate tail STREAM | RULE`: events live, a sample of them, without slowing the gateway."""

import json
import sys
import time

from gateway.inspection.store import plain
from gateway.manage import remote

POLL_S = 0.5
TOLD_S = 10.0


def add_arguments(parser):
    parser.add_argument("stream", metavar="STREAM | RULE", help="a stream, a rule (its output), or RULE.late")
    parser.add_argument("--count", type=int, metavar="N", help="end after so many events")
    remote.add_gateway(parser)


def run(arguments):
    request, shown, told = {"do": "tail", "stream": arguments.stream}, 0, time.monotonic()
    with remote.open_gateway(arguments) as gateway:
        found = gateway.ask(request)
        while arguments.count is None or shown < arguments.count:
            for row in found["rows"][:None if arguments.count is None else arguments.count - shown]:
                print(plain(json.dumps(row, ensure_ascii=False)), flush=True)
                shown += 1
            if time.monotonic() - told > TOLD_S:
                told = time.monotonic()
                print(f"{found['seen']:,} events, {found['sampled']:,} of them sampled", file=sys.stderr)
            if arguments.count is not None and shown >= arguments.count:
                break
            time.sleep(POLL_S)
            found = gateway.ask(request | {"after": found["next"]})
