"""Clients as people use them: paho (Python) and the Mosquitto tools. mqtt.js, Go and Java are in interop_run.py, which `make interop` runs."""

import shutil
import socket
import ssl
import subprocess
import threading

import paho.mqtt.client as paho
import pytest
from authority import Authority
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from raw_client import payloads

BOTH = pytest.mark.parametrize("version", [4, 5])


class Device:
    """A paho client with its own thread."""

    def __init__(self, world, version, name="dev-1", *, clean=True, keep_alive=60, will=None, tls=None, inflight=20):
        words = {} if version == 5 else {"clean_session": clean}
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, name, protocol=version, **words)
        self.world, self.connected, self.present, self.acked, self.codes, self.ended = world, 0, [], [], [], []
        self.client.max_inflight_messages_set(inflight)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self._on_connect
        self.client.on_publish = lambda client, data, mid, code, properties: self.acked.append(mid)
        self.client.on_subscribe = lambda client, data, mid, codes, properties: self.codes.extend(code.value for code in codes)
        self.client.on_disconnect = lambda client, data, flags, code, properties: self.ended.append(code.value)
        if will:
            self.client.will_set(*will)
        if tls:
            self.client.tls_set(str(tls))
        more = {}
        if version == 5:
            more["clean_start"] = clean
            more["properties"] = Properties(PacketTypes.CONNECT)
            more["properties"].SessionExpiryInterval = 0 if clean else 3600
        self.client.connect_async("localhost" if tls else "127.0.0.1", world.listener.port, keep_alive, **more)
        self.client.loop_start()

    def _on_connect(self, client, data, flags, code, properties):
        assert code.value == 0, code
        self.present.append(flags.session_present)
        self.connected += 1

    def stop(self, goodbye=True):
        if goodbye:
            self.client.disconnect()
            self.world.until(lambda: self.ended, 60)
        self.client._thread_terminate = True
        thread = self.client._thread
        self.world.until(lambda: thread is None or not thread.is_alive(), 60)


@BOTH
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_paho_is_served_at_each_qos(world, make, version, qos):
    listener = make()
    device = Device(world, version)
    world.until(lambda: device.connected, 60)
    sent = [device.client.publish("d/x", b"%d" % i, qos).mid for i in range(300)]
    world.until(lambda: len(device.acked) == 300 and len(world.events) >= 300, 60)
    device.stop()
    assert payloads(world) == [b"%d" % i for i in range(300)] and sorted(device.acked) == sorted(sent)
    assert listener.malformed == listener.wills == 0


@BOTH
def test_paho_has_its_will_said_and_hears_what_is_refused(world, make, version):
    make(status=lambda: b"well")
    heard = []
    device = Device(world, version, will=("gone/dev-1", b"bye", 1, True))
    device.client.on_message = lambda client, data, message: heard.append((message.topic, message.payload, message.retain))
    world.until(lambda: device.connected, 60)
    device.client.subscribe([("a/#", 1), ("$tidegate/status", 1)] if version == 4 else "$tidegate/status")
    if version == 5:
        device.client.subscribe("a/#")
    world.until(lambda: heard and len(device.codes) == 2, 60)
    assert heard == [("$tidegate/status", b"well", True)] and sorted(device.codes) == [0, 0x80 if version == 4 else 0x87]
    device.client._reconnect_on_failure = False
    device.client.socket().shutdown(socket.SHUT_RDWR)
    world.until(lambda: (b"gone/dev-1", b"bye", 0, 1 | 4) in world.events, 60)
    device.stop(goodbye=False)


def test_paho_keeps_its_connection_alive(world, make):
    listener = make(keep_alive_grace=60.0)                               # of one second: a busy machine may be late
    devices = [Device(world, version, f"dev-{version}", keep_alive=1) for version in (4, 5)]
    world.until(lambda: all(device.connected for device in devices), 60)
    since = world.reactor.now
    world.until(lambda: all(device.heard_at > since + 0.5 for device in listener.devices), 60)       # they ping
    assert listener.connected == 2 and all(device.connected == 1 for device in devices) and listener.time_outs == 0
    for device in devices:
        device.stop()


@BOTH
def test_paho_goes_on_with_its_session_where_the_connection_broke(world, make, version):
    make()
    device = Device(world, version, clean=False)
    world.until(lambda: device.connected == 1, 60)
    world.committing = False                                             # the disk takes its time: nothing is acknowledged
    sent = [device.client.publish("d/x", b"%d" % i, 2).mid for i in range(40)]
    world.until(lambda: len(world.intake) == 20, 60)
    for connection in world.listener.devices:
        connection.close("the cable was pulled")
    world.committing = True
    world.until(lambda: device.connected == 2 and len(device.acked) == 40, 60)
    device.stop()
    assert device.present == [False, True] and sorted(payloads(world), key=int) == [b"%d" % i for i in range(40)] and sorted(device.acked) == sent


@BOTH
def test_paho_sends_large_messages_over_tls(world, make, tmp_path, version):
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("localhost"))
    make(tls=context)
    device = Device(world, version, tls=authority.ca)
    world.until(lambda: device.connected, 60)
    large = [bytes([i]) * 250_000 for i in range(8)]
    for payload in large:
        device.client.publish("d/x", payload, 1)
    world.until(lambda: len(device.acked) == 8, 60)
    assert payloads(world) == large
    device.client.publish("d/x", bytes(300_000), 1)                      # packet_bytes_max is 256 KiB
    world.until(lambda: device.ended, 60)
    assert world.listener.malformed == 1 and len(world.events) == 8 and (version == 4 or device.ended[0] == 0x95)
    device.client._reconnect_on_failure = False
    device.stop(goodbye=False)


@pytest.mark.skipif(shutil.which("mosquitto_rr") is None, reason="mosquitto_rr is not installed")
def test_mosquitto_rr_asks_and_has_the_status_or_is_told_that_it_may_not(world, make):
    listener = make(status=lambda: b"well")

    def ask(response_topic):
        command = ["mosquitto_rr", "-p", str(listener.port), "-V", "mqttv5", "-q", "1", "-t", "d/ask", "-e", response_topic, "-m", "what", "-W", "30"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        said = []
        thread = threading.Thread(target=lambda: said.extend(process.communicate()))
        thread.start()
        world.until(lambda: not thread.is_alive(), 60)
        return process.returncode, said

    assert ask("$tidegate/status") == (0, [b"well\n", b""])
    _, (out, error) = ask("d/answer")
    assert error and not out                                             # "Not authorized": the reason code of the SUBACK
    assert listener.malformed == 0


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_pub_leaves_a_will_and_sends_a_file(world, make, tmp_path, version):
    listener = make()
    (tmp_path / "file").write_bytes(bytes(range(256)) * 800)
    command = ["mosquitto_pub", "-p", str(listener.port), "-V", version, "-i", "m", "-q", "2", "-t", "d/x", "--will-topic", "gone/m", "--will-payload", "bye", "--will-qos", "1"]
    process = subprocess.Popen([*command, "-f", tmp_path / "file"])
    world.until(lambda: process.poll() is not None, 60)
    world.until(lambda: listener.connected == 0, 60)
    assert process.returncode == 0 and payloads(world) == [bytes(range(256)) * 800]
    process = subprocess.Popen([*command, "-l"], stdin=subprocess.PIPE)
    world.until(lambda: listener.connected == 1, 60)
    process.kill()
    world.until(lambda: (b"gone/m", b"bye", 0, 1) in world.events, 60)
    process.stdin.close()
    process.wait()
