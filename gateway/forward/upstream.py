"""Upstream: one MQTT connection that carries all lanes, the most urgent first.

Delivery: a message counts as delivered when its PUBACK arrives, never before (paho's return codes are not asked). When a
connection ends, every message in flight is forgotten here and in paho, and the lanes read it again from their logs.

Order: before each message the lanes are asked by priority. Windows are per lane, so that bulk in flight takes no slot of
an alert; only the first lane may queue behind bytes the kernel has not taken, and the kernel's buffer is kept small. What waits
from an outage has about one message under way, and is packed in turns of its own (pace.py).

The circuit: closed -> open after FAILURES_OPEN failures in a row (connections that failed, were lost, or did not
acknowledge in time) -> half-open when a connection stands: one message at a time, until a PUBACK closes the circuit.

With a mailbox (mailbox.py) the connection also takes management requests. It is the least urgent lane; nothing else is ever subscribed to.
"""

import socket
from time import perf_counter, time_ns

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.client import Client
from gateway.forward.pace import Pace
from gateway.forward.packer import CONTENT_BATCH, CONTENT_JSON, CONTENT_JSONL

BUDGET_S = 0.0003                    # encoding in one turn of the loop: an alert that comes meanwhile waits that long, and for the message that is being made
FAILURES_OPEN = 3
SEND_BUFFER_BYTES = 64 << 10         # an alert waits behind this many bulk bytes at most (the kernel doubles it)
PACKET_BYTES_MIN = 2048              # a server that takes less would turn ordinary rows into dead letters
SLOWEST_LINK = 2048                  # bytes per second that a PUBACK's deadline allows for
PACKET_IN_BYTES_MAX = 128 << 10      # that the server may send; a longer one ends the connection
REQUESTS_IN_FLIGHT_MAX = 8           # Receive Maximum


class Link(Client):
    """The client, with the server's limits kept and what is queued sent at once."""

    def __init__(self, reactor, *, on_drained, **options):
        super().__init__(reactor, **options)
        self.limits = None           # the CONNACK's properties, MQTT 5
        self._drained = on_drained
        note = self.on_connect

        def on_connect(client, data, flags, reason, properties):
            self.limits = properties
            note(client, data, flags, reason, properties)

        self.on_connect = on_connect
        self.on_socket_open = lambda client, data, sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def connect_async(self, *args, **options):
        """paho's, which takes its in-flight limit before this call only: none, the lanes' windows are the limit."""
        self.max_inflight_messages_set(0)
        super().connect_async(*args, **options)

    def _sock_recv(self, size):
        if size > PACKET_IN_BYTES_MAX:       # paho asks for all of a packet at once
            raise ConnectionError(f"a packet of {size} bytes")
        return super()._sock_recv(size)

    def limit(self, name):
        """A CONNACK property by paho's name; None if the server set none."""
        return getattr(self.limits, name, None)

    def flush(self):
        """Hand queued packets to the kernel, as far as it takes them."""
        self._writable()

    def _writable(self):
        super()._writable()
        if self.connected and not self.want_write():
            self._drained()


class Upstream:
    """Publishes for `lanes` to host:port. client_options: what Client takes (version, username, password, tls, keepalive_s).

    on_event(name, message) hears of connections, for the log. mailbox: a Mailbox, or None. fresh(): whether events have come in that are not looked at yet.
    """

    def __init__(self, reactor, lanes, *, host, port, client_id, version=5, ack_timeout_s=30.0, on_event=None, mailbox=None, fresh=lambda: False, **client_options):
        self._reactor, self._fresh = reactor, fresh
        self._mailbox = mailbox
        self._lanes = sorted([*lanes, mailbox] if mailbox else lanes, key=lambda lane: lane.policy.priority)
        self._in_flight = {}         # packet id -> Message
        self._bytes_in_flight = 0
        self._pace = Pace()
        self._pace.turn = False
        self._ack_timeout_s = ack_timeout_s
        self._on_event = on_event
        self._failures = 0           # in a row
        self._messages_max = 0       # in flight at once: the server's Receive Maximum
        self._pumping = False
        self._pump_queued = self._gave_way = False
        self._timer = self._timer_at = None
        self._ack_timer = None
        self.ack_timeouts = 0
        self.error = ""              # the server cannot be used at all
        self._link = Link(reactor, host=host, port=port, client_id=client_id, version=version, clean_session=True,
                          on_connected=self._connected, on_disconnected=self._disconnected, on_published=self._published,
                          on_event=self._event, on_drained=self._queue_pump, **client_options,
                          connect_properties={"MaximumPacketSize": PACKET_IN_BYTES_MAX, "ReceiveMaximum": REQUESTS_IN_FLIGHT_MAX} if mailbox else None)
        if mailbox is not None:
            self._link.on_message = lambda client, data, message: mailbox.take(message.topic, message.payload, message.retain, message.properties)
            self._link.on_subscribe = lambda client, data, mid, reasons, properties: self._subscribed(reasons[0])
        self._content = _content_properties() if version == 5 else None
        for lane in self._lanes:
            lane.upstream, lane.pace = self, self._pace

    def start(self):
        """Connect, and again whenever the connection is lost."""
        self._link.start()

    def close(self):
        """Send DISCONNECT and stay closed. What is not acknowledged remains in the lanes."""
        self._link.stop()
        self._disconnected("closed")

    @property
    def tls(self):
        """The ssl.SSLContext of the next connection, or None."""
        return self._link.tls

    @tls.setter
    def tls(self, context):
        self._link.tls = context

    @property
    def connected(self):
        """A connection stands."""
        return self._link.connected

    @property
    def state(self):
        """The circuit: closed, open or half-open."""
        return "closed" if self._failures < FAILURES_OPEN else "half-open" if self.connected else "open"

    def status(self):
        """For people and /metrics."""
        link = self._link
        return {
            "where": link.where, "circuit": self.state, "connection": link.status, "error": self.error or link.last_error,
            "connects": link.connects, "failures": self._failures, "ack_timeouts": self.ack_timeouts,
            "in_flight": len(self._in_flight), "bytes_in_flight": self._bytes_in_flight,
            "lanes": {lane.name: lane.status(time_ns()) for lane in self._lanes if lane is not self._mailbox},
            **({"manage": self._mailbox.status()} if self._mailbox else {}),
        }

    def pump(self):
        """Send what is due, for BUDGET_S at most; the rest, and what is of a backlog, in the turns to come."""
        if self._pumping or not self._link.connected:
            return
        self._pumping = True
        try:
            now, until = self._reactor.now, perf_counter() + BUDGET_S
            sent = 0
            while (message := self._next(now, until)) is not None:
                sent += 1
                if not self._send(message, now) or perf_counter() > until:
                    break
            if sent and self._link.want_write():
                self._link.flush()
            if perf_counter() > until:
                self._answer(now)
        finally:
            self._pumping = False
        if self._link.connected:
            if self._pace.asked or any(lane.unfinished for lane in self._lanes) or perf_counter() > until:
                self._queue_pump()
            self._pace.asked = False
            self._arm(now)

    # --- sending

    def _answer(self, now):
        """Send one answer when the lanes used up the turn's time: while one drains for minutes, they would wait for its end."""
        if self._mailbox is None or self._full() or not self._link.connected or self._link.want_write():
            return
        message = self._mailbox.next(now, perf_counter())
        if message is not None and self._send(message, now) and self._link.want_write():
            self._link.flush()

    def _next(self, now, until):
        if self._full():
            return None
        for number, lane in enumerate(self._lanes):
            if number and self._link.want_write():
                self._link.flush()
                if self._link.want_write() or not self._link.connected:
                    return None      # _writable pumps again
            message = lane.next(now, until)
            if message is not None:
                return message
            if lane.unfinished:
                return None
        return None

    def _full(self):
        return len(self._in_flight) >= (1 if self._failures >= FAILURES_OPEN else self._messages_max)

    def _send(self, message, now):
        properties = message.properties or self._content[message.content_type] if self._content else None
        info = self._link.publish(message.topic, message.payload, 1, message.retain, properties)
        if info.mid in self._in_flight:
            # All packet ids have come round while this one waits: the server forgot it.
            self._link.drop("a message stayed unacknowledged for 65535 others")
            return False
        self._bytes_in_flight += message.size
        message.deadline = now + self._ack_timeout_s + self._bytes_in_flight / SLOWEST_LINK
        self._in_flight[info.mid] = message
        if message.backlog:
            message.sent_at, message.alone = self._reactor.monotonic(), self._pace.sent(message.size)
        if self._ack_timer is None:
            self._ack_timer = self._reactor.later(self._ack_timeout_s / 4, self._check_acks)
        return True

    def _queue_pump(self):
        if not self._pump_queued:
            self._pump_queued = True
            self._reactor.soon(self._pump_now)

    def _pump_now(self):
        self._pump_queued = False
        self._gave_way = not self._gave_way and self._fresh()
        if self._gave_way:
            self._queue_pump()       # an alert may be among them: it is not to wait until more is packed
            return
        self._pace.turn = True       # the sockets were read before this
        self.pump()
        self._pace.turn = False

    def _arm(self, now):
        """A timer for the lane that is due first."""
        if self._full():
            return                   # a PUBACK or the end of the connection pumps again
        lanes = self._lanes[:1] if self._link.want_write() else self._lanes
        due = min((at for lane in lanes if (at := lane.due_at(now)) is not None), default=None)
        if due is None or self._timer is not None and self._timer_at <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._reactor.later(max(0.001, due - now), self._due)

    def _due(self):
        self._timer = None
        self.pump()

    # --- answers

    def _published(self, mid, failure):
        message = self._in_flight.pop(mid, None)
        if message is None:
            return                   # of a lane that was refused since
        self._bytes_in_flight -= message.size
        if failure is None:
            self._failures = 0
            if message.backlog:
                self._pace.acknowledged(message.size, message.alone, self._reactor.monotonic() - message.sent_at)
            message.lane.acknowledged(message)
        else:
            self._refused(message, failure)
        self._queue_pump()

    def _refused(self, message, failure):
        """The server answered but will not take it: the lane pauses, the connection and the other lanes go on."""
        lane, gone = message.lane, [message]
        if self._on_event is not None and not lane.refusal:
            self._on_event("refused", f"lane {lane.name}: {self._link.where} refuses messages on {message.topic}: {failure}")
        for mid in [mid for mid, other in self._in_flight.items() if other.lane is lane]:
            gone.append(self._in_flight.pop(mid))
            self._bytes_in_flight -= gone[-1].size
        for message in gone:
            if message.backlog:
                self._pace.forgotten(message.size)
        lane.refused(failure, self._reactor.now)

    def _check_acks(self):
        self._ack_timer = None
        late = [m for m in self._in_flight.values() if m.deadline <= self._reactor.now]
        if late:
            self.ack_timeouts += 1
            self._link.drop(f"no PUBACK for a message on {late[0].topic} within {self._ack_timeout_s:.0f} s")
        elif self._in_flight:
            self._ack_timer = self._reactor.later(self._ack_timeout_s / 4, self._check_acks)

    # --- the connection

    def _connected(self, session_present):
        self.error = ""
        if self._link.limit("MaximumQoS") == 0:
            self.error = "the server takes QoS 0 only: nothing can be acknowledged"
            self._link.drop(self.error)
            return
        packet_bytes_max = self._link.limit("MaximumPacketSize")
        if packet_bytes_max is not None and packet_bytes_max < PACKET_BYTES_MIN:
            self.error = f"the server takes packets of {packet_bytes_max} bytes at most; {PACKET_BYTES_MIN} are needed"
            self._link.drop(self.error)
            return
        self._messages_max = self._link.limit("ReceiveMaximum") or 65535
        for lane in self._lanes:
            lane.connected(packet_bytes_max)
        if self._mailbox is not None:
            self._link.subscribe(self._mailbox.topic_in, 1)
        self.pump()

    def _subscribed(self, reason):
        self._mailbox.listening = not reason.is_failure
        if reason.is_failure:
            self._mailbox.refusal = f"the server refuses the subscription to {self._mailbox.topic_in}: {reason}"
            if self._on_event is not None:
                self._on_event("refused", self._mailbox.refusal)

    def _disconnected(self, reason):
        self._in_flight.clear()
        self._bytes_in_flight = 0
        self._pace.reset()
        for timer in (self._timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._ack_timer = None
        for lane in self._lanes:
            lane.disconnected()

    def _event(self, name, message):
        if name != "connected":
            self._failures += 1
        if self._on_event is not None:
            self._on_event(name, message)


def _content_properties():
    """PUBLISH properties by content type; rows go without: it would be a quarter of their bytes."""
    table = {None: None}
    for content_type in (CONTENT_BATCH, CONTENT_JSON, CONTENT_JSONL):
        table[content_type] = Properties(PacketTypes.PUBLISH)
        table[content_type].ContentType = content_type
    return table
