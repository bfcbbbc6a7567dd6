"""Against a real broker: restarts with messages in flight, TLS with client certificates, nothing lost."""

import shutil
import socket
import ssl
import subprocess
import threading
import time

import paho.mqtt.client as paho
import pytest
from gateway import client
from gateway.reactor import Reactor

from world import Source, connect, run, sequences

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt install mosquitto")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Broker:
    def __init__(self, folder, extra=""):
        self.port = free_port()
        self.conf = folder / "mosquitto.conf"
        self.conf.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n"
                             f"max_queued_messages 100000\nmax_inflight_messages 0\nuser root\n{extra}\n")
        self.start()

    def start(self):
        self.process = subprocess.Popen([MOSQUITTO, "-c", str(self.conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("mosquitto did not start")

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Subscriber:
    """Takes everything under tidegate/, with a session that survives the broker's restart."""

    def __init__(self, port, tls=None):
        self.messages, self.ready = [], threading.Event()
        self._seen, self._contexts, self._read = set(), {}, 0
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="cloud", clean_session=False)
        if tls is not None:
            self.client.tls_set_context(tls)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda c, *_: c.subscribe("tidegate/#", 1)
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_message = lambda c, d, m: self.messages.append((m.topic, m.payload, m.retain))
        self.client.connect("localhost" if tls else "127.0.0.1", port)
        self.client.loop_start()
        assert self.ready.wait(10)

    def seen(self):
        """The (stream, sequence) of all rows so far. Reads each message once: a loop that reads all of them holds up the thread that takes more."""
        new = self.messages[self._read:]
        self._read += len(new)
        self._seen.update(sequences(new, self._contexts))
        return self._seen

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def reactor(monkeypatch):
    monkeypatch.setattr(client, "BACKOFF_MIN_S", 0.1)
    monkeypatch.setattr(client, "BACKOFF_MAX_S", 0.3)
    r = Reactor()
    yield r
    r.close()


def test_broker_restart_with_messages_in_flight_loses_nothing(reactor, tmp_path):
    broker = Broker(tmp_path)
    cloud = Subscriber(broker.port)
    bulk, alerts = Source(age_ms=0, rows_max=50), Source("alerts", age_ms=0, priority=0)
    up = connect(reactor, broker.port, bulk, alerts)
    run(reactor, lambda: up.connected)
    try:
        for restart in range(2):
            bulk.put(50, records=200)
            alerts.put(1, stream=8, records=20)
            run(reactor, lambda: bulk.lane.rows_waiting < 9_000)
            assert bulk.lane.in_flight
            broker.stop()
            run(reactor, lambda: not up.connected)
            assert not up._link._out_messages
            bulk.put(50, records=10)
            alerts.put(1, stream=8, records=5)
            broker.start()
        run(reactor, lambda: bulk.lane.rows_waiting == 0 and alerts.lane.rows_waiting == 0, 60)
        expected = {("temps", i) for i in range(21_000)} | {("doors", i) for i in range(50)}
        run(reactor, lambda: cloud.seen() >= expected, 60)
        assert cloud.seen() == expected
        assert up.status()["connects"] == 3
    finally:
        up.close()
        cloud.stop()
        broker.stop()


def certificate(folder, name, issuer=None, extra=""):
    """A key and certificate by openssl; self-signed without an issuer."""
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert,
               "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    if issuer:
        command += ["-CA", folder / f"{issuer}.pem", "-CAkey", folder / f"{issuer}.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    return str(cert), str(key)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls_with_client_certificate(reactor, tmp_path):
    ca, _ = certificate(tmp_path, "ca")
    cert, key = certificate(tmp_path, "localhost", "ca")
    mine, mykey = certificate(tmp_path, "gateway-g1", "ca")
    broker = Broker(tmp_path, f"cafile {ca}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true\nuse_identity_as_username true")
    tls = ssl.create_default_context(cafile=ca)
    tls.load_cert_chain(mine, mykey)
    s = Source(age_ms=0)
    up = connect(reactor, broker.port, s, tls=tls)
    nobody = Source("telemetry", age_ms=0)
    refused = connect(reactor, broker.port, nobody, tls=ssl.create_default_context(cafile=ca))
    try:
        cloud = Subscriber(broker.port, tls)
        s.put(100, records=30)
        s.put(1, stream=8)
        nobody.put(1)
        run(reactor, lambda: s.lane.rows_waiting == 0)
        run(reactor, lambda: len(cloud.seen()) == 3001)
        run(reactor, lambda: refused.status()["failures"] > 1)
        assert nobody.lane.rows_waiting == 1 and refused.status()["error"]
        cloud.stop()
    finally:
        up.close()
        refused.close()
        broker.stop()
