"""Alerting rules and dashboard: they ask for what a running gateway says, and each alert has its section in docs/operations.md."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from site_world import free_port

from gateway.config import reader as config
from gateway.daemon import Daemon
from gateway.status import metrics_text

DOCS = Path(__file__).parents[2] / "docs"
RULES = DOCS / "monitoring/tidegate.rules.yml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((DOCS / "monitoring/grafana.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PROMETHEUS = {"up": {"job", "instance"}}         # what it makes itself
TOML = """
[gateway]
data = "data"
[listener]
port = 0
[broker]
host = "127.0.0.1"
port = %d
[streams.env]
topics = ["sensors/#"]
fields = { temp = "f64" }
[rules.hot]
input = "env"
module = "threshold"
params = { field = "temp", op = ">", value = 30.0 }
[upstream]
host = "127.0.0.1"
port = %d
[lanes.main]
streams = ["hot"]
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """name of a metric -> its labels, of a gateway that runs with all of its doors."""
    folder = tmp_path_factory.mktemp("monitoring")
    (folder / "t.toml").write_text(TOML % (free_port(), free_port()))
    daemon = Daemon(config.load(folder / "t.toml"))
    try:
        daemon.start()
        daemon.intake.add(b"sensors/a", b'{"temp": 40.0}')
        daemon.turn(0)
        text, confined = metrics_text(daemon), daemon.parts.workshop is not None
    finally:
        daemon.close()
    found = {}
    if not confined:                     # where the kernel allows no process of the rules
        found = {name: {"job", "instance"} for name in ("tidegate_worker_restarts_total", "tidegate_worker_memory_bytes")}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels, {"job", "instance"})
    return found


def selectors(node):
    """Every vector selector of an expression."""
    if isinstance(node, promql.VectorSelector):
        yield node
    elif node is not None:
        for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
            yield from selectors(getattr(node, name, None))
        for argument in getattr(node, "args", None) or ():
            yield from selectors(argument)


def check(expression, said):
    found = list(selectors(promql.parse(expression)))
    assert found, expression
    for selector in found:
        known = (PROMETHEUS | said).get(selector.name)
        assert known is not None, f"{selector.name} is not among what a gateway says: {expression}"
        assert {matcher.name for matcher in selector.matchers.matchers} <= known, expression


def test_the_walk_through_an_expression_finds_all(said):
    names = [s.name for s in selectors(promql.parse("sum by (a) (rate(x{b='c'}[5m] offset 1h)) / on (a) (-y) > 1 and label_replace(z, 'a', '', '', '') unless max_over_time(q[1h:1m]) > 0"))]
    assert names == ["x", "y", "z", "q"]
    with pytest.raises(AssertionError, match="tidegate_nothing"):
        check("rate(tidegate_nothing[5m])", said)
    with pytest.raises(AssertionError):
        check('tidegate_events_total{lane="x"}', said)


def test_alerts_ask_for_what_a_gateway_says(said):
    for alert in ALERTS:
        check(alert["expr"], said)
        assert set(re.findall(r"\$labels\.(\w+)", str(alert["annotations"]))) <= set().union(*said.values()), alert["alert"]
        assert alert["labels"]["severity"] in ("critical", "warning") and set(alert) <= {"alert", "expr", "for", "labels", "annotations"}
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names) > 20


def test_each_alert_has_its_section():
    page = (DOCS / "operations.md").read_text()
    for alert in ALERTS:
        name = alert["alert"]
        assert alert["annotations"]["runbook"] == f"operations.md#{name.lower()}"
        section = re.search(rf"^### {name}\n(.+?)(?=^#)", page, re.M | re.S)
        assert section and len(section[1].split()) > 10, f"docs/operations.md says nothing of {name}"
    assert set(re.findall(r"^### (Tidegate\w+)$", page, re.M)) == {alert["alert"] for alert in ALERTS}


def test_the_dashboard_asks_for_what_a_gateway_says(said):
    """$__rate_interval is Grafana's, a duration."""
    for panel in PANELS:
        assert panel["targets"] and panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            check(target["expr"].replace("$__rate_interval", "1m"), said)
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= set().union(*said.values())
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            assert re.fullmatch(r"label_values\((\w+), instance\)", variable["query"])[1] in said


def test_the_dashboard_is_in_the_form_that_it_states():
    """Schema version 39: what Grafana 11 needs to show it. It was checked against Grafana's own JSON Schema when it was made."""
    assert DASHBOARD["schemaVersion"] == 39 and "Schema version 39" in DASHBOARD["description"] and DASHBOARD["uid"] and DASHBOARD["title"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) and {panel["type"] for panel in DASHBOARD["panels"]} == {"row", "stat", "timeseries"}
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or (len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) and panel["fieldConfig"]["defaults"]["unit"])


HEALTHY = {"up": '{job="tidegate"} 1+0x120', "tidegate_up_seconds": " 0+60x120", "tidegate_upstream_connected": " 1+0x120", "tidegate_log_quota_bytes": '{log="outbox/a"} 100+0x120',
           "tidegate_log_bytes": '{log="outbox/a"} 10+0x120', "tidegate_disk_endurance_bytes": " 1e13+0x120", "tidegate_disk_written_bytes_total": '{log="journal"} 0+60000x120',
           "tidegate_events_total": '{stream="env"} 0+60x120', "tidegate_clock_synchronised": " 1+0x120", "tidegate_broker_connected": " 1+0x120",
           "tidegate_lane_oldest_seconds": '{lane="a"} 1+0x120', "tidegate_memory_bytes": " 4e7+0x120"}
SICK = {"TidegateDown": ["up", '{job="tidegate"} 0+0x120'], "TidegateRestarts": ["tidegate_up_seconds", " " + " ".join("0 60 120 180".split() * 30)],
        "TidegateNoEvents": ["tidegate_events_total", '{stream="env"} 60+0x120'], "TidegateUpstreamAway": ["tidegate_upstream_connected", " 0+0x120"],
        "TidegateBrokerAway": ["tidegate_broker_connected", " 0+0x120"], "TidegateLaneFallsBehind": ["tidegate_lane_oldest_seconds", '{lane="a"} 7200+0x120'],
        "TidegateOutboxFillsUp": ["tidegate_log_bytes", '{log="outbox/a"} 90+0x120'], "TidegateClock": ["tidegate_clock_synchronised", " 0+0x120"],
        "TidegateCardWearsOut": ["tidegate_disk_written_bytes_total", '{log="journal"} 0+60000000x120'], "TidegateMemory": ["tidegate_memory_bytes", " 3e8+0x120"],
        "TidegateLedger": ["tidegate_ledger_difference", '{kind="rule",name="hot"} -3+0x120'], "TidegateRuleWaitsForCpu": ["tidegate_rule_lag_seconds", '{rule="hot"} 90+0x120']}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt install prometheus")
def test_prometheus_takes_the_rules_and_each_alert_comes_for_its_trouble_and_no_other(tmp_path):
    def series(name, values):
        return {"series": f"{name}{values.split(' ')[0]}", "values": values.split(" ", 1)[1]}

    tests = [{"interval": "1m", "input_series": [series(n, v) for n, v in HEALTHY.items()],
              "alert_rule_test": [{"eval_time": "2h", "alertname": alert["alert"], "exp_alerts": []} for alert in ALERTS]}]
    for alert in ALERTS:
        (name,) = dict.fromkeys(s.name for s in selectors(promql.parse(alert["expr"].partition(" and on")[0].partition(" / ")[0]))) if alert["alert"] not in SICK else (SICK[alert["alert"]][0],)
        given = HEALTHY | {name: SICK.get(alert["alert"], [name, " 0+0x100 1+1x20" if "total" in name else " 1+0x120"])[1]}
        tests.append({"interval": "1m", "input_series": [series(n, v) for n, v in given.items()],
                      "promql_expr_test": [{"expr": f'count(ALERTS{{alertstate="firing",alertname!="{alert["alert"]}"}}) or vector(0)', "eval_time": "2h", "exp_samples": [{"value": 0}]},
                                           {"expr": f'count(ALERTS{{alertstate="firing",alertname="{alert["alert"]}"}})', "eval_time": "2h", "exp_samples": [{"value": 1}]}]})
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "5m", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
