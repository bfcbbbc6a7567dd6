"""The HTTP server of the management API: uvicorn, with the limits that it has no options for. Of the process `tidegate api` alone."""

import os
import socket
import ssl

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge.errors import ConfigError
from gateway.links import server_tls
from gateway.manage.doorkeeper import REQUEST_S, Doorkeeper
from gateway.upkeep import EVERY_S, Followed

CONNECTIONS_MAX = 64
CONNECTION_S = 90.0                  # then it ends: nobody keeps a place by sending a byte a minute
IDLE_S = 5


class Protocol(H11Protocol):
    """Tells the application whose certificate a connection showed, as state["common_name"], and ends it after CONNECTION_S."""

    def connection_made(self, transport):
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        subject = (tls.getpeercert() or {}).get("subject", ()) if tls is not None else ()
        names = [value for part in subject for kind, value in part if kind == "commonName"]
        self.app_state = {**self.app_state, "common_name": names[0] if len(names) == 1 else None}
        self.loop.call_later(CONNECTION_S, self._end)

    def _end(self):
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.loop.call_later(REQUEST_S, self.transport.close)


class Renewable(ssl.SSLContext):
    """What asyncio keeps for as long as it listens; a new connection gets the context that is in force."""

    def __new__(cls, context):
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, context):
        self.context = context

    def wrap_bio(self, *arguments, **options):
        return self.context.wrap_bio(*arguments, **options)


def _followed(tls, log):
    """(what the server is given as its context, async fn() that looks whether its files have changed), or twice None without TLS."""
    if tls is None:
        return None, None

    def load():
        return server_tls("api.tls", tls, certificates="optional")

    renewable = Renewable(load())
    files = Followed("certificates", (tls.ca, tls.cert, tls.key), load, lambda context: setattr(renewable, "context", context),
                     lambda name, message: log("api", f"{name}: {message}", "info" if name == "renewed" else "warning"))

    async def look():
        files.refresh()

    return renewable, look


def server(app, spec, guests, log):
    """(a uvicorn.Server, its listening socket). spec: the table [api]. Raises ConfigError for an address or TLS files that cannot be had."""
    tls, look = _followed(spec.tls, log)
    try:
        listening = socket.create_server((spec.host, spec.port), family=socket.AF_INET6 if ":" in spec.host else socket.AF_INET, backlog=CONNECTIONS_MAX)
    except OSError as error:
        raise ConfigError(f"api.host, api.port: cannot listen on {spec.host}:{spec.port}: {error.strerror or error}") from None
    config = uvicorn.Config(Doorkeeper(app, guests), http=Protocol, ws="none", lifespan="off", loop="asyncio", log_config=None, access_log=False,
                            server_header=False, limit_concurrency=CONNECTIONS_MAX, timeout_keep_alive=IDLE_S, timeout_graceful_shutdown=5,
                            proxy_headers=False, ssl_context_factory=(lambda config, default: tls) if tls is not None else None,
                            callback_notify=look, timeout_notify=EVERY_S)
    return uvicorn.Server(config), listening


def serve(app, spec, guests, log, port_file=None):
    """Until SIGTERM or SIGINT."""
    one, listening = server(app, spec, guests, log)
    port = listening.getsockname()[1]
    log("api", f"listens on {'https' if spec.tls else 'http'}://{spec.host}:{port}")
    if port_file:
        with open(f"{port_file}.new", "w") as file:
            file.write(f"{port}\n")
        os.replace(f"{port_file}.new", port_file)
    one.run(sockets=[listening])
