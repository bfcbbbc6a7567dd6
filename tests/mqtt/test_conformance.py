"""What the listener serves of MQTT 3.1.1 and 5.0, statement by statement. @states names the normative statements that a test shows, as the standards number them;
docs/mqtt.md has them in a table. Others are shown in test_codec.py (malformed packets, each with its section) and test_listener.py."""

import struct

import pytest
from raw_client import Raw, connect_packet, payloads, publish

from edge import mqtt

BOTH = pytest.mark.parametrize("version", [4, 5])
EXPIRY = b"\x11"


def states(*, v3="", v5=""):
    """The statements [MQTT-...] of 3.1.1 and of 5.0 that a test shows."""
    return lambda test: test


def connect(client_id="c", version=4, *, flags=2, keep_alive=0, properties=b"", tail=b"", name=b"MQTT"):
    body = mqtt._text(name.decode()) + bytes([version, flags]) + struct.pack(">H", keep_alive)
    return mqtt._packet(0x10, body + (mqtt._varint(len(properties)) + properties if version == 5 else b"") + mqtt._text(client_id) + tail)


def subscribe(filters, version=4, options=1, properties=b""):
    body = b"\x00\x09" + (mqtt._varint(len(properties)) + properties if version == 5 else b"")
    return mqtt._packet(0x82, body + b"".join(mqtt._text(f) + bytes([options]) for f in filters))


def expiry(seconds):
    return EXPIRY + struct.pack(">I", seconds)


def refused(world, packet, answer, version=4):
    """Send a packet on an open connection: it is answered so, and the connection ends."""
    client = Raw(world, connect_packet("c", version))
    client.send(packet)
    client.expect_end()
    assert client.received == answer
    return client


# --- CONNECT

@BOTH
@states(v3="3.1.0-2", v5="3.1.0-2")
def test_a_second_connect_is_a_protocol_error(world, make, version):
    make()
    refused(world, connect_packet("c", version), b"\xe0\x01\x82" if version == 5 else b"", version)


@pytest.mark.parametrize("packet", [
    connect(name=b"MQTTX"),                                                          # the name of the protocol
    connect(flags=3), connect(version=5, flags=3),                                   # the reserved flag
    connect(flags=0x0A), connect(flags=0x22), connect(version=5, flags=0x22),        # a will's QoS or RETAIN without a will
    connect(flags=0x1E, tail=mqtt._text("w") * 2),                                   # a will of QoS 3
    connect(flags=0x42, tail=mqtt._text("p")),                                       # 3.1.1: a password without a user
    connect(flags=0x82), connect(flags=6), connect(tail=b"\0"),                      # fields that are not there, or one too many
    connect(flags=6, tail=mqtt._text("a/#") + mqtt._text("x")),                      # a will on a filter
    connect(version=5, properties=b"\x21\0\0"), connect(version=5, properties=b"\x27\0\0\0\0"),      # Receive Maximum, Maximum Packet Size: 0
    connect(version=5, properties=b"\x17\x02"), connect(version=5, properties=b"\x19\x02"),          # Request Problem, Response Information: 2
    connect(version=5, properties=b"\x16\0\1x"), connect(version=5, properties=b"\x01\x01"),         # data without a method; a property of PUBLISH
    connect(version=5, flags=6, tail=b"\x04\x08\0\1+" + mqtt._text("w") * 2),        # a will's Response Topic with a wildcard
], ids=range(19))
@states(v3="3.1.2-1 3.1.2-3 3.1.2-11 3.1.2-13 3.1.2-14 3.1.2-15 3.1.2-19 3.1.2-22 3.1.4-1", v5="3.1.2-1 3.1.2-3 3.1.2-11 3.1.2-12 3.1.2-13 3.1.2-17 3.1.4-1")
def test_a_connect_that_breaks_the_standard_is_not_answered(world, make, packet):
    listener = make()
    client = Raw(world, connect=None)
    client.send(packet)
    client.expect_end()
    assert client.received == b"" and listener.malformed == 1


@states(v3="3.1.2-2 3.2.2-4 3.2.2-5", v5="3.1.2-2 3.2.2-6 3.2.2-7")
@pytest.mark.parametrize("level, answer", [(3, b"\x20\x02\x00\x01"), (6, b"\x20\x03\x00\x84\x00")])
def test_another_protocol_version_is_refused_with_its_code(world, make, level, answer):
    make()
    client = Raw(world, connect=None)
    client.send(connect(version=level))
    client.expect_end()
    assert client.received == answer


@states(v3="3.1.4-5", v5="3.1.4-6")
def test_nothing_is_taken_after_a_connect_that_was_refused(world, make):
    make()
    client = Raw(world, connect=None)
    client.send(connect("", flags=0) + publish(b"x", 1, 1))
    client.expect_end()
    world.for_s(0.05)
    assert client.received == b"\x20\x02\x00\x02" and not world.events


@states(v3="3.1.3-5 3.1.3-6 3.2.0-1", v5="3.1.3-5 3.1.3-6 3.1.3-7 3.2.0-1 3.2.2-16")
def test_a_client_without_an_id_gets_one_of_its_own(world, make):
    listener = make()
    ids = set()
    for flags in (0, 2, 2):
        client = Raw(world, connect("", 5, flags=flags))
        properties = mqtt.Reader(client.connack, "3.2")
        properties.raw(2)
        ids.add(properties.properties({33, 34, 18, 39, 42})[mqtt.ASSIGNED_ID])
    for _ in range(2):
        assert Raw(world, connect("")).connack == b"\x20\x02\x00\x00"
    assert len(ids) == 3 and all(ids) and listener.connections == 5


@states(v3="3.1.3-8", v5="3.1.3-6")
def test_a_session_of_nobody_is_refused_at_3_1_1(world, make):
    make()
    client = Raw(world, connect=None)
    client.send(connect("", flags=0))
    client.expect_end()
    assert client.received == b"\x20\x02\x00\x02"


@states(v5="3.2.2-15 3.2.2-17 3.3.4-7")
def test_connack_says_what_a_device_may_send(world, make):
    make(packet_bytes_max=5000)
    reader = mqtt.Reader(Raw(world, connect("c", 5)).connack, "3.2")
    assert reader.raw(2) == b"\0\0"
    assert reader.properties({33, 34, 39, 42}) == {mqtt.RECEIVE_MAXIMUM: 4096, mqtt.PACKET_MAXIMUM: 5000, mqtt.TOPIC_ALIAS_MAXIMUM: 0, mqtt.SHARED_AVAILABLE: 0}


@states(v5="3.1.2-30")
def test_an_authentication_method_is_refused(world, make):
    make()
    client = Raw(world, connect=None)
    client.send(connect("c", 5, properties=b"\x15" + mqtt._text("SCRAM")))
    client.expect_end()
    assert client.received == b"\x20\x03\x00\x8c\x00"
    refused(world, b"\xf0\x00", b"\xe0\x01\x82", 5)


@states(v5="3.1.2-24")
def test_a_device_is_sent_no_packet_larger_than_it_takes(world, make):
    make(status=lambda: b"s" * 100)
    client = Raw(world, connect("c", 5, properties=b"\x27\0\0\0\x40"))
    client.send(subscribe(["$tidegate/status"], 5) + b"\xc0\x00")
    client.expect(mqtt.suback(5, 9, [0]) + b"\xd0\x00")                              # and the status is left out
    client.send(subscribe(["a"] * 100, 5))
    client.expect_end()
    assert client.received == b"\xe0\x01\x95"
    tiny = Raw(world, connect=None)
    tiny.send(connect("t", 5, properties=b"\x27\0\0\0\x05"))
    tiny.expect_end()
    assert tiny.received == b""


# --- sessions and wills

@BOTH
@states(v3="3.1.2-4 3.1.2-6 3.2.2-1 3.2.2-2 3.2.2-3", v5="3.1.2-4 3.1.2-5 3.1.2-6 3.2.2-2 3.2.2-3")
def test_a_session_is_kept_and_begun_anew_as_the_device_asks(world, make, version):
    make()
    keep = expiry(1000) if version == 5 else b""

    def present(flags):
        client = Raw(world, connect("c", version, flags=flags, properties=keep))
        client.send(publish(b"x", 2, 5, v5=version == 5))
        client.expect(b"\x50\x02\x00\x05")
        client.send(b"\xe0\x00")
        client.expect_end()
        return client.connack[2]

    assert [present(0), present(0), present(2), present(0)] == [0, 1, 0, version == 5]          # at 3.1.1 a clean session ends with its connection
    assert len(payloads(world)) == (2 if version == 5 else 3)            # the same message, until the session is another


@states(v5="3.1.2-23")
def test_a_session_expires_and_disconnect_may_say_when(world, make):
    listener = make()

    def visit(properties, end=b"\xe0\x00"):
        client = Raw(world, connect("c", 5, flags=0, properties=properties))
        client.send(end)
        client.expect_end()
        return client.connack[2], client.received

    assert visit(b"") == (0, b"") and visit(b"") == (0, b"") and not listener._sessions
    visit(expiry(1))
    received, _ = listener._sessions["c"]                                # and its second goes by
    listener._sessions["c"] = received, listener.reactor.now - 1
    assert visit(expiry(100))[0] == 0 and visit(expiry(100), b"\xe0\x07\x00\x05" + expiry(0))[0] == 1 and visit(b"")[0] == 0
    assert visit(b"", b"\xe0\x07\x00\x05" + expiry(9)) == (0, b"\xe0\x01\x82")       # 3.14.2.2.2: there was no session to lengthen


@states(v3="3.1.4-2", v5="3.1.4-3 3.1.2-10 3.1.3-9")
@pytest.mark.parametrize("flags, said", [(4, False), (0, False), (6, True)])
def test_a_delayed_will_is_not_said_if_the_device_comes_back_to_its_session(world, make, flags, said):
    listener = make()
    will = b"\x05\x18" + struct.pack(">I", 3600) + mqtt._text("gone/c") + mqtt._text("bye")
    client = Raw(world, connect("c", 5, flags=6, properties=expiry(7200), tail=will))
    client.socket.close()
    world.until(lambda: listener.connected == 0)
    back = Raw(world, connect("c", 5, flags=flags, properties=expiry(7200), tail=will if flags & 4 else b""))
    world.for_s(0.05)
    assert payloads(world) == ([b"bye"] if said else []) and listener.wills == said and not listener._wills._delayed
    back.socket.close()


@states(v5="3.1.2-8")
@pytest.mark.parametrize("delay, session", [(1, 3600), (3600, 1), (3600, 0)])
def test_a_delayed_will_is_said_when_its_delay_or_the_session_ends(world, make, delay, session):
    listener = make()
    will = b"\x05\x18" + struct.pack(">I", delay) + mqtt._text("gone/c") + mqtt._text("bye")
    client = Raw(world, connect("c", 5, flags=6, properties=expiry(session) if session else b"", tail=will))
    client.socket.close()
    world.until(lambda: listener.connected == 0)
    assert bool(listener._wills._delayed) == bool(session)
    world.until(lambda: payloads(world) == [b"bye"], 60)


@BOTH
@states(v3="3.1.2-8 3.1.2-10 3.1.2-16 3.1.2-17 3.14.4-3", v5="3.1.2-8 3.1.2-10 3.1.2-14 3.1.2-15 3.14.4-3")
def test_a_will_has_its_qos_and_retain_and_goes_with_a_goodbye(world, make, version):
    listener = make()
    tail = (b"\0" if version == 5 else b"") + mqtt._text("gone/c") + mqtt._text("bye")
    for end in (b"\xe0\x00", b""):
        client = Raw(world, connect("c", version, flags=0x36, tail=tail))            # QoS 2, RETAIN
        client.send(end)
        client.socket.close()
        world.until(lambda: listener.connected == 0)
    world.until(lambda: world.events)
    assert world.events == [(b"gone/c", b"bye", 0, 2 | 4)] and listener.wills == 1


# --- PUBLISH

@BOTH
@states(v3="3.3.4-1 4.3.1-2 4.3.2-2 4.3.3-2 4.6.0-2 4.6.0-3 2.3.1-6", v5="3.3.4-1 4.3.1-1 4.3.2-4 4.3.3-8 4.6.0-2 4.6.0-3 2.2.1-5")
def test_each_qos_is_answered_as_it_should_be_and_in_order(world, make, version):
    make()
    client = Raw(world, connect_packet("c", version))
    v5 = version == 5
    client.send(b"".join(publish(b"%d" % i, i % 3, i + 1, v5=v5) for i in range(9)) + b"\x62\x02\x00\x03")
    client.expect(b"\x70\x02\x00\x03")                                   # a PUBREL is answered at once, and the rest when it is durable
    client.expect(b"".join((b"\x40\x02\x00" if i % 3 == 1 else b"\x50\x02\x00") + bytes([i + 1]) for i in range(9) if i % 3))
    assert payloads(world) == [b"%d" % i for i in range(9)]


@BOTH
@states(v3="4.3.3-2 3.3.1-1", v5="4.3.3-10 4.3.3-11 4.3.3-12")
def test_a_qos_2_message_is_taken_once_until_it_is_released(world, make, version):
    make()
    client, v5 = Raw(world, connect_packet("c", version)), version == 5
    for dup in (False, True, True):
        client.send(publish(b"once", 2, 7, dup=dup, v5=v5))
        client.expect(b"\x50\x02\x00\x07")
    client.send(b"\x62\x02\x00\x07")
    client.expect(b"\x70\x02\x00\x07")
    client.send(publish(b"again", 2, 7, v5=v5))
    client.expect(b"\x50\x02\x00\x07")
    assert payloads(world) == [b"once", b"again"]


@states(v3="4.3.2-2", v5="4.3.2-5")
def test_a_qos_1_message_that_is_sent_again_is_another_event(world, make):
    make()
    client = Raw(world)
    for dup in (False, True):
        client.send(publish(b"x", 1, 7, dup=dup))
        client.expect(b"\x40\x02\x00\x07")
    assert payloads(world) == [b"x", b"x"]                               # its stream's `id` or `sequence` tells them for one: docs/contracts.md


@BOTH
@states(v3="3.3.1-2 3.3.1-4 3.3.2-1 3.3.2-2 4.7.1-1 4.7.3-1 2.3.1-1 1.5.3-1 1.5.3-2 4.8.0-1", v5="3.3.1-2 3.3.1-4 3.3.2-1 3.3.2-2 4.7.0-1 4.7.3-1 2.2.1-3 1.5.4-1 1.5.4-2 4.13.1-1")
@pytest.mark.parametrize("packet, reason", [
    (mqtt._packet(0x38, b"\0\1t"), 0x81), (mqtt._packet(0x36, b"\0\1t\0\1"), 0x81), (mqtt._packet(0x32, b"\0\1t\0\0"), 0x82), (mqtt._packet(0x30, b"\0\3a/#"), 0x90),
    (mqtt._packet(0x30, b"\0\0"), 0x82), (mqtt._packet(0x30, b"\0\2\xc3\x28"), 0x81), (mqtt._packet(0x30, b"\0\3a\0b"), 0x81), (mqtt._packet(0x30, b"\0\3\xed\xa0\x80"), 0x81)],
    ids=["dup-at-qos-0", "qos-3", "id-0", "wildcard", "empty", "not-utf-8", "nul", "surrogate"])
def test_a_publish_that_breaks_the_standard_ends_the_connection(world, make, version, packet, reason):
    make()
    if version == 5:                                                     # with its property length, where a topic ends
        at = 2 + 2 + packet[3] + (2 if packet[0] & 6 else 0)
        packet = bytes([packet[0], packet[1] + 1]) + packet[2:at] + b"\0" + packet[at:]
    refused(world, packet, b"\xe0\x01" + bytes([reason]) if version == 5 else b"", version)
    assert not world.events


@states(v3="1.5.3-3 4.7.3-3", v5="1.5.4-3 4.7.3-3")
def test_topics_are_taken_to_the_byte(world, make):
    make()
    client = Raw(world)
    topics = ["\ufeffa", "a//b", "/", "ä" * 300, "t" * 65535]
    for topic in topics:
        client.send(publish(b"x", topic=topic))
    world.until(lambda: len(world.events) == len(topics))
    assert [topic.decode() for topic, *_ in world.events] == topics


@states(v5="3.3.2-14 3.3.2-13 3.3.4-6 2.2.2-1")
@pytest.mark.parametrize("properties, reason", [
    (b"", None), (b"\x01\x01\x02\0\0\0\x3c\x03\0\4json\x08\0\3a/b\x09\0\2\0\xff\x26\0\1k\0\1v\x26\0\1k\0\1w", None), (b"\x08\0\3a/+", 0x90),
    (b"\x0b\x01", 0x82), (b"\x23\0\1", 0x94), (b"\x23\0\0", 0x94), (b"\x01\x01\x01\x01", 0x82), (b"\x11\0\0\0\1", 0x81)],
    ids=["none", "all", "response-wildcard", "subscription-id", "alias", "alias-0", "twice", "of-connect"])
def test_properties_of_a_publish_are_checked_and_left_out(world, make, properties, reason):
    make()
    client = Raw(world, connect_packet("c", 5))
    client.send(mqtt._packet(0x32, b"\0\1t\0\1" + mqtt._varint(len(properties)) + properties + b"x"))
    if reason is None:
        client.expect(b"\x40\x02\x00\x01")
        assert world.events == [(b"t", b"x", 1, 1)]
    else:
        client.expect_end()
        assert client.received == b"\xe0\x01" + bytes([reason]) and not world.events


@states(v5="3.3.4-7 3.3.4-8")
def test_more_than_the_receive_maximum_ends_the_connection(world, make):
    make().receive_maximum = 3
    client = Raw(world, connect_packet("c", 5))
    client.send(b"".join(publish(b"x", 2, i, v5=True) for i in range(1, 5)))
    client.expect_end()
    assert client.received.endswith(b"\xe0\x01\x93") and len(world.events) == 3


@states(v3="3.3.5-2", v5="3.3.4-1")
@pytest.mark.parametrize("version, qos, answer, ends", [(4, 0, b"", False), (4, 1, b"", True), (5, 0, b"", False), (5, 1, b"\x40\x03\0\1\x87", False), (5, 2, b"\x50\x03\0\1\x87", False)])
def test_a_dollar_topic_is_refused(world, make, version, qos, answer, ends):
    listener = make()
    client = Raw(world, connect_packet("c", version))
    client.send(publish(b"x", qos, 1, topic="$SYS/x", v5=version == 5) + (b"" if ends else b"\xc0\x00"))
    if ends:
        client.expect_end()
        assert client.received == answer
    else:
        client.expect(answer + b"\xd0\x00")
    assert not world.events and listener.denied == 1


# --- the others

@BOTH
@states(v3="3.8.3-3 3.8.3-4 3.8.1-1 3.10.1-1 3.10.3-2 4.7.1-2 4.7.1-3 2.3.1-1 3.6.1-1 2.2.2-2",
        v5="3.8.3-2 3.8.3-4 3.8.3-5 3.8.1-1 3.10.1-1 3.10.3-2 4.7.1-1 4.7.1-2 2.2.1-3 3.6.1-1 2.1.3-1")
@pytest.mark.parametrize("first, body, reason", [
    (0x82, b"\0\1", 0x82), (0x82, b"\0\1\0\1a\3", 0x81), (0x82, b"\0\1\0\1a\xc1", 0x81), (0x80, b"\0\1\0\1a\0", 0x81), (0x82, b"\0\0\0\1a\0", 0x82), (0x82, b"\0\1\0\3a#b\0", 0x8F),
    (0x82, b"\0\1\0\4a/#/\0", 0x8F), (0xA2, b"\0\1", 0x82), (0xA0, b"\0\1\0\1a", 0x81), (0xA2, b"\0\1\0\2a+", 0x8F), (0x60, b"\0\1", 0x81), (0xC1, b"", 0x81), (0xE1, b"", 0x81)])
def test_packets_that_break_the_standard_end_the_connection(world, make, version, first, body, reason):
    make()
    if version == 5 and first & 0xF0 in (0x80, 0xA0):
        body = body[:2] + b"\0" + body[2:]
    refused(world, mqtt._packet(first, body), b"\xe0\x01" + bytes([reason]) if version == 5 else b"", version)


@states(v5="3.8.3-4")
def test_no_local_on_a_shared_subscription_is_a_protocol_error(world, make):
    make()
    refused(world, subscribe(["$share/g/t"], 5, options=5), b"\xe0\x01\x82", 5)


@BOTH
@states(v3="3.8.4-1 3.8.4-2 3.8.4-5 3.9.3-1 3.9.3-2 3.10.4-4 3.10.4-5", v5="3.8.4-1 3.8.4-2 3.8.4-6 3.9.3-1 3.9.3-2 3.10.4-4 3.10.4-5 3.11.3-1")
def test_each_filter_has_its_code(world, make, version):
    make()
    client = Raw(world, connect_packet("c", version))
    client.send(subscribe(["a/b", "$tidegate/status", "#", "$share/g/t"], version, options=2))
    client.expect(mqtt.suback(version, 9, [0x87, 0, 0x87, 0x9E] if version == 5 else [0x80, 0, 0x80, 0x80]))
    client.send(mqtt._packet(0xA2, b"\0\x0a" + (b"\0" if version == 5 else b"") + mqtt._text("a/b") + mqtt._text("x")))
    client.expect(mqtt.unsuback(version, 10, [0x11, 0x11]))


@BOTH
@states(v3="3.12.4-1", v5="3.12.4-1")
def test_a_ping_is_answered(world, make, version):
    make()
    client = Raw(world, connect_packet("c", version))
    client.send(b"\xc0\x00" * 3)
    client.expect(b"\xd0\x00" * 3)


@BOTH
@states(v3="2.2.1", v5="2.1.2")
@pytest.mark.parametrize("packet", [b"\x20\x02\0\0", b"\x40\x02\0\1", b"\x50\x02\0\1", b"\x70\x02\0\1", b"\x90\x03\0\1\0", b"\xb0\x02\0\1", b"\xd0\x00", b"\x00\x00"])
def test_what_a_device_does_not_send_ends_the_connection(world, make, version, packet):
    make()
    refused(world, packet, b"\xe0\x01\x82" if version == 5 else b"", version)


@states(v5="3.14.4-1 3.14.4-2 4.13.2-1")
def test_the_reason_gets_to_a_device_that_still_sends(world, make):
    """A socket that is closed with bytes unread sends a reset, which may take the DISCONNECT away."""
    listener = make(packet_bytes_max=1000)
    client = Raw(world, connect_packet("c", 5))
    client.send(publish(bytes(2000), v5=True))
    for _ in range(50):
        client.send(publish(bytes(500), v5=True))                        # a reset would show here
        world.turn(0.001)
    client.expect_end()
    assert client.received == b"\xe0\x01\x95" and len(listener.parting) == 1
    client.socket.close()
    world.until(lambda: len(listener.parting) == 0)


def test_devices_that_do_not_go_are_closed(world, make, monkeypatch):
    from gateway import parting

    monkeypatch.setattr(parting, "PARTING_MAX", 2)
    monkeypatch.setattr(parting, "PARTING_S", 0.2)
    listener = make()
    clients = [Raw(world, connect_packet(f"c{i}", 5)) for i in range(4)]
    for client in clients:
        client.send(b"\xff\x00")
    world.until(lambda: listener.malformed == 4)
    assert len(listener.parting) <= 2
    world.until(lambda: len(listener.parting) == 0)
