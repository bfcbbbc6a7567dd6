"""`tidegate dead-letters ls | show N | retry | drop`: what could not be processed, and why. ls and show only read, beside a running gateway too; retry and
drop ask the running gateway."""

import json
from collections import deque

from edge.errors import ConfigError, DiskError
from edge.fates import DROPPED, RETRIED, RETRYING
from edge.storage.records import DEAD, SCHEMA
from gateway import control
from gateway.inspection.store import Store, add_place, letter, plain
from gateway.letters import LETTERS_MAX

REASON_MAX = 100                     # characters of a reason in a list
WAITING = "waiting"
STATES = (WAITING, RETRYING, RETRIED, DROPPED)


def add_arguments(parser):
    commands = parser.add_subparsers(dest="action", required=True, metavar="ls | show N | retry | drop")
    ls = commands.add_parser("ls", help="the newest, a line each", description="The newest dead letters first, a line each.")
    ls.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (20)")
    ls.add_argument("--state", choices=STATES, help="only those")
    show = commands.add_parser("show", help="one of them, whole", description="A dead letter: reason, topic and payload, or rule, backtrace and rows.")
    show.add_argument("number", type=int, metavar="N", help="its number, as in the list")
    show.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many rows of a batch (20)")
    retry = commands.add_parser("retry", help="let events go their way again", description="Let events go their way again through the running gateway, by today's contracts, as "
                                "if they came now. What is still refused stays as it is. Exit status 1 if any was.")
    drop = commands.add_parser("drop", help="note that nobody needs them", description="Note that nobody needs these letters. Their bytes stay until their quota is used up.")
    for command, what in ((retry, "retried"), (drop, "dropped")):
        command.add_argument("numbers", nargs="*", type=int, metavar="N", help="their numbers, as in the list")
        command.add_argument("--all", action="store_true", help=f"all that were not yet {what}")
        command.add_argument("--limit", type=int, default=1000, metavar="N", help="at most so many, the oldest first (1000)")
    retry.add_argument("--force", action="store_true", help="also what was retried or dropped before: the event then counts twice")
    for command in (ls, retry, drop):
        command.add_argument("--stream", metavar="NAME", help="only of this stream")
        command.add_argument("--reason", metavar="TEXT", help="only with this text in the reason")
    for command in (ls, show, retry, drop):
        add_place(command)
        command.add_argument("--json", action="store_true", help="as one JSON object")


def run(arguments):
    if arguments.limit < 1:
        raise ConfigError("--limit must be 1 or more")
    return {"ls": _ls, "show": _show, "retry": _change, "drop": _change}[arguments.action](Store(arguments), arguments)


# --- ls


def _ls(store, arguments):
    letters, more = _newest(store, store.log("dead"), arguments)
    if arguments.json:
        print(json.dumps({"data": store.directory, "letters": letters, "more": more}))
        return 0
    if letters:
        print(f"{'number':>8}  {'received':30}  {'state':8}  {'stream':16} reason")
    for item in letters:
        where = f"rule {item['rule']}, {item['events']:,} events" if "rule" in item else item.get("topic", "")
        reason = plain(item["reason"])
        reason = reason if len(reason) <= REASON_MAX else f"{reason[:REASON_MAX]}…"
        print(f"{item['number']:8}  {item['received']:30}  {item['state']:8}  {plain(item['stream'] or '-'):16} {reason}  [{plain(where)}]")
    if not letters:
        print("no dead letters")
    elif more:
        print("there are older ones: --limit, --stream, --reason, --state")
    return 0


def _newest(store, reader, arguments):
    """The newest letters that were asked for, without payloads and rows; and whether there are older ones."""
    found, wanted, fates = [], arguments.limit + 1, store.fates(reader)
    for segment in reversed(reader.segments):
        newest = deque(maxlen=wanted - len(found))
        for record in reader.records(segment):
            try:
                if record.kind == SCHEMA:
                    store.learn(record)
                elif record.kind == DEAD and _asked_for(store, record, arguments) and arguments.state in (None, fates.get(record.position, WAITING)):
                    item = {k: v for k, v in store.letter(record, rows_max=0).items() if k not in ("payload", "payload_hex", "backtrace")}
                    newest.append(item | {"state": fates.get(record.position, WAITING)})
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
    record = _find(store, arguments.number)
    item = store.letter(record, arguments.limit) | {"state": store.fates(store.log("dead")).get(arguments.number, WAITING)}
    if arguments.json:
        print(json.dumps(item))
        return 0
    for name, what in (("number", "number"), ("received", "received"), ("state", "state"), ("stream", "stream"), ("reason", "reason"), ("topic", "topic"),
                       ("rule", "rule"), ("module", "module"), ("events", "events"), ("journal_position", "journal at")):
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


# --- retry, drop


def _change(store, arguments):
    """Ask the gateway, a bounded number of letters at a time."""
    numbers, more = _chosen(store, arguments)
    done, refused, waits = [], [], False
    while numbers:
        answer = control.ask(store.directory, "letters", do=arguments.action, numbers=numbers[:LETTERS_MAX], force=getattr(arguments, "force", False))
        numbers = answer["left"] + numbers[LETTERS_MAX:]
        done += answer["done"]
        refused += answer["refused"]
        waits |= answer["waits"]
    what = "retried" if arguments.action == "retry" else "dropped"
    if arguments.json:
        print(json.dumps({"data": store.directory, what: done, "refused": [{"number": n, "why": why} for n, why in refused], "more": more}))
        return int(bool(refused))
    for number, why in refused:
        print(f"{number:8}  left as it is: {plain(why)}")
    print(f"{len(done):,} dead letters {what}" + (f", {len(refused):,} left as they are" if refused else ""))
    if waits:
        print("the disk refuses at the moment: they go on when it takes them")
    if more:
        print("there are more: call it again, or raise --limit")
    return int(bool(refused))


def _chosen(store, arguments):
    """(numbers, whether there are more): those that are named, or those that wait and were asked for."""
    chosen = bool(arguments.stream or arguments.reason or arguments.all)
    if bool(arguments.numbers) == chosen:
        raise ConfigError("name dead letters by number, or choose them with --stream and --reason, or take --all")
    if arguments.numbers:
        return sorted(set(arguments.numbers)), False
    reader, numbers = store.log("dead"), []
    fates = {} if getattr(arguments, "force", False) else store.fates(reader)
    for record in reader.all():
        try:
            if record.kind == SCHEMA:
                store.learn(record)
            elif record.kind == DEAD and record.position not in fates and _asked_for(store, record, arguments):
                if len(numbers) == arguments.limit:
                    return numbers, True
                numbers.append(record.position)
        except DiskError:
            continue                     # `tidegate buffer verify` says it
    return numbers, False
