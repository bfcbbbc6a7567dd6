"""Remote: a gateway as its tools see it, on this machine, behind its HTTP API, or behind a cloud's MQTT broker.

    connect("data directory")                    local socket (control.py)
    connect("https://host:8642", token=...)      HTTP API (api.py), bearer token or client certificate
    connect("mqtts://user@broker/GATEWAY")       management topics (mailbox.py); the token is the password

All three carry the same requests (requests.py).
"""

import base64
import hashlib
import http.client
import json
import os
import ssl
import time
from urllib.parse import quote, urlencode, urlsplit

from edge.errors import ConfigError, TidegateError
from gateway import control
from gateway.config import reader as config
from gateway.requests import CHUNK_BYTES, ROUTES, WHOLE, NoAnswer, Unknown, error_of

TIMEOUT_S = 30.0
PATIENCE_S = 60.0                    # an upload waits that long for a gateway that went away
RETRY_S = 1.0
API_CHUNK_BYTES = 256 << 10
ANSWER_BYTES_MAX = 8 << 20


def add_gateway(parser):
    """The arguments that say which gateway; `open_gateway` reads them."""
    parser.add_argument("-c", "--config", default="tidegate.toml", help="of the gateway on this machine (tidegate.toml)")
    parser.add_argument("--gateway", metavar="WHERE", help="another one: http(s)://HOST:PORT, mqtt(s)://[USER@]BROKER[:PORT]/NAME, or a data directory")
    parser.add_argument("--token-file", metavar="FILE", help="holds the API's token, or the broker's password (else TIDEGATE_TOKEN)")
    parser.add_argument("--ca", metavar="PEM", help="TLS: trust this authority instead of the system's")
    parser.add_argument("--cert", metavar="PEM", help="TLS: a certificate of one's own")
    parser.add_argument("--key", metavar="PEM", help="TLS: its key")


def open_gateway(arguments):
    """The Remote that add_gateway's arguments name. Raises ConfigError."""
    if arguments.gateway is None:
        return connect(config.load(arguments.config).gateway.data)
    return connect(arguments.gateway, token=_token(arguments.token_file), ca=arguments.ca, cert=arguments.cert, key=arguments.key)


def connect(where, *, token=None, ca=None, cert=None, key=None):
    """The Remote at a data directory or URL. ca, cert, key: PEM files. Raises ConfigError for what cannot be; NoAnswer comes with the first ask."""
    if "://" not in where:
        return Local(where)
    try:
        url = urlsplit(where)
        scheme, host, port = url.scheme, url.hostname, url.port
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    if scheme not in ("http", "https", "mqtt", "mqtts") or not host:
        raise ConfigError(f"{where}: not a gateway's address; use http(s)://HOST:PORT, mqtt(s)://[USER@]BROKER[:PORT]/NAME, or a data directory")
    tls = _tls(ca, cert, key) if scheme in ("https", "mqtts") else None
    if scheme in ("http", "https"):
        if url.path.strip("/") or url.query:
            raise ConfigError(f"{where}: the address ends with the port")
        return Api(host, port, token, tls)
    name = url.path.strip("/")
    if not name or "/" in name or any(c in name for c in "+#"):
        raise ConfigError(f"{where}: the gateway's name is missing behind the broker, as in {scheme}://{url.netloc}/site-7")
    from gateway.manage.postbox import Postbox

    return Cloud(Postbox(host, port or (8883 if tls else 1883), name, url.username, token, tls))


class Remote:
    """ask(request) -> value; push(wasm) -> digest. Raises NoAnswer (a ConfigError) when nobody answers, the gateway's TidegateError when it says no."""

    chunk_bytes = CHUNK_BYTES

    def ask(self, request, timeout_s=TIMEOUT_S):
        """The answer to {"do": NAME, ...}."""
        raise NotImplementedError

    def push(self, wasm, progress=None, patience_s=PATIENCE_S) -> str:
        """Upload a module, from where an earlier try ended; the digest to name in rule.push. progress(bytes there, size) hears of each step.
        Waits patience_s for a gateway that does not answer, from its last sign of life."""
        digest, alive = hashlib.sha256(wasm).hexdigest(), time.monotonic()
        offset, furthest = None, -1
        while offset != len(wasm):
            try:
                if offset is None:
                    offset = self.begin(digest, len(wasm))
                else:
                    offset = self.chunk(digest, len(wasm), offset, wasm[offset:offset + self.chunk_bytes])
            except (NoAnswer, Unknown):          # it is away, or back and has to be told again
                if time.monotonic() - alive > patience_s:
                    raise
                offset = None
                time.sleep(min(RETRY_S, patience_s))
                continue
            if not isinstance(offset, int) or not 0 <= offset <= len(wasm):
                raise TidegateError(f"the gateway says it has {offset} bytes of {len(wasm)}")
            if offset > furthest:
                furthest, alive = offset, time.monotonic()
            elif time.monotonic() - alive > patience_s:
                raise TidegateError(f"the upload does not get beyond {furthest} bytes of {len(wasm)}")
            if progress is not None:
                progress(offset, len(wasm))
        return digest

    def begin(self, digest, size) -> int:
        """How much of an upload the gateway has."""
        return self.ask({"do": "upload.begin", "digest": digest, "size": size})["offset"]

    def chunk(self, digest, size, offset, data) -> int:
        """Hand on a part of it; how much the gateway has then."""
        return self.ask({"do": "upload.chunk", "digest": digest, "offset": offset, "data": base64.b64encode(data).decode()})["offset"]

    def close(self):
        """Let go of the connection, if one is kept."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Local(Remote):
    """The gateway that runs on a data directory of this machine. who: "token:NAME" or "cert:CN", whom one speaks for."""

    def __init__(self, directory, who=None):
        self._directory = os.path.abspath(directory)
        self._who = {"who": who} if who else {}

    def ask(self, request, timeout_s=TIMEOUT_S):
        return control.ask(self._directory, "manage", timeout_s, request=request, **self._who)


class Api(Remote):
    """A gateway's HTTP API."""

    chunk_bytes = API_CHUNK_BYTES

    def __init__(self, host, port, token=None, tls=None):
        if token and tls is None and host not in config.LOOPBACK:
            raise ConfigError(f"http://{host}: a token does not go over the network in the clear; use https")
        self._host, self._port, self._tls, self._token = host, port, tls, token
        self.where = f"{'https' if tls else 'http'}://{host}" + (f":{port}" if port else "")

    def ask(self, request, timeout_s=TIMEOUT_S):
        fields = dict(request)
        name = fields.pop("do")
        route = ROUTES.get(name)
        if route is None:
            raise ConfigError(f"there is no request {name!r}; known are {', '.join(ROUTES)}")
        path = WHOLE[name] if name in WHOLE and "rule" not in fields else route.path
        for field in [field for field in fields if f"{{{field}}}" in path]:
            path = path.replace(f"{{{field}}}", quote(str(fields.pop(field)), safe=""))
        if route.method in ("GET", "DELETE"):
            return self._call(route.method, path + ("?" + urlencode(fields) if fields else ""), timeout_s=timeout_s)
        return self._call(route.method, path, json.dumps(fields).encode(), {"Content-Type": "application/json"}, timeout_s)

    def begin(self, digest, size):
        return self._put(digest, b"", f"bytes */{size}")

    def chunk(self, digest, size, offset, data):
        return self._put(digest, data, f"bytes {offset}-{offset + len(data) - 1}/{size}")

    def _put(self, digest, data, content_range):
        return self._call("PUT", f"/uploads/{digest}", data, {"Content-Type": "application/octet-stream", "Content-Range": content_range})["offset"]

    def _call(self, method, path, body=None, headers=(), timeout_s=TIMEOUT_S):
        headers = {"Accept": "application/json", **dict(headers)}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=timeout_s, **({"context": self._tls} if self._tls else {}))
        try:
            connection.request(method, f"/v1{path}", body, headers)
            response = connection.getresponse()
            status, text = response.status, response.read(ANSWER_BYTES_MAX)
        except ssl.SSLCertVerificationError as error:
            raise ConfigError(f"{self.where}: its certificate is refused: {error.verify_message}; name its authority with --ca") from None
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{self.where}: no answer: {error or type(error).__name__}; is `tidegate api` running there?") from None
        finally:
            connection.close()
        return self._value(status, text)

    def _value(self, status, text):
        try:
            answer = json.loads(text) if text else None
        except ValueError:
            answer = {"detail": text[:200].decode("utf-8", "replace")}
        if 200 <= status < 300:
            return answer
        detail, fault = (answer.get("detail"), answer.get("fault")) if isinstance(answer, dict) else (None, None)
        if status in (401, 403):
            raise ConfigError(f"{self.where}: {detail or 'not let in'}")
        if status in (429, 502, 503, 504) and fault not in ("disk", "upstream", "device"):
            raise NoAnswer(f"{self.where}: {detail or status}")
        raise error_of(fault, detail or f"{self.where}: status {status}")


class Cloud(Remote):
    """A gateway behind a broker, asked by its management topics."""

    def __init__(self, postbox):
        self._postbox = postbox

    def ask(self, request, timeout_s=TIMEOUT_S):
        return self._postbox.ask(request, timeout_s)

    def chunk(self, digest, size, offset, data):
        return self.ask({"do": "upload.chunk", "digest": digest, "offset": offset, "data": data})["offset"]

    def close(self):
        self._postbox.close()


def _token(path):
    if path is None:
        return os.environ.get("TIDEGATE_TOKEN") or None
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {path}: {error}") from None


def _tls(ca, cert, key):
    context = ssl.create_default_context()
    try:
        if ca is not None:
            context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--ca {ca}, --cert {cert}, --key {key}: {error}; name PEM files") from None
    return context
