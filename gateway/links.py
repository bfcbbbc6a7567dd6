"""The gateway's connections, from their tables in the configuration: listener, broker, upstream, and their TLS contexts."""

import json

from edge.errors import ConfigError


def listener(config, reactor, intake, log):
    """The Listener, or None. It answers a subscription to $tidegate/status with the gateway's name."""
    spec = config.listener
    if spec is None:
        return None
    from gateway.listener import Listener

    return Listener(reactor, intake, host=spec.host, port=spec.port, tls=server_tls("listener.tls", spec.tls), connections_max=spec.connections_max,
                    packet_bytes_max=spec.packet_max, rate_per_client=spec.rate_per_client,
                    status=lambda: json.dumps({"gateway": config.gateway.name, "state": "running"}).encode(),
                    on_event=_reporter(log, "listener"))


def broker(config, reactor, intake, log):
    """The BrokerSource, or None."""
    spec = config.broker
    if spec is None:
        return None
    from gateway.broker import BrokerSource

    filters = dict.fromkeys(topic for stream in config.streams.values() for topic in stream.topics)
    return BrokerSource(reactor, intake, host=spec.host, port=spec.port, topics=[(topic, spec.qos) for topic in filters],
                        client_id=spec.client_id or f"tidegate-{config.gateway.name}-in", version=spec.version, username=spec.username,
                        password=password("broker", spec), tls=client_tls("broker", spec), keepalive_s=max(1, round(spec.keepalive.seconds)),
                        on_event=_reporter(log, "broker"))


def upstream(config, reactor, lanes, log, handle):
    """The Upstream, not started, or None. handle(request, who) answers what its mailbox takes."""
    spec = config.upstream
    if spec is None or not lanes and not spec.manage:
        return None
    from gateway.upstream import Upstream

    report = _reporter(log, "upstream")
    mailbox = None
    if spec.manage:
        from gateway.mailbox import Mailbox

        mailbox = Mailbox(reactor, config.gateway.name, handle, report)

    return Upstream(reactor, lanes, host=spec.host, port=spec.port, client_id=spec.client_id or f"tidegate-{config.gateway.name}-out",
                    version=spec.version, username=spec.username, password=password("upstream", spec), tls=client_tls("upstream", spec),
                    keepalive_s=max(1, round(spec.keepalive.seconds)), on_event=report, mailbox=mailbox)


QUIET = ("connected", "closed")          # of the listener: one line a device would be too many


def _reporter(log, part):
    def report(name, message):
        if part != "listener" or name not in QUIET:
            log(part, f"{name}: {message}", "info" if name in QUIET else "warning")

    return report


def password(place, spec):
    if spec.password_file is None:
        return None
    try:
        with open(spec.password_file, encoding="utf-8") as file:
            return file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}.password_file: {spec.password_file} cannot be read: {error}") from None


def client_tls(place, spec):
    """A client's context; hostnames and certificates are always checked."""
    if spec.tls is None:
        return None
    import ssl

    context = _filled(f"{place}.tls", spec.tls, ssl.PROTOCOL_TLS_CLIENT)
    if spec.tls.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def server_tls(place, tls, certificates="required"):
    """A server's context, or None. certificates of clients, where tls names their authority: "required" or "optional"."""
    if tls is None:
        return None
    import ssl

    context = _filled(place, tls, ssl.PROTOCOL_TLS_SERVER)
    if tls.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED if certificates == "required" else ssl.CERT_OPTIONAL
    return context


def _filled(place, tls, protocol):
    import ssl

    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{place}: {tls.ca or ''} {tls.cert or ''} {tls.key or ''}: {error}; name PEM files that this user may read") from None
    return context


def problems(config) -> list[tuple[str, str]]:
    """Files of certificates, keys and passwords that cannot be used: (place, problem)."""
    found = []
    tries = [("listener.tls", lambda: config.listener and server_tls("listener.tls", config.listener.tls)), ("api.tls", lambda: server_tls("api.tls", config.api.tls))]
    for place, end in (("broker", config.broker), ("upstream", config.upstream)):
        if end is not None:
            tries += [(f"{place}.tls", lambda place=place, end=end: client_tls(place, end)), (f"{place}.password_file", lambda place=place, end=end: password(place, end))]
    for place, attempt in tries:
        try:
            attempt()
        except ConfigError as error:
            found.append((place, str(error).removeprefix(f"{place}: ")))
    return found
