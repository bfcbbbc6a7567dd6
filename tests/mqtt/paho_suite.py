"""The Eclipse Paho interoperability tests (client_test.py, client_test5.py of eclipse/paho.mqtt.testing) against the listener, as far as they are about what it serves.

    python paho_suite.py FOLDER        of a checkout

The suite tests a broker, and hears by a second client what became of what the first one published. The listener delivers to nobody; what the gateway took takes the
place of that: it is handed to the callbacks of clients that asked for it. So each test judges what was received, once, in order, at its QoS; and what the listener answers
goes over the wire untouched. Tests of what no device needs (retained messages, queueing for subscribers, shared subscriptions ...) are named in LEFT_OUT with the reason.
"""

import io
import sys
import unittest
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from gate import Gate

from edge.mqtt import packets as mqtt

DELIVERY = "delivery to subscribers: the listener has none"
RETAINED = "retained messages: none are kept"
DOLLAR = "publishes on a $ topic, which is refused here; the suite says to leave it out then"
ECHO = "properties of what subscribers are sent: the listener has none"
SUBACK_CODES = "in [0, 1, 2, 0x80]"
LEFT_OUT = {
    "client_test": {"test_dollar_topics": DOLLAR, "test_retained_messages": RETAINED, "test_offline_message_queueing": DELIVERY, "test_overlapping_subscriptions": DELIVERY,
                    "test_redelivery_on_reconnect": DELIVERY, "test_unsubscribe": DELIVERY},
    "client_test5": {"test_retained_message": RETAINED, "test_offline_message_queueing": DELIVERY, "test_overlapping_subscriptions": DELIVERY,
                     "test_redelivery_on_reconnect": DELIVERY, "test_unsubscribe": DELIVERY, "test_subscribe_options": DELIVERY, "test_subscribe_identifiers": DELIVERY,
                     "test_shared_subscriptions": DELIVERY, "test_request_response": DELIVERY, "test_flow_control1": DELIVERY, "test_server_topic_alias": DELIVERY,
                     "test_dollar_topics": DOLLAR, "test_subscribe_failure": "asks for reason code 0x80; here it is 0x87, which says why (MQTT 5.0 section 3.9.3)",
                     "test_user_properties": ECHO, "test_payload_format": ECHO, "test_publication_expiry": DELIVERY, "test_will_message": ECHO,
                     "test_server_keep_alive": "asks for the 60 s of its own broker; the client's keep-alive holds here"},
}


class Subscribers:
    """What the gate took, to the callbacks of clients that asked for it."""

    def __init__(self):
        self.wanted = []             # (callback, filter, qos)
        self.size_max = {}           # callback -> Maximum Packet Size

    def tell(self, event):
        topic, payload, number, flags = event
        for callback, name_filter, qos in list(self.wanted):
            if mqtt.matches(name_filter, topic.decode()) and 12 + len(topic) + len(payload) <= self.size_max.get(callback, 1 << 28):
                callback.publishArrived(topic.decode(), payload, min(qos, flags & 3), bool(flags & 4), number)


def adapt(client_class, subscribers):
    """Clients of the suite: a subscription goes to the listener, and to the subscribers until they disconnect."""
    connect, subscribe, disconnect = client_class.connect, client_class.subscribe, client_class.disconnect

    def connected(self, *more, **words):
        subscribers.size_max[self.callback] = getattr(words.get("properties"), "MaximumPacketSize", 1 << 28)
        return connect(self, *more, **words)

    def subscribed(self, topics, options, *more, **words):
        if self.callback is not None:
            subscribers.wanted += [(self.callback, topic, getattr(option, "QoS", option)) for topic, option in zip(topics, options)]
        return subscribe(self, topics, options, *more, **words)

    def disconnected(self, *more, **words):
        try:
            return disconnect(self, *more, **words)
        finally:
            subscribers.wanted[:] = [want for want in subscribers.wanted if want[0] is not self.callback]

    client_class.connect, client_class.subscribe, client_class.disconnect = connected, subscribed, disconnected


def load_formats(root):
    """The suite's MQTT 5 packets, whose SUBACK knows the codes of a draft only (0, 1, 2, 0x80): let it take the others of MQTT 5.0 section 3.9.3, too."""
    path = root / "mqtt/formats/MQTTV5/MQTTV5.py"
    source = path.read_text()
    assert source.count(SUBACK_CODES) == 1
    module = ModuleType("mqtt.formats.MQTTV5.MQTTV5")
    sys.modules[module.__name__] = module
    exec(compile(source.replace(SUBACK_CODES, "in [0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]"), str(path), "exec"), vars(module))


def run(folder, only=None):
    """[(suite, test, "passed" | "failed" | "left out", why)]."""
    root = Path(folder) / "interoperability"
    sys.path.insert(0, str(root))
    load_formats(root)
    found = []
    for name, version in (("client_test", "V311"), ("client_test5", "V5")):
        subscribers = Subscribers()
        gate = Gate(subscribers.tell, packet_bytes_max=60_000)
        suite = import_module(name)
        adapt(import_module(f"mqtt.clients.{version}").Client, subscribers)
        prefix = "client_test5/" if version == "V5" else ""
        vars(suite).update(host="127.0.0.1", port=gate.listener.port, topic_prefix=prefix, nosubscribe_topics=("test/nosubscribe",),
                           topics=[prefix + t for t in ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")],
                           wildtopics=[prefix + t for t in ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")], setData=lambda: None)
        suite.Test.testWill = getattr(suite.Test, "will_message_test", None)     # its name hides it from unittest
        for test in unittest.TestLoader().getTestCaseNames(suite.Test):
            if getattr(suite.Test, test) is None or (only and test not in only):
                continue
            why = LEFT_OUT[name].get(test)
            found.append((name, test, "left out", why) if why else (name, test, *_judge(suite.Test, test)))
            print(*found[-1], sep="  ", flush=True)
        gate.close()
    return found


def _judge(case, test):
    """The verdict of one test. Some of the suite swallow what they found and answer False: that is a failure, too."""
    said, told, answers = io.StringIO(), io.StringIO(), []
    method = getattr(case, test)
    setattr(case, test, lambda self: answers.append(method(self)))
    with redirect_stdout(told), redirect_stderr(told):
        result = unittest.TextTestRunner(said).run(unittest.TestSuite([case(test)]))
    if result.wasSuccessful() and answers in ([None], [True]):
        return "passed", ""
    return "failed", (told.getvalue()[-1500:] + said.getvalue()[-1500:]).strip()


if __name__ == "__main__":
    sys.exit(any(verdict == "failed" for _, _, verdict, _ in run(sys.argv[1], sys.argv[2:])))
