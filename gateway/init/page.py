"""The configuration that `tidegate init` writes."""

import time

from gateway.config.units import Size
from gateway.discover.page import comment, quoted, table

EXAMPLE = '''# An example: `tidegate discover` proposes streams for what really comes.
[streams.env]                        # what devices send, and what must be in it
topics = ["sensors/+/env"]
key = "device"
[streams.env.fields]
device = { type = "str", from = "topic[1]" }
temp = { type = "f64", unit = "°C" }
'''
RULES = '''# [rules.hot]                        # what is done with it: `tidegate rule push` brings others while the gateway runs
# input = "STREAM"
# module = "threshold"
# params = { field = "temp", op = ">", value = 30.0 }
'''
NO_UPSTREAM = '''# [upstream]                         # where it goes
# host = "broker.example"
# port = 8883
# tls = {}
# [lanes.telemetry]                  # what goes there, and how long it may wait for company
# streams = ["STREAM"]
'''
SAYS = {"broker": "devices publish there; its PUBACK to them does not mean that the gateway has the event: docs/brokers.md",
        "listener": "devices connect here by MQTT 3.1.1 or 5; the PUBACK means: on disk"}
PERMIT = ["# Who may publish where: %u is the user name, or the name in the certificate; %c the client id. What no line allows is denied.",
          "# `user NAME` and `topic write FILTER` below it are for one device. docs/security.md"]


def configuration(answers, proposed, sizes, names) -> str:
    """The text. proposed: gateway.discover.session.Proposed with streams in it, or None; sizes: logs -> bytes or {}; names: of the streams."""
    head = [comment(f"Tidegate's configuration, written by `tidegate init` on {time.strftime('%Y-%m-%d')}. After a change: tidegate check, then restart the gateway."),
            comment("All keys: docs/configuration.md (installed: /usr/share/doc/tidegate); `tidegate check --schema` is for editors.")]
    parts = ["\n".join(head) + "\n", table("gateway", {"name": answers.name, "data": answers.data}), comment(SAYS[answers.kind]) + "\n" + table(answers.kind, answers.table)]
    if sizes:
        parts.append(comment("of the disk as it was then") + "\n" + table("journal", {"quota": str(Size(sizes["journal"])), "dead_letters": str(Size(sizes["dead_letters"]))}))
    if proposed:
        parts += [comment(f"Proposed by `tidegate discover`, {proposed.said}.") + "\n" + comment("Look it over: a minute does not show what comes once a day."), proposed.streams]
    else:
        parts.append(EXAMPLE)
    parts.append(RULES.replace("STREAM", names[0]))
    if answers.upstream is None:
        parts.append(NO_UPSTREAM.replace("STREAM", names[0]))
    else:
        parts.append(comment("where results go") + "\n" + table("upstream", answers.upstream))
        lane = {"streams": names, "encoding": "batch"} | ({"quota": str(Size(sizes["outbox"]))} if sizes else {})
        parts.append(comment("all streams, many events a message: docs/cloud.md says how to read it; a lane for alerts would have age = \"0s\"") + "\n" + table("lanes.telemetry", lane))
    if answers.data.startswith("/var/lib/"):
        parts.append(comment("`tidegate api`, tidegate-api.service: who is let in stands where the gateway's user may write") + "\n[api]\naccess = " + quoted(f"{answers.data}/api.access") + "\n")
    return "\n".join(parts)


def permits(filters) -> str:
    """The acl_file: each device below its own name."""
    return "\n".join([*PERMIT, *(f"pattern write {text}" for text in dict.fromkeys(filters))]) + "\n"
