"""Client: paho-mqtt on the reactor. Connect state, back-off and hooks for the broker source and the upstream lanes.

paho keeps the protocol (CONNECT, SUBSCRIBE, keep-alive, QoS 2); this class gives it sockets and turns. What could block
(name look-up, TCP connect, TLS handshake) runs in a short-lived dial thread; the finished socket comes back by
reactor.soon() and paho's `_create_socket`, the one method overridden, hands it out.

    idle -> dialing -> connecting (CONNECT sent) -> connected -> waiting (back-off) -> dialing ...

Hooks run in the reactor's thread and outside paho's own callbacks, so they may publish, subscribe or stop().
"""

import random
import socket

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway import secure as ssl

DIAL_TIMEOUT_S = 10.0
CONNACK_TIMEOUT_S = 10.0
BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 60.0
SETTLED_S = 30.0                     # a connection that lived this long starts the back-off afresh
RUN_MAX = 64                         # reads of one turn at most: other sockets want their turn too


class Client(paho.Client):
    """An MQTT 3.1.1 (version=4) or 5 client driven by a Reactor.

    tls is an ssl.SSLContext or None. connect_properties: MQTT 5 CONNECT properties by paho's names, {"ReceiveMaximum": 4096}.

    Hooks, each None or a callable:
      on_connected(session_present)   CONNACK arrived with success
      on_disconnected(reason)         the connection ended; reason in words. Called once for each on_connected
      on_published(mid, failure)      PUBACK or PUBCOMP arrived; failure is None, or the broker's refusal in words (MQTT 5)
      on_event(name, message)         for the log: connected, disconnected, unreachable, refused

    Outgoing messages not acknowledged when a connection ends are forgotten: the caller owns the data and sends it again.
    """

    def __init__(self, reactor, *, host, port, client_id, version=4, username=None, password=None, tls=None, keepalive_s=60,
                 clean_session=False, connect_properties=None, on_connected=None, on_disconnected=None, on_published=None,
                 on_event=None):
        # reconnect_on_failure would let paho dial by itself, and block, when a CONNACK refuses.
        super().__init__(paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTProtocolVersion(version),
                         clean_session=clean_session if version == 4 else None, reconnect_on_failure=False)
        self._reactor = reactor
        self.tls = tls               # may be changed: for the next dial
        self.on_connected, self.on_disconnected = on_connected, on_disconnected
        self.on_published, self._log = on_published, on_event
        self.where = f"{host}:{port}"
        self.status = "idle"
        self.last_error = ""         # why the connection is down, in words
        self.connects = 0            # successful CONNACKs
        self.failures = 0            # dials and handshakes that failed
        self._attempts = 0
        self._generation = 0         # a dial's result of an earlier generation is thrown away
        self._ready = None           # the dialed socket on its way to _create_socket
        self._fd = -1
        self._watching = None        # what epoll was last told: (reading, writing)
        self._reading_soon = False
        self._connected_at = 0.0
        self._timer = None
        self._news = []              # what paho's callbacks said during one call into it
        if username is not None:
            self.username_pw_set(username, password)
        properties = None
        if version == 5:
            properties = Properties(PacketTypes.CONNECT)
            if not clean_session:
                properties.SessionExpiryInterval = 0xFFFFFFFF
            for name, value in (connect_properties or {}).items():
                setattr(properties, name, value)
        self.connect_async(host, port, keepalive_s, clean_start=bool(clean_session), properties=properties)
        self._misc_s = min(5.0, keepalive_s / 3) if keepalive_s else 5.0
        self.on_connect = lambda client, data, flags, reason, properties: self._news.append(
            ("connack", flags.session_present, reason))
        self.on_disconnect = lambda client, data, flags, reason, properties: self._news.append(
            ("lost", f"the broker ended it: {reason}" if flags.is_disconnect_packet_from_server else _loss_words(reason)))
        self.on_publish = lambda client, data, mid, reason, properties: self._news.append(
            ("published", mid, str(reason) if reason.is_failure else None))
        self.on_socket_register_write = lambda client, data, sock: self._watch()
        self.on_socket_unregister_write = lambda client, data, sock: self._watch()

    @property
    def connected(self):
        """CONNACK received and the connection not known to be lost."""
        return self.status == "connected"

    def start(self):
        """Dial now, and again with back-off until stop()."""
        if self.status in ("idle", "stopped"):
            self._dial()

    def stop(self):
        """Send DISCONNECT if connected (without waiting), close, and stay closed."""
        self._cancel_timer()
        self._generation += 1
        if self.connected:
            self.disconnect()
            self.loop_write()
        self.status = "stopped"
        self._news.clear()
        self._close_socket()

    def drop(self, reason):
        """Close the connection as broken and dial again: for a caller that found the broker's bytes malformed."""
        self._lose(reason)

    # the dial

    def _dial(self):
        self.status = "dialing"
        self._generation += 1
        generation = self._generation
        self._reactor.aside(lambda: self._dial_thread(generation), "dial")

    def _dial_thread(self, generation):
        sock = error = None
        try:
            sock = self._reactor.connect(self.host, self.port, DIAL_TIMEOUT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_hostname=self.host)
        except (OSError, ValueError) as e:       # ValueError: a host name that cannot be encoded
            if sock is not None:
                sock.close()
            sock, error = None, _dial_words(e)
        try:
            self._reactor.soon(lambda: self._dialed(generation, sock, error))
        except OSError:                          # the reactor is closed: the process is on its way out
            if sock is not None:
                sock.close()

    def _dialed(self, generation, sock, error):
        if generation != self._generation:
            if sock is not None:
                sock.close()
            return
        if error is not None:
            self._lose(error)
            return
        self.status = "connecting"
        self._ready = sock
        self.reconnect()
        self._fd = self.socket().fileno()
        self._watch()
        self._timer = self._reactor.later(CONNACK_TIMEOUT_S, lambda: self._lose(f"no CONNACK within {CONNACK_TIMEOUT_S:.0f} s"))

    def _create_socket(self):
        sock, self._ready = self._ready, None
        return sock

    # turns

    def _watch(self):
        want = (self._wants_read(), self._wants_write())
        if self._fd < 0 or self.socket() is None or want == self._watching:
            return
        self._watching = want
        if any(want):
            self._reactor.watch(self._fd, self._readable if want[0] else None, self._writable if want[1] else None)
        else:
            self._reactor.forget(self._fd)       # epoll reports a hang-up even to no interest, and would spin

    def _wants_read(self):
        return True

    def _wants_write(self):
        return self.want_write()

    def _readable(self):
        for _ in range(RUN_MAX):
            if self.loop_read() or not self._buffered():
                break
        else:
            self._read_soon()                    # TLS holds bytes that epoll does not see
        self._settle()

    def _read_soon(self):
        if not self._reading_soon:
            self._reading_soon = True
            self._reactor.soon(self._resume)

    def _resume(self):
        self._reading_soon = False
        if self._fd >= 0:
            self._readable()

    def _buffered(self):
        sock = self.socket()
        return sock is not None and isinstance(sock, ssl.SSLSocket) and sock.pending() > 0

    def _writable(self):
        self.loop_write()
        self._settle()

    def _misc(self):
        # Read first: a PINGRESP that waited out a long turn of this process is no sign of a dead broker.
        self._readable()
        if self._fd >= 0:
            self.loop_misc()
            self._settle()
        if self.connected:
            self._timer = self._reactor.later(self._misc_s, self._misc)

    def _settle(self):
        """Tell the hooks what paho's callbacks noted; one connection at a time."""
        while self._news:
            what, *rest = self._news.pop(0)
            if what == "published":
                if self.on_published is not None:
                    self.on_published(*rest)
            elif what == "lost":
                self._lose(rest[0])
            elif self.connected:
                self._lose("the broker sent a second CONNACK")
            elif rest[1].is_failure:
                self._lose(f"refused: {rest[1]}", "refused")
            else:
                self._welcome(rest[0])
        if self._fd >= 0 and self.socket() is None:
            self._lose("connection closed")
        self._watch()

    def _welcome(self, session_present):
        self._cancel_timer()
        self.status = "connected"
        self.last_error = ""
        self.connects += 1
        self._connected_at = self._reactor.now
        self._timer = self._reactor.later(self._misc_s, self._misc)
        self._note("connected", "session resumed" if session_present else "new session")
        if self.on_connected is not None:
            self.on_connected(session_present)

    def _lose(self, reason, name=None):
        if self.status in ("stopped", "waiting"):
            return
        was_connected = self.connected
        if was_connected and self._reactor.now - self._connected_at >= SETTLED_S:
            self._attempts = 0
        if not was_connected:
            self.failures += 1
            name = name or "unreachable"
        self.status = "waiting"
        self.last_error = reason
        self._cancel_timer()
        self._generation += 1
        self._news.clear()
        self._close_socket()
        delay_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(self._attempts, 16)) * random.uniform(0.5, 1.0)
        self._attempts += 1
        self._timer = self._reactor.later(delay_s, self._dial)
        self._note(name or "disconnected", f"{reason}; next attempt in {delay_s:.1f} s")
        if was_connected and self.on_disconnected is not None:
            self.on_disconnected(reason)

    def _close_socket(self):
        fd, self._fd, self._watching = self._fd, -1, None
        if fd >= 0:
            self._reactor.forget(fd)
        if self.socket() is not None:
            self._sock_close()
        self.drop_out_messages()

    def _cancel_timer(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note(self, name, message):
        if self._log is not None:
            self._log(name, f"broker {self.where}: {message}")


def _loss_words(reason):
    # paho's code for a socket that broke is "Unspecified error".
    return "connection lost" if reason.value == 0x80 else str(reason)


def _dial_words(error):
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its TLS certificate is refused: {error.verify_message}; check the configured CA and the host name"
    if isinstance(error, ssl.SSLError):
        return f"TLS handshake failed: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return f"the host name cannot be resolved ({error.strerror})"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is a broker listening there?"
    if isinstance(error, TimeoutError):
        return f"no answer within {DIAL_TIMEOUT_S:.0f} s"
    return str(error)
