"""Listener: devices connect to the gateway itself, without a broker between, over MQTT 3.1.1 and 5.

What a device gets acknowledged is on the disk: PUBACK and PUBREC leave with acknowledge(), after the commit. Real
back-pressure: when the intake is full, or a device is over its rate or floods (gateway/ingest/floods.py), its socket is not read.

Bounds: connections_max devices and 64 that have not sent CONNECT yet; 8 KiB for each of those; packet_bytes_max for each
packet; 8 MiB (or eight packets) for all unfinished packets together; receive_maximum unacknowledged messages a device
(MQTT 5); sessions_max sessions kept, the oldest forgotten first. Sessions live in memory: after a restart of the gateway a
device finds a new session, and a QoS 2 message in flight at that moment may be stored twice.
Who may connect and publish what: gateway/ingest/doorman.py.
"""

import errno
import math
import socket
from collections import OrderedDict

from edge.errors import ConfigError
from edge.mqtt._permission import is_forbidden
from gateway.ingest._connection import Pool
from gateway.ingest.device import Device
from gateway.ingest.floods import EVENTS_PER_S, Floods
from gateway.ingest.parting import Parting
from gateway.ingest.wills import Wills

GREETINGS_MAX = 64                   # connections above connections_max that may still send CONNECT
ACCEPTS_MAX = 64                     # a turn
REPORT_EVERY_S = 60.0                # of one client
REPORTS_MAX = 20                     # of all clients in REPORT_EVERY_S


class Listener:
    """A source: MQTT server on host:port. `port` 0 takes a free one; read it back from .port.

    tls: a server-side ssl.SSLContext or None; may be changed. doorman: a Doorman or None: everybody may everything. rate_per_client: events/s, a burst of one second, or None.
    sparing: without a rate, devices that flood rest while others are connected.
    status: callable giving the bytes retained at $tidegate/status. on_event(name, message): for the log.
    Counters: connections, refused, published, denied, malformed, take_overs, wills, time_outs. ConfigError when it cannot bind.
    """

    receive_maximum = 4096

    def __init__(self, reactor, intake, *, host, port, tls=None, connections_max=1000, packet_bytes_max=256 << 10,
                 rate_per_client=None, keep_alive_grace=1.5, status=None, on_event=None, doorman=None,
                 sparing=False):
        self.reactor, self.intake = reactor, intake
        self.connections_max, self.packet_bytes_max = connections_max, packet_bytes_max
        self.rate_per_client, self.keep_alive_grace = rate_per_client, keep_alive_grace
        self.status, self._log, self.doorman = status, on_event, doorman
        self.read_bytes_max = 256 << 10 if rate_per_client is None else 16 << 10
        self.floods = Floods(self) if sparing and rate_per_client is None else None
        self.sessions_max = 4 * connections_max
        self.pool = Pool(intake, packet_bytes_max=packet_bytes_max, held_max=max(8 << 20, 8 * packet_bytes_max))
        self.connections = self.refused = self.published = self.malformed = self.denied = 0
        self.take_overs = self.time_outs = 0
        self.owing = {}              # devices with acknowledgements to send, in the order in which they came
        self._devices = {}           # likewise, of all
        self._open = {}              # client id -> Device
        self._sessions = OrderedDict()   # client id -> (packet ids, end of the session on the reactor's clock)
        self._wills = Wills(reactor, self._will_due)
        self.parting = Parting(reactor)
        self._later = {}             # devices with received packets or bytes that epoll does not see
        self._ran_at = self._full_at = None
        self._soon = False
        self._reports, self._unreported, self._reports_from = {}, 0, reactor.now
        self.tls = tls
        self._socket = _bind(reactor, host, port)
        self.port = self._socket.getsockname()[1]
        self._accepting = False
        self._accept_on()
        self._tick = reactor.later(1.0, self._check)

    def acknowledge(self):
        """All events put into the intake so far are on disk: send their PUBACKs and PUBRECs, one send a device."""
        owing, self.owing = self.owing, {}
        for device in owing:
            device.acknowledge()
        if self.floods is not None:
            self.floods.stored()

    def close(self):
        """Close the port and all connections (MQTT 5: server shutting down). Wills are not published: the devices are well."""
        self._tick.cancel()
        self._accept_off()
        self._socket.close()
        for device in list(self._devices):
            device.will = None
            device.close("the listener stops", 0x8B)
        self.parting.close()
        if self.doorman is not None:
            self.doorman.close()

    @property
    def connected(self):
        """Devices connected now."""
        return len(self._open)

    @property
    def wills(self):
        """Wills that were due."""
        return self._wills.said

    @property
    def devices(self):
        """Those connected now, in a list of its own."""
        return list(self._open.values())

    # accepting

    def _accept_on(self):
        if not self._accepting and self._socket.fileno() >= 0:
            self._accepting = True
            self.reactor.watch(self._socket.fileno(), self._accept)

    def _accept_off(self):
        if self._accepting:
            self._accepting = False
            self.reactor.forget(self._socket.fileno())

    def _accept(self):
        for _ in range(ACCEPTS_MAX):
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno in (errno.ECONNABORTED, errno.EINTR):
                    continue
                self._report("accept", f"no connection can be accepted: {e.strerror}; trying again in 1 s")
                self._accept_off()   # out of descriptors or memory; _check turns it on again
                return
            if len(self._devices) >= self.connections_max + GREETINGS_MAX:
                sock.close()
                self.refused += 1
                self._report("refused", f"client at {address[0]}:{address[1]}: {len(self._devices)} connections are open")
                continue
            self._welcome(sock, f"{address[0]}:{address[1]}")

    def _welcome(self, sock, peer):
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)      # finds dead peers that asked for no keep-alive
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 120)
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            sock.close()             # the peer is gone already
            return
        self._devices[Device(self, sock, peer)] = None

    def _check(self):
        """Once a second: who is overdue; whether accepting may go on."""
        self._tick = self.reactor.later(1.0, self._check)
        if not self._wills:
            self._accept_on()
        now = self.reactor.now
        for device in list(self._devices):
            late = device.overdue(now)
            if late and device.stalled_at is None:
                # After a long turn of this process the packets may be in the socket already: look before closing.
                device.readable()
                if device.state == "closed" or device in self._later or self._full_at == now:
                    continue
                late = device.overdue(now)
            if late:
                self.time_outs += 1
                device.close(*late)

    # what devices ask

    def may_read(self, device):
        """Whether device may receive now. Those who wait with received packets come first, and a full intake stops all."""
        now = self.reactor.now
        if (self._later or self._wills) and self._ran_at != now:
            self._run_later()
        return self._full_at != now and device not in self._later and device.state != "closed"

    def full(self):
        """The intake is full: nobody reads in this turn any more."""
        self._full_at = self.reactor.now

    def come_back(self, device):
        """device has packets left, or bytes that epoll does not see: it goes on in the next turn."""
        self._later[device] = None
        self._run_soon()

    def _run_soon(self):
        if not self._soon:
            self._soon = True
            self.reactor.soon(self._run_later_soon)

    def _run_later_soon(self):
        self._soon = False
        if self._ran_at != self.reactor.now:
            self._run_later()
        elif self._later or self._wills:
            self._run_soon()

    def _run_later(self):
        self._ran_at = self.reactor.now
        self._wills.take(self.intake)
        if not self._wills:
            self._accept_on()
        devices, self._later = self._later, {}
        for device in devices:
            if device.state != "closed":
                if self._full_at == self.reactor.now:
                    self._later[device] = None
                else:
                    device.resume()
        if self._later or self._wills:
            self._run_soon()

    def admit(self, device, connect):
        """A valid CONNECT: whether its session is present, or None when there is no room."""
        old = self._open.get(connect.client_id)
        if old is not None:
            self.take_overs += 1
            old.close("another connection took over its client id", 0x8E)
        elif len(self._open) >= self.connections_max:
            return None
        self.connections += 1
        self._open[connect.client_id] = device
        received, ends_at = self._sessions.pop(connect.client_id, (None, 0.0))
        if connect.clean or received is None or ends_at < self.reactor.now:
            self._wills.end(connect.client_id)
            return False
        self._wills.cancel(connect.client_id)
        device.flow.received = received
        return True

    def refuse(self, device, words):
        """device is not admitted."""
        self.refused += 1
        self._report("refused", f"{device.name}: {words}", device)
        device.close(words)

    def named(self, device) -> str:
        """The client id of a device that gives none: the name in its certificate, or ""."""
        return "" if self.doorman is None else self.doorman.name_of(device)

    def held_by_other(self, device) -> bool:
        """Whether another user is connected with device's client id: only its own may take over."""
        old = self._open.get(device.client_id)
        return old is not None and old.user != device.user

    def deny(self, device, count, topic):
        """device published what it may not."""
        self.denied += count
        self._report("denied", f"{device.name}: it may not publish on {topic[:128]!r}; the message is not taken", device)

    def accuse(self, device, error):
        """device broke the protocol; it closes itself."""
        self.malformed += 1
        self._report("malformed", f"{device.name}: {error}; its connection is closed", device)

    def note_flood(self, device):
        """device floods."""
        self._report("flood", f"{device.name}: it sends more than {EVENTS_PER_S:.0f} events/s without waiting for acknowledgements: it is read less often "
                              "while others are connected; set listener.rate_per_client where a device may", device)

    def closed(self, device, was_open, words):
        """device is closed: keep its session, publish its will."""
        self._devices.pop(device, None)
        self._later.pop(device, None)
        self.owing.pop(device, None)
        if self.floods is not None:
            self.floods.forget(device)
        if not was_open:
            return
        if self._open.get(device.client_id) is device:
            del self._open[device.client_id]
        if device.session_expiry_s:
            ends_at = math.inf if device.session_expiry_s == 0xFFFFFFFF else self.reactor.now + device.session_expiry_s
            self._sessions[device.client_id] = (device.flow.received, ends_at)
            while len(self._sessions) > self.sessions_max:
                self._wills.end(self._sessions.popitem(last=False)[0])
        if device.will is not None:
            self._bury(device)
        if words != "disconnected":
            self._report("closed", f"{device.name}: {words}", device)

    def _bury(self, device):
        (topic, payload, qos, retain, delay_s), device.will = device.will, None
        if is_forbidden(topic.encode()) or (self.doorman is not None and not self.doorman.may(device, topic)):
            self.deny(device, 1, topic)
            return
        self._wills.add(device.client_id, (topic.encode(), payload, 0, qos | (4 if retain else 0)), min(delay_s, device.session_expiry_s))

    def _will_due(self):
        self._accept_off()           # so that no more wills wait than devices were connected; _check turns it on again
        self._run_soon()

    # the log

    def _report(self, name, message, device=None):
        """One event a client and minute, REPORTS_MAX of all; what is held back is counted in the next one."""
        if self.reactor.now - self._reports_from >= REPORT_EVERY_S:
            self._reports, self._reports_from = {}, self.reactor.now
        key = (name, device.client_id or device.peer.rpartition(":")[0]) if device else name
        if key in self._reports or len(self._reports) >= REPORTS_MAX:
            self._unreported += 1
            return
        self._reports[key] = None
        more, self._unreported = self._unreported, 0
        if self._log is not None:
            self._log(name, message + (f" ({more} more of such events were not reported)" if more else ""))


def _bind(reactor, host, port):
    try:
        return reactor.listen(host, port)
    except (OSError, OverflowError) as e:
        what = {errno.EADDRINUSE: "another process listens there: stop it or choose another port",
                errno.EACCES: "ports below 1024 need a privilege: choose a higher port",
                errno.EADDRNOTAVAIL: "this machine has no such address: choose one of its own, or 0.0.0.0"}
        do = what.get(getattr(e, "errno", None), "check the address and the port")
        raise ConfigError(f"the listener cannot bind {host}:{port} ({getattr(e, 'strerror', None) or e}): {do}") from None
