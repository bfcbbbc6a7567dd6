"""One device's MQTT connection: a non-blocking socket, the QoS handshakes, and what to send again after a loss."""

import errno
import os
import socket
import struct
from collections import deque

from . import packets

IDLE, CONNECTING, HANDSHAKE, UP = range(4)
OUT_MAX = 64 * 1024              # bytes waiting for the socket; then the queue waits
BACKOFF_MAX_S = 5.0
HANDSHAKE_MAX_S = 10.0
_IN_PROGRESS = (0, errno.EINPROGRESS)


class Event:
    """A payload on its way; n is its number in the truth once it has been sent."""

    __slots__ = ("payload", "record", "malformed", "lose_ack", "n", "acked")

    def __init__(self, payload, record, malformed, lose_ack):
        self.payload = payload
        self.record = record
        self.malformed = malformed
        self.lose_ack = lose_ack
        self.n = -1
        self.acked = False


class Connection:
    """Drives one client id. `fleet` gives truth, selector, timers, address and the wall clock of this turn."""

    __slots__ = ("fleet", "client_id", "topic", "qos", "version", "keepalive_s", "window", "queue_max", "queue", "evicted",
                 "state", "wanted", "inflight", "_socket", "_in", "_out", "_released", "_packet_id", "_receive_max", "_attempts",
                 "_since", "_heard", "_pinged", "_rate", "_allowance", "_allowed_at", "_writable")

    def __init__(self, fleet, group, client_id, topic):
        self.fleet = fleet
        self.client_id = client_id
        self.topic = packets.text(topic)
        self.qos = group.qos
        self.version = 5 if group.mqtt == "5" else 4
        self.keepalive_s = group.keepalive_s
        self.window = self._receive_max = group.window
        self.queue_max = group.buffer_max
        self.queue = deque()
        self.evicted = 0
        self.state = IDLE
        self.wanted = False
        self._socket = None
        self._in, self._out = bytearray(), bytearray()
        self.inflight = {}          # packet id -> Event, in the order of sending
        self._released = {}          # packet id -> None: PUBREC seen, PUBCOMP to come
        self._packet_id = 0
        self._attempts = 0
        self._since = self._heard = self._pinged = 0.0
        self._rate = None
        self._allowance = self._allowed_at = 0.0
        self._writable = False

    @property
    def pending(self) -> int:
        """Events that are not sent, or sent and not acknowledged; packets that wait for the socket count as one."""
        return len(self.queue) + len(self.inflight) + (1 if self._out or self._released else 0)

    def limit(self, bytes_per_s):
        """Carry no more than this from now on."""
        self._rate = bytes_per_s

    def put(self, event):
        """Queue an event; at the bound the oldest goes."""
        if len(self.queue) >= self.queue_max:
            self.queue.popleft()
            self.evicted += 1
        self.queue.append(event)

    def open(self):
        """Be connected from now on, again and again."""
        self.wanted = True
        if self.state == IDLE:
            self._dial()

    def abort(self, *, stay_away):
        """Cut the connection without a word (RST). stay_away: until open() is called again."""
        self.wanted = not stay_away
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._lost(at_once=True)

    def abandon(self):
        """Come back on a new connection and leave the old one open and unread: the caller closes the returned socket."""
        old, self._socket = self._socket, None
        if old is not None:
            self.fleet.selector.unregister(old)
        self._lost(at_once=True)
        return old

    def finish(self):
        """DISCONNECT and close; the last packet is sent if the socket takes it."""
        self.wanted = False
        if self.state == UP:
            try:
                self._socket.send(bytes(self._out) + packets.DISCONNECT_PACKET)
            except OSError:
                pass
        self._lost(at_once=True)

    def fill(self):
        """Move events from the queue to the wire, as far as window and buffer allow; each is written to the truth."""
        if self.state != UP:
            return
        queue, truth = self.queue, self.fleet.truth
        while queue and len(self._out) < OUT_MAX and (not self.qos or len(self.inflight) + len(self._released) < self._receive_max):
            event = queue.popleft()
            if event.n < 0:
                event.n = truth.event(event.record, self.fleet.wall_ns, event.malformed is not None)
            else:
                truth.copy(event.n, False)
            packet_id = 0
            if self.qos:
                packet_id = self._next_packet_id()
                self.inflight[packet_id] = event
            self._out += packets.publish(self.topic, event.payload, qos=self.qos, packet_id=packet_id, version=self.version)

    def send(self):
        """Write what is waiting. The truth must have been flushed before."""
        if not self._out or self.state < HANDSHAKE:
            return
        size = len(self._out)
        if self._rate:
            now = self.fleet.now
            self._allowance = min(self._rate, self._allowance + (now - self._allowed_at) * self._rate)
            self._allowed_at = now
            size = min(size, int(self._allowance))
            if not size:
                return
        try:
            done = self._socket.send(memoryview(self._out)[:size])
        except BlockingIOError:
            done = 0
        except OSError:
            self._lost()
            return
        del self._out[:done]
        self._allowance -= done
        self._since = self.fleet.now
        waits = bool(self._out) and not self._rate
        if waits != self._writable:
            self._writable = waits
            self.fleet.selector.watch(self._socket, self, waits)

    def ready(self, writable):
        """The socket has something to say."""
        if self.state == CONNECTING:
            if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._lost()
                return
            if not writable:
                return
            self._greet()
        elif writable:
            self.send()
            self.fleet.touched[self] = None
            if self.state < HANDSHAKE:
                return
        self._receive()

    def check(self, now):
        """Once a second or so: keep-alive, and handshakes that hang."""
        if self.state in (CONNECTING, HANDSHAKE):
            if now - self._since > HANDSHAKE_MAX_S:
                self._lost()
        elif self.state == UP:
            if self._pinged and now - self._pinged > self.keepalive_s:
                self._lost()
            elif not self._pinged and now - min(self._since, self._heard) > 0.5 * self.keepalive_s:
                self._pinged = now
                self._out += packets.PINGREQ
                self.fleet.touched[self] = None

    def _dial(self):
        if not self.wanted or self.state != IDLE:
            return
        fleet = self.fleet
        self._socket = socket.socket(fleet.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._since = fleet.now
        code = self._socket.connect_ex(fleet.address)
        if code not in _IN_PROGRESS:
            fleet.trouble = f"cannot connect: {os.strerror(code)}"
            self._socket.close()
            self._socket = None
            self._retry()
            return
        self.state = CONNECTING
        self._writable = True
        fleet.selector.watch(self._socket, self, True)

    def _greet(self):
        fleet = self.fleet
        self.state = HANDSHAKE
        self._out += packets.connect(self.client_id, version=self.version, keepalive_s=self.keepalive_s, clean=not self.qos,
                                     username=fleet.username, password=fleet.password)
        self._allowed_at = fleet.now
        self._allowance = 0.0
        self.send()

    def _receive(self):
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        self._heard = self.fleet.now
        self._in += data
        try:
            for kind, body in packets.read_packets(self._in):
                self._handle(kind, body)
                if self.state < HANDSHAKE:
                    return
        except (ValueError, struct.error) as error:
            self.fleet.trouble = f"the broker sent a malformed packet: {error}"
            self._lost()
        self.fleet.touched[self] = None

    def _handle(self, kind, body):
        if self.state == HANDSHAKE:
            if kind != packets.CONNACK:
                raise ValueError(f"packet type {kind} before CONNACK")
            reason, receive_max = packets.read_connack(body, self.version)
            if reason:
                self.fleet.trouble = self.fleet.rejection = f"the broker refuses {self.client_id}: {reason}"
                self._lost()
                return
            self._receive_max = min(self.window, receive_max)
            self.state = UP
            self._attempts = 0
            self._resume()
        elif kind == packets.PUBACK or kind == packets.PUBREC:
            self._acknowledged(kind, *struct.unpack_from(">H", body), body[2] if len(body) > 2 else 0)
        elif kind == packets.PUBCOMP:
            self._released.pop(struct.unpack_from(">H", body)[0], None)
        elif kind == packets.PINGRESP:
            self._pinged = 0.0
        elif kind == packets.DISCONNECT:
            self.fleet.trouble = f"the broker disconnected {self.client_id}: reason {body[0] if body else 0}"
            self._lost()

    def _acknowledged(self, kind, packet_id, reason):
        event = self.inflight.get(packet_id)
        if event is not None and event.lose_ack:
            event.lose_ack = False
            self.fleet.lost_acks += 1
            self.abort(stay_away=False)
            return
        if event is not None:
            del self.inflight[packet_id]
            if reason >= packets.REFUSED:
                self.fleet.refused += 1
            elif not event.acked:      # a copy of it may have been acknowledged before
                event.acked = True
                self.fleet.truth.acked(event.n)
        if kind == packets.PUBREC and reason < packets.REFUSED:
            self._released[packet_id] = None
            self._out += packets.pubrel(packet_id)

    def _resume(self):
        """After a reconnect: releases and unacknowledged packets again, in order, with DUP (MQTT 3.1.1, 4.4)."""
        for packet_id in self._released:
            self._out += packets.pubrel(packet_id)
        for packet_id, event in self.inflight.items():
            self.fleet.truth.copy(event.n, True)
            self._out += packets.publish(self.topic, event.payload, qos=self.qos, packet_id=packet_id, version=self.version, dup=True)

    def _lost(self, at_once=False):
        was = self.state
        if self._socket is not None:
            self.fleet.selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
        self._in.clear()
        self._out.clear()
        self._pinged = 0.0
        self.state = IDLE
        if was == UP and not at_once:
            self.fleet.losses += 1
        if self.wanted:
            self._retry(at_once)

    def _retry(self, at_once=False):
        delay = 0.0 if at_once and not self._attempts else min(BACKOFF_MAX_S, 0.1 * 2 ** min(self._attempts, 10))
        self._attempts += 1
        self.fleet.later(delay, self._dial)

    def _next_packet_id(self):
        packet_id = self._packet_id
        while True:
            packet_id = packet_id % 65535 + 1
            if packet_id not in self.inflight and packet_id not in self._released:
                self._packet_id = packet_id
                return packet_id
