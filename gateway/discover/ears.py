"""Ears: live traffic into a Survey, by the gateway's own sources: a subscription at a broker, or a listener.

At a broker it is a session of its own that ends with it, at QoS 1, so that nobody misses anything. As a listener it acknowledges nothing, as it keeps
nothing: what a device has no PUBACK for it sends again when the gateway runs. So such a device stops when its window is full, and its rate is not seen.
"""

import secrets
import signal
import time
from contextlib import contextmanager

from msgspec.structs import replace

from edge.errors import ConfigError
from edge.mqtt._intake import Intake, Topics
from gateway import links
from gateway.config import spec
from gateway.ingest.broker import BrokerSource
from gateway.reactor import Reactor

PACKET_BYTES_MAX = 1 << 20
TURN_S = 0.2


def hear(source, survey, *, seconds, topics=("#",), tell=lambda line: None, ready=lambda port: None, progress=lambda: None, wall_ns=time.time_ns) -> float:
    """Listen to a spec.Broker or as a spec.Listener for so many seconds from the connection on, or until SIGINT or SIGTERM; for how long it was.

    tell(line): news for people. ready(port): it listens, or is connected. progress(): called now and then. Raises ConfigError when the broker is not reached, or the address cannot be had."""
    reactor, intake = Reactor(), Intake(Topics())
    ears = None
    try:
        ears = _broker(source, reactor, intake, topics, tell) if isinstance(source, spec.Broker) else _listener(source, reactor, intake, tell)
        with _stopping(reactor) as stopped:
            return _listen(reactor, intake, ears, survey, seconds, stopped, ready, progress, wall_ns)
    finally:
        if ears is not None:
            ears.close()
        reactor.close()


def _listen(reactor, intake, ears, survey, seconds, stopped, ready, progress, wall_ns):
    at_broker, began, now = isinstance(ears, BrokerSource), None, reactor.monotonic()
    while not stopped and (began is None or now - began < seconds):
        reactor.turn(TURN_S if began is None else min(TURN_S, began + seconds - now))
        now = reactor.monotonic()
        if began is None:
            if at_broker and not ears.connected:
                if ears.failures:
                    raise ConfigError(f"broker {ears.where}: {ears.last_error}")
                continue
            began = now
            ready(None if at_broker else ears.port)
        received_ns = wall_ns()
        for i in range(len(intake)):
            topic, payload, _, flags = intake[i]
            survey.add(topic, payload, flags, received_ns)
        if at_broker:
            ears.acknowledge()
        intake.clear()
        if intake.topics.nearly_full:
            intake.topics.clear()
        progress()
    return 0.0 if began is None else now - began


def _broker(source, reactor, intake, topics, tell):
    return BrokerSource(reactor, intake, host=source.host, port=source.port, topics=[(topic, 1) for topic in topics], client_id=f"tidegate-discover-{secrets.token_hex(4)}",
                        version=source.version, username=source.username, password=links.password("broker", source), tls=links.client_tls("broker", source),
                        clean_session=True, packet_bytes_max=PACKET_BYTES_MAX, on_event=_teller(tell))


def _listener(source, reactor, intake, tell):
    """Devices have to show who they are, as the configuration says; what they may publish does not matter where nothing is kept."""
    config = spec.Config(streams={}, listener=replace(source, acl_file=None))
    return links.listener(config, reactor, intake, lambda part, message, level: tell(message))


def _teller(tell):
    return lambda name, message: None if name in ("connected", "unreachable") else tell(f"{name}: {message}")


@contextmanager
def _stopping(reactor):
    """A list that is no longer empty once SIGINT or SIGTERM came; who comes after finds the handlers as they were."""
    stopped = []
    before = [(number, signal.signal(number, lambda *_: stopped.append(True))) for number in (signal.SIGINT, signal.SIGTERM)]
    fd = signal.set_wakeup_fd(reactor.wake_fd, warn_on_full_buffer=False)
    try:
        yield stopped
    finally:
        signal.set_wakeup_fd(fd)
        for number, handler in before:
            signal.signal(number, handler)
