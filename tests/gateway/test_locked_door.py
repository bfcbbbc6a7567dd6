"""Denied by default: what a configuration must say before devices come in from the network; and files that change while the gateway runs."""

import os
import ssl
from types import SimpleNamespace

import pytest

from gateway import links
from gateway.cli import main
from gateway.config import reader as config, spec
from gateway.ingest import passwords
from gateway.reactor import Reactor
from gateway.upkeep import Followed

STREAM = '[streams.env]\ntopics = ["d/#"]\n[streams.env.fields]\ntemp = "f64"\n'
TLS = 'tls = { cert = "c.pem", key = "k.pem" }\n'
MUTUAL = 'tls = { cert = "c.pem", key = "k.pem", ca = "ca.pem" }\n'


def problems(listener):
    try:
        config.parse(f"[listener]\n{listener}\n{STREAM}")
    except config.Problems as error:
        return dict(error.items)
    return {}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "gateway.local"])
@pytest.mark.parametrize("table, says", [
    ("", "without showing who they are"), (TLS, "without showing who they are"), ('password_file = "p"\nacl_file = "a"', "without TLS"), ("anonymous = false", "without showing"),
    (TLS + 'password_file = "p"\nacl_file = "a"', None), (MUTUAL + 'acl_file = "a"', None), ("anonymous = true", None)])
def test_from_the_network_only_over_tls_and_by_name_if_nothing_else_is_said(host, table, says):
    found = problems(f'host = "{host}"\n{table}')
    assert (says is None and not found) or (says in found["listener"] and "tidegate passwd" in found["listener"] and "anonymous = true" in found["listener"])


@pytest.mark.parametrize("table", ["", 'host = "127.0.0.1"', 'host = "::1"', 'host = "localhost"'])
def test_on_loopback_nothing_is_asked(table):
    assert not problems(table)


@pytest.mark.parametrize("table", ['password_file = "p"', MUTUAL])
def test_who_shows_a_name_needs_permits(table):
    assert "pattern write" in problems(table)["listener.acl_file"]


@pytest.mark.parametrize("command", ["check", "run"])
def test_check_and_run_refuse_the_open_door(tmp_path, capsys, command):
    (tmp_path / "t.toml").write_text(f'[gateway]\ndata = "data"\n[listener]\nhost = "0.0.0.0"\nport = 0\n{STREAM}')
    assert main([command, "-c", str(tmp_path / "t.toml")]) != 0
    assert "anonymous = true" in capsys.readouterr().err and not (tmp_path / "data").exists()


def test_check_reads_passwords_and_permits(tmp_path):
    (tmp_path / "p").write_text("nonsense\n")
    (tmp_path / "a").write_text("topic write a/#/b\n")
    found = dict(links.problems(config.parse(f'[listener]\npassword_file = "p"\nacl_file = "a"\n{STREAM}', tmp_path / "t.toml")))
    assert "line 1" in found["listener.password_file"] and "line 1" in found["listener.acl_file"]


# --- files that change

def touched(path, text):
    """Replace a file as an editor does."""
    path.with_suffix(".new").write_bytes(text if isinstance(text, bytes) else text.encode())
    os.replace(path.with_suffix(".new"), path)


def test_a_changed_file_is_used_once_it_stands_still_and_a_broken_one_is_told_and_not(tmp_path):
    file, used, notes = tmp_path / "p", [], []
    file.write_text("")
    followed = Followed("passwords", [str(file)], lambda: passwords.read(file), used.append, lambda name, message: notes.append((name, message)))
    followed.refresh()
    followed.refresh()
    assert not used
    touched(file, f"ann:{passwords.hashed(b'a')}\n")
    followed.refresh()
    assert not used                                  # it may still be written
    followed.refresh()
    followed.refresh()
    assert [list(users) for users in used] == [["ann"]]
    touched(file, "broken\n")
    for _ in range(3):
        followed.refresh()
    assert len(used) == 1 and [name for name, _ in notes] == ["renewed", "kept"] and "line 1" in notes[1][1]
    file.unlink()
    for _ in range(3):
        followed.refresh()
    assert len(used) == 1 and "missing" in notes[-1][1]
    touched(file, f"bob:{passwords.hashed(b'b')}\n")
    for _ in range(3):
        followed.refresh()
    assert list(used[-1]) == ["bob"]


def shown(authority_file, port, turn):
    """The certificate that the listener shows a new connection, DER."""
    import socket
    import threading

    context, got = ssl.create_default_context(cafile=authority_file), []

    def look():
        with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain, server_hostname="localhost") as sock:
            got.append(sock.getpeercert(binary_form=True))

    thread = threading.Thread(target=look)
    thread.start()
    while thread.is_alive():
        turn()
    return got[0]


def test_certificates_of_listener_broker_and_upstream_change_without_a_restart(tmp_path):
    pytest.importorskip("cryptography")
    import sys

    sys.path.insert(0, str(__import__("pathlib").Path(__file__).parents[1] / "mqtt"))
    from authority import Authority

    from edge.mqtt._intake import Intake, Topics

    authority = Authority(tmp_path)
    cert, key = authority.issue("gateway")
    tls = spec.Tls(ca=None, cert=str(cert), key=str(key))
    link_tls = spec.Tls(ca=str(authority.ca), cert=str(cert), key=str(key), alpn=["mqtt"])
    loaded = spec.Config(streams={}, listener=spec.Listener(port=0, tls=tls), broker=spec.Broker(host="h", tls=link_tls), upstream=spec.Upstream(host="h", tls=link_tls))
    reactor, lines = Reactor(), []
    listener = links.listener(loaded, reactor, Intake(Topics()), lambda *a: lines.append(a))
    broker, upstream = SimpleNamespace(tls=None), SimpleNamespace(tls=None)
    followed = links.followed(loaded, listener, broker, upstream, lambda *a: lines.append(a))
    assert all(context.minimum_version == ssl.TLSVersion.TLSv1_2 for context in (listener.tls, links.client_tls("broker", loaded.broker), links.client_tls("upstream", loaded.upstream)))
    before = shown(authority.ca, listener.port, lambda: reactor.turn(0.01))
    authority.issue("gateway")                       # the same files, a new pair
    for one in followed * 2:
        one.refresh()
    for one in followed:
        one.refresh()
    after = shown(authority.ca, listener.port, lambda: reactor.turn(0.01))
    assert before != after and after == ssl.PEM_cert_to_DER_cert(cert.read_text())
    assert isinstance(broker.tls, ssl.SSLContext) and isinstance(upstream.tls, ssl.SSLContext) and broker.tls.check_hostname
    touched(cert, b"rubbish")
    for _ in range(3):
        for one in followed:
            one.refresh()
    assert shown(authority.ca, listener.port, lambda: reactor.turn(0.01)) == after and "stay in force" in str(lines)
    listener.close()
    reactor.close()
