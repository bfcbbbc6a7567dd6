"""The daemon as it is installed, with its doors locked: TLS, certificates, passwords, permits, encrypted logs, by mosquitto_pub."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "mqtt"))
pytest.importorskip("cryptography")
from authority import Authority  # noqa: E402

needs_mosquitto_pub = pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed")
STREAM = '[streams.env]\ntopics = ["sensors/+/env"]\n[streams.env.fields]\nwho = "str"\n'


class Running:
    """`tidegate run` on a configuration; `port` of its listener."""

    def __init__(self, folder, text):
        self.folder, self.log = folder, folder / "log"
        (folder / "t.toml").write_text(text)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "gateway.cli", "run", "-c", str(folder / "t.toml")], stderr=log)
        self.port = self.said(r"listening=(\d+)")

    def said(self, pattern, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            if match := re.search(pattern, self.log.read_text()):
                return match[1] if match.groups() else match[0]
            time.sleep(0.05)
        raise AssertionError(f"not said: {pattern}\n{self.log.read_text()}")

    def ask(self, *command):
        return subprocess.run([sys.executable, "-m", "gateway.cli", *command, "-c", str(self.folder / "t.toml")], capture_output=True, text=True, timeout=60)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


def publish(port, *arguments, topic="sensors/dev-1/env", message='{"who":"MARKER"}'):
    return subprocess.run(["mosquitto_pub", "-h", "localhost", "-p", port, "-V", "mqttv5", "-q", "1", "-i", "dev-1", "-t", topic, "-m", message, *map(str, arguments)],
                          capture_output=True, text=True, timeout=60)


@needs_mosquitto_pub
def test_a_locked_gateway_takes_what_it_may_keeps_it_sealed_and_follows_its_files(tmp_path):
    authority = Authority(tmp_path)
    server, device = authority.issue("gateway"), authority.issue("dev-1")
    (tmp_path / "permits").write_text("pattern write sensors/%c/#\n")
    (tmp_path / "key").write_text("0f" * 32)
    subprocess.run([sys.executable, "-m", "gateway.cli", "passwd", tmp_path / "users", "ann"], input="apple\n", text=True, check=True)
    gateway = Running(tmp_path, f"""
[gateway]
data = "data"
encryption_key_file = "key"
[listener]
host = "0.0.0.0"
port = 0
tls = {{ cert = "{server[0]}", key = "{server[1]}", ca = "{authority.ca}" }}
password_file = "users"
acl_file = "permits"
{STREAM}""")
    try:
        tls = ["--cafile", authority.ca, "--cert", device[0], "--key", device[1], "-u", "ann", "-P"]
        assert publish(gateway.port, *tls, "apple").returncode == 0
        assert publish(gateway.port, *tls, "wrong").returncode != 0
        assert publish(gateway.port).returncode != 0
        publish(gateway.port, *tls, "apple", topic="sensors/dev-2/env")
        listener = json.loads(gateway.ask("status", "--json").stdout)["listener"]
        assert listener["denied"] == 1 and listener["refused"] == 2
        (tmp_path / "permits").write_text("pattern write other/%c/#\n")
        gateway.said("renewed: the permits are read again")
        publish(gateway.port, *tls, "apple")
        assert json.loads(gateway.ask("status", "--json").stdout)["listener"]["denied"] == 2
    finally:
        gateway.stop()
    exported = gateway.ask("buffer", "export", "journal", "--stream", "env")
    assert [json.loads(line)["who"] for line in exported.stdout.splitlines()] == ["MARKER"], exported
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file() and b"MARKER" in path.read_bytes()]


@needs_mosquitto_pub
def test_a_gateway_on_loopback_checks_passwords_without_tls(tmp_path):
    """Where OpenSSL would be left out for want of a tls table."""
    (tmp_path / "permits").write_text("topic write nothing\nuser ann\ntopic write sensors/#\n")
    subprocess.run([sys.executable, "-m", "gateway.cli", "passwd", tmp_path / "users", "ann"], input="apple\n", text=True, check=True)
    gateway = Running(tmp_path, f'[gateway]\ndata = "data"\n[listener]\nport = 0\npassword_file = "users"\nacl_file = "permits"\n{STREAM}')
    try:
        assert publish(gateway.port, "-u", "ann", "-P", "apple").returncode == 0 and publish(gateway.port, "-u", "ann", "-P", "pear").returncode != 0
    finally:
        gateway.stop()
