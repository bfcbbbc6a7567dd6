"""Postbox: the other end of a gateway's mailbox, for tools. Asks through a broker until there is an answer."""

import os
import threading
import time

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.manage.mailbox import topics
from gateway.requests import NoAnswer, error_of

CONNECT_S = 10.0
REPEAT_S = 3.0                       # between two tries of a request


class Postbox:
    """A connection to a broker; it comes back by itself when it is lost. tls: an ssl.SSLContext or None."""

    def __init__(self, host, port, gateway, username=None, password=None, tls=None):
        self.where = f"{gateway} by way of {host}:{port}"
        self._topic_in, self._topic_out = topics(gateway)
        self._own = f"{self._topic_out}/{os.urandom(6).hex()}"       # so that the tools do not read each other's answers
        self._number = 0
        self._answers = {}           # id -> answer, of requests that wait
        self._changed = threading.Condition()
        self._ready = False
        self._trouble = "no answer from the broker"
        self._properties = Properties(PacketTypes.PUBLISH)
        self._properties.ResponseTopic = self._own
        self._client = client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"tidegate-{os.urandom(6).hex()}", protocol=paho.MQTTv5)
        client.on_connect, client.on_subscribe, client.on_message = self._connected, self._subscribed, self._arrived
        client.on_disconnect = lambda *_: self._set(False, "the broker ended the connection")
        client.reconnect_delay_set(1, 5)
        if username is not None or password is not None:
            client.username_pw_set(username or "tidegate", password)
        if tls is not None:
            client.tls_set_context(tls)
        try:
            client.connect(host, port, keepalive=20)
        except (OSError, ValueError) as error:
            raise NoAnswer(f"{host}:{port}: no broker answers: {error}") from None
        client.loop_start()

    def ask(self, request, timeout_s):
        """The answer to a request. The same request goes again each REPEAT_S, under the same id: the gateway does it once."""
        self._number += 1
        identity = f"{self._own[-12:]}-{self._number}"
        payload = msgspec.msgpack.encode({"id": identity, "request": request})
        until = time.monotonic() + timeout_s
        with self._changed:
            self._answers[identity] = None
            try:
                while self._answers[identity] is None:
                    left = until - time.monotonic()
                    if left <= 0:
                        raise NoAnswer(f"{self.where}: no answer within {timeout_s:.0f} s ({self._trouble}); is the gateway connected, with upstream.manage = true?")
                    if self._ready:
                        self._client.publish(self._topic_in, payload, 1, properties=self._properties)
                        self._changed.wait_for(lambda: self._answers[identity] is not None or not self._ready, min(REPEAT_S, left))
                    else:
                        self._changed.wait(left)
                answer = self._answers[identity]
            finally:
                del self._answers[identity]
        if answer.get("ok"):
            return answer.get("value")
        raise error_of(answer.get("fault"), str(answer.get("error")))

    def close(self):
        """Say goodbye to the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    # --- paho's thread

    def _connected(self, client, data, flags, reason, properties):
        if reason.is_failure:
            self._set(False, f"the broker refuses the connection: {reason}")
        else:
            client.subscribe([(self._topic_out, 1), (self._own, 1)])

    def _subscribed(self, client, data, mid, reasons, properties):
        refused = [reason for reason in reasons if reason.is_failure]
        if len(refused) == len(reasons):
            self._set(False, f"the broker refuses a subscription to {self._topic_out}: {refused[0]}")
        else:
            self._set(True, "the gateway is silent")

    def _set(self, ready, trouble):
        with self._changed:
            self._ready, self._trouble = ready, trouble
            self._changed.notify_all()

    def _arrived(self, client, data, message):
        try:
            answer = msgspec.msgpack.decode(message.payload)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return                   # another tool's, in JSON
        with self._changed:
            if isinstance(answer, dict) and isinstance(answer.get("id"), str) and answer["id"] in self._answers:
                self._answers[answer["id"]] = answer
                self._changed.notify_all()


