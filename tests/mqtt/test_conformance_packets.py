"""What the listener serves of MQTT 3.1.1 and 5.0, statement by statement: PUBLISH and the other packets on an open connection. As test_conformance.py."""

import pytest
from raw_client import Raw, connect_packet, payloads, publish, refused, states, subscribe

from edge.mqtt import packets as mqtt
from gateway.ingest import parting

BOTH = pytest.mark.parametrize("version", [4, 5])


# --- PUBLISH

@BOTH
@states(v3="3.3.4-1 4.3.1-1 4.3.2-2 4.3.3-2 4.6.0-2 4.6.0-3 2.3.1-6", v5="3.3.4-1 4.3.1-1 4.3.2-4 4.3.3-8 4.6.0-2 4.6.0-3 2.2.1-5")
def test_each_qos_is_answered_as_it_should_be_and_in_order(world, make, version):
    make()
    client = Raw(world, connect_packet("c", version))
    v5 = version == 5
    client.send(b"".join(publish(b"%d" % i, i % 3, i + 1, v5=v5) for i in range(9)) + b"\x62\x02\x00\x03")
    client.expect(b"\x70\x02\x00\x03")                                   # a PUBREL is answered at once, and the rest when it is durable
    client.expect(b"".join((b"\x40\x02\x00" if i % 3 == 1 else b"\x50\x02\x00") + bytes([i + 1]) for i in range(9) if i % 3))
    assert payloads(world) == [b"%d" % i for i in range(9)]


@BOTH
@states(v3="4.3.3-2", v5="4.3.3-10 4.3.3-11 4.3.3-12")
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


@states(v5="3.3.4-7")
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
        v5="3.8.3-2 3.8.3-5 3.8.1-1 3.10.1-1 3.10.3-2 4.7.1-1 4.7.1-2 2.2.1-3 3.6.1-1 2.1.3-1")
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
@states(v3="4.8.0-1", v5="4.13.2-1")
@pytest.mark.parametrize("packet", [b"\x20\x02\0\0", b"\x40\x02\0\1", b"\x50\x02\0\1", b"\x70\x02\0\1", b"\x90\x03\0\1\0", b"\xb0\x02\0\1", b"\xd0\x00", b"\x00\x00"])
def test_what_a_device_does_not_send_ends_the_connection(world, make, version, packet):
    make()
    refused(world, packet, b"\xe0\x01\x82" if version == 5 else b"", version)


@BOTH
def test_lengths_in_more_bytes_than_they_need_are_taken(world, make, version):
    """[MQTT-1.5.5-1] of 5.0 forbids a client that. It harms nobody, and clients of 3.1.1 do it."""
    make()
    client = Raw(world, connect_packet("c", version))
    client.send(b"\x32" + (b"\x88\x80\x00\x00\x01t\x00\x01\x80\x00x" if version == 5 else b"\x86\x80\x00\x00\x01t\x00\x01x"))
    client.expect(b"\x40\x02\x00\x01")
    assert payloads(world) == [b"x"]


@states(v5="3.14.4-1 3.14.4-2 4.13.2-1")
def test_the_reason_gets_to_a_device_that_still_sends(world, make, monkeypatch):
    """A socket that is closed with bytes unread sends a reset, which may take the DISCONNECT away."""
    monkeypatch.setattr(parting, "PARTING_S", 60.0)
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
    monkeypatch.setattr(parting, "PARTING_MAX", 2)
    monkeypatch.setattr(parting, "PARTING_S", 0.2)
    listener = make()
    clients = [Raw(world, connect_packet(f"c{i}", 5)) for i in range(4)]
    for client in clients:
        client.send(b"\xff\x00")
    world.until(lambda: listener.malformed == 4)
    assert len(listener.parting) <= 2
    world.until(lambda: len(listener.parting) == 0)
