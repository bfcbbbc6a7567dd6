"""Numbered events through a whole site: who published what, what was acknowledged, what the receiver has. Small configurations and no
simulator, so that a test can put anything between device, gateway and upstream."""

import json
import shutil
import socket
import subprocess
import time

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from site_world import Site

HEAD = """
[gateway]
name = "site"
data = "data"
isolation = "none"
checkpoint = "1s"
ledger = "0s"                                    # its rows would count on the lanes
"""
LISTENER = """
[listener]
port = $PORT
"""
UPSTREAM = """
[upstream]
host = "127.0.0.1"
port = $UPSTREAM
"""
STREAM = """
[streams.env]
topics = ["sensors/+/env"]
key = "device"
lateness = "1s"
idle = "2s"
[streams.env.fields]
device = { type = "str", from = "topic[1]" }
seq = "i64"
temp = "f64"
"""
LANE = """
[lanes.main]
streams = ["env"]
age = "100ms"
"""
PLAIN = HEAD + LISTENER + UPSTREAM + STREAM + LANE


class CountSite(Site):
    """A Site whose receiver's rows are compared with what devices had acknowledged."""

    def __init__(self, folder, config=PLAIN, **words):
        super().__init__(folder, config, fleet="", **words)

    def rows(self, stream="env"):
        path = self.folder / "received.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [row for row in (json.loads(line) for line in lines if line.endswith("\n")) if row["stream"] == stream]

    def numbers(self, stream="env"):
        return [(row["device"], row["seq"]) for row in self.rows(stream)]

    def expect(self, events, stream="env", timeout_s=60):
        """Wait until the receiver has these (device, seq) events, each once and no others; the ledger balances."""
        self.wait_for(lambda: set(events) <= set(self.numbers(stream)), f"{len(set(events))} events of {stream} upstream", timeout_s)
        got = self.numbers(stream)
        assert len(got) == len(set(got)), f"{len(got) - len(set(got))} rows twice"
        assert set(got) == set(events), sorted(set(got) ^ set(events))[:10]
        self.balanced()

    def balanced(self):
        ledger = self.ask("ledger")
        assert ledger["balanced"], ledger["problems"]
        return ledger

    def account(self, kind, name):
        return next((a for a in self.ask("ledger")["accounts"] if (a["kind"], a["name"]) == (kind, name)), None)

    def restart(self, config=None):
        """SIGTERM, exit status 0, and a start, perhaps on another configuration."""
        assert self.stop("gateway") == 0, self.errors()
        if config is not None:
            self.write("tidegate.toml", config)
        self.start_gateway()

    def log(self, name="gateway"):
        path = self.folder / f"{name}.err"
        return path.read_text() if path.exists() else ""


class Device:
    """A paho client that publishes {"seq": n, "temp": t}; `acknowledged`: numbers whose PUBACK or PUBCOMP came (QoS 0: that were sent).

    It keeps its session and what is not acknowledged, and connects again by itself."""

    def __init__(self, port, name="dev-1", *, version=4, qos=1, tls=None, username=None, password=None, topic="sensors/{}/env"):
        self.name, self.qos, self.topic = name, qos, topic.format(name)
        self._mids, self._numbers, self.published = [], {}, 0      # packet ids do not come round: fewer than 65,535 a test
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTProtocolVersion(version),
                                  clean_session=False if version == 4 else None)
        if tls is not None:
            self.client.tls_set_context(tls)
        if username:
            self.client.username_pw_set(username, password)
        self.client.max_inflight_messages_set(100)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_publish = lambda client, data, mid, reason, properties: self._mids.append(mid)
        properties = None
        if version == 5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
        options = {"clean_start": False, "properties": properties} if version == 5 else {}
        self.client.connect("localhost" if tls else "127.0.0.1", port, **options)
        self.client.loop_start()

    def publish(self, count, payload=None):
        """Hand over the next numbers; they are on their way when this returns."""
        for _ in range(count):
            number, self.published = self.published, self.published + 1
            body = payload or json.dumps({"seq": number, "temp": 20 + number % 10}).encode()
            self._numbers[self.client.publish(self.topic, body, self.qos).mid] = number

    @property
    def acknowledged(self):
        return {self._numbers[mid] for mid in set(self._mids) if mid in self._numbers}

    def settle(self, timeout_s=60):
        """Wait until all is acknowledged; the events as (device, seq)."""
        until = time.monotonic() + timeout_s
        while len(self.acknowledged) < self.published:
            assert time.monotonic() < until, f"{self.name}: {len(self.acknowledged)} of {self.published} acknowledged"
            time.sleep(0.02)
        return self.events()

    def events(self):
        """What was acknowledged so far."""
        return [(self.name, number) for number in self.acknowledged]

    def all_events(self):
        return [(self.name, number) for number in range(self.published)]

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """A Mosquitto of one's own. tls: a folder of certificates (see `certificates`); user: (name, password)."""

    def __init__(self, folder, port, *, tls=None, client_certificates=False, user=None):
        self.port, self.folder = port, folder / f"mosquitto-{port}"
        self.folder.mkdir()
        lines = [f"listener {port} 127.0.0.1", f"allow_anonymous {'false' if user else 'true'}", "persistence true", f"persistence_location {self.folder}/",
                 "max_queued_messages 100000", "max_inflight_messages 4096", "log_dest stderr", "user root"]
        if tls:
            lines += [f"cafile {tls}/ca.pem", f"certfile {tls}/server.pem", f"keyfile {tls}/server.key"]
        if client_certificates:
            lines += ["require_certificate true", "use_identity_as_username true"]
        if user:
            passwords = self.folder / "passwords"
            subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), *user], check=True, capture_output=True)
            passwords.chmod(0o600)
            lines.append(f"password_file {passwords}")
        (self.folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self.process = None
        self.start()

    def start(self):
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([MOSQUITTO, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log)
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self):
        """As an administrator does: its persistence file is written."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)

    def restart(self, away_s=0.5):
        self.stop()
        time.sleep(away_s)
        self.start()


def certificates(folder):
    """ca, server, client, devices by their client ids, and another authority's stranger: NAME.pem and NAME.key in a folder, by openssl."""
    devices = [(name, "ca") for name in ("dev-4", "dev-5", "vmqttv5-1")]
    for name, issuer in (("ca", None), ("server", "ca"), ("client", "ca"), ("other", None), ("stranger", "other"), *devices):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{folder}/{name}.key",
                   "-out", f"{folder}/{name}.pem", "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        if issuer:
            command += ["-CA", f"{folder}/{issuer}.pem", "-CAkey", f"{folder}/{issuer}.key", "-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run(command, check=True, capture_output=True)
    return folder
