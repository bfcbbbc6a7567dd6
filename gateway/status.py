"""What the daemon says about itself: status for people, the ledger, metrics for Prometheus. Counters are read where they are kept."""

import os
import time

from edge.ledger import accounts, check
from gateway.wear import wear

RULES_MAX = 200                      # rules that metrics tell of one by one: a label's values are bounded


def status(daemon) -> dict:
    """The running gateway as plain data."""
    pipeline, parts = daemon.pipeline, daemon.parts
    report = {
        "gateway": daemon.config.gateway.name,
        "epoch": pipeline.epoch,
        "uptime_s": round(time.monotonic() - daemon.started, 1),
        "blocked": daemon.blocked,
        "blocks": daemon.blocks,
        "last_block": daemon.last_block,
        "clock": "trusted" if daemon.clock.quality == 0 else "not synchronised",
        "clock_steps": daemon.clock.steps,
        "clock_step_s": round(daemon.clock.last_step_ns / 1e9, 3),
        "memory_mb": round(_rss_bytes() / 1e6, 1),
        "streams": {s.name: {"events": s.arrived, "dead_letters": s.rejected, "next_sequence": s.next_sequence} for s in pipeline.inputs},
        "rules_cpu": pipeline.share.report(pipeline.deferred),
        "isolation": _isolation(parts.workshop),
        "rules": rules(daemon.core),
        "journal": _log(pipeline.journal.log) | {"durability": str(daemon.config.journal.durability)},
        "disk": wear(daemon.core.logs, time.monotonic() - daemon.started, daemon.config.gateway.disk_endurance),
        "dead_letters": _log(pipeline.dead.log),
        "lanes": {outbox.name: {"outbox": _log(outbox.log), **lane.status(time.time_ns())} for outbox, lane in daemon.core.lanes},
    }
    if parts.listener is not None:
        report["listener"] = {"port": parts.listener.port, "connected": parts.listener.connected, "refused": parts.listener.refused,
                              "malformed": parts.listener.malformed, "denied": parts.listener.denied,
                              "floods": parts.listener.floods.begun if parts.listener.floods is not None else 0}
    if parts.broker is not None:
        report["broker"] = {"connection": parts.broker.status, "error": parts.broker.last_error, "published": parts.broker.published,
                            "malformed": parts.broker.malformed, "skipped": parts.broker.skipped}
    if daemon.metrics is not None:
        report["metrics"] = {"port": daemon.metrics.port}
    if parts.upstream is not None:
        report["upstream"] = {name: value for name, value in parts.upstream.status().items() if name != "lanes"}
    return report


def rules(core) -> dict:
    """What each rule does and costs, by name."""
    return {stage.name: _stage(stage) for stage in core.pipeline.stages} | {name: {"state": f"refused: {why}"} for name, why in core.refused.items()}


def _stage(stage):
    state = "disabled" if not stage.enabled else "quarantined" if stage.rule.quarantined else "waits for CPU" if stage.backlog else "active"
    return {"state": state, "module": stage.rule.digest[:12], **stage.cost}


def _isolation(workshop):
    """Where rules run."""
    if workshop is None:
        return {"mode": "none"}
    size = workshop.memory_bytes
    return {"mode": "process", "landlock": workshop.landlock, "restarts": workshop.restarts, "last_restart": workshop.last,
            "memory_mb": None if size is None else round(size / 1e6, 1)}


def _log(log):
    return {"records": log.head - log.tail, "bytes": log.size_bytes, "damaged": log.recovery.damaged}


def ledger(daemon) -> dict:
    """The accounts, and whether all of them balance."""
    rows = accounts(daemon.pipeline, {outbox.name: lane for outbox, lane in daemon.core.lanes})
    return {"balanced": not check(rows), "accounts": [row.to_dict() for row in rows], "problems": check(rows)}


def metrics_text(daemon) -> str:
    """Prometheus text exposition format 0.0.4."""
    lines = []
    for name, kind, meaning, samples in measures(daemon):
        lines += [f"# HELP tidegate_{name} {meaning}", f"# TYPE tidegate_{name} {kind}"]
        for labels, value in samples:
            inside = ",".join(f'{k}="{_escaped(v)}"' for k, v in labels.items())
            lines.append(f"tidegate_{name}{{{inside}}} {value}" if inside else f"tidegate_{name} {value}")
    return "\n".join(lines) + "\n"


def measures(daemon):
    """What is measured: (name, "counter" or "gauge", meaning, [(labels, value)])."""
    now, pipeline = status(daemon), daemon.pipeline
    yield "up_seconds", "gauge", "since the start", [({}, now["uptime_s"])]
    yield "memory_bytes", "gauge", "resident", [({}, _rss_bytes())]
    if "restarts" in now["isolation"]:
        yield "worker_restarts_total", "counter", "times that the process of the rules was started again", [({}, now["isolation"]["restarts"])]
        mb = now["isolation"]["memory_mb"]
        yield "worker_memory_bytes", "gauge", "of the process of the rules, resident, its own", [] if mb is None else [({}, int(mb * 1e6))]
    yield "blocked", "gauge", "1 while nothing is taken in", [({}, int(bool(now["blocked"])))]
    yield "blocks_total", "counter", "how often that was so", [({}, now["blocks"])]
    yield "clock_synchronised", "gauge", "1 while the receive clock is trusted", [({}, int(now["clock"] == "trusted"))]
    yield "clock_steps_total", "counter", "how often the wall clock was set", [({}, now["clock_steps"])]
    yield "events_total", "counter", "events that arrived", [({"stream": n}, s["events"]) for n, s in now["streams"].items()]
    yield "dead_letters_total", "counter", "events that broke the contract", [({"stream": n}, s["dead_letters"]) for n, s in now["streams"].items()]
    yield "unrouted_total", "counter", "events on topics that no stream takes", [({}, pipeline.unrouted)]
    yield from _account_measures(ledger(daemon)["accounts"], set(list(now["rules"])[:RULES_MAX]))
    yield from _rule_measures(now["rules"])
    yield from _lane_measures(daemon, now["lanes"])
    yield from _disk_measures(daemon, now)
    if "upstream" in now:
        yield "upstream_connected", "gauge", "1 while connected upstream", [({}, int(now["upstream"]["connection"] == "connected"))]
    if "broker" in now:
        yield "broker_connected", "gauge", "1 while connected to the broker", [({}, int(now["broker"]["connection"] == "connected"))]
    if "listener" in now:
        yield "devices_connected", "gauge", "devices connected to the listener", [({}, now["listener"]["connected"])]
        for name, meaning in (("refused", "connections refused"), ("malformed", "connections closed for broken packets"), ("denied", "events on topics without permission"),
                              ("floods", "times that a device began to flood")):
            yield f"listener_{name}_total", "counter", meaning, [({}, now["listener"][name])]


def _account_measures(books, told):
    yield "rule_rows_total", "counter", "rows given to a rule, by what became of them", [
        ({"rule": row["name"], "fate": fate}, rows) for row in books if row["kind"] == "rule" and row["name"] in told for fate, rows in row.items()
        if fate not in ("kind", "name", "in", "difference")]
    yield "ledger_difference", "gauge", "rows unaccounted for; anything but 0 is a fault", [
        ({"kind": row["kind"], "name": row["name"]}, row["difference"]) for row in books if row["kind"] != "rule" or row["name"] in told or row["difference"]]


def _lane_measures(daemon, lanes):
    for name in ("rows_sent", "rows_acked", "bytes_sent", "messages_sent"):
        yield f"lane_{name}_total", "counter", f"{name.replace('_', ' ')} upstream", [({"lane": n}, lane[name]) for n, lane in lanes.items()]
    yield "lane_rows_waiting", "gauge", "rows not acknowledged upstream", [({"lane": n}, lane["rows_waiting"]) for n, lane in lanes.items()]
    yield "lane_oldest_seconds", "gauge", "age of the oldest of them", [({"lane": n}, lane["oldest_s"]) for n, lane in lanes.items()]
    yield "lane_refused", "gauge", "1 while upstream refuses the lane's messages", [({"lane": n}, int(bool(lane["refusal"]))) for n, lane in lanes.items()]
    yield "lane_rows_dead_total", "counter", "rows that could not be sent", [({"lane": n}, lane["rows_dead"]) for n, lane in lanes.items()]
    yield "lane_rows_evicted_total", "counter", "rows that went before they were sent, for want of room", [
        ({"lane": outbox.name}, sum(outbox.evicted.values())) for outbox, _ in daemon.core.lanes]


def _disk_measures(daemon, now):
    logs = {"journal": now["journal"], "dead_letters": now["dead_letters"], **{f"outbox/{n}": lane["outbox"] for n, lane in now["lanes"].items()}}
    config = daemon.config
    quotas = {"journal": config.journal.quota, "dead_letters": config.journal.dead_letters, **{f"outbox/{n}": config.lanes[n].quota for n in now["lanes"]}}
    yield "log_bytes", "gauge", "on disk", [({"log": n}, log["bytes"]) for n, log in logs.items()]
    yield "log_quota_bytes", "gauge", "what it may use", [({"log": n}, int(quota)) for n, quota in quotas.items()]
    yield "log_damaged_total", "counter", "records that were found damaged", [({"log": n}, log["damaged"]) for n, log in logs.items()]
    written = now["disk"]
    yield "disk_written_bytes_total", "counter", "written to logs, in whole blocks", [
        ({"log": "dead_letters" if n == "dead" else n}, size) for n, size in written["written_bytes"].items()]
    yield "disk_syncs_total", "counter", "waits for the disk", [({}, written["syncs"])]
    yield "disk_endurance_bytes", "gauge", "what the card takes in its life, by gateway.disk_endurance", [({}, written["endurance_bytes"])]


def _rule_measures(rules):
    running = [(name, rule) for name, rule in rules.items() if "calls" in rule]
    shown = running[:RULES_MAX]

    def samples(value):
        return [({"rule": name}, value(rule)) for name, rule in shown]

    yield "rules_refused", "gauge", "rules that cannot run", [({}, sum(rule["state"].startswith("refused") for rule in rules.values()))]
    yield "rules_not_shown", "gauge", f"rules beyond the first {RULES_MAX}, which are not in rule_ metrics", [({}, len(running) - len(shown))]
    yield "rule_calls_total", "counter", "calls of the module", samples(lambda r: r["calls"])
    yield "rule_traps_total", "counter", "calls that trapped", samples(lambda r: r["traps"])
    yield "rule_quarantined", "gauge", "1 while in quarantine", samples(lambda r: int(r["state"] == "quarantined"))
    yield "rule_cpu_seconds_total", "counter", "time in the module", samples(lambda r: r["cpu_ns"] / 1e9)
    yield "rule_cpu_ns_per_event", "gauge", "time in the module an event, by batch, of the last calls", [
        ({"rule": name, "quantile": quantile}, rule["cpu_ns_per_event"][p]) for name, rule in shown for quantile, p in (("0.5", "p50"), ("0.99", "p99"))]
    yield "rule_lag_rows", "gauge", "rows that wait for CPU", samples(lambda r: r["lag_rows"])
    yield "rule_lag_seconds", "gauge", "age of the oldest of them", samples(lambda r: r["lag_ns"] / 1e9)
    yield "rule_memory_bytes", "gauge", "linear memory", samples(lambda r: r["memory_bytes"])


def _escaped(label):
    return str(label).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _rss_bytes():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
