"""`tidegate otlp`: metrics and traces of the gateway that runs on this machine, by OpenTelemetry."""

import os
import signal
import threading

from edge.errors import ConfigError
from gateway.config import reader as config
from gateway.traces import PER_MINUTE_MAX

INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"     # milliseconds, as the SDK has it


def add_arguments(parser):
    parser.add_argument("-c", "--config", default="tidegate.toml", help="the configuration (tidegate.toml)")
    parser.add_argument("--traces", type=int, default=6, metavar="N", help="batches a minute whose way is traced; 0: none (6)")


def run(arguments):
    loaded = config.load(arguments.config)
    if not 0 <= arguments.traces <= PER_MINUTE_MAX:
        raise ConfigError(f"--traces: 0 to {PER_MINUTE_MAX} a minute")
    seconds = _seconds(os.environ.get(INTERVAL, "60000"))
    from gateway.logs import Log

    log = Log(loaded.gateway.log_format)
    try:
        from gateway.otlp import Exporter
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: install it with `pip install tidegate[otlp]`") from None
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    exporter = Exporter(loaded.gateway.data, log, arguments.traces, seconds)
    log("otlp", f"sends every {seconds:g} s")
    while not stop.is_set():
        exporter.turn()
        stop.wait(seconds)
    exporter.close()


def _seconds(text):
    try:
        seconds = int(text) / 1000
    except ValueError:
        seconds = 0
    if seconds <= 0:
        raise ConfigError(f"{INTERVAL}: {text!r} is no number of milliseconds above 0")
    return seconds
