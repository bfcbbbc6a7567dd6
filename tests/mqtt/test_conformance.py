"""What the listener serves of MQTT 3.1.1 and 5.0, statement by statement: connections, sessions and wills; PUBLISH and the rest are in test_conformance_packets.py. @states
names the normative statements that a test shows, as the standards number them; docs/mqtt.md says in a table what is served, and by which test that is shown. Others are in
test_codec.py (malformed packets, each with its section), test_listener.py and test_listener_limits.py."""

import re
import struct
from pathlib import Path

import pytest
from raw_client import Raw, connect_packet, connect_with, expiry, payloads, publish, refused, states, subscribe

from edge.mqtt import packets as mqtt

BOTH = pytest.mark.parametrize("version", [4, 5])


# --- CONNECT

@BOTH
@states(v3="3.1.0-2", v5="3.1.0-2")
def test_a_second_connect_is_a_protocol_error(world, make, version):
    make()
    refused(world, connect_packet("c", version), b"\xe0\x01\x82" if version == 5 else b"", version)


@pytest.mark.parametrize("packet", [
    connect_with(name="MQTTX"),                                                          # the name of the protocol
    connect_with(flags=3), connect_with(version=5, flags=3),                                   # the reserved flag
    connect_with(flags=0x0A), connect_with(flags=0x22), connect_with(version=5, flags=0x22),        # a will's QoS or RETAIN without a will
    connect_with(flags=0x1E, tail=mqtt._text("w") * 2),                                   # a will of QoS 3
    connect_with(flags=0x42, tail=mqtt._text("p")),                                       # 3.1.1: a password without a user
    connect_with(flags=0x82), connect_with(flags=6), connect_with(tail=b"\0"),                      # fields that are not there, or one too many
    connect_with(flags=6, tail=mqtt._text("a/#") + mqtt._text("x")),                      # a will on a filter
    connect_with(version=5, properties=b"\x21\0\0"), connect_with(version=5, properties=b"\x27\0\0\0\0"),      # Receive Maximum, Maximum Packet Size: 0
    connect_with(version=5, properties=b"\x17\x02"), connect_with(version=5, properties=b"\x19\x02"),          # Request Problem, Response Information: 2
    connect_with(version=5, properties=b"\x16\0\1x"), connect_with(version=5, properties=b"\x01\x01"),         # data without a method; a property of PUBLISH
    connect_with(version=5, flags=6, tail=b"\x04\x08\0\1+" + mqtt._text("w") * 2),        # a will's Response Topic with a wildcard
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
    client.send(connect_with(version=level))
    client.expect_end()
    assert client.received == answer


@states(v3="3.1.4-5", v5="3.1.4-6")
def test_nothing_is_taken_after_a_connect_that_was_refused(world, make):
    make()
    client = Raw(world, connect=None)
    client.send(connect_with("", flags=0) + publish(b"x", 1, 1))
    client.expect_end()
    world.for_s(0.05)
    assert client.received == b"\x20\x02\x00\x02" and not world.events


@states(v3="3.1.3-5 3.1.3-6 3.2.0-1", v5="3.1.3-5 3.1.3-6 3.1.3-7 3.2.0-1 3.2.2-16")
def test_a_client_without_an_id_gets_one_of_its_own(world, make):
    listener = make()
    ids = set()
    for flags in (0, 2, 2):
        client = Raw(world, connect_with("", 5, flags=flags))
        properties = mqtt.Reader(client.connack, "3.2")
        properties.raw(2)
        ids.add(properties.properties({33, 34, 18, 39, 42})[mqtt.ASSIGNED_ID])
    for _ in range(2):
        assert Raw(world, connect_with("")).connack == b"\x20\x02\x00\x00"
    assert len(ids) == 3 and all(ids) and listener.connections == 5


@states(v3="3.1.3-8", v5="3.1.3-6")
def test_a_session_of_nobody_is_refused_at_3_1_1(world, make):
    make()
    client = Raw(world, connect=None)
    client.send(connect_with("", flags=0))
    client.expect_end()
    assert client.received == b"\x20\x02\x00\x02"


@states(v5="3.2.2-15 3.2.2-17 3.3.4-7")
def test_connack_says_what_a_device_may_send(world, make):
    make(packet_bytes_max=5000)
    reader = mqtt.Reader(Raw(world, connect_with("c", 5)).connack, "3.2")
    assert reader.raw(2) == b"\0\0"
    assert reader.properties({33, 34, 39, 42}) == {mqtt.RECEIVE_MAXIMUM: 4096, mqtt.PACKET_MAXIMUM: 5000, mqtt.TOPIC_ALIAS_MAXIMUM: 0, mqtt.SHARED_AVAILABLE: 0}


@states(v5="4.12.0-1")
def test_an_authentication_method_is_refused(world, make):
    make()
    client = Raw(world, connect=None)
    client.send(connect_with("c", 5, properties=b"\x15" + mqtt._text("SCRAM")))
    client.expect_end()
    assert client.received == b"\x20\x03\x00\x8c\x00"
    refused(world, b"\xf0\x00", b"\xe0\x01\x82", 5)


@states(v5="3.1.2-24")
def test_a_device_is_sent_no_packet_larger_than_it_takes(world, make):
    make(status=lambda: b"s" * 100)
    client = Raw(world, connect_with("c", 5, properties=b"\x27\0\0\0\x40"))
    client.send(subscribe(["$tidegate/status"], 5) + b"\xc0\x00")
    client.expect(mqtt.suback(5, 9, [0]) + b"\xd0\x00")                              # and the status is left out
    client.send(subscribe(["a"] * 100, 5))
    client.expect_end()
    assert client.received == b"\xe0\x01\x95"
    tiny = Raw(world, connect=None)
    tiny.send(connect_with("t", 5, properties=b"\x27\0\0\0\x05"))
    tiny.expect_end()
    assert tiny.received == b""


# --- sessions and wills

@BOTH
@states(v3="3.1.2-4 3.1.2-6 3.2.2-1 3.2.2-2 3.2.2-3", v5="3.1.2-4 3.1.2-5 3.1.2-6 3.2.2-2 3.2.2-3")
def test_a_session_is_kept_and_begun_anew_as_the_device_asks(world, make, version):
    make()
    keep = expiry(1000) if version == 5 else b""

    def present(flags):
        client = Raw(world, connect_with("c", version, flags=flags, properties=keep))
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
        client = Raw(world, connect_with("c", 5, flags=0, properties=properties))
        client.send(end)
        client.expect_end()
        return client.connack[2], client.received

    assert visit(b"") == (0, b"") and visit(b"") == (0, b"") and not listener._sessions
    visit(expiry(1))
    received, _ = listener._sessions["c"]                                # and its second goes by
    listener._sessions["c"] = received, listener.reactor.now - 1
    assert visit(expiry(100))[0] == 0 and visit(expiry(100), b"\xe0\x07\x00\x05" + expiry(0))[0] == 1 and visit(b"")[0] == 0
    assert visit(b"", b"\xe0\x07\x00\x05" + expiry(9)) == (0, b"\xe0\x01\x82")       # 3.14.2.2.2: there was no session to lengthen


@states(v5="3.1.3-9")
@pytest.mark.parametrize("flags, said", [(4, False), (0, False), (6, True)])
def test_a_delayed_will_is_not_said_if_the_device_comes_back_to_its_session(world, make, flags, said):
    listener = make()
    will = b"\x05\x18" + struct.pack(">I", 3600) + mqtt._text("gone/c") + mqtt._text("bye")
    client = Raw(world, connect_with("c", 5, flags=6, properties=expiry(7200), tail=will))
    client.socket.close()
    world.until(lambda: listener.connected == 0)
    back = Raw(world, connect_with("c", 5, flags=flags, properties=expiry(7200), tail=will if flags & 4 else b""))
    world.for_s(0.05)
    assert payloads(world) == ([b"bye"] if said else []) and listener.wills == said and not listener._wills._delayed
    back.socket.close()


@states(v5="3.1.2-8")
@pytest.mark.parametrize("delay, session", [(1, 3600), (3600, 1), (3600, 0)])
def test_a_delayed_will_is_said_when_its_delay_or_the_session_ends(world, make, delay, session):
    listener = make()
    will = b"\x05\x18" + struct.pack(">I", delay) + mqtt._text("gone/c") + mqtt._text("bye")
    client = Raw(world, connect_with("c", 5, flags=6, properties=expiry(session) if session else b"", tail=will))
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
        client = Raw(world, connect_with("c", version, flags=0x36, tail=tail))            # QoS 2, RETAIN
        client.send(end)
        client.socket.close()
        world.until(lambda: listener.connected == 0)
    world.until(lambda: world.events)
    assert world.events == [(b"gone/c", b"bye", 0, 2 | 4)] and listener.wills == 1


def test_each_line_of_the_page_names_tests_that_are_there():
    here = Path(__file__).resolve().parent
    tests = set(re.findall(r"^def (test_\w+)\(", "\n".join(path.read_text() for path in here.glob("test_*.py")), re.M))
    page = (here.parents[1] / "docs/mqtt.md").read_text()
    lines = [line for line in page.split("## Clients")[0].splitlines() if line.startswith("| ") and not line.startswith(("| what", "|---"))]
    for line in lines:
        named = re.findall(r"`(test_\w+)`", line)
        assert named and set(named) <= tests, line
    ours = set(re.findall(r"^def (test_\w+)\(", "\n".join(path.read_text() for path in here.glob("test_conformance*.py")), re.M))
    assert ours - {"test_each_line_of_the_page_names_tests_that_are_there"} <= set(re.findall(r"`(test_\w+)`", page))
