"""The HTTP API as a client meets it: real sockets and TLS, a real local socket behind it, a fake Manager behind that."""

import asyncio
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

pytest.importorskip("litestar", reason="the extra `api` is not installed")

from count_world import certificates
from edge.errors import ConfigError, RuleError
from fake_manager import Box
from gateway.config import reader as config, reference, spec
from gateway.manage import access, api, doorkeeper, remote, server
from gateway.requests import ROUTES, WHOLE, NoAnswer, Unknown

WASM = random.Random(7).randbytes(300_000)


class Site:
    """A daemon's local socket, and the API in front of it in a thread; tokens "reader" and "writer"."""

    def __init__(self, folder, tls=None):
        self.box, self.tls, self.said = Box(folder), tls, []
        self.access = f"{folder}/access"
        self.reader, self.writer = access.add_token(self.access, "ann", "read"), access.add_token(self.access, "bob", "write")
        self._server, listening = server.server(api.application(self.box.directory), spec.Api(port=0, tls=tls, access=self.access), access.Access(self.access),
                                                lambda part, message, level: self.said.append((level, message)))
        self.port = listening.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]})
        self._thread.start()

    def remote(self, token=None, **files):
        return remote.connect(f"http{'s' if self.tls else ''}://localhost:{self.port}", token=token, **files)

    def raw(self, method, path, body=None, headers=(), token=None):
        """(status, content type, JSON) over plain HTTP."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {"Authorization": f"Bearer {token or self.writer}", **dict(headers)})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, response.headers["content-type"], json.loads(text)

    def close(self):
        self._server.should_exit = True
        self._thread.join()
        self.box.close()


@pytest.fixture(scope="module")
def module_site(tmp_path_factory):
    one = Site(tmp_path_factory.mktemp("api"))
    yield one
    one.close()


@pytest.fixture
def site(module_site, monkeypatch):
    monkeypatch.setattr(doorkeeper, "RATE", 1e6)
    monkeypatch.setattr(doorkeeper, "BURST", 1e6)
    module_site.box.manager.__init__()
    return module_site


def test_a_module_is_pushed_and_run(site):
    steps = []
    there = site.remote(site.writer)
    digest = there.push(WASM, lambda reached, size: steps.append(reached))
    assert site.box.manager.complete[digest] == WASM and steps == [0, remote.API_CHUNK_BYTES, len(WASM)]
    assert there.ask({"do": "rule.push", "digest": digest, "input": "env", "params": {"limit": 3.5}, "policy": "keep"}) ["job"] == "1"
    assert site.box.manager.asked[-1] == ({"do": "rule.push", "digest": digest, "input": "env", "params": {"limit": 3.5}, "policy": "keep"}, "token:bob")


def test_every_request_of_the_table_reaches_the_manager_as_it_was_asked(site):
    there = site.remote(site.writer)
    fields = {"rule": "hot", "params": {"a": 1}, "stream": "hot.late", "id": "3", "after": 5, "limit": 7, "version": "hot@2"}
    wanted = {"rule.set": ("rule", "params"), "rule.audit": ("after", "limit"), "tail": ("stream", "after"), "job": ("id",), "rule.ls": ()}
    for name in ROUTES.keys() - {"upload.begin", "upload.chunk", "rule.push", "rule.show", "rule.rollback", "rule.promote"}:
        request = {"do": name, **{field: fields[field] for field in wanted.get(name, ("rule",))}}
        there.ask(request)
        assert site.box.manager.asked[-1] == (request, "token:bob")
    there.ask({"do": "rule.rm", "version": "hot@2"})
    there.ask({"do": "rule.stats"})
    assert [request for request, _ in site.box.manager.asked[-2:]] == [{"do": "rule.rm", "version": "hot@2"}, {"do": "rule.stats"}]


def test_an_upload_goes_on_after_any_part_and_parts_may_come_twice(site):
    digest = hashlib.sha256(WASM).hexdigest()

    def put(first, last, data=None):
        headers = {"Content-Range": f"bytes {first}-{last}/{len(WASM)}"}
        return site.raw("PUT", f"/v1/uploads/{digest}", WASM[first:last + 1] if data is None else data, headers)

    assert put(0, 99_999)[2] == {"offset": 100_000}
    assert put(0, 99_999)[2] == {"offset": 100_000}
    assert put(200_000, 250_000)[2] == {"offset": 100_000}, "a gap is not filled"
    assert site.raw("PUT", f"/v1/uploads/{digest}", b"", {"Content-Range": f"bytes */{len(WASM)}"})[2] == {"offset": 100_000}
    assert put(50_000, 199_999)[2] == {"offset": 200_000}
    assert put(0, 10, b"short")[0] == 409
    assert site.raw("PUT", f"/v1/uploads/{digest}", WASM)[2] == {"offset": len(WASM)}
    assert site.box.manager.complete[digest] == WASM


def test_errors_are_problems_that_name_whose_fault_it_is(site):
    there = site.remote(site.writer)
    assert site.raw("GET", "/v1/rules/none") == (404, "application/problem+json", {
        "type": "about:blank", "title": "Not there", "status": 404, "detail": "there is no rule 'none'", "fault": "unknown"})
    with pytest.raises(Unknown, match="no rule 'none'"):
        there.ask({"do": "rule.show", "rule": "none"})
    with pytest.raises(RuleError, match="no version before"):
        there.ask({"do": "rule.rollback", "rule": "hot"})
    status, _, problem = site.raw("POST", "/v1/rules/hot/promote")
    assert status == 500 and problem["fault"] == "gateway"
    status, kind, problem = site.raw("POST", "/v1/rules", b'{"digest": "abcdef", "rules": 1}', {"Content-Type": "application/json"})
    assert (status, kind, problem["fault"]) == (400, "application/problem+json", "request") and "unknown field `rules`" in problem["detail"]
    assert site.raw("GET", "/v1/nothing")[:2] == (404, "application/problem+json")
    assert site.raw("PATCH", "/v1/rules")[:2] == (405, "application/problem+json")


def test_status_and_ledger_are_the_daemons(site):
    assert site.raw("GET", "/v1/status")[2] == {"gateway": "g1"} and site.raw("GET", "/v1/ledger")[2]["balanced"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer"}, {"Authorization": "Bearer tg_wrong"}, {"Authorization": "Basic Ym9iOmJvYg=="},
                                     {"Authorization": "Bearer \xff\xfe"}])
def test_nobody_is_let_in_without_a_known_token(site, headers):
    for path in ("/v1/rules", "/openapi.json", "/nothing"):
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        assert response.status == 401 and response.headers["WWW-Authenticate"].startswith("Bearer") and json.loads(response.read())["fault"] == "request"
        connection.close()
    assert not site.box.manager.asked


def test_a_reader_reads_and_no_more(site):
    there = site.remote(site.reader)
    there.ask({"do": "rule.ls"})
    for request in ({"do": "rule.enable", "rule": "hot"}, {"do": "rule.rm", "rule": "hot"}, {"do": "rule.set", "rule": "hot", "params": {}}):
        with pytest.raises(ConfigError, match="token:ann may read only"):
            there.ask(request)
    with pytest.raises(ConfigError, match="may read only"):
        there.push(WASM)
    assert [request["do"] for request, _ in site.box.manager.asked] == ["rule.ls"]


def test_a_right_that_is_taken_away_is_gone_at_once_and_a_damaged_file_lets_nobody_in(site):
    path = Path(site.access)
    before = path.read_text()
    try:
        path.write_text("".join(line for line in before.splitlines(keepends=True) if "token:ann" not in line))
        assert site.raw("GET", "/v1/rules", token=site.reader)[0] == 401 and site.raw("GET", "/v1/rules")[0] == 200
        path.write_text(before + "who are you\n")
        assert site.raw("GET", "/v1/rules")[0] == 401
    finally:
        path.write_text(before)
    assert site.raw("GET", "/v1/rules")[0] == 200


def test_bodies_are_bounded(site):
    assert site.raw("PUT", f"/v1/uploads/{'a' * 64}", bytes(api.MODULE_BYTES_MAX + 1))[:2] == (413, "application/problem+json")
    assert site.raw("POST", "/v1/rules", json.dumps({"digest": "a" * 64, "params": {"x": "y" * api.JSON_BYTES_MAX}}).encode())[0] == 413
    endless = (b"x" * 65536 for _ in range(1000))          # chunked, no length told
    try:
        assert site.raw("PUT", f"/v1/uploads/{'a' * 64}", endless)[0] == 413
    except OSError:
        pass                                               # it hung up while the body was still being sent
    assert not site.box.manager.did("upload.chunk")


def test_a_guest_that_asks_too_often_is_slowed_and_no_other(site, monkeypatch):
    monkeypatch.setattr(doorkeeper, "RATE", 0.001)
    monkeypatch.setattr(doorkeeper, "BURST", 3)
    assert [site.raw("GET", "/v1/rules", token=site.reader)[0] for _ in range(5)] == [200, 200, 200, 429, 429]
    assert site.raw("GET", "/v1/rules")[0] == 200
    assert [site.raw("GET", "/v1/rules", token="tg_guess")[0] for _ in range(5)][-1] == 429
    with pytest.raises(NoAnswer, match="requests a second"):
        site.remote(site.reader).ask({"do": "rule.ls"})


def test_requests_at_once_and_their_time_are_bounded(site, monkeypatch):
    monkeypatch.setattr(doorkeeper, "AT_ONCE_MAX", 2)
    monkeypatch.setattr(doorkeeper, "REQUEST_S", 0.3)
    site.box.manager.delay_s = 0.5
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(site.raw("GET", "/v1/rules"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    details = sorted(answer[2]["detail"][:14] for answer in answers)
    assert [status for status, *_ in answers] == [503] * 4 and details == ["2 requests are", "2 requests are", "not done withi", "not done withi"]
    site.box.manager.delay_s = 0.0
    time.sleep(0.8)                                        # the two that nobody waits for any more
    monkeypatch.setattr(doorkeeper, "REQUEST_S", 30)
    assert site.raw("GET", "/v1/rules")[0] == 200


def test_a_connection_that_dawdles_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "CONNECTION_S", 0.2)
    site = Site(tmp_path)
    try:
        with socket.create_connection(("127.0.0.1", site.port)) as slow:
            slow.sendall(b"GET /v1/rules HTTP/1.1\r\nX-Slow: ")
            slow.settimeout(10)
            assert slow.recv(1) == b""
    finally:
        site.close()


def test_a_daemon_that_is_away_is_said_to_be(tmp_path):
    site = Site(tmp_path)
    site.box.close()
    site.box.close = lambda: None
    try:
        status, _, problem = site.raw("GET", "/v1/rules")
        assert status == 503 and "no gateway answers" in problem["detail"] and problem["fault"] == "configuration"
        with pytest.raises(NoAnswer):
            site.remote(site.writer).ask({"do": "rule.ls"})
    finally:
        site.close()


# --- TLS

@pytest.fixture(scope="module")
def tls_site(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt install openssl")
    folder = certificates(tmp_path_factory.mktemp("tls"))
    access.add_certificate(f"{folder}/access", "client", "write")
    one = Site(folder, spec.Tls(ca=f"{folder}/ca.pem", cert=f"{folder}/server.pem", key=f"{folder}/server.key"))
    one.folder = folder
    yield one
    one.close()


def shown(site, name):
    return {"ca": f"{site.folder}/ca.pem", "cert": f"{site.folder}/{name}.pem", "key": f"{site.folder}/{name}.key"}


def test_a_client_certificate_lets_in_and_is_named_in_the_record(tls_site):
    there = tls_site.remote(**shown(tls_site, "client"))
    digest = there.push(WASM)
    assert tls_site.box.manager.complete[digest] == WASM and {who for _, who in tls_site.box.manager.asked} == {"cert:client"}


def test_a_token_goes_over_tls_without_a_certificate(tls_site):
    tls_site.remote(tls_site.reader, ca=f"{tls_site.folder}/ca.pem").ask({"do": "rule.ls"})
    assert tls_site.box.manager.asked[-1][1] == "token:ann"


def test_certificates_of_others_and_names_that_are_not_listed_stay_outside(tls_site):
    with pytest.raises(ConfigError, match="show a token"):
        tls_site.remote(**shown(tls_site, "server")).ask({"do": "rule.ls"})             # of the same authority, but in no list
    with pytest.raises(NoAnswer):
        tls_site.remote(**shown(tls_site, "stranger")).ask({"do": "rule.ls"})           # of another authority: the handshake fails


def test_a_server_that_is_not_trusted_gets_no_token(tls_site):
    with pytest.raises(ConfigError, match="certificate is refused"):
        tls_site.remote(tls_site.reader).ask({"do": "rule.ls"})
    context = ssl.create_default_context(cafile=f"{tls_site.folder}/ca.pem")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", tls_site.port)) as plain:
        context.wrap_socket(plain, server_hostname="localhost")


def test_new_certificates_count_for_new_connections_and_broken_ones_do_not(tls_site, tmp_path):
    """Without a restart; a connection that stands goes on with what it began."""
    for name in ("ca.pem", "server.pem", "server.key"):
        shutil.copy(f"{tls_site.folder}/{name}", tmp_path)
    site = Site(tmp_path, spec.Tls(ca=f"{tmp_path}/ca.pem", cert=f"{tmp_path}/server.pem", key=f"{tmp_path}/server.key"))

    def replace(name, source):
        for end in ("pem", "key"):
            shutil.copy(f"{tls_site.folder}/{source}.{end}", tmp_path / "new") if source else (tmp_path / "new").write_text("nonsense")
            os.replace(tmp_path / "new", tmp_path / f"{name}.{end}")

        for _ in range(2):               # what the server does every so many seconds: the second time they stand still
            asyncio.run(look())

    look, site._server.config.callback_notify = site._server.config.callback_notify, None
    try:
        old = ssl.get_server_certificate(("localhost", site.port))
        standing = http.client.HTTPSConnection("localhost", site.port, timeout=60, context=ssl.create_default_context(cafile=f"{tmp_path}/ca.pem"))
        standing.connect()
        replace("server", "client")
        new = ssl.get_server_certificate(("localhost", site.port))
        assert new != old
        standing.request("GET", "/v1/status", headers={"Authorization": f"Bearer {site.reader}"})
        assert standing.getresponse().status == 200
        standing.close()
        replace("server", None)
        assert [level for level, _ in site.said] == ["info", "warning"] and "stay in force" in site.said[1][1]
        assert ssl.get_server_certificate(("localhost", site.port)) == new
    finally:
        site.close()


# --- configuration and command

TOML = '[listener]\n[streams.env]\ntopics = ["a"]\nfields = { t = "f64" }\n[gateway]\ndata = "data"\n'


@pytest.mark.parametrize("table, place", [('host = "0.0.0.0"', "api.tls"), ('host = "0.0.0.0"\ntls = { ca = "x.pem" }', "api.tls.cert"), ('tls = { cert = "x.pem" }', "api.tls")])
def test_another_address_than_loopback_needs_tls(table, place):
    with pytest.raises(config.Problems) as caught:
        config.parse(f"{TOML}[api]\n{table}\n")
    assert place in [where for where, _ in caught.value.items]


def test_the_command_makes_tokens_and_serves(tmp_path):
    (tmp_path / "tidegate.toml").write_text(f"{TOML}[api]\nport = 0\n")
    (tmp_path / "data").mkdir()
    box = Box(tmp_path / "data")
    command = [sys.executable, "-m", "gateway.cli", "api", "-c", str(tmp_path / "tidegate.toml")]

    def run(*options):
        return subprocess.run([*command, *options], capture_output=True, text=True)

    try:
        refused = run()
        assert refused.returncode == 2 and "--new-token" in refused.stderr and "Traceback" not in refused.stderr
        token = run("--new-token", "ann", "--role", "write").stdout.strip()
        assert token not in (tmp_path / "api.access").read_text() and os.stat(tmp_path / "api.access").st_mode & 0o777 == 0o600
        assert run("--new-token", "ann").returncode == 2 and run("--new-token", "a b").returncode == 2
        process = subprocess.Popen([*command, "--port-file", str(tmp_path / "port")], stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while not (tmp_path / "port").exists():
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
        there = remote.connect(f"http://127.0.0.1:{(tmp_path / 'port').read_text().strip()}", token=token)
        assert there.ask({"do": "rule.stats"}) == {"did": "rule.stats"}
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGTERM) and "listens on http://127.0.0.1" in said and "Traceback" not in said
    finally:
        box.close()


@pytest.mark.parametrize("line", ["token:ann write", "token:ann write xyz", "cert:x all", "token: read " + "0" * 64, "ann", "cert:x read more", "token:a/b read " + "0" * 64])
def test_a_wrong_line_of_the_access_file_is_named(tmp_path, line):
    (tmp_path / "access").write_text(f"# who may\n\n{line}\n")
    with pytest.raises(ConfigError, match="line 3"):
        access.read(tmp_path / "access")


# --- the document

def test_the_openapi_document_is_up_to_date():
    assert (Path(__file__).resolve().parents[2] / "docs/openapi.json").read_text() == reference.openapi(), "run `make docs`"


def test_every_request_of_the_table_has_its_resource():
    paths = {path: set(methods) for path, methods in api.document()["paths"].items()}
    for route, path in [(route, route.path) for route in ROUTES.values()] + [(ROUTES[name], path) for name, path in WHOLE.items()]:
        assert route.method.lower() in paths["/v1" + path.replace("{id}", "{job}")], path
