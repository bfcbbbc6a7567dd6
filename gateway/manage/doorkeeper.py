"""Doorkeeper: in front of the HTTP API. Who it is, whether they may, how often, how many at once, how long.

It answers before the application has read a byte: 401 nobody known, 403 known but may not, 429 too often, 503 too many at once or too slow.
"""

import asyncio
import json
import time

RATE = 50.0                          # requests a second of one guest, and of all that are nobody
BURST = 100.0
AT_ONCE_MAX = 8                      # the local socket has 16 places, for the people on the box too
REQUEST_S = 30.0
SAFE = ("GET", "HEAD", "OPTIONS")
TYPE = b"application/problem+json"


class Bucket:
    """A token bucket."""

    def __init__(self, clock):
        self._clock, self._tokens, self._at = clock, BURST, clock()

    def take(self) -> bool:
        now = self._clock()
        self._tokens, self._at = min(BURST, self._tokens + (now - self._at) * RATE), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Doorkeeper:
    """An ASGI application around another. scope["who"] says to that one whom it serves; scope["state"]["common_name"] is the client certificate's, verified."""

    def __init__(self, app, access, clock=time.monotonic):
        self._app, self._access, self._clock = app, access, clock
        self._buckets = {}           # who ("" for nobody) -> Bucket: as many as the access file has
        self._inside = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guest = self._access.guest(_token(scope["headers"]), scope.get("state", {}).get("common_name"))
        if not self._buckets.setdefault(guest.who if guest else "", Bucket(self._clock)).take():
            await problem(send, 429, f"more than {RATE:.0f} requests a second", "request", (b"retry-after", b"1"))
        elif guest is None:
            await problem(send, 401, "show a token that the gateway knows (Authorization: Bearer ...), or a client certificate that it knows", "request",
                          (b"www-authenticate", b'Bearer realm="tidegate"'))
        elif guest.role != "write" and scope["method"] not in SAFE:
            await problem(send, 403, f"{guest.who} may read only", "request")
        elif self._inside >= AT_ONCE_MAX:
            await problem(send, 503, f"{AT_ONCE_MAX} requests are being served already", "request", (b"retry-after", b"1"))
        else:
            await self._serve({**scope, "who": guest.who}, receive, send)

    async def _serve(self, scope, receive, send):
        begun = False

        async def sending(message):
            nonlocal begun
            begun = True
            await send(message)

        self._inside += 1
        try:
            async with asyncio.timeout(REQUEST_S):
                await self._app(scope, receive, sending)
        except TimeoutError:
            if not begun:
                await problem(send, 503, f"not done within {REQUEST_S:.0f} s; it may be carried out all the same", "request")
        finally:
            self._inside -= 1


def body(status, detail, fault) -> dict:
    """RFC 9457 problem details; `fault` says whose it is."""
    return {"type": "about:blank", "title": TITLES.get(status, "Problem"), "status": status, "detail": detail, "fault": fault}


async def problem(send, status, detail, fault, *headers):
    """Answer with a problem."""
    data = json.dumps(body(status, detail, fault)).encode()
    headers = [(b"content-type", TYPE), (b"content-length", str(len(data)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


def _token(headers):
    value = next((value for name, value in headers if name == b"authorization"), b"")
    scheme, _, token = value.partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == b"bearer" and token.strip() else None


TITLES = {400: "Bad request", 401: "Not let in", 403: "May not", 404: "Not there", 405: "Not that way", 409: "Cannot be done now", 413: "Too large",
          415: "Unknown kind of body", 422: "Refused", 429: "Too often", 500: "A mistake in the gateway", 502: "Upstream failed", 503: "Not now"}
