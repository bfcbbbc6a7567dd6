"""Metrics and traces of the running gateway by OpenTelemetry, OTLP over HTTP: of the process `tidegate otlp` alone, never imported by the daemon.

    daemon --local socket: measures, traces--> Exporter --OTLP/HTTP, protobuf--> a collector

Nothing is queued here: metrics are those of the moment, and traces wait in the daemon's ring (gateway/traces.py) until a collector has taken them. One that
took them and did not say so gets them again under the same ids, which come from what a trace is of. Where to, with what headers and certificates
say the variables OTEL_EXPORTER_OTLP_* (opentelemetry.io, "OTLP Exporter Configuration"), which the SDK reads.
"""

import hashlib
import logging
import time
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Metric, MetricExportResult, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from edge.errors import TidegateError
from gateway import control
from gateway.traces import STEPS

UNITS = {"_bytes": "By", "_bytes_total": "By", "_seconds": "s", "_seconds_total": "s", "_ns_per_event": "ns"}
SPANS = {"journaled": "decode and journal", "synced": "sync", "acknowledged": "acknowledge", "ruled": "rules"}      # what ends with each step


class Exporter:
    """turn() asks the daemon on a data directory once, and sends. per_minute: traces that begin a minute; seconds: from one turn to the next."""

    def __init__(self, data, log, per_minute, seconds):
        self._data, self._log, self._per_minute, self._seconds = data, log, per_minute, seconds
        self._metrics, self._spans = OTLPMetricExporter(), OTLPSpanExporter()
        self._scope = InstrumentationScope("tidegate", version("tidegate"))
        self._after, self._well = 0, None
        library = logging.getLogger("opentelemetry")
        library.addHandler(_Told(log))
        library.propagate = False

    def turn(self) -> bool:
        """True when all of it is where it belongs."""
        try:
            said = control.ask(self._data, "measures")
            asked = {"after": self._after, "per_minute": self._per_minute, "seconds": min(600, int(3 * self._seconds) + 1)}
            traces = control.ask(self._data, "traces", **asked) if self._per_minute else {"traces": []}
        except TidegateError as error:
            self._log.warning("otlp", str(error))
            return False
        resource = Resource.create({"service.name": "tidegate", "service.instance.id": said["gateway"], "service.version": self._scope.version})
        well = self._metrics.export(metrics(said, time.time_ns(), resource, self._scope)) is MetricExportResult.SUCCESS
        if traces["traces"]:
            sent = self._spans.export(spans(traces["traces"], said["epoch"], resource)) is SpanExportResult.SUCCESS
            well = well and sent
            self._after = traces["next"] if sent else self._after
        if traces.get("forgotten"):
            self._log.warning("otlp", f"traces were forgotten before a collector took them: {traces['forgotten']}")
        if well and not self._well:
            self._log("otlp", "the collector takes what is sent")
        self._well = well
        return well

    def close(self):
        self._metrics.shutdown()
        self._spans.shutdown()


def metrics(said, now_ns, resource, scope) -> MetricsData:
    """What the daemon measures, under the names that /metrics gives."""
    began_ns, found = now_ns - int(said["up_s"] * 1e9), []
    for name, kind, meaning, samples in said["measures"]:
        points = [NumberDataPoint(labels, began_ns if kind == "counter" else 0, now_ns, value) for labels, value in samples]
        data = Sum(points, AggregationTemporality.CUMULATIVE, True) if kind == "counter" else Gauge(points)
        unit = next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "1")
        if points:
            found.append(Metric(f"tidegate_{name}", meaning, unit, data))
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, found, "")], "")])


def spans(traces, epoch, resource) -> tuple:
    """A span for each trace, with one for each step and lane below it."""
    ids, memory = _Ids(), InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, id_generator=ids, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("tidegate", version("tidegate"))

    def span(name, begin, end, parent=None, kind=trace.SpanKind.INTERNAL, events=(), **attributes):
        made = tracer.start_span(name, parent, kind, {key.replace("_", "."): value for key, value in attributes.items()}, start_time=begin)
        for what, at in events:
            made.add_event(what, timestamp=at)
        return made, end

    for one in traces:
        ids.begin(f"{epoch} {one['streams']}")
        ends = [one["ruled"], *(lane["acknowledged"] or lane["sent"] or one["ruled"] for lane in one["lanes"])]
        streams = [f"{name} {first}+{rows}" for name, first, rows in one["streams"]]
        whole, end = span("batch", one["arrived"], max(ends), kind=trace.SpanKind.CONSUMER, tidegate_streams=streams, tidegate_events=sum(rows for *_, rows in one["streams"]))
        below, at, parts = trace.set_span_in_context(whole), one["arrived"], []
        for step in STEPS:
            parts.append(span(SPANS[step], at, one[step], below))
            at = one[step]
        for lane in one["lanes"]:
            last = lane["acknowledged"] or lane["sent"] or at
            parts.append(span(f"lane {lane['lane']}", at, last, below, trace.SpanKind.PRODUCER, [("sent", lane["sent"])] if lane["sent"] else (),
                              tidegate_rows=lane["rows"], tidegate_acknowledged=lane["acknowledged"] is not None))
        for part, when in (*parts, (whole, end)):
            part.end(when)
    return memory.get_finished_spans()


class _Ids(IdGenerator):
    """Of what a trace is of: the same again when it is sent again."""

    def begin(self, what):
        self._what, self._number = what, 0

    def generate_trace_id(self):
        return int.from_bytes(hashlib.sha256(self._what.encode()).digest()[:16]) or 1

    def generate_span_id(self):
        self._number += 1
        return int.from_bytes(hashlib.sha256(f"{self._what} {self._number}".encode()).digest()[:8]) or 1


class _Told(logging.Handler):
    """What the SDK has to say goes to the gateway's log, in a line."""

    def __init__(self, log):
        super().__init__(logging.WARNING)
        self._say = log

    def emit(self, record):
        self._say.warning("otlp", " ".join(record.getMessage().split())[:300])
