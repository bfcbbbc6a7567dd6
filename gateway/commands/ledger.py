"""`tidegate ledger [--check]`: the balance by stream, rule and lane, of the running gateway; and by interval, from what it has journaled of it."""

import json

from gateway import control
from gateway.config import reader as config


def add_arguments(parser):
    parser.add_argument("-c", "--config", default="tidegate.toml", help="the configuration (tidegate.toml)")
    parser.add_argument("--check", action="store_true", help="exit 1 if an account does not balance, now or in an interval that the journal still has; name it")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(arguments):
    ledger = control.ask(config.load(arguments.config).gateway.data, "ledger")
    if arguments.check:
        arguments.data = None
        ledger["intervals"] = intervals(arguments)
    if arguments.json:
        print(json.dumps(ledger))
    else:
        print(table(ledger["accounts"]))
        for problem in ledger.get("intervals", ()):
            print(sentence(problem))
    return 1 if arguments.check and (ledger["intervals"] or not ledger["balanced"]) else 0


def intervals(place) -> list[dict]:
    """Where the books in a data directory's journal came apart. place: what gateway.inspection.store.add_place gives. Raises ConfigError, DiskError."""
    from edge.balance import Balance
    from edge.books import STREAM
    from edge.storage.records import BATCH, SCHEMA
    from gateway.inspection.store import Store

    store, balance = Store(place), Balance()
    for record in store.log("journal").all():
        if record.kind == SCHEMA:
            store.learn(record)
        elif record.kind == BATCH and store.stream(record.stream) == STREAM:
            balance.take("", 0, list(enumerate(store.batch(record.stream, record.payload).rows(), record.first)))
    return balance.problems()


def sentence(problem) -> str:
    """A problem of edge.balance for people."""
    from edge.times import timestamp

    what = f"{problem['lacking']:,} rows have not come" if "lacking" in problem else f"{problem['difference']:+,} events that no fate accounts for"
    return f"{problem['kind']} {problem['name']}, {timestamp(problem['start'])} to {timestamp(problem['stop'])}: {what}"


def table(accounts) -> str:
    """The accounts as lines for people."""
    lines = []
    for account in accounts:
        parts = ", ".join(f"{name} {count:,}" for name, count in account.items() if name not in ("kind", "name", "in", "difference"))
        verdict = "balanced" if account["difference"] == 0 else f"OFF BY {account['difference']:,}"
        lines.append(f"{account['kind']:7} {account['name']:24} {account['in']:>12,} in = {parts or 0}  [{verdict}]")
    return "\n".join(lines)
