"""BrokerSource: events from an MQTT broker, such as Mosquitto, that devices publish to.

What is acknowledged is on the disk: PUBACK and PUBREC leave with acknowledge(), after the commit, and the session is
persistent: what the broker has sent and not had acknowledged it sends again after a broken connection or a restart.
docs/brokers.md tells what the publishing device can conclude from its own PUBACK.

Pacing: at a low rate each message wakes the reader at once. Above PACE_FROM events/s the socket is read every PACE_S
instead, so that one wake takes many messages; this is ten times cheaper, and costs PACE_S of latency at most. Where acknowledgements
are owed it is PACE_OWED_S: a broker has few messages under way (Mosquitto 20 at MQTT 3.1.1), and sends the next when it has heard of these.
"""

from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.errors import ConfigError
from edge.mqtt import packets as mqtt
from edge.mqtt._mqtt_session import PacketIds
from gateway.client import Client
from gateway.ingest._tap import Tap

PACE_S = 0.006
PACE_OWED_S = 0.002
PACE_FROM = 2000                     # events/s
PACE_UNTIL = 1000
PACE_WINDOW_S = 0.05                 # over which the rate is measured


class BrokerSource(Client):
    """A source: a subscriber with a persistent session. topics: [(filter, QoS)].

    packet_bytes_max: a larger PUBLISH is acknowledged, counted in `skipped` and reported, but not taken.
    receive_maximum: unacknowledged messages that the broker may have under way (MQTT 5 only; at 3.1.1 the broker decides).
    Counters: published, malformed, skipped, connects, failures, refused_topics. ConfigError for settings that cannot work.
    """

    def __init__(self, reactor, intake, *, host, port, topics, client_id, version=5, username=None, password=None, tls=None,
                 keepalive_s=60, clean_session=False, receive_maximum=4096, packet_bytes_max=1 << 20, on_event=None):
        if not client_id:
            raise ConfigError(f"broker {host}:{port}: a persistent session needs a client id: set one, unique at this broker")
        super().__init__(reactor, host=host, port=port, client_id=client_id, version=version, username=username, password=password,
                         tls=tls, keepalive_s=keepalive_s, clean_session=clean_session,
                         connect_properties={"ReceiveMaximum": receive_maximum}, on_connected=self._subscribe, on_event=on_event)
        self._intake, self._topics, self._version = intake, topics, version
        self._packet_bytes_max = packet_bytes_max
        self._received = PacketIds()     # QoS 2, of the session
        self._tap = None
        self._subscribed = False     # the broker answered SUBSCRIBE in this session
        self._paced = False
        self._paced_timer = None
        self._window_from, self._window_events = 0.0, 0
        self.published = self.malformed = self.skipped = self.refused_topics = 0
        self.on_subscribe = self._on_suback
        self.start()

    def acknowledge(self):
        """All events put into the intake so far are on disk: send their PUBACKs and PUBRECs."""
        if self._fd >= 0:
            self._guard(self._tap.acknowledge)

    def close(self):
        """Disconnect. The broker keeps the session and what is not acknowledged."""
        self._unpace()
        self.stop()

    def _create_socket(self):
        self._tap = Tap(super()._create_socket(), self._intake, self._received, v5=self._version == 5,
                        packet_bytes_max=self._packet_bytes_max)
        return self._tap

    # subscriptions

    def _subscribe(self, session_present):
        if session_present and self._subscribed:
            return
        if self._version == 5:       # retained messages only for subscriptions that the session does not have yet
            self.subscribe([(topic, SubscribeOptions(qos, retainHandling=1)) for topic, qos in self._topics])
        else:
            self.subscribe(self._topics)

    def _on_suback(self, client, data, mid, reasons, properties):
        self._subscribed = True
        for (topic, _), reason in zip(self._topics, reasons):
            if reason.is_failure:
                self.refused_topics += 1
                self._note("refused", f"subscription to {topic!r} refused: {reason}; check the broker's access list")

    # reading

    def _readable(self):
        if self._guard(self._fill):
            self._measure()

    def _guard(self, action):
        """Do something with the tap; an error ends the connection, and the back-off begins. Whether it is still there."""
        try:
            action()
        except OSError as e:
            self.drop(str(e))
            return False
        self._watch()
        return self._fd >= 0

    def _fill(self):
        tap = self._tap
        events = tap.fill()
        self.published += events
        self._window_events += events
        if tap.skipped:
            self._report_skipped(tap)
        for _ in range(64):
            if not tap.for_paho or self.socket() is not tap:
                break
            self.loop_read()
        self._settle()
        if self.socket() is not tap:
            return
        if tap.fault:
            self.malformed += 1
            self.drop(f"malformed bytes: {mqtt.Malformed.of_fault(tap.fault, self._version)}")
            return
        tap.flush()
        if tap.full or tap.more or tap.for_paho:
            self._read_soon()

    def _report_skipped(self, tap):
        fresh, tap.skipped = tap.skipped, 0
        self.skipped += fresh
        self._note("skipped", f"{fresh} messages above packet_bytes_max = {self._packet_bytes_max} were acknowledged and not taken")

    def _wants_write(self):
        return self.want_write() or (self._tap is not None and self._tap.waiting > 0)

    def _writable(self):
        if self._guard(self._tap.flush):
            super()._writable()

    # pacing

    def _measure(self):
        """Choose between waking for each message and reading at intervals, by the rate of the last window."""
        now = self._reactor.now
        if now - self._window_from < PACE_WINDOW_S:
            return
        rate = self._window_events / (now - self._window_from)
        self._window_from, self._window_events = now, 0
        if self._paced and rate < PACE_UNTIL:
            self._unpace()
            self._watch()
        elif not self._paced and rate > PACE_FROM:
            self._paced = True
            self._watch()
            self._paced_timer = self._reactor.later(PACE_S, self._paced_read)

    def _unpace(self):
        self._paced = False
        if self._paced_timer is not None:
            self._paced_timer.cancel()
            self._paced_timer = None

    def _paced_read(self):
        if self._paced:
            self._readable()
        if self._paced:
            self._paced_timer = self._reactor.later(PACE_OWED_S if self._tap.owes else PACE_S, self._paced_read)

    def _wants_read(self):
        return not self._paced

    def _close_socket(self):
        self._unpace()
        super()._close_socket()
