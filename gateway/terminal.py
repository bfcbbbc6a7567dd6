"""What the commands of `tidegate rule` print: tables, jobs and their reports, for people or as JSON. Text from elsewhere never steers the terminal."""

import json
import time
from datetime import datetime, timezone

from edge.errors import ConfigError
from gateway.inspection.store import plain
from gateway.manage import remote

POLL_S = 0.1
CELL_MAX = 60


def add_arguments(parser, rule=True):
    """The arguments that all of them have: which gateway, --json, and the rule's name."""
    if rule:
        parser.add_argument("rule", metavar="RULE", help="its name")
    remote.add_gateway(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def add_policy(parser):
    """The arguments of a swap."""
    parser.add_argument("--policy", choices=["auto", "keep", "replay", "fresh"], default="auto",
                        help="what becomes of the rule's state: kept, made anew from the journal, or closed and begun anew (auto: kept where that can be, else replay)")
    parser.add_argument("--horizon", metavar="DURATION", help="how far back a replay begins, such as 2h (1h)")
    parser.add_argument("--wait", action="store_true", help="until the swap is done")


def parameters(given) -> dict:
    """name=value texts as parameters: a value is JSON, or else a text; null takes the parameter back to its default. Raises ConfigError."""
    found = {}
    for text in given or ():
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError(f"{text!r}: a parameter is written name=value")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def table(rows, columns) -> str:
    """Lines for people. columns: (title, fn(row) -> cell); numbers stand to the right."""
    cells = [[cell(fn(row)) for _, fn in columns] for row in rows]
    right = [bool(rows) and all(isinstance(fn(row), (int, float)) or fn(row) is None for row in rows) for _, fn in columns]
    widths = [max(len(title), *(len(line[i]) for line in cells), 0) for i, (title, _) in enumerate(columns)]
    lines = [[title for title, _ in columns], *cells]
    return "\n".join("  ".join(text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, widths, right)).rstrip() for line in lines)


def cell(value) -> str:
    """One value."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (dict, list)):
        value = ", ".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else json.dumps(value, ensure_ascii=False)
    text = plain(value)
    return text if len(text) <= CELL_MAX else text[:CELL_MAX - 1] + "…"


def moment(seconds) -> str:
    """A time since 1970, in UTC."""
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}" if seconds else "-"


def tree(value, indent=0):
    """Print plain data, a line a value."""
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, (dict, list)) and item and not all(isinstance(i, (str, int, float)) for i in (item if isinstance(item, list) else [{}])):
            print(f"{'  ' * indent}{plain(name)}")
            tree(item, indent + 1)
        else:
            shown = plain(item) if isinstance(item, str) and item else cell(item)
            print(f"{'  ' * indent}{plain(name):{max(1, 24 - 2 * indent)}} {shown}")


# --- jobs


def follow(gateway, job, wait):
    """The job when it is finished or, if one does not wait for that, warms up."""
    while job["state"] not in ("done", "failed") and (wait or job["state"] != "warming"):
        time.sleep(POLL_S)
        job = gateway.ask({"do": "job", "id": job["job"]})
    return job


def tell(job, as_json) -> int:
    """Print a job and its admission; the command's exit status: 1 when it was refused."""
    if as_json:
        print(json.dumps(job))
        return 1 if job["state"] == "failed" else 0
    report = job["report"] or {}
    for check in report.get("checks", ()):
        print(f"  ok  {plain(check['check']):10} {plain(check['said'])}  ({check['ms']:,.0f} ms)")
    version, policy = (f" {plain(job[name])}" if job[name] else "" for name in ("version", "policy"))
    for note in job["notes"]:
        print(f"      {plain(note)}")
    if job["state"] == "failed":
        print(f"  no  {plain(job['error'])}")
        for line in report.get("details", ()):
            print(f"      {plain(line)}")
        print(f"{job['what']} of {plain(job['rule'] or 'the module')}{version} is refused; what ran before goes on")
        return 1
    if job["state"] == "done":
        print(f"{plain(job['rule'])}: {job['what']}{version} done" + (f", state:{policy}" if policy else ""))
    else:
        print(f"{plain(job['rule'])}: {job['what']}{version} warms up, {job['progress']:.0%} ; the old one goes on until then. `tidegate rule ls` shows it")
    return 0


def change(arguments, name, **fields) -> int:
    """Ask for a change and print what became of it."""
    with remote.open_gateway(arguments) as gateway:
        job = gateway.ask({"do": name, "rule": arguments.rule, **fields})
        return tell(follow(gateway, job, getattr(arguments, "wait", False)), arguments.json)
