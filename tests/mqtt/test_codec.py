"""edge.mqtt._mqtt and edge.mqtt.packets: what is valid is taken exactly, in any cut; what is not is refused with its section."""

import pytest
from hypothesis import given, settings, strategies as st
from paho.mqtt import _packet as paho_packet
from paho.mqtt.client import Client, MQTTProtocolVersion
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.errors import DeviceError
from edge.mqtt import packets as mqtt
from edge.mqtt._intake import Intake, Topics
from edge.mqtt._mqtt import FAULTS, Flow

MORE, OTHER, FULL, FAULT, LARGE = range(5)


class Wire:
    """A socket that keeps what paho sends."""

    def __init__(self):
        self.sent = b""

    def send(self, data):
        self.sent += bytes(data)
        return len(data)

    def close(self):
        pass


def paho_bytes(version, action, **settings):
    """What paho encodes for an action on a client."""
    client = Client(CallbackAPIVersion.VERSION2, client_id="c", protocol=MQTTProtocolVersion(version), **settings)
    client._sock = wire = Wire()
    action(client)
    client.loop_write()
    client._sock = None
    return wire.sent


def flow_and_intake(v5=False, server=True, events_max=4096, **settings):
    flow = Flow(server=server, v5=v5, **settings)
    flow.open = True
    return flow, Intake(Topics(), events_max, 1 << 20)


def publish(topic=b"a/b", payload=b"hello", qos=0, packet_id=7, properties=b"", v5=False, flags=0):
    body = len(topic).to_bytes(2, "big") + topic + (packet_id.to_bytes(2, "big") if qos else b"")
    return mqtt._packet(0x30 | qos << 1 | flags, body + (mqtt._varint(len(properties)) + properties if v5 else b"") + payload)


# Topics that a device may have: neither $ at the beginning nor control characters (edge/mqtt/_permission.pyx).
TOPICS = st.text(st.characters(blacklist_characters="+#", blacklist_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(lambda topic: topic[0] != "$")
MESSAGES = st.lists(st.tuples(TOPICS, st.binary(max_size=300), st.integers(0, 2), st.booleans(), st.booleans()), min_size=1, max_size=8)


def paho_stream(version, messages):
    """Packets of paho for these messages, and its own decoding of them."""
    packets = []
    for topic, payload, qos, retain, with_properties in messages:
        properties = None
        if version == 5 and with_properties:
            properties = Properties(PacketTypes.PUBLISH)
            properties.ContentType, properties.UserProperty = "json", ("k", "ü")
            properties.MessageExpiryInterval = 5
        packets.append(paho_bytes(version, lambda c: c.publish(topic, payload, qos, retain, properties)))
    decoded = []
    for i, packet in enumerate(packets):
        head = mqtt.Reader(packet, "").at
        one = paho_packet.decode_publish(packet[0], bytearray(packet[head:]), MQTTProtocolVersion(version))
        decoded.append((bytes(one.topic), bytes(one.payload), one.mid, one.qos | one.retain << 2))
        if one.qos:                                  # paho numbers each client's first message 1: give each its own id
            at = head + 2 + len(one.topic)
            packets[i] = packet[:at] + (i + 1).to_bytes(2, "big") + packet[at + 2:]
            decoded[-1] = (*decoded[-1][:2], i + 1, decoded[-1][3])
    return packets, decoded


@given(MESSAGES, st.sampled_from([4, 5]), st.data())
@settings(max_examples=150, deadline=None)
def test_pahos_packets_are_taken_as_paho_takes_them_in_any_cut(messages, version, data):
    packets, decoded = paho_stream(version, messages)
    stream = b"".join(packets) + b"\x32\x7f\x00"     # with the beginning of one more
    for cut in (len(stream), 1, data.draw(st.integers(1, 50))):
        flow, intake = flow_and_intake(version == 5)
        buffer = b""
        for i in range(0, len(stream), cut):
            buffer += stream[i:i + cut]
            stop, consumed, _, fault = flow.feed(buffer, intake)
            assert (stop, fault) == (MORE, 0)
            buffer = buffer[consumed:]
        assert buffer == b"\x32\x7f\x00"
        assert [intake[i] for i in range(len(intake))] == decoded
        acks = b"".join((b"\x40\x02" if flags & 3 == 1 else b"\x50\x02") + mid.to_bytes(2, "big") for _, _, mid, flags in decoded if mid)
        assert bytes(flow.acks) == acks


@pytest.mark.parametrize("v5", [False, True])
@pytest.mark.parametrize("packet, section, section_5", [
    (publish(qos=3), "3.3.1.2", "3.3.1.2"),
    (publish(flags=8), "3.3.1.1", "3.3.1.1"),
    (b"\x30\xff\xff\xff\xff\x01", "2.2.3", "1.5.5"),
    (publish(qos=1, packet_id=0, v5=True), "2.3.1", "2.2.1"),
    (publish(b"a/+/b", v5=True), "3.3.2.1", "3.3.2.1"),
    (publish(b"a/#", v5=True), "3.3.2.1", "3.3.2.1"),
    (publish(b"a\0b", v5=True), "1.5.3", "1.5.4"),
    (publish(b"\xc0\x80", v5=True), "1.5.3", "1.5.4"),
    (publish(b"\xed\xa0\x80", v5=True), "1.5.3", "1.5.4"),
    (publish(b"\xf4\x90\x80\x80", v5=True), "1.5.3", "1.5.4"),
    (publish(b"a\xe2\x82", v5=True), "1.5.3", "1.5.4"),
    (publish(b"", v5=True), "4.7.3", "4.7.3"),
    (b"\x30\x00", "2.2.3", "2.1.4"),
    (b"\x30\x03\x00\x05a", "2.2.3", "2.1.4"),
    (b"\x32\x03\x00\x01a", "2.2.3", "2.1.4"),
    (b"\x60\x02\x00\x01", "2.2.2", "2.1.3"),
    (b"\x62\x02\x00\x00", "2.3.1", "2.2.1"),
    (b"\xc1\x00", "2.2.2", "2.1.3"),
    (b"\xc0\x01x", "2.2.3", "2.1.4"),
    (b"\x00\x00", "2.2.1", "2.1.2"),
])
def test_what_breaks_the_protocol_is_refused_with_its_section(v5, packet, section, section_5):
    flow, intake = flow_and_intake(v5)
    good = publish(v5=v5)
    stop, consumed, events, fault = flow.feed(good + packet + good, intake)
    assert (stop, consumed, events) == (FAULT, len(good), 1)     # what came before it is taken
    error = mqtt.Malformed.of_fault(fault, 5 if v5 else 4)
    assert f"section {section_5 if v5 else section} of" in str(error) and isinstance(error, DeviceError)


@pytest.mark.parametrize("properties, name", [
    (b"\x23\x00\x01", "topic alias"), (b"\x0b\x05", "subscription identifier"), (b"\x01\x00\x01\x00", "twice"), (b"\x11\0\0\0\1", "unknown"),
    (b"\x63", "unknown"), (b"\x02\x00\x00", "cut off"), (b"\x26\x00\x01a\x00\x05b", "cut off"), (b"\x03\x00\x01\xff", "UTF-8"),
])
def test_bad_properties_are_refused(properties, name):
    flow, intake = flow_and_intake(True)
    stop, _, events, fault = flow.feed(publish(properties=properties, v5=True), intake)
    assert (stop, events) == (FAULT, 0) and name in FAULTS[fault][0]


def test_a_property_length_beyond_the_packet_is_refused():
    for bad in (b"\x30\x04\x00\x01a\x05", b"\x30\x07\x00\x01a\xff\xff\xff\xff", b"\x30\x03\x00\x01a"):
        flow, intake = flow_and_intake(True)
        assert flow.feed(bad, intake)[0] == FAULT


def test_a_broker_may_send_subscription_identifiers():
    flow, intake = flow_and_intake(True, server=False)
    assert flow.feed(publish(properties=b"\x0b\x05\x0b\x85\x01", v5=True), intake)[:3:2] == (MORE, 1)
    assert flow.feed(publish(properties=b"\x08\x00\x03a/+", v5=True), intake)[:3:2] == (MORE, 1)      # what it passes on is not its fault


def test_a_full_intake_leaves_the_packet():
    flow, intake = flow_and_intake(events_max=3)
    stream = b"".join(publish(qos=1, packet_id=i + 1) for i in range(5))
    stop, consumed, events, _ = flow.feed(stream, intake)
    assert (stop, events, consumed) == (FULL, 3, 3 * len(stream) // 5)
    intake.clear()
    assert flow.feed(stream[consumed:], intake)[:3] == (MORE, len(stream) - consumed, 2)
    assert bytes(flow.acks) == b"".join(b"\x40\x02\x00" + bytes([i + 1]) for i in range(5))


def test_a_full_topic_table_leaves_the_packet():
    flow, intake = Flow(server=True), Intake(Topics(2))
    flow.open = True
    stream = [publish(b"t%d" % i) for i in range(3)]
    assert flow.feed(b"".join(stream), intake)[:3] == (FULL, len(stream[0]) * 2, 2)
    intake.clear()
    intake.topics.clear()
    assert flow.feed(stream[2], intake)[0] == MORE


def test_a_repeated_qos_2_message_is_stored_once_and_acknowledged_when_durable():
    flow, intake = flow_and_intake()
    one = publish(qos=2, packet_id=9)
    assert flow.feed(one + publish(qos=2, packet_id=9, flags=8), intake)[2] == 1
    assert bytes(flow.acks) == b"\x50\x02\x00\x09" * 2 and bytes(flow.answers) == b""
    intake.clear()                                               # durable: the repetition is answered at once
    flow.feed(publish(qos=2, packet_id=9, flags=8), intake)
    assert len(intake) == 0 and bytes(flow.answers) == b"\x50\x02\x00\x09" and flow.repeated == 2
    flow.feed(b"\x62\x02\x00\x09", intake)
    assert bytes(flow.answers)[4:] == b"\x70\x02\x00\x09" and len(flow.received) == 0
    assert flow.feed(one, intake)[2] == 1                        # released: the id means another message


def test_an_unknown_release_is_answered():
    for v5, answer in ((False, b"\x70\x02\x00\x05"), (True, b"\x70\x03\x00\x05\x92")):
        flow, intake = flow_and_intake(v5)
        flow.feed(b"\x62\x02\x00\x05", intake)
        assert bytes(flow.answers) == answer


def test_the_receive_maximum_is_enforced():
    flow, intake = flow_and_intake(True, inflight_max=3)
    packets = [publish(qos=q, packet_id=i + 1, v5=True) for i, q in enumerate((1, 2, 1, 1))]
    stop, _, events, fault = flow.feed(b"".join(packets), intake)
    assert (stop, events) == (FAULT, 3) and "Receive Maximum" in FAULTS[fault][0]


def test_nothing_is_taken_before_connect():
    flow = Flow(server=True)
    assert flow.feed(publish(), Intake(Topics()))[:3] == (FAULT, 0, 0)
    assert flow.feed(b"\x10\x00", Intake(Topics()))[:3] == (OTHER, 0, 0)


def test_a_large_packet_is_refused_at_its_header():
    flow, intake = flow_and_intake(packet_bytes_max=100)
    assert flow.feed(b"\x30\x80\x01", intake)[0] == FAULT
    flow, intake = flow_and_intake(server=False, packet_bytes_max=100)
    assert flow.feed(b"\x30\x80\x01", intake)[0] == LARGE


@pytest.mark.parametrize("version", [4, 5])
def test_connect_of_paho_is_read(version):
    def action(client):
        client.username_pw_set("ü", "pw")
        will_properties = properties = None
        if version == 5:
            will_properties = Properties(PacketTypes.WILLMESSAGE)
            will_properties.WillDelayInterval = 3
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval, properties.UserProperty = 77, ("a", "b")
        client.will_set("gone/c", b"\0\1", 1, True, will_properties)
        client._connect_properties = properties
        client._send_connect(30)

    packet = paho_bytes(version, action)
    c = mqtt.read_connect(packet)
    assert (c.version, c.client_id, c.clean, c.keep_alive_s, c.username, c.password) == (version, "c", True, 30, "ü", b"pw")
    assert c.will == ("gone/c", b"\0\1", 1, True, 3 if version == 5 else 0) and c.properties == ({mqtt.SESSION_EXPIRY: 77} if version == 5 else {})
    for n in range(3, len(packet)):                              # cut anywhere, with a right length: refused, not misread
        with pytest.raises(DeviceError):
            mqtt.read_connect(bytes([packet[0], n - 2]) + packet[2:n])
    with pytest.raises(mqtt.Malformed):
        mqtt.read_connect(bytes([packet[0], packet[1] + 1]) + packet[2:] + b"x")


@pytest.mark.parametrize("version", [4, 5])
def test_subscriptions_of_paho_are_read(version):
    packet = paho_bytes(version, lambda c: c.subscribe([("a/+", 1), ("$tidegate/#", 0)]) if version == 4 else c.subscribe("a/+", 1))
    packet_id, filters, subscription_id = mqtt.read_subscribe(packet, version)
    assert packet_id == 1 and filters[0] == ("a/+", 1) and subscription_id is None
    packet = paho_bytes(version, lambda c: c.unsubscribe(["x", "y/#"]))
    assert mqtt.read_unsubscribe(packet, version) == (1, ["x", "y/#"])
    packet = paho_bytes(version, lambda c: c._send_disconnect())
    assert mqtt.read_disconnect(packet, version) == (0, None)


@pytest.mark.parametrize("version", [4, 5])
def test_answers_are_what_paho_reads(version):
    protocol = MQTTProtocolVersion(version)
    packet = mqtt.connack(version, 0, True, {mqtt.RECEIVE_MAXIMUM: 5, mqtt.ASSIGNED_ID: "x"} if version == 5 else None)
    read = paho_packet.decode_connack(packet[0], bytearray(packet[2:]), protocol)
    assert read.flags == 1 and read.rc == 0
    if version == 5:
        assert read.properties.ReceiveMaximum == 5 and read.properties.AssignedClientIdentifier == "x"
    packet = mqtt.suback(version, 300, [0, 0x80])
    read = paho_packet.decode_suback(packet[0], bytearray(packet[2:]), protocol)
    assert read.mid == 300 and [r.value for r in read.reason_codes] == [0, 0x80]
    packet = mqtt.publish(version, "$tidegate/status", b"{}" * 100, retain=True, subscription_ids=(200,))
    read = paho_packet.decode_publish(packet[0], bytearray(packet[3:]), protocol)
    assert (bytes(read.topic), bytes(read.payload), read.retain) == (b"$tidegate/status", b"{}" * 100, True)


@pytest.mark.parametrize("name_filter, topic, expected", [
    ("a/b", "a/b", True), ("a/+", "a/b", True), ("a/+", "a/b/c", False), ("a/#", "a", True), ("a/#", "a/b/c", True), ("#", "$x/y", False),
    ("+/y", "$x/y", False), ("$x/#", "$x/y", True), ("a/+/c", "a//c", True), ("a", "a/", False)])
def test_filters_match_as_the_standard_says(name_filter, topic, expected):
    assert mqtt.matches(name_filter, topic) is expected
