"""`tidegate ledger [--check]`: the balance by stream, rule and lane, of the running gateway."""

import json

from gateway import config, control


def add_arguments(parser):
    parser.add_argument("-c", "--config", default="tidegate.toml", help="the configuration (tidegate.toml)")
    parser.add_argument("--check", action="store_true", help="exit 1 if an account does not balance")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(arguments):
    ledger = control.ask(config.load(arguments.config).gateway.data, "ledger")
    if arguments.json:
        print(json.dumps(ledger))
    else:
        print(table(ledger["accounts"]))
    return 1 if arguments.check and not ledger["balanced"] else 0


def table(accounts) -> str:
    """The accounts as lines for people."""
    lines = []
    for account in accounts:
        parts = ", ".join(f"{name} {count:,}" for name, count in account.items() if name not in ("kind", "name", "in", "difference"))
        verdict = "balanced" if account["difference"] == 0 else f"OFF BY {account['difference']:,}"
        lines.append(f"{account['kind']:7} {account['name']:24} {account['in']:>12,} in = {parts or 0}  [{verdict}]")
    return "\n".join(lines)
