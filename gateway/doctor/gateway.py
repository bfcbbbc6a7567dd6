"""The gateway itself: what it says of itself, and what its directory shows."""

import importlib.metadata
import os
import re
import socket
import struct

from edge.errors import DiskError
from gateway.control import SOCKET
from gateway.doctor.finding import ERROR, GOOD, NOTE, WARNING, Finding
from gateway.inspection.store import plain

FULL_PART = 0.8
WAITING_S = 3600


def pid(directory) -> int | None:
    """The process that answers on a data directory's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.settimeout(2)
            client.connect(os.path.join(directory, SOCKET))
            return struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        except OSError:
            return None


def answers(status, why):
    """status: the running gateway's, or None with the reason."""
    if status is None:
        yield Finding(WARNING, "gateway", f"it does not answer: {why}", "systemctl status tidegate; what it said last stands in its log")
    elif status["blocked"]:
        yield Finding(ERROR, "gateway", f"it takes no events: {status['blocked']}", "while a disk refuses, make room or replace it; a lane with full = \"backpressure\" waits for upstream")
    else:
        if status.get("blocks"):
            yield Finding(WARNING, "gateway", f"it took no events {status['blocks']:,} times since its start, last: {status['last_block']}",
                          "a disk that refuses now and then is near its end, or full: look at disk space and dmesg")
        yield Finding(GOOD, "gateway", f"{status['gateway']} runs since {status['uptime_s']:,.0f} s, {status['memory_mb']} MB")


def books(ledger):
    """The ledger's problems."""
    for problem in ledger["problems"]:
        yield Finding(ERROR, "ledger", f"does not balance: {problem}", "a fault of the gateway: please report it, with `tidegate ledger --json` and a slice of the journal")
    if not ledger["problems"]:
        yield Finding(GOOD, "ledger", "balanced")


def rules(status):
    """Rules that do not work."""
    bad = False
    for name, rule in status["rules"].items():
        state = rule["state"]
        do = {"quarantined": "`tidegate rule logs`, `tidegate dead-letters ls`; push a mended version, or `tidegate rule rollback`",
              "waits for CPU": "make it cheaper (`tidegate rule bench`), or raise gateway.rules_cpu"}.get(state, "`tidegate check` says why")
        if state == "quarantined" or state.startswith("refused"):
            bad = True
            yield Finding(ERROR, "rules", f"{name} is {state}: its events pass it by", do)
        elif state == "waits for CPU":
            bad = True
            yield Finding(WARNING, "rules", f"{name} waits for CPU, {rule.get('lag_ns', 0) / 1e9:.1f} s behind", do)
        elif state == "disabled":
            yield Finding(NOTE, "rules", f"{name} is disabled", "`tidegate rule enable` lets it work again")
    if not bad:
        yield Finding(GOOD, "rules", f"{len(status['rules'])} at work")


def logs(status, quotas):
    """Logs at their quota, records that were damaged. quotas: log -> bytes, of the configuration."""
    held = {"journal": status["journal"], "dead": status["dead_letters"], **{f"outbox/{name}": lane["outbox"] for name, lane in status["lanes"].items()}}
    for name, log in held.items():
        if log["damaged"]:
            yield Finding(WARNING, "logs", f"{name}: {log['damaged']:,} records were damaged when it was opened or read", f"stop the gateway, `tidegate buffer repair {name}`; look at the card")
        part = log["bytes"] / quotas[name] if quotas.get(name) else 0
        if name.startswith("outbox/") and part > FULL_PART:
            yield Finding(WARNING, "logs", f"{name} has used {part:.0%} of its quota", "mend the uplink, or raise lanes.*.quota; at the quota the lane's `full` says what happens")


def links(status):
    """Connections."""
    upstream, broker = status.get("upstream"), status.get("broker")
    if upstream and upstream["connection"] != "connected":
        yield Finding(WARNING, "upstream", f"{upstream['where']} is not connected: {plain(upstream['error'] or upstream['connection'])}", "mend the uplink; events wait in the outboxes meanwhile")
    elif upstream:
        yield Finding(GOOD, "upstream", f"connected to {upstream['where']}")
    for name, lane in status["lanes"].items():
        if lane["refusal"]:
            yield Finding(WARNING, "upstream", f"lane {name} is refused: {plain(lane['refusal'])}", "look at upstream's access list and its limits")
        elif upstream and lane["oldest_s"] and lane["oldest_s"] > WAITING_S:
            yield Finding(WARNING, "upstream", f"lane {name} has events that wait for {lane['oldest_s'] / 3600:.1f} h", "upstream takes fewer than come: rate_max, or the uplink")
    if broker and broker["connection"] != "connected":
        yield Finding(WARNING, "broker", f"the gateway is not connected to it: {plain(broker['error'] or broker['connection'])}", "see that it runs, and [broker]'s settings")


def directory(store):
    """Damage and quarantine that a look shows; `tidegate buffer verify` reads every record."""
    bad = False
    for name in store.names():
        try:
            reader = store.log(name)
        except DiskError as error:
            bad = True
            yield Finding(ERROR, "logs", f"{name}: {error}", "copy the directory away, and read what it says")
            continue
        if reader.damage or any(segment.holes for segment in reader.segments[:-1]):
            bad = True
            yield Finding(WARNING, "logs", f"{name} is damaged in places", f"`tidegate buffer verify {name}` says where; stop the gateway and `tidegate buffer repair {name}`")
        if reader.quarantined:
            yield Finding(NOTE, "logs", f"{name}: {len(reader.quarantined)} damaged files are in quarantine", f"copy {reader.directory}/quarantine away, then remove it")
    if not bad:
        yield Finding(GOOD, "logs", "no damage shows at a look; `tidegate buffer verify` reads every record")


def letters(count):
    """count: dead letters that wait."""
    if count:
        yield Finding(NOTE, "dead letters", f"{count:,} wait", "`tidegate dead-letters ls`; mend the contract or the device, then retry or drop them")


def versions(requires=None, version=importlib.metadata.version):
    """Packages that are pinned, at their version. requires: as in the package's metadata, for tests."""
    bad = False
    try:
        pinned = [m.groups() for text in (importlib.metadata.requires("tidegate") or []) if (m := re.match(r"([\w-]+)==([\w.]+)$", text))] if requires is None else requires
    except importlib.metadata.PackageNotFoundError:
        pinned = []
    for name, wanted in pinned:
        try:
            found = version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
        if found != wanted:
            bad = True
            yield Finding(ERROR, "versions", f"{name} is {found}, this program is built for {wanted}", f"pip install {name}=={wanted}, or install tidegate anew")
    if not bad:
        yield Finding(GOOD, "versions", ", ".join(f"{name} {wanted}" for name, wanted in pinned) or "not installed as a package")
