"""The HTTP management API: each resource is one request (requests.py) to the daemon, over its local socket. Never imported by the daemon.

    client -> doorkeeper.py -> application(...) -> control.py's socket -> Manager.handle

The OpenAPI document comes from what stands here; `make docs` writes it to docs/openapi.json.
"""

import base64
import json
import re
import traceback
from typing import Annotated, Any, Literal

import msgspec
from litestar import Litestar, Request, Response, Router, delete, get, post, put, route
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import HeaderParameter, PathParameter, QueryParameter, RawBody
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from edge.errors import TidegateError
from edge.module import MODULE_BYTES_MAX
from gateway import control
from gateway.doorkeeper import TYPE, body
from gateway.requests import CHUNK_BYTES, NoAnswer, fault_of

ASK_S = 20.0
JSON_BYTES_MAX = 48 << 10            # so that it fits a line of the local socket
RANGE = r"^(bytes (\*|[0-9]{1,8}-[0-9]{1,8})/[0-9]{1,8})?$"
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"
VERSION = r"^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,80}$"
STATUS = {"unknown": 404, "rule": 409, "configuration": 409, "request": 409, "device": 502, "upstream": 502, "disk": 503, "gateway": 500}

Name = Annotated[str, PathParameter(pattern=NAME, description="the rule's name")]
Label = Annotated[str, PathParameter(pattern=VERSION, description="NAME@VERSION, or a digest or the beginning of one")]
Digest = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file, hexadecimal")]
RuleName = Annotated[str, Meta(pattern=NAME)]
Policy = Literal["auto", "keep", "replay", "fresh"]


class Problem(Struct):
    """RFC 9457. fault: whose it is; the request's, the rule's, the configuration's, the disk's, the gateway's (a bug), or something is unknown."""

    type: str
    title: str
    status: int
    detail: str
    fault: str


class Offset(Struct):
    """How much of an upload is there: go on from here. The size: all of it."""

    offset: int


class Started(Struct):
    """The number of a job: /jobs/{job} tells how far it is."""

    job: str


class Job(Struct):
    """What takes longer than an answer. state: examining, warming, done or failed; report: of the examination; error and fault: why it failed."""

    job: str
    state: str
    error: str = ""
    fault: str = ""
    report: dict[str, Any] | None = None


class Tail(Struct):
    """Rows of a stream; how many passed since somebody looks, and how many of them were taken."""

    rows: list[dict[str, Any]]
    next: int
    seen: int
    sampled: int


class Push(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Run an uploaded module. rule: the name to run under (the module's own); input: a stream or another rule; policy: what becomes of the state."""

    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{6,64}$")]
    rule: RuleName | UnsetType = UNSET
    input: RuleName | UnsetType = UNSET
    params: dict[str, Any] | UnsetType = UNSET
    limits: dict[str, int] | UnsetType = UNSET
    lanes: list[RuleName] | UnsetType = UNSET
    policy: Policy | UnsetType = UNSET
    horizon: Annotated[str, Meta(max_length=20)] | UnsetType = UNSET
    shadow: bool | UnsetType = UNSET
    force: bool | UnsetType = UNSET


class Params(Struct, forbid_unknown_fields=True):
    """New parameters of a rule."""

    params: dict[str, Any]
    policy: Policy | UnsetType = UNSET


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
            409: "cannot be done now", 413: "too large", 422: "the rule or the configuration is wrong", 429: "too often", 500: "a bug", 502: "upstream",
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
def rules(request: Request) -> Any:
    return gateway(request).ask(request, "rule.ls")


@post("/rules", summary="Run an uploaded module", status_code=202, **EACH)
def deploy(request: Request, body: RawBody) -> Started:
    return gateway(request).ask(request, "rule.push", **_read(Push, body))


@get("/rules/{rule:str}", summary="A rule, whole", **EACH)
def rule(request: Request, rule: Name) -> Any:
    return gateway(request).ask(request, "rule.show", rule=rule)


@delete("/rules/{rule:str}", summary="Remove a rule", status_code=200, **EACH)
def remove(request: Request, rule: Name) -> Any:
    return gateway(request).ask(request, "rule.rm", rule=rule)


@delete("/versions/{version:str}", summary="Remove a stored version", status_code=200, **EACH)
def remove_version(request: Request, version: Label) -> Any:
    return gateway(request).ask(request, "rule.rm", version=version)


@put("/rules/{rule:str}/params", summary="Change parameters", **EACH)
def set_params(request: Request, rule: Name, body: RawBody) -> Any:
    return gateway(request).ask(request, "rule.set", rule=rule, **_read(Params, body))


def _about(method, word, summary):
    """The handler of /rules/NAME/WORD, which is the request rule.WORD."""
    def handler(request: Request, rule: Name) -> Any:
        return gateway(request).ask(request, f"rule.{word}", rule=rule)

    handler.__name__ = word
    return method(f"/rules/{{rule:str}}/{word}", summary=summary, status_code=200, **EACH)(handler)


ABOUT_A_RULE = [
    _about(get, "stats", "What a rule does and costs"), _about(get, "logs", "What befell a rule"), _about(get, "diff", "Where its shadow's output differs"),
    _about(post, "enable", "Let it work again"), _about(post, "disable", "Let events pass it by"),
    _about(post, "promote", "Let the shadow take over"), _about(post, "rollback", "Go back to the version before"),
]


@get("/stats", summary="What each rule does and costs", **EACH)
def stats(request: Request) -> Any:
    return gateway(request).ask(request, "rule.stats")


@get("/jobs/{job:str}", summary="How far a push is", **EACH)
def job(request: Request, job: Name) -> Job:
    return gateway(request).ask(request, "job", id=job)


@get("/audit", summary="Decisions on rules, in a chain of hashes", **EACH)
def audit(request: Request, after: Annotated[int, QueryParameter(ge=0, le=2**53)] = 0, limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100) -> Any:
    return gateway(request).ask(request, "rule.audit", after=after, limit=limit)


@get("/tail/{stream:str}", summary="Events as they pass, sampled: ask again with after=next", **EACH)
def tail(request: Request, stream: Name, after: Annotated[int, QueryParameter(ge=-1, le=2**53, description="-1: what is to come")] = -1) -> Tail:
    return gateway(request).ask(request, "tail", stream=stream, after=None if after < 0 else after)


@put("/uploads/{digest:str}", summary="Bring a module, whole or in parts", request_max_body_size=MODULE_BYTES_MAX,
     description="Content-Range: bytes FIRST-LAST/SIZE for a part, bytes */SIZE with an empty body to ask how much is there, none for the whole. The answer's "
                 "offset is where to go on. Parts that come twice are harmless.", **EACH)
def upload(request: Request, digest: Digest, body: RawBody,
           content_range: Annotated[str, HeaderParameter(name="Content-Range", pattern=RANGE)] = "") -> Offset:
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
    return {name: value for name, value in structs.asdict(data).items() if value is not UNSET}


# --- the application

JSON = "application/json"
BODIES = [
    ("post", "/v1/rules", JSON, {"$ref": "#/components/schemas/Push"}),
    ("put", "/v1/rules/{rule}/params", JSON, {"$ref": "#/components/schemas/Params"}),
    ("put", "/v1/uploads/{digest}", "application/octet-stream", {"type": "string", "format": "binary", "maxLength": MODULE_BYTES_MAX}),
]
MODELS = [Offset, Started, Job, Tail, Problem, Push, Params]
ROUTES = [_options("/rules", "GET, OPTIONS, POST"), _options("/rules/{rule:str}", "DELETE, GET, OPTIONS"), status, ledger, rules, deploy, rule, remove, remove_version, set_params, *ABOUT_A_RULE, stats, job, audit, tail, upload]

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
