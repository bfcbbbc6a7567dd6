"""`tidegate discover` and `init --discover` on live traffic: a real Mosquitto, and devices that connect to it as a listener. Each ends by Ctrl-C when enough was heard."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import paho.mqtt.client as paho
import pytest

from count_world import MOSQUITTO, Mosquitto, certificates
from gateway import cli, control
from gateway.config import reader as config, spec
from gateway.discover import session
from gateway.discover.ears import hear
from gateway.discover.survey import Survey


class Enough(Survey):
    """Presses Ctrl-C when each of the topics was heard so often."""

    topics_wanted, times = 7, 3

    def add(self, *message):
        super().add(*message)
        if sum(topic.count >= self.times for topic in self.topics.values()) >= self.topics_wanted:
            signal.raise_signal(signal.SIGINT)


class Fleet:
    """Publishes rounds of messages until it is stopped."""

    def __init__(self, port, host="127.0.0.1", tls=None, user=None):
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        if tls:
            self.client.tls_set(str(tls / "ca.pem"))
        if user:
            self.client.username_pw_set(*user)
        self.client.connect(host, port)
        self.client.loop_start()
        self.client.publish("home/room0/temperature", "20.5", qos=1, retain=True).wait_for_publish(60)
        self._ending, self._thread = threading.Event(), threading.Thread(target=self._go)
        self._thread.start()

    def _go(self):
        n = 0
        while not self._ending.wait(0.05):
            for d in range(3):
                self.client.publish(f"sensors/dev-{d}/env", json.dumps({"ts": time.time_ns() // 10**6, "seq": n, "temp": 20.5 + d, "note": None if n % 3 else "x"}), qos=1)
                self.client.publish(f"home/room{d}/temperature", f"{20 + d}.5")
            self.client.publish("camera/1", bytes([0xff, 0xd8, n % 256]))
            n += 1

    def stop(self):
        self._ending.set()
        self._thread.join()
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def world(tmp_path, monkeypatch):
    """world(**options of a Mosquitto, of a Fleet: tls, user) -> port; in an empty folder."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed: apt install mosquitto mosquitto-clients")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "INSTALLED", tmp_path / "none.toml")
    monkeypatch.setattr(session, "Survey", Enough)
    made = []

    def make(tls=None, user=None):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        made.append(Mosquitto(tmp_path, port, tls=tls, user=user))
        made.append(Fleet(port, "localhost" if tls else "127.0.0.1", tls, user))
        return port

    yield make
    for one in reversed(made):
        one.stop()


def streams_of(loaded):
    return {name: (stream.topics, stream.key, stream.time, stream.sequence, {n: (f.type, f.required) for n, f in stream.fields.items()}) for name, stream in loaded.streams.items()}


STREAMS = {"env": (["sensors/+/env"], "device", "ts", "seq", {"device": ("str", True), "ts": ("time", True), "seq": ("i64", True), "temp": ("f64", True), "note": ("str", False)}),
           "temperature": (["home/+/temperature"], "device", None, None, {"device": ("str", True), "value": ("f64", True)})}


def test_what_a_broker_carries_becomes_a_configuration_that_check_accepts(world, capsys, tmp_path):
    port = world()
    assert cli.main(["discover", f"mqtt://127.0.0.1:{port}", "--seconds", "60"]) == 0
    said = capsys.readouterr()
    (tmp_path / "t.toml").write_text(said.out)
    assert cli.main(["check", "-c", "t.toml"]) == 0 and capsys.readouterr()
    loaded = config.load("t.toml")
    assert streams_of(loaded) == STREAMS and loaded.broker.port == port
    assert "# camera/1 (" in said.out and "binary" in said.out and "retained" in said.out and "$SYS" not in said.out
    assert "streams proposed: 2" in said.err
    assert cli.main(["discover", "-c", "t.toml", "--seconds", "60", "--topic", "home/#", "--topic", "camera/#", "--topic", "sensors/+/env"]) == 0    # the configured one
    assert streams_of(config.parse(capsys.readouterr().out)) == STREAMS


def test_from_nothing_to_a_running_gateway_in_two_commands(world, tmp_path, capsys):
    if shutil.which("openssl") is None or shutil.which("mosquitto_passwd") is None:
        pytest.skip("openssl or mosquitto_passwd is not installed: apt install openssl mosquitto")
    tls = certificates(tmp_path)
    port = world(tls, ("ann", "secret"))
    (tmp_path / "password").write_text("secret\n")
    assert cli.main(["init", "--name", "p7", "--broker", f"mqtts://ann@localhost:{port}", "--broker-ca", "ca.pem", "--broker-password-file", "password", "--upstream", "none",
                     "--data", "data", "--discover", "60"]) == 0, capsys.readouterr().err
    assert streams_of(config.load("tidegate.toml")) == STREAMS
    with open("log", "w") as log:
        gateway = subprocess.Popen([sys.executable, "-m", "gateway.cli", "run"], stderr=log)
    try:
        until, events = time.monotonic() + 60, {}
        while not (set(events) == set(STREAMS) and min(events.values()) > 5):
            assert gateway.poll() is None and time.monotonic() < until, (events, (tmp_path / "log").read_text())
            time.sleep(0.1)
            try:
                events = {name: stream["events"] for name, stream in control.ask("data", "status")["streams"].items()}
            except cli.TidegateError:
                pass
        letters = json.dumps(control.ask("data", "ledger"))
    finally:
        gateway.terminate()
        assert gateway.wait(60) == 0, (tmp_path / "log").read_text()
    assert json.loads(letters)["balanced"]


def test_a_wrong_password_is_told_and_nothing_waits(world, tmp_path, capsys):
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed: apt install mosquitto")
    port = world(user=("ann", "secret"))
    (tmp_path / "password").write_text("wrong\n")
    assert cli.main(["discover", f"mqtt://ann@127.0.0.1:{port}", "--password-file", "password"]) == 2
    assert "uthori" in capsys.readouterr().err


def test_a_broker_that_is_not_there_is_told_and_nothing_waits(capsys):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert cli.main(["discover", f"mqtt://127.0.0.1:{sock.getsockname()[1]}"]) == 2
    assert "connection refused" in capsys.readouterr().err


@pytest.mark.parametrize("flags, says", [
    (["mqtt://u:p@h"], "--password-file"), (["mqtt://h", "--listen", "1"], "one of them"), (["--listen", "0.0.0.0:1883"], "[listener]"), (["mqtt://h", "--seconds", "0"], "--seconds"),
    (["http://h"], "not a broker's address"), (["mqtt://h", "--ca", "x"], "mqtts://"), (["-c", "missing.toml"], "cannot be read"),
], ids=["password", "both", "network", "no time", "no broker", "no TLS", "no configuration"])
def test_what_it_cannot_do_is_one_line(capsys, flags, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "INSTALLED", tmp_path / "none.toml")
    assert cli.main(["discover", *flags]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


def test_as_a_listener_it_acknowledges_nothing_that_it_does_not_keep():
    before = signal.getsignal(signal.SIGINT)
    survey, device = Enough(), paho.Client(paho.CallbackAPIVersion.VERSION2)
    survey.topics_wanted, published = 2, []

    def ready(port):
        device.connect("127.0.0.1", port)
        device.loop_start()
        for n in range(4):
            published.append(device.publish("a/1", json.dumps({"n": n}), qos=1))
            published.append(device.publish("a/2", json.dumps({"n": n}), qos=0))

    assert 0 < hear(spec.Listener(port=0), survey, seconds=60, ready=ready) < 60
    device.loop_stop()
    assert [message.is_published() for message in published[::2]] == [False] * 4
    assert {name: topic.count for name, topic in survey.topics.items()}.keys() == {b"a/1", b"a/2"}
    assert signal.getsignal(signal.SIGINT) is before
