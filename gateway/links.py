"""The gateway's connections, from their tables in the configuration: listener, broker, upstream, and their TLS contexts."""

import json
from contextlib import contextmanager

from edge.errors import ConfigError
from gateway import keys
from gateway.upkeep import Followed


def listener(config, reactor, intake, log):
    """The Listener, or None. It answers a subscription to $tidegate/status with the gateway's name."""
    spec = config.listener
    if spec is None:
        return None
    from gateway.ingest.listener import Listener

    return Listener(reactor, intake, host=spec.host, port=spec.port, tls=server_tls("listener.tls", spec.tls), connections_max=spec.connections_max,
                    packet_bytes_max=spec.packet_max, rate_per_client=spec.rate_per_client, doorman=_doorman(spec, reactor),
                    status=lambda: json.dumps({"gateway": config.gateway.name, "state": "running"}).encode(),
                    on_event=_reporter(log, "listener"), sparing=True)


def _doorman(spec, reactor):
    """The Doorman, or None where everybody may everything."""
    certificates = spec.tls is not None and spec.tls.ca is not None
    if not (certificates or spec.password_file or spec.acl_file):
        return None
    from gateway.ingest.doorman import Doorman

    return Doorman(reactor, users=_users(spec), permits=_permits(spec), certificates=certificates, anonymous=spec.anonymous)


def _users(spec):
    from gateway.ingest import passwords

    if spec.password_file is not None:
        with placed("listener.password_file"):
            return passwords.read(spec.password_file)


def _permits(spec):
    from gateway.ingest.permits import Permits

    if spec.acl_file is not None:
        with placed("listener.acl_file"):
            return Permits(spec.acl_file)


@contextmanager
def placed(place):
    """A ConfigError names the place in the configuration."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def followed(config, listener, broker, upstream, log) -> list:
    """What changes in its files while the gateway runs (gateway/upkeep.py): certificates of the three, users and permits of the listener."""
    found = []

    def follow(part, what, paths, load, use):
        paths = [path for path in paths if path]
        if paths:
            found.append(Followed(what, paths, load, use, _reporter(log, part)))

    spec = config.listener
    if listener is not None and spec.tls is not None:
        follow("listener", "certificates", (spec.tls.ca, spec.tls.cert, spec.tls.key), lambda: server_tls("listener.tls", spec.tls), lambda tls: setattr(listener, "tls", tls))
    if listener is not None and listener.doorman is not None:
        renew = listener.doorman.renew
        follow("listener", "passwords", (spec.password_file,), lambda: _users(spec), lambda users: renew(listener.devices, users=users))
        follow("listener", "permits", (spec.acl_file,), lambda: _permits(spec), lambda permits: renew(listener.devices, permits=permits))
    for place, end, link in (("broker", config.broker, broker), ("upstream", config.upstream, upstream)):
        if link is not None and end.tls is not None:
            follow(place, "certificates", (end.tls.ca, end.tls.cert, end.tls.key), lambda place=place, end=end: client_tls(place, end),
                   lambda tls, link=link: setattr(link, "tls", tls))
    return found


def broker(config, reactor, intake, log):
    """The BrokerSource, or None."""
    spec = config.broker
    if spec is None:
        return None
    from gateway.ingest.broker import BrokerSource

    filters = dict.fromkeys(topic for stream in config.streams.values() for topic in stream.topics)
    return BrokerSource(reactor, intake, host=spec.host, port=spec.port, topics=[(topic, spec.qos) for topic in filters],
                        client_id=spec.client_id or f"tidegate-{config.gateway.name}-in", version=spec.version, username=spec.username,
                        password=password("broker", spec), tls=client_tls("broker", spec), keepalive_s=max(1, round(spec.keepalive.seconds)),
                        on_event=_reporter(log, "broker"))


def upstream(config, reactor, lanes, log, handle, intake):
    """The Upstream, not started, or None. handle(request, who) answers what its mailbox takes."""
    spec = config.upstream
    if spec is None or not lanes and not spec.manage:
        return None
    from gateway.forward.upstream import Upstream

    report = _reporter(log, "upstream")
    mailbox = None
    if spec.manage:
        from gateway.manage.mailbox import Mailbox

        mailbox = Mailbox(reactor, config.gateway.name, handle, report)

    return Upstream(reactor, lanes, host=spec.host, port=spec.port, client_id=spec.client_id or f"tidegate-{config.gateway.name}-out",
                    version=spec.version, username=spec.username, password=password("upstream", spec), tls=client_tls("upstream", spec),
                    keepalive_s=max(1, round(spec.keepalive.seconds)), on_event=report, mailbox=mailbox, fresh=lambda: bool(intake))


QUIET = ("connected", "closed", "renewed")
ONE_A_DEVICE = ("connected", "closed")   # too many lines


def _reporter(log, part):
    def report(name, message):
        if part != "listener" or name not in ONE_A_DEVICE:
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
    if spec.tls.alpn:
        context.set_alpn_protocols(spec.tls.alpn)
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
    tries.append(("gateway.encryption_key_file", lambda: keys.encryption_key(config)))
    if config.listener:
        tries += [("listener.password_file", lambda: _users(config.listener)), ("listener.acl_file", lambda: _permits(config.listener))]
    for place, end in (("broker", config.broker), ("upstream", config.upstream)):
        if end is not None:
            tries += [(f"{place}.tls", lambda place=place, end=end: client_tls(place, end)), (f"{place}.password_file", lambda place=place, end=end: password(place, end))]
    for place, attempt in tries:
        try:
            attempt()
        except ConfigError as error:
            found.append((place, str(error).removeprefix(f"{place}: ")))
    return found
