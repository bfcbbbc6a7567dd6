"""The listener against mosquitto_pub, paho, an independent client and raw sockets: acknowledged means committed."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from raw_client import CONNECT_4, Raw, connect_packet, payloads, publish, states

from edge.mqtt import packets as mqtt
from gateway.client import Client


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_mosquitto_pub_is_served(world, make, version, qos):
    listener = make()
    lines = [f"message {i}" for i in range(500)]
    process = subprocess.Popen(["mosquitto_pub", "-p", str(listener.port), "-V", version, "-q", qos, "-t", "d/x", "-l"], stdin=subprocess.PIPE)
    threading.Thread(target=lambda: (process.stdin.write("\n".join(lines).encode() + b"\n"), process.stdin.close())).start()
    world.until(lambda: process.poll() is not None)
    world.until(lambda: len(world.events) == 500)
    assert process.returncode == 0 and payloads(world) == [line.encode() for line in lines]
    assert listener.published == 500 and listener.malformed == 0 and listener.wills == 0


@pytest.mark.parametrize("version", [4, 5])
def test_pahos_messages_are_acknowledged(world, make, version):
    listener = make()
    got = []
    client = Client(world.reactor, host="127.0.0.1", port=listener.port, client_id="p", version=version,
                    on_published=lambda mid, failure: got.append((mid, failure)))
    client.start()
    world.until(lambda: client.connected)
    sent = [client.publish("d/x", b"%d" % i, qos=i % 2 + 1).mid for i in range(300)]
    world.until(lambda: len(got) == 300)
    assert sorted(got) == [(mid, None) for mid in sent] and sorted(payloads(world)) == sorted(b"%d" % i for i in range(300))
    client.stop()
    world.until(lambda: listener.connected == 0)
    assert listener.wills == 0


def test_an_independent_client_is_served(world, make):
    gmqtt = pytest.importorskip("gmqtt", reason="gmqtt is the independent client")
    listener = make(status=lambda: b"well")
    heard = []

    async def talk():
        client = gmqtt.Client("independent")
        client.on_message = lambda *arguments: heard.append((arguments[1], bytes(arguments[2])))
        await client.connect("127.0.0.1", listener.port, version=gmqtt.constants.MQTTv50)
        client.subscribe("$tidegate/status")
        for i in range(100):
            client.publish("d/g", f"{i}", qos=i % 3, content_type="text", user_property=("a", "b"))
        for _ in range(200):
            if len(world.events) >= 100 and heard:
                break
            await asyncio.sleep(0.02)
        await client.disconnect()

    thread = threading.Thread(target=lambda: asyncio.run(talk()))
    thread.start()
    world.until(lambda: not thread.is_alive())
    assert sorted(payloads(world)) == sorted(b"%d" % i for i in range(100))
    assert heard[0] == ("$tidegate/status", b"well") and listener.malformed == 0


def test_tls_clients_are_served(world, make, certificates):
    ca, cert, key = certificates
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = make(tls=context)
    idle = socket.create_connection(("127.0.0.1", listener.port))        # never speaks: it must hold up nobody
    got = []
    client = Client(world.reactor, host="localhost", port=listener.port, client_id="t", tls=ssl.create_default_context(cafile=ca),
                    on_published=lambda mid, failure: got.append(mid))
    client.start()
    world.until(lambda: client.connected)
    for _ in range(400):
        client.publish("d/x", b"x" * 2000, qos=1)
    world.until(lambda: len(got) == 400)
    assert len(world.events) == 400
    plain = Raw(world, connect=None)
    plain.send(CONNECT_4)
    plain.expect_end()
    assert listener.refused == 1 and "TLS" in world.named("refused")[0]
    client.stop()
    idle.close()


def test_an_acknowledgement_follows_the_commit(world, make):
    make()
    client = Raw(world)
    world.committing = False
    client.send(publish(b"1", 1, 1) + publish(b"2", 2, 2))
    world.until(lambda: len(world.intake) == 2)
    world.for_s(0.1)
    assert client.read() == b""
    world.committing = True
    client.expect(b"\x40\x02\x00\x01\x50\x02\x00\x02")


def test_a_connection_that_ends_before_the_commit_does_not_matter(world, make):
    listener = make()
    world.committing = False
    client = Raw(world)
    client.send(publish(b"1", 1, 1))
    world.until(lambda: len(world.intake) == 1)
    client.socket.close()
    world.until(lambda: listener.connected == 0)
    world.committing = True
    world.turn()
    assert payloads(world) == [b"1"]


def test_a_qos_2_message_is_stored_once_across_a_reconnect(world, make):
    make()
    connect = connect_packet("c", clean=False)
    client = Raw(world, connect)
    client.send(publish(b"once", 2, 5))
    client.expect(b"\x50\x02\x00\x05")
    client.socket.close()
    client = Raw(world, connect)
    assert client.connack == b"\x20\x02\x01\x00"                         # the session is present
    client.send(publish(b"once", 2, 5, dup=True))
    client.expect(b"\x50\x02\x00\x05")
    client.send(b"\x62\x02\x00\x05")
    client.expect(b"\x70\x02\x00\x05")
    assert payloads(world) == [b"once"]
    client.socket.close()
    assert Raw(world, connect_packet("c", clean=True)).connack == b"\x20\x02\x00\x00"


@states(v3="3.1.4-2", v5="3.1.4-3")
@pytest.mark.parametrize("version", [4, 5])
def test_a_second_connection_takes_the_client_id_over(world, make, version):
    listener = make()
    old = Raw(world, connect_packet("c", version, will=("gone/c", "x")))
    new = Raw(world, connect_packet("c", version))
    old.expect_end()
    assert old.received == (b"\xe0\x01\x8e" if version == 5 else b"")
    new.send(b"\xc0\x00")
    new.expect(b"\xd0\x00")
    assert listener.take_overs == 1 and listener.connected == 1


@pytest.mark.parametrize("end, published", [(b"\xe0\x00", False), (b"\xe0\x01\x04", True), (b"", True), (b"\xf7\xff\xff\xff\xff", True)])
def test_a_will_is_published_unless_the_client_says_goodbye(world, make, end, published):
    listener = make()
    client = Raw(world, connect_packet("c", 5, will=("gone/c", "bye")))
    client.send(end)
    world.for_s(0.05)
    client.socket.close()
    world.until(lambda: listener.connected == 0)
    world.for_s(0.1)
    assert world.events == ([(b"gone/c", b"bye", 0, 0)] if published else [])
    assert listener.wills == int(published)


def test_only_status_topics_are_granted(world, make):
    make(status=lambda: b'{"ok":true}')
    status = mqtt.publish(4, "$tidegate/status", b'{"ok":true}', retain=True)
    client = Raw(world)
    subscribe = lambda *filters: mqtt._packet(0x82, b"\x00\x09" + b"".join(mqtt._text(f) + b"\x01" for f in filters))  # noqa: E731
    client.send(subscribe("a/b", "$tidegate/#", "#"))
    client.expect(b"\x90\x05\x00\x09\x80\x00\x80" + status)
    client.send(b"\xa2\x05\x00\x0a\x00\x01a")
    client.expect(b"\xb0\x02\x00\x0a")
    five = Raw(world, connect_packet("five", 5))
    five.send(mqtt._packet(0x82, b"\x00\x09\x02\x0b\x07" + b"".join(mqtt._text(f) + b"\x01" for f in ("a/b", "$share/g/t", "$tidegate/status"))))
    five.expect(b"\x90\x06\x00\x09\x00\x87\x9e\x00" + mqtt.publish(5, "$tidegate/status", b'{"ok":true}', retain=True, subscription_ids=(7,)))
    five.send(mqtt._packet(0x82, b"\x00\x09\x00" + mqtt._text("a/#/b") + b"\x01"))
    five.expect(b"\xe0\x01\x8f")


def test_closing_tells_the_devices(world, make):
    listener = make()
    client = Raw(world, connect_packet("c", 5, will=("w", "x")))
    listener.close()
    world.sources.clear()
    client.expect_end()
    assert client.received == b"\xe0\x01\x8b" and len(world.intake) == 0
