"""GET /metrics on loopback, for Prometheus: a thread that takes requests one at a time and asks the reactor's thread for the text.

Imported only when the configuration has [metrics]: an HTTP server weighs megabytes that the daemon does not carry otherwise.
"""

import queue
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer

from edge.errors import ConfigError

HOST = "127.0.0.1"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CLIENT_TIMEOUT_S = 5.0               # a client that is slower is let go: it holds up the others
ANSWER_TIMEOUT_S = 10.0              # of the reactor: a disk that hangs, for one


class Metrics:
    """Serves text(), called in the reactor's thread, until close(). `port` 0 takes a free one; read it back from .port."""

    def __init__(self, reactor, port, text):
        """Raises ConfigError when the port cannot be had."""
        self._reactor = reactor
        self._text = text
        self._closing = False
        try:
            self._server = _Server((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(f"metrics.port: {HOST}:{port} cannot be bound ({error.strerror}); choose another port, or stop who has it") from None
        self._server.ask = self._ask
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self):
        """Take no more requests. One under way is not waited for: it may be waiting for the reactor, whose thread this is."""
        self._closing = True
        threading.Thread(target=self._server.shutdown, daemon=True).start()

    def _ask(self) -> bytes | None:
        """The text, None when the reactor does not come to it in time, or cannot say it."""
        answer = queue.SimpleQueue()
        try:
            if self._closing:
                return None
            self._reactor.soon(lambda: answer.put(self._read()))
            return answer.get(timeout=ANSWER_TIMEOUT_S)
        except (queue.Empty, OSError):     # OSError: the reactor is closed
            return None

    def _read(self):
        try:
            return self._text().encode()
        except Exception:                # a question must not stop the gateway
            return None


class _Server(TCPServer):
    allow_reuse_address = True
    request_queue_size = 16

    def handle_error(self, request, client_address):
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_TIMEOUT_S
    server_version = "tidegate"
    sys_version = ""

    def do_GET(self):
        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, b"there is /metrics and nothing else\n", "text/plain")
            return
        text = self.server.ask()
        if text is None:
            self._answer(503, b"the gateway does not answer: see its log\n", "text/plain")
        else:
            self._answer(200, text, CONTENT_TYPE)

    def _answer(self, status, body, content_type):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Scrapes are no news."""
