"""Device: the protocol of one client of the listener, MQTT 3.1.1 and 5, server role.

    handshake (TLS) -> greeting (the first packet must be CONNECT) -> waiting (while a password is checked; not read) -> open -> closed

PUBLISH, PUBREL and PINGREQ are dealt with in bulk by edge/_mqtt; what comes here is CONNECT, SUBSCRIBE, UNSUBSCRIBE and
DISCONNECT. Reading pauses while the device is over its rate, rests from a flood or does not read its acknowledgements: its TCP window fills,
and the device waits. Nothing is dropped.
"""

import os

from edge.mqtt import packets as mqtt
from edge.mqtt._mqtt import Flow
from gateway import secure as ssl
from gateway.ingest._connection import CLOSED, FAULT, FULL, MORE, OTHER, Connection
from gateway.ingest.floods import BURST

GREETING_BYTES_MAX = 8192            # CONNECT with its will: all the memory that a client without CONNECT can take
GREETING_S = 10.0
UNSENT_BYTES_MAX = 64 << 10          # unread acknowledgements; above it the client is not read from
STALLED_S = 60.0                     # and after this long it is dropped
CONTROL_PACKETS_MAX = 64             # a turn: they cost Python
STATUS_TOPIC = "$tidegate/status"


class Device:
    """One connection of a Listener, from accept to close."""

    __slots__ = ("listener", "sock", "fd", "peer", "flow", "connection", "state", "version", "client_id", "will", "keep_alive_s",
                 "heard_at", "tokens", "tokens_at", "paused", "stalled_at", "session_expiry_s", "packet_bytes_max", "_watching", "_counted",
                 "_received", "_connecting", "_denied", "_unasked", "user", "secret")

    def __init__(self, listener, sock, peer):
        self.listener, self.sock, self.peer = listener, sock, peer
        self.fd = sock.fileno()
        self.flow = Flow(server=True, packet_bytes_max=GREETING_BYTES_MAX, inflight_max=listener.receive_maximum)
        self.connection = Connection(listener.pool, sock, self.flow)
        self.state = "handshake" if isinstance(sock, ssl.SSLSocket) else "greeting"
        self.version = 4
        self.client_id = ""
        self.will = None
        self.keep_alive_s = GREETING_S
        self.heard_at = self.tokens_at = listener.reactor.now
        self.tokens = listener.rate_per_client or BURST    # of the token bucket, here or in gateway/ingest/floods.py
        self.paused = False
        self.stalled_at = None       # since when acknowledgements cannot be sent
        self.session_expiry_s = 0
        self.packet_bytes_max = 1 << 28
        self._counted = self._received = self._denied = self._unasked = 0
        self._connecting = None      # the CONNECT that is checked, and properties of its answer
        self.user = self.secret = None       # as whom it came in (gateway/ingest/doorman.py), and by which hash
        self._watching = None
        self.watch()

    @property
    def name(self):
        """The client id and the address, for messages."""
        return f"client {self.client_id[:64]!r} at {self.peer}" if self.client_id else f"client at {self.peer}"

    # turns

    def readable(self):
        """epoll: bytes, or the end, wait in the socket."""
        if self._wants_more() and self.listener.may_read(self):
            self.read()

    def read(self):
        """Receive once and deal with it."""
        self._guard(self._receive)

    def resume(self):
        """Go on with what was received earlier."""
        self._guard(self._resume)

    def writable(self):
        """epoll: the socket takes bytes again."""
        self._guard(self.flush)

    def acknowledge(self):
        """The events so far are durable."""
        self._guard(self._acknowledge)

    def _guard(self, action):
        """Every failure of this connection ends here, and ends only this connection."""
        try:
            if self.state == "handshake":
                self._handshake()
            elif self.state != "closed":
                action()
        except mqtt.Malformed as e:
            self.listener.accuse(self, e)
            self.close(str(e), e.reason)
        except OSError as e:
            self.close(str(e))

    def _handshake(self):
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            self.watch()
        except ssl.SSLWantWriteError:
            self._watching = None
            self.listener.reactor.watch(self.fd, self.readable, self.writable)
        except ssl.SSLError as e:
            self.listener.refuse(self, f"TLS handshake failed: {e.reason or e}")
        else:
            self.state = "greeting"
            self.read()

    def _receive(self):
        self._go_on(self.connection.receive(self._read_bytes()))

    def _resume(self):
        status = self.connection.resume()
        if status == MORE and self.connection.more:
            status = self.connection.receive(self._read_bytes())
        self._go_on(status)

    def _read_bytes(self):
        floods = self.listener.floods
        return self.listener.read_bytes_max if floods is None else floods.read_bytes(self)

    def _acknowledge(self):
        self.connection.acknowledge()
        self.flush()

    def _go_on(self, status):
        for _ in range(CONTROL_PACKETS_MAX):
            if status != OTHER:
                break
            self._control(self.connection.packet())
            if self.state == "closed":
                return
            if self.state == "waiting":
                self.watch()
                return
            status = self.connection.resume()
        denied = self._tell_denied()
        if status == FAULT:
            raise mqtt.Malformed.of_fault(self.connection.fault, self.version)
        if status == CLOSED:
            self.close("the connection ended without DISCONNECT")
            return
        if self.state == "open" and self._received != self.connection.bytes_received:
            self._received = self.connection.bytes_received
            self.heard_at = self.listener.reactor.now
            if self.listener.floods is not None:
                self._weigh()
        if self.connection.owes:
            self.listener.owing[self] = None
        self._pay(denied)
        self.flush()
        if status == FULL:
            self.listener.full()
        if (status != MORE or self.connection.more) and self._wants_more():
            self.listener.come_back(self)

    def _wants_more(self):
        return not self.paused and self.connection.waiting <= UNSENT_BYTES_MAX

    def flush(self):
        """Send what is to be sent."""
        if self.connection.waiting:
            held_back = not self._wants_more()
            if self.connection.flush():
                self.stalled_at = self.stalled_at or self.listener.reactor.now
            else:
                self.stalled_at = None
            if held_back and self._wants_more():
                self.listener.come_back(self)
        self.watch()

    def watch(self):
        """Tell epoll what this connection waits for."""
        want = (self._wants_more(), self.connection.waiting > 0)
        if want == self._watching:
            return
        self._watching = want
        if any(want):
            self.listener.reactor.watch(self.fd, self.readable if want[0] else None, self.writable if want[1] else None)
        else:
            self.listener.reactor.forget(self.fd)    # epoll reports a hang-up even to no interest, and would spin

    def count(self):
        """Events taken since the last count."""
        fresh = self.flow.published - self._counted
        self._counted += fresh
        self.listener.published += fresh
        return fresh

    def _pay(self, denied):
        """The token bucket: events are taken as they come, and a debt stops the reading until it is paid."""
        fresh, rate = self.count() + denied, self.listener.rate_per_client
        if rate is None:
            return
        now = self.listener.reactor.now
        self.tokens = min(max(rate, 1.0), self.tokens + (now - self.tokens_at) * rate) - fresh
        self.tokens_at = now
        if self.tokens < 0 and not self.paused:
            self.paused = True
            self.listener.reactor.later(-self.tokens / rate, self.unpause)

    def _weigh(self):
        """Whether it floods."""
        unasked, self._unasked = self.flow.unasked - self._unasked, self.flow.unasked
        self.listener.floods.weigh(self, unasked, self.connection.whole)

    def _tell_denied(self):
        """Events refused since the last look."""
        fresh = self.flow.denied - self._denied
        if fresh:
            self._denied += fresh
            self.listener.deny(self, fresh, self.flow.last_denied)
        return fresh

    def unpause(self):
        """It has paid, or rested: read it again."""
        if self.state != "closed":
            self.paused = False
            self.heard_at = self.listener.reactor.now
            self.watch()
            self.listener.come_back(self)

    def overdue(self, now):
        """Why this connection has to be closed now: (words, reason code), or None."""
        if self.stalled_at is not None and now - self.stalled_at > STALLED_S:
            return "it does not read its acknowledgements", 0x97
        if not self._wants_more() or not self.keep_alive_s or now - self.heard_at <= self.keep_alive_s:
            return None
        if self.state != "open":
            return f"no CONNECT within {GREETING_S:.0f} s", None
        return "keep-alive time-out", 0x8D

    # packets

    def _control(self, packet):
        kind = packet[0] & 0xF0
        if self.state == "greeting":
            self._connect(packet)
        elif kind == 0x80:
            self._subscribe(packet)
        elif kind == 0xA0:
            packet_id, filters = mqtt.read_unsubscribe(packet, self.version)
            self._send(mqtt.unsuback(self.version, packet_id, [0x11] * len(filters)))      # no subscription existed
        elif kind == 0xE0:
            reason, expiry_s = mqtt.read_disconnect(packet, self.version)
            if expiry_s and not self.session_expiry_s:
                raise mqtt.Malformed("DISCONNECT with a Session Expiry Interval, and CONNECT had none", "3.14.2.2.2", 0x82)
            if expiry_s is not None:
                self.session_expiry_s = expiry_s
            if reason == 0:
                self.will = None
            self.close("disconnected")
        elif kind == 0x10:
            raise mqtt.Malformed("a second CONNECT on one connection", "3.1", 0x82)
        else:
            raise mqtt.Malformed("a packet that a client does not send here", "2.1.2" if self.version == 5 else "2.2.1", 0x82)

    def _connect(self, packet):
        try:
            connect = mqtt.read_connect(packet)
        except mqtt.Unsupported as e:
            self._refuse(mqtt.connack(5, 0x84) if e.level > 5 else mqtt.connack(4, 0x01), str(e))
            return
        self.version = connect.version
        if mqtt.AUTH_METHOD in connect.properties:
            self._refuse(mqtt.connack(5, 0x8C), "it asks for an authentication method; only TLS certificates are supported")
            return
        assigned = {}
        if not connect.client_id:
            connect.client_id = self.listener.named(self)
        if not connect.client_id:
            if self.version == 4 and not connect.clean:
                self._refuse(mqtt.connack(4, 0x02), "a session without a client id")
                return
            connect.client_id = f"auto-{os.urandom(8).hex()}"
            assigned = {mqtt.ASSIGNED_ID: connect.client_id}
        self.client_id = connect.client_id
        self._connecting = connect, assigned
        if self.listener.doorman is None:
            self._admit()
            return
        self.state = "checking"
        self.listener.doorman.ask(self, connect)
        if self.state == "checking":
            self.state, self.paused = "waiting", True

    def checked(self, refusal):
        """The doorman's answer, at once or in a later turn: None, or (words, reason code of MQTT 5, return code of 3.1.1)."""
        later = self.state == "waiting"
        if self.state == "checking" or later:
            self.state, self.paused = "greeting", False
            self._guard(self._admit if refusal is None else lambda: self._turn_away(*refusal))
            if later and self.state == "open":
                self.listener.come_back(self)

    def _turn_away(self, words, reason, code):
        self._refuse(mqtt.connack(self.version, reason if self.version == 5 else code), words)

    def _admit(self):
        (connect, assigned), self._connecting = self._connecting, None
        if self.listener.held_by_other(self):
            self._turn_away("another user is connected with its client id", 0x85, 2)
            return
        properties = None
        if self.version == 5:
            properties = {mqtt.RECEIVE_MAXIMUM: self.listener.receive_maximum, mqtt.PACKET_MAXIMUM: self.listener.packet_bytes_max,
                          mqtt.TOPIC_ALIAS_MAXIMUM: 0, mqtt.SHARED_AVAILABLE: 0, **assigned}
            self.packet_bytes_max = connect.properties.get(mqtt.PACKET_MAXIMUM, self.packet_bytes_max)
            self._check_size(mqtt.connack(5, 0, False, properties))
        session_present = self.listener.admit(self, connect)
        if session_present is None:
            self._refuse(mqtt.connack(self.version, 0x97 if self.version == 5 else 0x03), "connections_max devices are connected")
            return
        self._open(connect)
        self._send(mqtt.connack(self.version, 0, session_present, properties))

    def _open(self, connect):
        self.state = "open"
        self.heard_at = self.listener.reactor.now
        self.will = connect.will
        self.keep_alive_s = connect.keep_alive_s * self.listener.keep_alive_grace
        if self.version == 5:
            self.session_expiry_s = connect.properties.get(mqtt.SESSION_EXPIRY, 0)
        else:
            self.session_expiry_s = 0 if connect.clean else 0xFFFFFFFF
        self.flow.v5 = self.version == 5
        self.flow.packet_bytes_max = self.listener.packet_bytes_max
        self.flow.open = True

    def _refuse(self, connack, words):
        self._send(connack)
        self.listener.refuse(self, words)

    def _subscribe(self, packet):
        """Only status topics are granted, at QoS 0; this is no broker: devices do not hear each other."""
        packet_id, filters, subscription_id = mqtt.read_subscribe(packet, self.version)
        reasons, wanted = [], False
        for name, options in filters:
            if name.startswith("$tidegate/"):
                reasons.append(0)
                wanted = wanted or (mqtt.matches(name, STATUS_TOPIC) and not (self.version == 5 and options >> 4 & 3 == 2))
            elif self.version == 5:
                reasons.append(0x9E if name.startswith("$share/") else 0x87)
            else:
                reasons.append(0x80)
        self._send(mqtt.suback(self.version, packet_id, reasons))
        if wanted and self.listener.status is not None:
            ids = () if subscription_id is None else (subscription_id,)
            status = mqtt.publish(self.version, STATUS_TOPIC, self.listener.status(), retain=True, subscription_ids=ids)
            if len(status) <= self.packet_bytes_max:
                self._send(status)

    def _send(self, packet):
        self._check_size(packet)
        self.flow.answers.extend(packet)

    def _check_size(self, packet):
        if len(packet) > self.packet_bytes_max:
            raise mqtt.Malformed("its Maximum Packet Size is below what it has to be told", "3.1.2.11.4", 0x95)

    def close(self, words, reason=None):
        """End the connection, with DISCONNECT if the client speaks MQTT 5. Its will, if still there, is published."""
        if self.state == "closed":
            return
        was_open = self.state == "open"
        self.state = "closed"
        self.count()
        told = False
        try:
            if was_open and reason is not None and self.version == 5:
                self.flow.answers.extend(mqtt.disconnect(reason))
            if self.connection.waiting:
                told = not self.connection.flush()
        except OSError:
            pass                     # the peer is gone already
        self.listener.reactor.forget(self.fd)
        self.connection.close()
        if told:
            self.listener.parting.see_off(self.sock)
        else:
            self.sock.close()
        self.listener.closed(self, was_open, words)
