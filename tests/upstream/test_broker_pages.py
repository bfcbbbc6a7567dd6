"""The pages in docs/brokers: each fragment passes `check`, and a real Mosquitto with the same TLS and rights takes what it sends and refuses the rest."""

import re
import socket
import ssl
import sys
import threading
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/mqtt"))
pytest.importorskip("cryptography", reason="the TLS tests make a CA with `cryptography`")

from authority import Authority  # noqa: E402

from gateway import links
from gateway.cli import main  # noqa: E402
from gateway.client import Client  # noqa: E402
from gateway.config import reader as config  # noqa: E402
from gateway.reactor import Reactor  # noqa: E402

PAGES = sorted((ROOT / "docs/brokers").glob("*.md"))
REST = '\n[listener]\nport = 0\n[streams.env]\ntopics = ["d/#"]\n[streams.env.fields]\ntemp = "f64"\n'


@pytest.fixture
def written(tmp_path):
    """written(page) writes its fragment and the files it names; (path, Authority)."""
    def written(page):
        fragment = re.search(r"```toml\n(.*?)```", page.read_text(), re.S)[1]
        path, authority = tmp_path / "tidegate.toml", Authority(tmp_path)
        path.write_text(fragment + ("" if "[gateway]" in fragment else '[gateway]\nname = "plant-7"\n') + REST)
        upstream = tomllib.loads(fragment)["upstream"]
        cert, key = authority.issue("plant-7")
        for name, data in (("cert", cert), ("key", key), ("ca", authority.ca)):
            if name in upstream["tls"]:
                (tmp_path / upstream["tls"][name]).write_bytes(data.read_bytes())
        if "password_file" in upstream:
            (tmp_path / upstream["password_file"]).write_text("secret\n")
        return path, authority

    return written


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_fragment_passes_check_and_names_nothing_to_be_trusted_blindly(written, page, capsys):
    path, _ = written(page)
    assert main(["check", "-c", str(path)]) == 0, capsys.readouterr().err
    assert "tried" in page.read_text().lower()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_broker_with_the_same_tls_and_rights_takes_it(written, page, mosquitto_of, monkeypatch):
    path, authority = written(page)
    loaded = config.load(path)
    spec = loaded.upstream
    by_certificate = spec.tls.cert is not None
    broker = mosquitto_of(authority, by_certificate, None if by_certificate else (spec.username, "secret"))
    if spec.tls.ca is None:                              # a public authority, for which the test's stands in
        monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda self, purpose: self.load_verify_locations(authority.ca))
    reactor, acks, lines = Reactor(), [], []
    client = Client(reactor, host="localhost", port=broker, client_id=spec.client_id or "plant-7", version=spec.version, username=spec.username,
                    password=links.password("upstream", spec), tls=links.client_tls("upstream", spec), clean_session=True,
                    on_published=lambda mid, failure: acks.append((mid, failure)), on_event=lambda *line: lines.append(line))
    client.start()
    topics = [lane.topic for lane in loaded.lanes.values()] or ["tidegate/{gateway}/{lane}/{stream}"]
    own = topics[0].format(gateway="plant-7", lane="all", stream="env")
    mine = theirs = None
    for _ in range(500):
        reactor.turn(0.02)
        if client.connected and mine is None:
            mine, theirs = client.publish(own, b"x", qos=1).mid, client.publish(own.replace("plant-7", "plant-8"), b"x", qos=1).mid
        if len(acks) == 2:
            break
    assert dict(acks)[mine] is None, (acks, lines)
    if spec.version == 5:                                # 3.1.1 has no word for it
        assert "authorized" in dict(acks)[theirs]
    client.stop()
    reactor.close()


@pytest.fixture
def mosquitto_of(tmp_path):
    import shutil

    from count_world import MOSQUITTO, Mosquitto

    if MOSQUITTO is None or shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto is not installed: apt install mosquitto mosquitto-clients")
    made = []

    def make(authority, by_certificate, user):
        (tmp_path / "server").mkdir()
        cert, key = authority.issue("localhost")
        for name, source in (("ca.pem", authority.ca), ("server.pem", cert), ("server.key", key)):
            shutil.copy(source, tmp_path / "server" / name)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        acl = tmp_path / "server" / "acl"
        acl.write_text("pattern write tidegate/%u/#\npattern read tidegate/%u/manage/in\npattern write devices/%u/messages/events/#\n")
        acl.chmod(0o600)

        class WithRights(Mosquitto):
            def start(self):
                conf = self.folder / "mosquitto.conf"
                conf.write_text(conf.read_text().replace("allow_anonymous true", "allow_anonymous false") + f"acl_file {acl}\n")
                super().start()

        made.append(WithRights(tmp_path, port, tls=tmp_path / "server", client_certificates=by_certificate, user=user))
        return port

    yield make
    for one in made:
        one.stop()


def test_alpn_is_offered(written):
    path, authority = written(ROOT / "docs/brokers/aws-iot-core.md")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("localhost"))
    context.load_verify_locations(authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    server, got = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        plain, _ = server.accept()
        with context.wrap_socket(plain, server_side=True) as sock:
            got.append((sock.selected_alpn_protocol(), sock.version(), dict(sum(sock.getpeercert()["subject"], ()))["commonName"]))

    thread = threading.Thread(target=serve)
    thread.start()
    with socket.create_connection(server.getsockname()) as plain:
        links.client_tls("upstream", config.load(path).upstream).wrap_socket(plain, server_hostname="localhost").close()
    thread.join()
    server.close()
    assert got == [("x-amzn-mqtt-ca", "TLSv1.3", "plant-7")]
