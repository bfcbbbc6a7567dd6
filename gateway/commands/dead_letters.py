"""`tidegate dead-letters ls | show N`: what could not be processed, and why. Reads only, beside a running gateway too."""

import json
from collections import deque

from edge.errors import ConfigError, DiskError
from edge.records import DEAD, SCHEMA
from gateway.store import Store, add_place, letter, plain

REASON_MAX = 100                     # characters of a reason in a list


def add_arguments(parser):
    commands = parser.add_subparsers(dest="action", required=True, metavar="ls | show N")
    ls = commands.add_parser("ls", help="the newest, a line each", description="The newest dead letters first, a line each.")
    ls.add_argument("--stream", metavar="NAME", help="only of this stream")
    ls.add_argument("--reason", metavar="TEXT", help="only with this text in the reason")
    ls.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (20)")
    show = commands.add_parser("show", help="one of them, whole", description="A dead letter: reason, topic and payload, or rule, backtrace and rows.")
    show.add_argument("number", type=int, metavar="N", help="its number, as in the list")
    show.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many rows of a batch (20)")
    for command in (ls, show):
        add_place(command)
        command.add_argument("--json", action="store_true", help="as one JSON object")


def run(arguments):
    if arguments.limit < 1:
        raise ConfigError("--limit must be 1 or more")
    store = Store(arguments)
    return (_ls if arguments.action == "ls" else _show)(store, arguments)


# --- ls


def _ls(store, arguments):
    letters, more = _newest(store, store.log("dead"), arguments)
    if arguments.json:
        print(json.dumps({"data": store.directory, "letters": letters, "more": more}))
        return 0
    if letters:
        print(f"{'number':>8}  {'received':30}  {'stream':16} reason")
    for item in letters:
        where = f"rule {item['rule']}, {item['events']:,} events" if "rule" in item else item.get("topic", "")
        reason = plain(item["reason"])
        reason = reason if len(reason) <= REASON_MAX else f"{reason[:REASON_MAX]}…"
        print(f"{item['number']:8}  {item['received']:30}  {plain(item['stream'] or '-'):16} {reason}  [{plain(where)}]")
    if not letters:
        print("no dead letters")
    elif more:
        print("there are older ones: --limit, --stream, --reason")
    return 0


def _newest(store, reader, arguments):
    """The newest letters that were asked for, without payloads and rows; and whether there are older ones."""
    found, wanted = [], arguments.limit + 1
    for segment in reversed(reader.segments):
        newest = deque(maxlen=wanted - len(found))
        for record in reader.records(segment):
            try:
                if record.kind == SCHEMA:
                    store.learn(record)
                elif record.kind == DEAD and _asked_for(store, record, arguments):
                    newest.append({k: v for k, v in store.letter(record, rows_max=0).items() if k not in ("payload", "payload_hex", "backtrace")})
            except DiskError:
                continue                 # `tidegate buffer verify` says it
        found.extend(reversed(newest))
        if len(found) == wanted:
            return found[:-1], True
    return found, False


def _asked_for(store, record, arguments):
    if arguments.stream and (not record.stream or store.stream(record.stream) != arguments.stream):
        return False
    return not arguments.reason or arguments.reason.lower() in letter(record)["reason"].lower()


# --- show


def _show(store, arguments):
    item = store.letter(_find(store, arguments.number), arguments.limit)
    if arguments.json:
        print(json.dumps(item))
        return 0
    for name, what in (("number", "number"), ("received", "received"), ("stream", "stream"), ("reason", "reason"), ("topic", "topic"), ("rule", "rule"),
                       ("module", "module"), ("events", "events"), ("journal_position", "journal at")):
        if item.get(name) is not None:
            print(f"{what:12} {plain(item[name])}")
    for frame in item.get("backtrace", ()):
        print(f"{'':12} at {plain(frame)}")
    if "size" in item:
        print(f"{'size':12} {item['size']:,} bytes, of which the first {_held(item):,} are kept")
    if "withheld" in item:
        print(f"{'payload':12} {item['withheld']:,} bytes, not kept, nor the topic: fields of the stream have a mask")
    if "payload" in item:
        print(f"{'payload':12} {plain(item['payload'])}")
    if "payload_hex" in item:
        print(f"{'payload':12} not text; hexadecimal: {item['payload_hex']}")
    for row in item.get("rows", ()):
        print(f"{'row':12} {plain(json.dumps(row, ensure_ascii=False))}")
    if len(item.get("rows", ())) < item["events"] and "rows" in item:
        print(f"{'':12} and {item['events'] - len(item['rows']):,} more: --limit")
    return 0


def _held(item):
    return len(item["payload"].encode()) if "payload" in item else len(item["payload_hex"]) // 2


def _find(store, number):
    reader = store.log("dead")
    for segment in reader.segments:
        if segment.first <= number < segment.end:
            for record in reader.records(segment):
                if record.kind == SCHEMA:
                    store.learn(record)
                elif record.position == number:
                    if record.kind == DEAD:
                        return record
                    break
    raise ConfigError(f"there is no dead letter {number}; `tidegate dead-letters ls` lists them (the oldest go when their quota is used up)")
