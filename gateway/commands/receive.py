"""`tidegate receive`: the upstream end. Takes gateways' connections, writes each row once as a JSON line, says what is missing."""

import json
import os
import signal
import ssl
import sys

from edge.errors import ConfigError
from gateway.reactor import Reactor
from gateway.receive import Receive

SUMMARY_S = 1.0


def add_arguments(parser):
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1; 0.0.0.0 for all)")
    parser.add_argument("--port", type=int, default=1883, help="port to listen on (1883; 0 takes a free one)")
    parser.add_argument("--out", default="-", metavar="FILE", help="append rows as JSON lines to this file (default -: standard output)")
    parser.add_argument("--state", metavar="FILE", help="remember here what was seen (FILE.state beside --out)")
    parser.add_argument("--durable", action="store_true", help="acknowledge only what is on stable storage (fsync)")
    parser.add_argument("--cert", metavar="PEM", help="TLS: this server's certificate")
    parser.add_argument("--key", metavar="PEM", help="TLS: its key")
    parser.add_argument("--ca", metavar="PEM", help="TLS: take only gateways with a certificate of this authority")
    parser.add_argument("--port-file", metavar="FILE", help="write the port here once it is open")
    parser.add_argument("--json", action="store_true", help="end with the report as one JSON object, and print no summaries")


def run(arguments) -> int:
    """Receive until SIGINT or SIGTERM; then print the report."""
    out = None if arguments.out == "-" else arguments.out
    words = sys.stderr if out is None else sys.stdout
    reactor = Reactor()
    receive = Receive(reactor, arguments.host, arguments.port, out, arguments.state, durable=arguments.durable, tls=_tls(arguments),
                      on_event=lambda name, message: print(f"{name}: {message}", file=sys.stderr))
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: (stopping.append(True), reactor.soon(bool)))
    if arguments.port_file:
        _write_port(arguments.port_file, receive.port)
    if not arguments.json:
        print(f"listening on {arguments.host}:{receive.port}", file=sys.stderr)
        _summarise(reactor, receive, "")
    while not stopping:
        reactor.turn(1.0)
        receive.turn()
    receive.close()
    reactor.close()
    _show(receive, arguments.json, words)
    return 0


def _summarise(reactor, receive, last):
    """A line a second on a terminal, rewritten; elsewhere only when it changed."""
    line = receive.summary()
    if line != last:
        print(f"\r\x1b[K{line}" if sys.stderr.isatty() else line, end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
    reactor.later(SUMMARY_S, lambda: _summarise(reactor, receive, line))


def _show(receive, as_json, words):
    report = receive.report()
    if as_json:
        print(json.dumps(report), file=words, flush=True)
        return
    print(f"\n{receive.summary()}", file=words)
    for stream in report["streams"]:
        print(f"  {json.dumps(stream)}", file=words)


def _tls(arguments):
    if not arguments.cert:
        if arguments.key or arguments.ca:
            raise ConfigError("--key and --ca need --cert")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(arguments.cert, arguments.key)
        if arguments.ca:
            context.load_verify_locations(arguments.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"--cert, --key, --ca: {e}; each must name a PEM file") from None
    return context


def _write_port(path, port):
    with open(f"{path}.new", "w") as file:
        file.write(f"{port}\n")
    os.replace(f"{path}.new", path)
