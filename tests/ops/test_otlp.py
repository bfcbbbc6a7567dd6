"""`tidegate otlp` beside a running gateway, and a collector that decodes what comes: metrics, and the way of a batch from the device to upstream's acknowledgement."""

import gzip
import http.server
import json
import os
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra `otlp` is not installed")

from count_world import HEAD, LANE, LISTENER, STREAM, UPSTREAM, CountSite, Device
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = {"/v1/metrics": ExportMetricsServiceRequest, "/v1/traces": ExportTraceServiceRequest}
RULE = '[rules.hot]\ninput = "env"\nmodule = "threshold"\nparams = { field = "temp", op = ">", value = 25.0 }\n'
DEADLINE_S = 60


class Collector:
    """OTLP/HTTP on a free port. `refuse`: paths that are answered 400, once each."""

    def __init__(self):
        self.metrics, self.spans, self.headers, self.refuse = {}, [], {}, set()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                status = 400 if self.path in collector.refuse else 200
                collector.refuse.discard(self.path)
                if status == 200:
                    collector.take(self.path, KINDS[self.path].FromString(body), dict(self.headers))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, path, request, headers):
        self.headers[path] = headers
        if path == "/v1/metrics":
            for one in request.resource_metrics:
                self.resource = plain(one.resource.attributes)
                self.metrics = {metric.name: metric for scope in one.scope_metrics for metric in scope.metrics}
        else:
            self.spans += [span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans]

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def plain(attributes):
    return {one.key: [v.string_value for v in one.value.array_value.values] if one.value.HasField("array_value") else getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@pytest.fixture
def collector():
    one = Collector()
    yield one
    one.close()


@pytest.fixture
def world(tmp_path):
    one = CountSite(tmp_path, HEAD + LISTENER + UPSTREAM + STREAM + RULE + LANE.replace('["env"]', '["env", "hot"]'))
    yield one
    one.close()


def until(ready, world):
    end = time.monotonic() + DEADLINE_S
    while not (found := ready()):
        assert time.monotonic() < end, world.errors()
        time.sleep(0.05)
    return found


def test_metrics_and_the_way_of_batches_reach_a_collector_that_may_say_no_at_first(world, collector):
    world.start_receiver()
    world.start_gateway()
    collector.refuse = set(KINDS)
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}", "OTEL_METRIC_EXPORT_INTERVAL": "300",
                   "OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
    with (world.folder / "otlp.err").open("wb") as err:
        world.processes["otlp"] = subprocess.Popen([sys.executable, "-m", "gateway.cli", "otlp", "--traces", "600"], cwd=world.folder, stderr=err, env=environment)
    device = Device(world.port)
    try:
        until(lambda: device.publish(5) or any(span.name == "lane main" and plain(span.attributes)["tidegate.acknowledged"] for span in collector.spans), world)
        device.settle(DEADLINE_S)
        until(lambda: value(collector, "tidegate_events_total") == device.published, world)
    finally:
        device.stop()
    assert world.stop("otlp") == 0
    assert collector.headers["/v1/traces"]["x-key"] == "secret" and not collector.refuse

    assert collector.resource["service.name"] == "tidegate" and collector.resource["service.instance.id"] == "site"
    events = collector.metrics["tidegate_events_total"]
    assert events.sum.is_monotonic and plain(events.sum.data_points[0].attributes) == {"stream": "env"} and 0 < events.sum.data_points[0].start_time_unix_nano < time.time_ns()
    assert collector.metrics["tidegate_memory_bytes"].gauge.data_points[0].as_int > 10**6 and collector.metrics["tidegate_memory_bytes"].unit == "By"

    whole = {span.span_id: span for span in collector.spans}
    assert len(whole) == len(collector.spans)
    done = next(span for span in collector.spans if span.name == "lane main" and plain(span.attributes)["tidegate.acknowledged"])
    root = whole[done.parent_span_id]
    parts = {span.name: span for span in collector.spans if span.parent_span_id == root.span_id}
    assert root.name == "batch" and not root.parent_span_id and plain(root.attributes)["tidegate.events"] > 0 and "env" in plain(root.attributes)["tidegate.streams"][0]
    steps = [parts[name] for name in ("decode and journal", "sync", "acknowledge", "rules", "lane main")]
    assert all(span.trace_id == root.trace_id for span in steps)
    assert steps[0].start_time_unix_nano == root.start_time_unix_nano and done.end_time_unix_nano == root.end_time_unix_nano
    for one, after in zip(steps, steps[1:]):
        assert one.start_time_unix_nano <= one.end_time_unix_nano == after.start_time_unix_nano
    (sent,) = done.events
    assert sent.name == "sent" and done.start_time_unix_nano <= sent.time_unix_nano <= done.end_time_unix_nano
    assert abs(time.time_ns() - done.end_time_unix_nano) < 600 * 10**9


def value(collector, name):
    metric = collector.metrics.get(name)
    return metric and sum(point.as_int for point in metric.sum.data_points)


def test_a_trace_that_is_sent_again_has_the_same_ids():
    from opentelemetry.sdk.resources import Resource

    from gateway.otlp import spans

    trace = {"arrived": 1, "journaled": 2, "synced": 3, "acknowledged": 4, "ruled": 5, "streams": [["env", 7, 5]], "lanes": [{"lane": "a", "rows": 1, "sent": 6, "acknowledged": None}]}
    first, again, other = (spans([one], epoch, Resource({})) for one, epoch in ((trace, 1), (trace, 1), (trace, 2)))
    ids = [[(span.context.trace_id, span.context.span_id) for span in some] for some in (first, again, other)]
    assert ids[0] == ids[1] and not set(ids[0]) & set(ids[2]) and len(set(ids[0])) == 6
    assert json.loads(first[-1].to_json())["name"] == "batch"


@pytest.mark.parametrize("variable, arguments, says", [("x", (), "OTEL_METRIC_EXPORT_INTERVAL"), ("60000", ("--traces", "601"), "--traces")])
def test_a_wrong_setting_is_said_in_a_line(tmp_path, monkeypatch, capsys, variable, arguments, says):
    from gateway.cli import main

    (tmp_path / "t.toml").write_text(HEAD + "[listener]\n" + STREAM)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", variable)
    assert main(["otlp", "-c", str(tmp_path / "t.toml"), *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said and len(said.splitlines()) == 1
