"""The HTTP management API: each resource is one request (requests.py) to the daemon, over its local socket. Never imported by the daemon.

    client -> doorkeeper.py -> application(...) -> control.py's socket -> Manager.handle

The OpenAPI document comes from what stands here; `make docs` writes it to docs/openapi.json.
"""

import base64
import json
import re
import traceback
from typing import Annotated, Any

import msgspec
from litestar import Litestar, Request, Response, Router, delete, get, post, put, route
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import QueryParameter, RawBody

from edge.errors import TidegateError
from edge.host.module import MODULE_BYTES_MAX
from gateway import control
from gateway.manage.doorkeeper import TYPE, body
from gateway.manage.shapes import After, Audit, Digest, Job, Label, Listing, Logs, Name, Offset, Params, Problem, Push, Range, Removed, Tail, Version
from gateway.requests import CHUNK_BYTES, NoAnswer, fault_of

ASK_S = 20.0
JSON_BYTES_MAX = 48 << 10            # so that it fits a line of the local socket
STATUS = {"unknown": 404, "rule": 409, "configuration": 409, "request": 409, "device": 502, "upstream": 502, "disk": 503, "gateway": 500}


# --- the daemon

class Gateway:
    """The daemon on a data directory, asked for whom the doorkeeper let in."""

    def __init__(self, data):
        self._data = data

    def ask(self, request: Request, do, **fields):
        """A management request; fields that are None are left out."""
        asked = {"do": do, **{name: value for name, value in fields.items() if value is not None}}
        return control.ask(self._data, "manage", ASK_S, request=asked, who=request.scope["who"])

    def get(self, name):
        """What the local socket tells by name."""
        return control.ask(self._data, name, ASK_S)


def gateway(request: Request) -> Gateway:
    return request.app.state.gateway


PROBLEMS = {400: "the request is malformed", 401: "no token or certificate that is known", 403: "reading only", 404: "unknown", 405: "another method is needed",
            409: "cannot be done now", 413: "too large", 429: "too often", 500: "a bug", 502: "upstream",
            503: "the gateway or its disk does not answer, or too many requests at once"}
EACH = {"sync_to_thread": True, "responses": {
    code: ResponseSpec(Problem, description=description, media_type=TYPE.decode(), generate_examples=False) for code, description in PROBLEMS.items()}}


# --- resources

@get("/status", summary="What the running gateway does", **EACH)
def status(request: Request) -> dict[str, Any]:
    return gateway(request).get("status")


@get("/ledger", summary="In = out + held back, by stream, rule and lane", **EACH)
def ledger(request: Request) -> dict[str, Any]:
    return gateway(request).get("ledger")


def _options(path, allow):
    """What OPTIONS says of a path of two methods: Litestar's own answer forgets the second. To be registered before them."""
    @route(path, http_method=["OPTIONS"], include_in_schema=False, status_code=204, response_headers={"Allow": allow}, sync_to_thread=False)
    def options() -> None:
        return None

    return options


@get("/rules", summary="Rules and versions", **EACH)
def rules(request: Request) -> Listing:
    return gateway(request).ask(request, "rule.ls")


@post("/rules", summary="Run an uploaded module, or a stored one", status_code=202, **EACH)
def deploy(request: Request, body: RawBody) -> Job:
    return gateway(request).ask(request, "rule.push", **_read(Push, body))


@get("/rules/{rule:str}", summary="A rule or a stored version, whole", **EACH)
def rule(request: Request, rule: Label) -> dict[str, Any]:
    return gateway(request).ask(request, "rule.show", rule=rule)


@delete("/rules/{rule:str}", summary="End a rule; its versions stay", status_code=202, **EACH)
def remove(request: Request, rule: Name) -> Job:
    return gateway(request).ask(request, "rule.rm", rule=rule)


@put("/rules/{rule:str}/params", summary="Change parameters", status_code=202, **EACH)
def set_params(request: Request, rule: Name, body: RawBody) -> Job:
    return gateway(request).ask(request, "rule.set", rule=rule, **_read(Params, body))


@get("/rules/{rule:str}/stats", summary="What a rule does and costs", **EACH)
def rule_stats(request: Request, rule: Name) -> dict[str, Any]:
    return gateway(request).ask(request, "rule.stats", rule=rule)


@get("/rules/{rule:str}/logs", summary="What befell a rule: uploads, swaps, traps", **EACH)
def logs(request: Request, rule: Name) -> Logs:
    return gateway(request).ask(request, "rule.logs", rule=rule)


@get("/rules/{rule:str}/diff", summary="Where its shadow's output differs, and what both cost", **EACH)
def diff(request: Request, rule: Name) -> dict[str, Any]:
    return gateway(request).ask(request, "rule.diff", rule=rule)


def _change(word, summary):
    """POST /rules/NAME/WORD, which is the request rule.WORD."""
    def handler(request: Request, rule: Name) -> Job:
        return gateway(request).ask(request, f"rule.{word}", rule=rule)

    handler.__name__ = word
    return post(f"/rules/{{rule:str}}/{word}", summary=summary, status_code=202, **EACH)(handler)


CHANGES = [_change("enable", "Let it work again"), _change("disable", "Let events pass it by"), _change("promote", "Let the shadow take over"),
           _change("rollback", "Go back to the version before")]


@get("/versions", summary="Stored versions", **EACH)
def versions(request: Request) -> list[Version]:
    return gateway(request).ask(request, "rule.ls")["versions"]


@delete("/versions/{version:str}", summary="Remove a stored version that no rule needs", status_code=200, **EACH)
def remove_version(request: Request, version: Label) -> Removed:
    return gateway(request).ask(request, "rule.rm", version=version)


@get("/stats", summary="What each rule does and costs", **EACH)
def stats(request: Request) -> dict[str, Any]:
    return gateway(request).ask(request, "rule.stats")


@get("/jobs/{job:str}", summary="How far a change is", **EACH)
def job(request: Request, job: Name) -> Job:
    return gateway(request).ask(request, "job", id=job)


@get("/audit", summary="Decisions on rules, in a chain of hashes", **EACH)
def audit(request: Request, after: After = -1, limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50) -> Audit:
    return gateway(request).ask(request, "rule.audit", after=None if after < 0 else after, limit=limit)


@get("/tail/{stream:str}", summary="Events as they pass, sampled: ask again with after=next", **EACH)
def tail(request: Request, stream: Name, after: After = -1) -> Tail:
    return gateway(request).ask(request, "tail", stream=stream, after=None if after < 0 else after)


@put("/uploads/{digest:str}", summary="Bring a module, whole or in parts", request_max_body_size=MODULE_BYTES_MAX,
     description="Content-Range: bytes FIRST-LAST/SIZE for a part, bytes */SIZE with an empty body to ask how much is there, none for the whole. The answer's "
                 "offset is where to go on. Parts that come twice are harmless.", **EACH)
def upload(request: Request, digest: Digest, body: RawBody,
           content_range: Range = "") -> Offset:
    first, size = _range(content_range, len(body))
    there = gateway(request).ask(request, "upload.begin", digest=digest, size=size)["offset"]
    while first <= there < first + len(body):
        part = body[there - first:there - first + CHUNK_BYTES]
        reached = gateway(request).ask(request, "upload.chunk", digest=digest, offset=there, data=base64.b64encode(part).decode())["offset"]
        if reached <= there:
            there = reached
            break
        there = reached
    return {"offset": there}


def _range(text, length):
    """(first byte, size of the whole) that a Content-Range says. Raises HTTPException 409."""
    if not text:
        return 0, length
    part, size = re.fullmatch(r"bytes (\S+)/([0-9]+)", text).groups()
    first, last = (0, -1) if part == "*" else map(int, part.split("-"))
    if last - first + 1 != length or last >= int(size):
        raise HTTPException(status_code=409, detail=f"Content-Range {text!r} does not fit a body of {length} bytes")
    return first, int(size)


def _read(kind, body) -> dict:
    """A body of JSON, exactly as the document says: Litestar's own reading takes 0 for false. Raises HTTPException 400."""
    try:
        data = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(status_code=400, detail=f"the body: {error}") from None
    return msgspec.to_builtins(data)


# --- the application

JSON = "application/json"
BODIES = [
    ("post", "/v1/rules", JSON, {"$ref": "#/components/schemas/Push"}),
    ("put", "/v1/rules/{rule}/params", JSON, {"$ref": "#/components/schemas/Params"}),
    ("put", "/v1/uploads/{digest}", "application/octet-stream", {"type": "string", "format": "binary", "maxLength": MODULE_BYTES_MAX}),
]
MODELS = [Offset, Job, Listing, Removed, Logs, Audit, Tail, Problem, Push, Params]
ROUTES = [_options("/rules", "GET, OPTIONS, POST"), _options("/rules/{rule:str}", "DELETE, GET, OPTIONS"), status, ledger, rules, deploy, rule, remove, set_params,
          rule_stats, logs, diff, *CHANGES, versions, remove_version, stats, job, audit, tail, upload]

class Document(JsonRenderPlugin):
    """Serves /openapi.json."""

    def render(self, request, openapi_schema):
        return json.dumps(exact(openapi_schema)).encode()


def application(data) -> Litestar:
    """The API of the gateway that runs on a data directory, without its doorkeeper."""
    schemes = {"token": SecurityScheme(type="http", scheme="bearer"), "certificate": SecurityScheme(type="mutualTLS")}
    config = OpenAPIConfig(title="Tidegate management", version="1", path="/", render_plugins=[Document()],
                           components=Components(security_schemes=schemes), security=[{"token": []}, {"certificate": []}],
                           description="Rules of a gateway: upload, run, watch, roll back. docs/management.md says how.")
    app = Litestar([Router("/v1", route_handlers=ROUTES)], openapi_config=config, request_max_body_size=JSON_BYTES_MAX, logging_config=None, before_request=_once,
                   exception_handlers={TidegateError: _tell, HTTPException: _tell_http, Exception: _tell_bug})
    app.state.gateway = Gateway(data)
    return app


def document() -> dict:
    """The OpenAPI 3.1 document: docs/openapi.json."""
    return exact(application("").openapi_schema.to_schema())


def exact(schema) -> dict:
    """Litestar's document, with models and bodies as msgspec checks them."""
    whole = json.loads(json.dumps(schema))
    _, whole["components"]["schemas"] = msgspec.json.schema_components(MODELS, ref_template="#/components/schemas/{name}")
    for method, path, kind, body in BODIES:
        whole["paths"][path][method]["requestBody"] = {"content": {kind: {"schema": body}}, "required": kind == JSON}
    return whole


def _once(request):
    names = [name for name, _ in request.query_params.multi_items()]
    if len(set(names)) < len(names):
        raise HTTPException(status_code=400, detail="a query parameter is given twice")


def _tell(request, error):
    fault = fault_of(error)
    return _problem(503 if isinstance(error, NoAnswer) else STATUS.get(fault, 409), str(error), fault)


def _tell_http(request, error):
    detail = error.detail
    if isinstance(getattr(error, "extra", None), list):
        detail = "; ".join(f"{item.get('key', 'body')}: {item.get('message')}" for item in error.extra if isinstance(item, dict)) or detail
    return _problem(error.status_code, detail, "request", dict(error.headers or {}))


def _tell_bug(request, error):
    traceback.print_exception(error)
    return _problem(500, f"a mistake in the API: {error!r}", "gateway")


def _problem(status, detail, fault, headers=None):
    return Response(body(status, detail, fault), status_code=status, media_type=TYPE.decode(), headers=headers or {})
