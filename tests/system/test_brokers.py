"""A real Mosquitto on either side of the daemon: every QoS and version, TLS, passwords, client certificates, and restarts in the middle."""

import json
import ssl
import threading
import time

import paho.mqtt.client as paho
import pytest
from edge.codec.batches import json_rows
from edge.codec.receiver import Receiver

from count_world import HEAD, LANE, LISTENER, STREAM, UPSTREAM, Device
from site_world import free_port

BROKER = """
[broker]
host = "localhost"
port = $SOURCE
version = $VERSION
qos = $QOS
"""
FROM_BROKER = HEAD + BROKER + UPSTREAM + STREAM + LANE
CLOUD_TLS = 'tls = { ca = "$PKI/ca.pem" }\n'
CLOUD_CERTIFICATE = 'tls = { ca = "$PKI/ca.pem", cert = "$PKI/client.pem", key = "$PKI/client.key" }\n'
PASSWORD = 'username = "gate"\npassword_file = "secret"\n'


class Cloud:
    """A subscriber behind the upstream broker, with a session, that decodes with edge.Receiver."""

    def __init__(self, port, tls=None, user=None):
        self.rows, self.ready, self._receiver = [], threading.Event(), Receiver()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="cloud", clean_session=False)
        if tls is not None:
            self.client.tls_set_context(tls)
        if user:
            self.client.username_pw_set(*user)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("tidegate/#", 1)
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_message = lambda client, data, message: self._take(message)
        self.client.connect("localhost", port)
        self.client.loop_start()
        assert self.ready.wait(10)

    def _take(self, message):
        delivery = self._receiver.feed(message.topic, message.payload)
        if delivery.batch is not None:
            self.rows += [json.loads(row) for row in json_rows(delivery.batch)]

    def numbers(self):
        return [(row["device"], row["seq"]) for row in list(self.rows)]

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


def client_tls(pki, certificate=None):
    context = ssl.create_default_context(cafile=f"{pki}/ca.pem")
    if certificate:
        context.load_cert_chain(f"{pki}/{certificate}.pem", f"{pki}/{certificate}.key")
    return context


def subscribed(world):
    world.wait_for(lambda: (world.ask("status") or {}).get("broker", {}).get("connection") == "connected" , "the broker's connection")
    time.sleep(0.3)                                        # SUBACK


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_broker_as_source(site, mosquitto, devices, version, qos):
    world = site(FROM_BROKER, SOURCE=free_port(), VERSION=version, QOS=qos)
    mosquitto(world.words["SOURCE"])
    world.start_receiver()
    world.start_gateway()
    subscribed(world)
    devices += [Device(world.words["SOURCE"], f"dev-{v}", version=v, qos=qos) for v in (4, 5)]
    for device in devices:
        device.publish(200)
    world.expect([e for device in devices for e in device.settle()])


@pytest.mark.parametrize("version", [4, 5])
def test_a_source_broker_that_restarts_in_the_middle(site, mosquitto, devices, version):
    world = site(FROM_BROKER, SOURCE=free_port(), VERSION=version, QOS=1)
    broker = mosquitto(world.words["SOURCE"])
    world.start_receiver()
    world.start_gateway()
    subscribed(world)
    device = Device(world.words["SOURCE"])
    devices.append(device)
    device.publish(1500)
    time.sleep(0.1)
    broker.restart()
    device.publish(500)
    device.settle()
    wanted = set(device.all_events())
    world.wait_for(lambda: wanted <= set(world.numbers()), "all events upstream")
    assert set(world.numbers()) == wanted
    world.balanced()
    sequences = [row["sequence"] for row in world.rows()]
    assert len(sequences) == len(set(sequences))


def test_a_gateway_that_is_killed_gets_from_the_broker_what_it_had_not_acknowledged(site, mosquitto, devices):
    world = site(FROM_BROKER, SOURCE=free_port(), VERSION=5, QOS=1)
    mosquitto(world.words["SOURCE"])
    world.start_receiver()
    world.start_gateway()
    subscribed(world)
    device = Device(world.words["SOURCE"])
    devices.append(device)
    device.publish(1500)
    time.sleep(0.1)
    world.kill()
    device.publish(300)
    device.settle()
    world.start_gateway()
    wanted = set(device.all_events())
    world.wait_for(lambda: wanted <= set(world.numbers()), "all events upstream")
    world.balanced()


@pytest.mark.parametrize("version", [4, 5])
def test_an_upstream_broker_that_restarts_in_the_middle(site, mosquitto, devices, version):
    world = site(HEAD + LISTENER + UPSTREAM + f"version = {version}\n" + STREAM + LANE)
    broker = mosquitto(world.words["UPSTREAM"])
    cloud = Cloud(world.words["UPSTREAM"])
    devices.append(cloud)
    world.start_gateway()
    device = Device(world.port)
    devices.append(device)
    for _ in range(2):
        device.publish(700)
        time.sleep(0.15)
        broker.restart()
    wanted = set(device.settle())
    world.wait_for(lambda: wanted <= set(cloud.numbers()), "all events at the cloud")
    assert sorted(cloud.numbers()) == sorted(wanted), "each once"
    world.wait_for(lambda: world.ask("status")["lanes"]["main"]["rows_waiting"] == 0, "the lane to be empty")
    world.balanced()


@pytest.mark.parametrize("how", ["tls", "tls and password", "client certificate"])
def test_both_brokers_by_tls(site, mosquitto, devices, pki, how):
    user = ("gate", "pass word") if "password" in how else None
    extra = (CLOUD_CERTIFICATE if "certificate" in how else CLOUD_TLS) + (PASSWORD if user else "")
    world = site(HEAD + BROKER + extra + UPSTREAM.replace("127.0.0.1", "localhost") + extra + STREAM + LANE, SOURCE=free_port(), VERSION=5, QOS=1, PKI=pki)
    world.write("secret", "pass word\nsecond line\n")
    options = {"tls": pki, "user": user, "client_certificates": "certificate" in how}
    mosquitto(world.words["SOURCE"], **options)
    mosquitto(world.words["UPSTREAM"], **options)
    context = client_tls(pki, "client" if "certificate" in how else None)
    cloud = Cloud(world.words["UPSTREAM"], context, user)
    devices.append(cloud)
    world.start_gateway()
    subscribed(world)
    device = Device(world.words["SOURCE"], tls=context, **(dict(zip(("username", "password"), user)) if user else {}))
    devices.append(device)
    device.publish(300)
    wanted = device.settle()
    world.wait_for(lambda: set(wanted) <= set(cloud.numbers()), "all events at the cloud")
    assert sorted(cloud.numbers()) == sorted(wanted)
    world.balanced()


REFUSALS = {
    "a wrong password": (PASSWORD, {"user": ("gate", "right")}, ["refused", "uthor"]),
    "no certificate": (CLOUD_TLS, {"client_certificates": True}, ["upstream"]),
    "the wrong authority": ('tls = { ca = "$PKI/other.pem" }\n', {}, ["certificate is refused", "check the configured CA"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_an_upstream_that_refuses_is_told_and_devices_are_served(site, mosquitto, devices, pki, case):
    extra, options, words = REFUSALS[case]
    world = site(HEAD + LISTENER + UPSTREAM.replace("127.0.0.1", "localhost") + extra + STREAM + LANE, PKI=pki)
    world.write("secret", "wrong\n")
    mosquitto(world.words["UPSTREAM"], **({} if "password" in case else {"tls": pki}), **options)
    world.start_gateway()
    device = Device(world.port)
    devices.append(device)
    device.publish(50)
    device.settle()
    world.wait_for(lambda: world.ask("status")["upstream"]["failures"] > 0 or world.ask("status")["upstream"]["error"], "a failure")
    log = world.log()
    assert "Traceback" not in log and all(word in log for word in words), log
    assert "wrong" not in log.replace("the wrong", ""), "no password in the log"
    world.balanced()
