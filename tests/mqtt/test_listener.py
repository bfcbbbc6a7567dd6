"""The listener against mosquitto_pub, paho, an independent client and raw sockets: acknowledged means committed, and a bad
client hurts nobody else."""

import asyncio
import random
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest

from edge import mqtt
from edge.errors import ConfigError
from gateway import device as device_module
from gateway.client import Client
from gateway.listener import Listener

CONNECT_4 = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c"
CONNECT_5 = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c"


def connect_packet(client_id, version=4, clean=True, keep_alive=0, will=None):
    flags = (2 if clean else 0) | (4 if will else 0)
    body = b"\x00\x04MQTT" + bytes([version, flags]) + struct.pack(">H", keep_alive) + (b"\0" if version == 5 else b"") + mqtt._text(client_id)
    if will:
        body += (b"\0" if version == 5 else b"") + mqtt._text(will[0]) + mqtt._text(will[1])
    return mqtt._packet(0x10, body)


def publish(payload, qos=0, packet_id=1, topic="d/x", dup=False, v5=False):
    body = mqtt._text(topic) + (struct.pack(">H", packet_id) if qos else b"") + (b"\0" if v5 else b"") + payload
    return mqtt._packet(0x30 | qos << 1 | (8 if dup else 0), body)


@pytest.fixture
def make(world):
    def make(**settings):
        listener = Listener(world.reactor, world.intake, **{"host": "127.0.0.1", "port": 0, "on_event": world.on_event, **settings})
        world.sources.append(listener)
        world.listener = listener
        return listener

    return make


class Raw:
    """A client of bytes."""

    def __init__(self, world, connect=CONNECT_4, **socket_options):
        self.world = world
        self.socket = socket.create_connection(("127.0.0.1", world.listener.port))
        self.socket.setblocking(False)
        self.received, self.ended = b"", False
        if connect:
            self.send(connect)
            world.until(lambda: self.read()[:1] == b"\x20")
            self.world.until(lambda: len(self.received) >= 2 + self.received[1])
            self.connack, self.received = self.received[:2 + self.received[1]], self.received[2 + self.received[1]:]

    def send(self, data):
        while data:
            try:
                data = data[self.socket.send(data):]
            except BlockingIOError:
                self.world.turn()

    def read(self):
        try:
            while data := self.socket.recv(65536):
                self.received += data
            self.ended = True
        except BlockingIOError:
            pass
        except ConnectionError:
            self.ended = True
        return self.received

    def expect(self, data):
        self.world.until(lambda: len(self.read()) >= len(data))
        assert self.received[:len(data)] == data
        self.received = self.received[len(data):]

    def expect_end(self, timeout_s=15.0):
        self.world.until(lambda: self.read() is None or self.ended, timeout_s)


def payloads(world):
    return [payload for _, payload, _, _ in world.events]


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


def test_a_silent_client_is_closed_after_its_keep_alive(world, make):
    listener = make(keep_alive_grace=1.5)
    silent, alive = Raw(world, connect_packet("s", 5, keep_alive=1)), Raw(world, connect_packet("a", keep_alive=1))
    start = time.monotonic()
    while not silent.ended:
        assert time.monotonic() - start < 10
        alive.send(b"\xc0\x00")
        world.for_s(0.2)
        silent.read()
    assert time.monotonic() - start >= 1.5 and silent.received == b"\xe0\x01\x8d"
    assert listener.time_outs == 1 and listener.connected == 1 and not alive.ended


def test_a_client_that_sends_no_connect_is_closed(world, make, monkeypatch):
    monkeypatch.setattr(device_module, "GREETING_S", 1.0)
    make()
    mute, drip = Raw(world, connect=None), Raw(world, connect=None)
    for byte in CONNECT_4[:-2]:
        drip.send(bytes([byte]))
        world.for_s(0.12)
        if drip.read() is None or drip.ended:
            break
    mute.expect_end()
    drip.expect_end()                                                    # bytes do not buy time, only a CONNECT does


@pytest.mark.parametrize("first, answer", [
    (publish(b"x"), b""), (b"\xc0\x00", b""), (b"\x10\xff\x7f", b""), (b"GET / HTTP/1.1\r\n\r\n", b""), (b"\x10\x00", b""),
    (b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01c", b"\x20\x02\x00\x01"),
    (CONNECT_4.replace(b"MQTT\x04", b"MQTT\x09"), b"\x20\x03\x00\x84\x00"),
    (CONNECT_4.replace(b"\x04\x02", b"\x04\x03"), b""),
    (b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x00\x00\x00", b"\x20\x02\x00\x02"),
])
def test_a_bad_greeting_ends_only_its_connection(world, make, first, answer):
    listener = make()
    good, bad = Raw(world, connect_packet("good")), Raw(world, connect=None)
    bad.send(first)
    bad.expect_end()
    assert bad.received == answer and not world.events
    good.send(publish(b"1", 1, 1))
    good.expect(b"\x40\x02\x00\x01")
    assert listener.malformed + listener.refused == 1
    assert world.named("malformed" if listener.malformed else "refused")


def test_a_protocol_error_names_client_and_section_and_answers_its_reason(world, make):
    listener = make(packet_bytes_max=1000)
    bad = Raw(world, connect_packet("sensor-7", 5))
    bad.send(publish(b"x", topic="a/#", v5=True))
    bad.expect_end()
    assert bad.received == b"\xe0\x01\x90"
    large = Raw(world, connect_packet("sensor-8", 5))
    large.send(publish(b"x" * 2000, v5=True))
    large.expect_end()
    assert large.received == b"\xe0\x01\x95"
    messages = world.named("malformed")
    assert "'sensor-7'" in messages[0] and "3.3.2.1" in messages[0] and "'sensor-8'" in messages[1] and listener.malformed == 2


def test_errors_are_counted_each_and_reported_once_a_client(world, make):
    listener = make()
    for _ in range(30):
        bad = Raw(world, connect_packet("same"))
        bad.send(b"\xff\x00")
        bad.expect_end()
    assert listener.malformed == 30 and len(world.named("malformed")) == 1


def test_garbage_harms_nobody(world, make):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    random_ = random.Random(seed)
    listener = make()
    good = Raw(world, connect_packet("good"))
    for i in range(150):
        bad = Raw(world, connect=None)
        if i % 2:
            bad.send(connect_packet(f"bad-{i % 7}", random_.choice((4, 5))))
        try:
            bad.send(random_.randbytes(random_.randint(1, 5000)))
            if i % 3 == 0:
                bad.send(random_.randbytes(100_000))
        except ConnectionError:
            pass
        world.turn(0)
        bad.socket.close()
    good.send(publish(b"good", 1, 77))
    good.expect(b"\x40\x02\x00\x4d")
    world.until(lambda: listener.connected == 1)
    assert b"good" in payloads(world) and listener.pool.held == 0


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


def test_a_client_that_does_not_read_its_acknowledgements_is_held_back_and_dropped(world, make, monkeypatch):
    monkeypatch.setattr(device_module, "STALLED_S", 1.0)
    listener = make()
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    slow.connect(("127.0.0.1", listener.port))
    slow.setblocking(False)
    slow.send(connect_packet("slow"))
    good = Raw(world, connect_packet("good"))
    block = b"".join(publish(b"", 1, i % 65535 + 1, topic="t") for i in range(20000))
    end, most, rest = time.monotonic() + 20, 0, block
    while listener.connected == 2:
        assert time.monotonic() < end
        try:
            rest = rest[slow.send(rest):] or block
        except BlockingIOError:
            pass
        except ConnectionError:
            break
        world.turn(0.001)
        world.events.clear()
        most = max([most, *(d.connection.waiting for d in listener._devices)])
    assert most < 512 << 10 and "does not read" in str(world.named("closed"))
    good.send(b"\xc0\x00")
    good.expect(b"\xd0\x00")
    slow.close()


def test_a_full_intake_holds_devices_back_and_loses_nothing(world, make):
    make()
    clients = [Raw(world, connect_packet(f"c{i}")) for i in range(3)]
    sent = [[publish(b"%d-%d" % (k, i), 1, i % 65535 + 1) for i in range(6000)] for k in range(3)]
    for client, packets in zip(clients, sent):
        client.send(b"".join(packets))
    world.until(lambda: len(world.events) == 18000)
    for k in range(3):
        assert [p for p in payloads(world) if p.startswith(b"%d-" % k)] == [b"%d-%d" % (k, i) for i in range(6000)]
        clients[k].expect(b"".join(b"\x40\x02" + (i + 1).to_bytes(2, "big") for i in range(6000)))
    assert world.listener.pool.held == 0


def test_a_fast_client_is_read_more_slowly_and_loses_nothing(world, make):
    make(rate_per_client=500)
    fast, other = Raw(world, connect_packet("fast")), Raw(world, connect_packet("other"))
    start = time.monotonic()
    fast.send(b"".join(publish(b"%d" % i) for i in range(1500)))
    other.send(publish(b"mine", 1, 1))
    other.expect(b"\x40\x02\x00\x01")
    fast.send(publish(b"last", 1, 9))
    fast.expect(b"\x40\x02\x00\x09")
    assert time.monotonic() - start >= 1.5                               # a burst of 500, then 500/s
    assert len(world.events) == 1502


def test_a_thousand_devices_and_not_one_more(world, make):
    listener = make(connections_max=1000)
    sockets = []
    for i in range(1001):
        s = socket.create_connection(("127.0.0.1", listener.port))
        s.sendall(connect_packet(f"d{i}", clean=False) + publish(b"%d" % i, 1, 1))
        sockets.append(s)
        if i % 50 == 0:
            world.turn(0)
    world.until(lambda: listener.connected == 1000 and len(world.events) == 1000 and listener.refused == 1)
    world.turn()
    for s in sockets[:1000]:
        s.settimeout(5)
        assert s.recv(8, socket.MSG_WAITALL) == b"\x20\x02\x00\x00\x40\x02\x00\x01"
    assert sockets[1000].recv(8) == b"\x20\x02\x00\x03"                  # server unavailable
    assert listener.pool.held == 0                                       # idle devices hold no buffer
    for s in sockets:
        s.close()
    world.until(lambda: listener.connected == 0)


def test_unfinished_packets_of_all_devices_together_are_bounded(world, make):
    listener = make(packet_bytes_max=1 << 20)
    clients = [Raw(world, connect_packet(f"c{i}")) for i in range(12)]
    for client in clients:
        try:
            client.send(b"\x30\xff\xff\x3e" + b"\x00\x01t" + b"x" * 1_000_000)
        except ConnectionError:
            pass
        world.turn()
    world.for_s(0.1)
    assert listener.pool.held <= listener.pool.held_max and listener.malformed >= 3 and listener.connected >= 6
    assert "memory" in str(world.named("malformed"))


def test_a_port_in_use_is_a_configuration_error(world, make):
    port = make().port
    with pytest.raises(ConfigError, match="another port"):
        Listener(world.reactor, world.intake, host="127.0.0.1", port=port)


def test_closing_tells_the_devices(world, make):
    listener = make()
    client = Raw(world, connect_packet("c", 5, will=("w", "x")))
    listener.close()
    world.sources.clear()
    client.expect_end()
    assert client.received == b"\xe0\x01\x8b" and len(world.intake) == 0
