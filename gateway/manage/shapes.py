"""What goes over the HTTP API: types of its parameters, bodies and answers. They check, and they are the OpenAPI document's schemas."""

from typing import Annotated, Any, Literal

from litestar.params import HeaderParameter, PathParameter, QueryParameter
from msgspec import UNSET, Meta, Struct, UnsetType

RANGE = r"^(bytes (\*|[0-9]{1,8}-[0-9]{1,8})/[0-9]{1,8})?$"
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"
VERSION = r"^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,80}$"

Name = Annotated[str, PathParameter(pattern=NAME, description="the rule's name")]
Label = Annotated[str, PathParameter(pattern=VERSION, description="NAME@VERSION, or a digest or the beginning of one")]
Range = Annotated[str, HeaderParameter(name="Content-Range", pattern=RANGE)]
After = Annotated[int, QueryParameter(ge=-1, le=2**53, description="-1: the newest lines of the audit log; rows that are to come")]
Digest = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file, hexadecimal")]
RuleName = Annotated[str, Meta(pattern=NAME)]
Policy = Literal["auto", "keep", "replay", "fresh"]
Whole = Annotated[float, Meta(ge=1, le=10**15, multiple_of=1)]       # to JSON 50.0 is a whole number
Horizon = Annotated[str, Meta(max_length=20)]


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


class Job(Struct):
    """A change that is under way or was made: ask /jobs/{job} until it is done or failed.

    policy: what became of the state, as it came to be; progress: of a replay, 0 to 1; error and fault: why it failed; notes: what to know;
    report: of the examination."""

    job: str
    what: str
    rule: str
    version: str
    state: Literal["examining", "waiting", "warming", "done", "failed"]
    policy: str
    progress: float
    error: str
    fault: str
    notes: list[str]
    report: dict[str, Any] | None


class Running(Struct):
    """A rule; previous and shadow are versions, or null; configured: it stands in tidegate.toml. Counters follow."""

    rule: str
    input: str
    version: str | None
    digest: str
    params: dict[str, Any]
    limits: dict[str, Any] | None
    lanes: list[str]
    enabled: bool
    previous: str | None
    shadow: str | None
    configured: bool
    state: str


class Version(Struct):
    """A stored module; label: NAME@VERSION; file: SHA-256 of the file, signature included; who, when_ns: brought it, when."""

    label: str
    name: str
    version: int
    digest: str
    file: str
    size: int
    who: str
    when_ns: int
    signed_by: str
    summary: str


class Listing(Struct):
    """What runs, and what is stored."""

    rules: list[Running]
    versions: list[Version]


class Removed(Struct):
    """A version that is stored no more."""

    removed: str


class Logs(Struct):
    """What befell a rule, the oldest first."""

    rule: str
    events: list[dict[str, Any]]


class Audit(Struct):
    """Lines of the audit log; head: number and hash of its newest line; broken: where its chain is, or null."""

    lines: list[dict[str, Any]]
    head: list[Any]
    broken: dict[str, Any] | None


class Tail(Struct):
    """Rows of a stream; how many passed since somebody looks, and how many of them were taken."""

    rows: list[dict[str, Any]]
    next: int
    seen: int
    sampled: int


class Limits(Struct, forbid_unknown_fields=True):
    """What a rule may use, within the gateway's limits."""

    time_ns: Whole | None = None
    memory_bytes: Whole | None = None
    output_bytes: Whole | None = None

    def __post_init__(self):
        for name in self.__struct_fields__:
            if getattr(self, name) is not None:
                setattr(self, name, int(getattr(self, name)))


class Push(Struct, forbid_unknown_fields=True):
    """Run a module. digest: of an upload, or what names a stored version; rule: the name to run under (the module's own); input: a stream or another
    rule; params: changes to those of the running one; lanes: routes upstream; policy: what becomes of the state; horizon: how far back a replay
    begins; shadow: beside the running one; force: though the version goes back."""

    digest: Annotated[str, Meta(pattern=VERSION)]
    rule: RuleName | UnsetType = UNSET
    input: RuleName | UnsetType = UNSET
    params: dict[str, Any] | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET
    lanes: list[RuleName] | UnsetType = UNSET
    policy: Policy | UnsetType = UNSET
    horizon: Horizon | UnsetType = UNSET
    shadow: bool | UnsetType = UNSET
    force: bool | UnsetType = UNSET


class Params(Struct, forbid_unknown_fields=True):
    """Changes to a rule's parameters; null takes one back to its default."""

    params: dict[str, Any]
    policy: Policy | UnsetType = UNSET
    horizon: Horizon | UnsetType = UNSET
