"""`make advisories` asks an OSV server about all that is pinned, and says what it found, or that it could not ask."""

import http.server
import json
import threading

import pytest
from site_world import free_port

KNOWN = {"pkg:pypi/wasmtime@": ["GHSA-1"], "pkg:cargo/wasmtime@": ["GHSA-1", "RUSTSEC-1", "GHSA-2", "GHSA-3"]}
ADVISORIES = {
    "GHSA-1": {"id": "GHSA-1", "aliases": ["RUSTSEC-1"], "summary": "escape", "affected": [{"ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "50.0.2"}]},
                                                                                                   {"type": "GIT", "events": [{"fixed": "abcdef"}]}]}]},
    "RUSTSEC-1": {"id": "RUSTSEC-1", "aliases": ["GHSA-1"], "summary": "escape"},
    "GHSA-2": {"id": "GHSA-2", "details": "a leak\nof much"},
    "GHSA-3": {"id": "GHSA-3", "summary": "none after all", "withdrawn": "2026-01-01T00:00:00Z"},
}


class Osv(http.server.BaseHTTPRequestHandler):
    broken = False

    def do_POST(self):
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        self.server.asked = [query["package"]["purl"] for query in queries]
        self._say({"results": [{"vulns": [{"id": number} for number in numbers]} if (numbers := self._of(purl)) else {} for purl in self.server.asked]})

    def do_GET(self):
        self._say(ADVISORIES[self.path.removeprefix("/v1/vulns/")])

    def _of(self, purl):
        return next((numbers for start, numbers in self.server.known.items() if purl.startswith(start)), None)

    def _say(self, data):
        body = b"<html>" if self.server.broken else json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def osv():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    server.known, server.broken, server.asked = KNOWN, False, []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_each_advisory_is_told_once_with_what_mends_it(osv, capsys):
    import advisories
    import lock

    assert advisories.main(["--url", osv.url]) == 1
    lines = capsys.readouterr().out.splitlines()
    version = lock.pinned()["wasmtime"]
    assert lines == [f"pkg:pypi/wasmtime@{version}: GHSA-1: escape (mended in 50.0.2)", f"pkg:cargo/wasmtime@{version}: GHSA-1: escape (mended in 50.0.2)",
                     f"pkg:cargo/wasmtime@{version}: GHSA-2: a leak (mended in no version yet)", f"{len(osv.asked)} pinned versions: 3 advisories; what to do: SECURITY.md"]
    assert {f"pkg:pypi/{name}@{pinned}" for name, pinned in lock.pinned().items()} < set(osv.asked)


def test_when_nothing_is_known_it_says_so(osv, capsys):
    import advisories

    osv.known = {}
    assert advisories.main(["--url", osv.url]) == 0 and "no advisory is known" in capsys.readouterr().out


def test_a_server_that_cannot_be_asked_is_no_good_news(osv, capsys):
    import advisories

    osv.broken = True
    for url in (osv.url, f"http://127.0.0.1:{free_port()}"):
        assert advisories.main(["--url", url]) == 2
        said = capsys.readouterr()
        assert not said.out and "not checked" in said.err and "pip-audit" in said.err and len(said.err.splitlines()) == 1


def test_the_locks_hashes_are_of_each_line_and_are_written_as_they_are_read():
    import lock

    text = lock.LOCK.read_text()
    hashes = {match[1]: {part.split(":")[1] for part in match[0].split() if part.startswith("--hash")} for match in lock.LINE.finditer(text)}
    assert set(hashes) == set(lock.pinned()) and all(hashes.values()) and lock.hashed(text, hashes) == text
    assert lock.pinned(lock.hashed("a-b==1.0\n# c\nd==2\n", {"a-b": {"0" * 64}, "d": {"1" * 64, "2" * 64}})) == {"a-b": "1.0", "d": "2"}
