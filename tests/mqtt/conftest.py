"""A reactor with one intake, driven as the daemon drives it; a real Mosquitto where one is installed."""

import os
import shutil
import socket
import subprocess
import time

import pytest

from edge.mqtt._intake import Intake, Topics
from gateway.ingest.listener import Listener
from gateway.reactor import Reactor


class World:
    """events: what was committed. `committing` False: the disk does not answer, so nothing is acknowledged or cleared."""

    def __init__(self, events_max=4096, bytes_max=1 << 20):
        self.reactor = Reactor()
        self.intake = Intake(Topics(), events_max, bytes_max)
        self.sources, self.events, self.log = [], [], []
        self.committing = True

    def on_event(self, name, message):
        self.log.append((name, message))

    def turn(self, timeout_s=0.02):
        self.reactor.turn(timeout_s)
        if self.committing:
            self.events.extend(self.intake[i] for i in range(len(self.intake)))
            for source in self.sources:
                source.acknowledge()
            self.intake.clear()

    def until(self, condition, timeout_s=60.0):
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"it did not happen; events {len(self.events)}, log {self.log[-5:]}"
            self.turn()

    def for_s(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()

    def named(self, name):
        return [message for n, message in self.log if n == name]


@pytest.fixture
def world():
    w = World()
    yield w
    for source in w.sources:
        source.close()
    w.reactor.close()


@pytest.fixture
def make(world):
    def make(**settings):
        listener = Listener(world.reactor, world.intake, **{"host": "127.0.0.1", "port": 0, "on_event": world.on_event, **settings})
        world.sources.append(listener)
        world.listener = listener
        return listener

    return make


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Mosquitto:
    def __init__(self, directory, settings="", listener="", anonymous=True):
        self.port = free_port()
        self.config = directory / "mosquitto.conf"
        self.config.write_text(f"listener {self.port} 127.0.0.1\n{listener}\nallow_anonymous {str(anonymous).lower()}\n"
                               f"persistence true\npersistence_location {directory}/\nmax_inflight_messages 0\n"
                               f"max_queued_messages 100000\nlog_dest none\n{'user root' if os.getuid() == 0 else ''}\n{settings}\n")
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen([shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"),
                                         "-c", self.config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("mosquitto did not start")

    def stop(self):
        """SIGTERM: it saves its sessions."""
        self.process.terminate()
        self.process.wait()

    def publish(self, *arguments):
        return subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.port), *arguments], check=True, timeout=60)


@pytest.fixture
def mosquitto(tmp_path):
    """A maker of brokers on free ports with their state in tmp_path."""
    if shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is None or shutil.which("mosquitto_pub") is None:
        pytest.skip("mosquitto and mosquitto_pub are not installed")
    made = []

    def make(**settings):
        made.append(Mosquitto(tmp_path, **settings))
        return made[-1]

    yield make
    for broker in made:
        broker.process.kill()
        broker.process.wait()


@pytest.fixture
def certificates(tmp_path):
    """A CA and a certificate of localhost and 127.0.0.1: (CA file, certificate file, key file)."""
    crypto = pytest.importorskip("cryptography", reason="the TLS tests make a CA with `cryptography`")  # noqa: F841
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.timezone.utc)

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def make(subject, key, issuer, signer, is_ca):
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=2))
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        if not is_ca:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, hashes.SHA256())

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    files = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    pem = serialization.Encoding.PEM
    files[0].write_bytes(make("test CA", ca_key, "test CA", ca_key, True).public_bytes(pem))
    files[1].write_bytes(make("localhost", key, "test CA", ca_key, False).public_bytes(pem))
    files[2].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return files
