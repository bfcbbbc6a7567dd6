"""Mailbox: management requests out of the cloud, over the upstream connection, for gateways that nothing can call.

request  tidegate/GATEWAY/manage/in    {"id": text, "request": {"do": NAME, ...}}
answer   tidegate/GATEWAY/manage/out   {"id": text, "ok": true, "value": ...} or {"id": text, "ok": false, "error": text, "fault": whose}

MessagePack or JSON, the answer as the request. At MQTT 5 a Response Topic is followed if it is manage/out or below it (elsewhere the gateway would
publish for others what they may not), and Correlation Data comes back. Each request has a fresh id. One that changes something is done once: if
it comes again, in whatever connection, it gets the answer it had, as long as that is remembered (KNOWN_MAX, KNOWN_BYTES_MAX), and after a restart
the audit log knows it. Whoever asks repeats until there is an answer: requests beyond REQUESTS_MAX are dropped, retained ones always are.

To the Upstream it is one more lane, the least urgent. One request is handled a turn, RATE a second; no more while ANSWERS_MAX answers wait to leave.
"""

import base64
import hashlib
import json
from collections import OrderedDict, deque, namedtuple

import msgspec
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.errors import TidegateError, UpstreamError
from gateway.forward.packer import PACKET_BYTES, Message
from gateway.requests import CHUNK_BYTES_MAX, ROUTES, fault_of

REQUEST_BYTES_MAX = 96 << 10         # a chunk in base64, and the rest
ANSWER_BYTES_MAX = 96 << 10
REQUESTS_MAX = 16
ANSWERS_MAX = 8
IN_FLIGHT_MAX = 2
RATE = 20.0
BURST = 40.0
ID_CHARACTERS_MAX = 64
TOPIC_BYTES_MAX = 256
CORRELATION_BYTES_MAX = 256
KNOWN_MAX = 256
KNOWN_BYTES_MAX = 512 << 10
HOLD_S = 30.0                        # after the server refused an answer
WHO = "mqtt:upstream"

Policy = namedtuple("Policy", "priority")
Letter = namedtuple("Letter", "payload topic correlation")       # a request, and where its answer goes


def topics(gateway):
    """(where requests come in, where answers go out)."""
    return f"tidegate/{gateway}/manage/in", f"tidegate/{gateway}/manage/out"


class Mailbox:
    """handle(request, who) answers with plain data or raises TidegateError. on_event(name, message) is for the log."""

    name = "manage"
    policy = Policy(priority=10)
    unfinished = False

    def __init__(self, reactor, gateway, handle, on_event=None):
        self.topic_in, self._topic_out = topics(gateway)
        self.upstream = None         # set by the Upstream that carries it
        self.listening = False       # the server has granted the subscription
        self.refusal = ""            # why answers or the subscription are refused
        self.handled = self.repeated = self.dropped = self.malformed = 0
        self._reactor = reactor
        self._handle = handle
        self._on_event = on_event
        self._requests = deque()
        self._answers = deque()
        self._in_flight = 0
        self._connected = False
        self._answer_bytes_max = ANSWER_BYTES_MAX
        self._hold_until = 0.0
        self._known = OrderedDict()  # id -> (SHA-256 of the request, answer)
        self._known_bytes = 0
        self._tokens, self._filled_at = BURST, reactor.now
        self._timer = None           # or True: soon

    def status(self):
        """For people."""
        return {"listening": self.listening, "handled": self.handled, "repeated": self.repeated, "dropped": self.dropped, "malformed": self.malformed,
                "waiting": len(self._requests), "answers": len(self._answers), "refusal": self.refusal}

    def take(self, topic, payload, retained, properties=None):
        """A message of the upstream connection. Only queues it; properties: MQTT 5's, as paho has them."""
        if topic != self.topic_in or retained:
            return
        if len(self._requests) >= REQUESTS_MAX:
            self.dropped += 1
            return
        where = getattr(properties, "ResponseTopic", None) or self._topic_out
        correlation = getattr(properties, "CorrelationData", None)
        inside = where == self._topic_out or where.startswith(self._topic_out + "/")
        if not inside or len(where.encode()) > TOPIC_BYTES_MAX or any(c in where for c in "+#\0") or len(correlation or b"") > CORRELATION_BYTES_MAX:
            self.malformed += 1
            self._note("refused", f"a request wants its answer on {where[:TOPIC_BYTES_MAX]!r}: answers go to {self._topic_out} and below, correlation data up to {CORRELATION_BYTES_MAX} bytes")
            return
        self._requests.append(Letter(payload, where, correlation))
        self._work_soon()

    # --- requests

    def _work_soon(self):
        if self._timer is None and self._requests and len(self._answers) < ANSWERS_MAX:
            self._timer = True
            now = self._reactor.now
            self._tokens = min(BURST, self._tokens + (now - self._filled_at) * RATE)
            self._filled_at = now
            if self._tokens >= 1:
                self._reactor.soon(self._work)
            else:
                self._reactor.later((1 - self._tokens) / RATE, self._work)

    def _work(self):
        """Handle one request: the turn belongs to the events."""
        self._timer = None
        self._tokens -= 1
        letter = self._requests.popleft()
        self._answers.append(letter._replace(payload=self._answer(letter.payload)))
        self._work_soon()
        if self.upstream is not None:
            self.upstream.pump()

    def _answer(self, payload) -> bytes:
        encode = msgspec.json.encode if payload[:1] == b"{" else msgspec.msgpack.encode
        try:
            identity, request = decode(payload)
        except UpstreamError as error:
            self.malformed += 1
            self._note("refused", f"a management request: {error}")
            return encode({"id": None, "ok": False, "error": str(error), "fault": "request"})
        route, fingerprint = ROUTES.get(request["do"]), hashlib.sha256(payload).digest()
        if identity in self._known:
            self.repeated += 1
            before, answer = self._known[identity]
            if before == fingerprint:
                return answer
            return encode({"id": identity, "ok": False, "error": f"id {identity!r} was another request's; take a fresh one", "fault": "request"})
        self.handled += 1
        changes = route is not None and route.writes
        answer = self._carry_out(identity, request | ({"once": f"{identity} {fingerprint.hex()[:16]}"} if changes else {}), encode)
        if changes:
            self._remember(identity, fingerprint, answer)
        return answer

    def _carry_out(self, identity, request, encode) -> bytes:
        try:
            answer = {"id": identity, "ok": True, "value": self._handle(request, WHO)}
            # Through JSON: no door shows more than another.
            answer = encode(json.loads(json.dumps(answer, default=str)))
            if len(answer) <= self._answer_bytes_max:
                return answer
            text, fault = f"the answer has {len(answer)} bytes, {self._answer_bytes_max} fit a message; ask for less of it", "request"
        except TidegateError as error:
            text, fault = str(error), fault_of(error)
        except Exception as error:   # a question must not stop the gateway
            text, fault = f"a mistake in the gateway: {error!r}", "gateway"
        return encode({"id": identity, "ok": False, "error": text[:2000].encode(errors="replace").decode(), "fault": fault})

    def _remember(self, identity, fingerprint, answer):
        self._known[identity] = fingerprint, answer
        self._known_bytes += len(answer)
        while len(self._known) > KNOWN_MAX or self._known_bytes > KNOWN_BYTES_MAX:
            _, (_, old) = self._known.popitem(last=False)
            self._known_bytes -= len(old)

    def _note(self, name, message):
        if self._on_event is not None:
            self._on_event(name, message)

    # --- for the Upstream: a lane

    def connected(self, packet_bytes_max=None):
        """A connection stands, with the server's Maximum Packet Size or None."""
        self._connected, self.refusal, self._hold_until = True, "", 0.0
        room = ANSWER_BYTES_MAX if packet_bytes_max is None else packet_bytes_max - PACKET_BYTES - TOPIC_BYTES_MAX - CORRELATION_BYTES_MAX
        self._answer_bytes_max = max(1024, min(ANSWER_BYTES_MAX, room))

    def disconnected(self):
        """What was in flight is forgotten: whoever waits for it asks again."""
        self._connected = self.listening = False
        self._in_flight = 0

    def refused(self, reason, now):
        """The server refuses answers: wait."""
        self.refusal = reason
        self._hold_until = now + HOLD_S
        self._in_flight = 0

    def next(self, now, until):
        """The next answer, or None."""
        if not self._answers or not self._connected or self._in_flight >= IN_FLIGHT_MAX or now < self._hold_until:
            return None
        letter = self._answers.popleft()
        self._in_flight += 1
        message = Message(letter.topic, letter.payload, 0, None, properties=_answer_properties(letter))
        message.lane = self
        self._work_soon()
        return message

    def acknowledged(self, message):
        """PUBACK for an answer."""
        self._in_flight -= 1
        self.refusal = ""

    def due_at(self, now):
        """When next() may have something that it has not now; None: only after a PUBACK or a request."""
        return self._hold_until if self._answers and self._connected and now < self._hold_until else None


def decode(payload):
    """(id, request) of a message. Raises UpstreamError that says what is wrong with it."""
    if len(payload) > REQUEST_BYTES_MAX:
        raise UpstreamError(f"it has {len(payload)} bytes, {REQUEST_BYTES_MAX} are taken; send chunks of up to {CHUNK_BYTES_MAX} bytes")
    try:
        message = (msgspec.json if payload[:1] == b"{" else msgspec.msgpack).decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as error:
        raise UpstreamError(f"it is neither JSON nor MessagePack: {error}") from None
    if not isinstance(message, dict) or message.keys() != {"id", "request"}:
        raise UpstreamError('it is no {"id": ..., "request": {"do": ...}}')
    identity, request = message["id"], message["request"]
    if not isinstance(identity, str) or not 0 < len(identity) <= ID_CHARACTERS_MAX:
        raise UpstreamError(f"its id is no text of 1 to {ID_CHARACTERS_MAX} characters")
    if not isinstance(request, dict) or not isinstance(request.get("do"), str):
        raise UpstreamError('its request is no {"do": ...}')
    if isinstance(data := request.get("data"), bytes):
        request["data"] = base64.b64encode(data).decode()
    try:
        request = json.loads(json.dumps(request, allow_nan=False))       # as it would come through another door
    except (TypeError, ValueError, RecursionError):
        raise UpstreamError("it has values that JSON does not have (bytes are for data alone)") from None
    return identity, request


def _answer_properties(letter):
    if letter.correlation is None:
        return None
    properties = Properties(PacketTypes.PUBLISH)
    properties.CorrelationData = letter.correlation
    return properties
