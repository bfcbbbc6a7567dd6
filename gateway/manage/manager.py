"""Management: every request about rules, whichever door it came through, is answered by Manager.handle. gateway/requests.py lists them.

A request is checked against its type here, decided by Changes (changes.py) where it changes something, and answered with plain data. What changes
something is in the audit log before it is done: where the log cannot be written, nothing is changed.
"""

import base64
import time
from typing import Any, Literal

import msgspec
from msgspec import Struct

from edge.errors import TidegateError
from edge.host.manifest import duration_ns
from edge.uploads import Uploads
from gateway.deploy.admission import Admission
from gateway.deploy.audit import Audit
from gateway.deploy.changes import Changes, no_rule
from gateway.deploy.chronicle import Chronicle
from gateway.deploy.jobs import Jobs
from gateway.manage.tail import Taps
from gateway.requests import CHUNK_BYTES_MAX, ROUTES
from gateway.status import rules

AUDIT_LINES_MAX = 200
VERIFIED_S = 5.0                     # what the audit log's chain was found to be holds for so long: reading all of it takes a turn's time
DEPTH_MAX = 32                       # of a request's values
Policy = Literal["auto", "keep", "replay", "fresh"]


class Request(Struct, forbid_unknown_fields=True):
    """Its fields are those of the request beside `do`."""


class Begin(Request):
    digest: str
    size: int


class Chunk(Request):
    digest: str
    offset: int
    data: str


class RuleLimits(Request):
    """As edge.host.limits.Limits has them."""

    time_ns: int | None = None
    memory_bytes: int | None = None
    output_bytes: int | None = None

    def given(self) -> dict | None:
        """Those that are said; None for none."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None} or None


class Push(Request):
    """digest: of a complete upload, or what names a stored version. params: changes to what runs now. horizon: of a replay, a duration."""

    digest: str
    rule: str | None = None
    input: str | None = None
    params: dict[str, Any] | None = None
    limits: RuleLimits | None = None
    lanes: list[str] | None = None
    policy: Policy = "auto"
    horizon: str | int | None = None
    shadow: bool = False
    force: bool = False


class JobOf(Request):
    id: str | int


class RuleOf(Request):
    rule: str


class MaybeRule(Request):
    rule: str | None = None


class SetParams(Request):
    rule: str
    params: dict[str, Any]
    policy: Policy = "auto"
    horizon: str | int | None = None


class Remove(Request):
    rule: str | None = None
    version: str | None = None


class AuditOf(Request):
    after: int | None = None
    limit: int = 50


class Tail(Request):
    stream: str
    after: int | None = None


class Nothing(Request):
    """No fields."""


class Manager:
    """daemon: gateway.daemon.Daemon, or what has its config, core, reactor and log. Raises DiskError when its own files cannot be used."""

    def __init__(self, daemon, *, disk, wall=time.time, monotonic=time.monotonic):
        directory = f"{daemon.config.gateway.data}/rules"
        self._core = daemon.core
        self.chronicle = Chronicle(wall)
        self._uploads = Uploads(disk, f"{directory}/uploads", monotonic)
        self._audit = Audit(disk, f"{directory}/audit", wall=wall)
        self._jobs = Jobs()
        self._admission = Admission(daemon.reactor)
        self._changes = Changes(daemon, self._uploads, self._audit, self._jobs, self._admission, self.chronicle, wall)
        self._taps = Taps(self._stream, monotonic)
        self._monotonic = monotonic
        self._chain = (None, None, None)         # (when, head then, what verify() said)
        self._requests = {
            "upload.begin": (Begin, self._begin), "upload.chunk": (Chunk, self._chunk), "rule.push": (Push, self._push), "job": (JobOf, self._job),
            "rule.ls": (Nothing, self._ls), "rule.show": (RuleOf, self._show), "rule.stats": (MaybeRule, self._stats), "rule.logs": (RuleOf, self._logs),
            "rule.diff": (RuleOf, self._diff), "rule.set": (SetParams, self._set), "rule.enable": (RuleOf, self._enable), "rule.disable": (RuleOf, self._disable),
            "rule.promote": (RuleOf, self._promote), "rule.rollback": (RuleOf, self._rollback), "rule.rm": (Remove, self._rm),
            "rule.audit": (AuditOf, self._audit_of), "tail": (Tail, self._tail)}
        assert self._requests.keys() == ROUTES.keys()

    def handle(self, request, who) -> Any:
        """The answer, plain data. Raises TidegateError. request["once"], if there is one, is for the record: a change that was recorded under it before
        this start is not made again."""
        name = request.get("do") if isinstance(request, dict) else None
        if not isinstance(name, str) or name not in self._requests:
            raise TidegateError(f"there is no request {str(name)[:40]!r}; known are {', '.join(self._requests)}")
        kind, answer = self._requests[name]
        if deeper(request, DEPTH_MAX):
            raise TidegateError(f"{name}: its values are nested more than {DEPTH_MAX} deep")
        try:
            asked = msgspec.convert({k: v for k, v in request.items() if k not in ("do", "once")}, kind)
        except msgspec.ValidationError as error:
            raise TidegateError(f"{name}: {error}") from None
        with self._changes.once(request.get("once")):
            return answer(asked, who)

    def event(self, kind, rule, text="", **details):
        """What the core tells of."""
        self._changes.event(kind, rule, text, **details)

    def close(self):
        """End what is under way; release the files."""
        self._admission.close()
        self._uploads.close()
        self._audit.close()

    # --- uploads

    def _begin(self, asked, who):
        if self._core.store.find(asked.digest) is not None:
            return {"offset": asked.size}
        return {"offset": self._uploads.begin(asked.digest, asked.size)}

    def _chunk(self, asked, who):
        try:
            data = base64.b64decode(asked.data, validate=True)
        except ValueError:
            raise TidegateError("upload.chunk: data is not base64") from None
        if len(data) > CHUNK_BYTES_MAX:
            raise TidegateError(f"upload.chunk: {len(data)} bytes in one part, the limit is {CHUNK_BYTES_MAX}")
        if self._core.store.find(asked.digest) is not None:
            return {"offset": asked.offset + len(data)}
        return {"offset": self._uploads.chunk(asked.digest, asked.offset, data)}

    # --- changes

    def _push(self, asked, who):
        return self._changes.push(asked, _horizon(asked.horizon), who)

    def _set(self, asked, who):
        return self._changes.set(asked.rule, asked.params, asked.policy, _horizon(asked.horizon), who)

    def _enable(self, asked, who):
        return self._changes.enable(asked.rule, True, who)

    def _disable(self, asked, who):
        return self._changes.enable(asked.rule, False, who)

    def _promote(self, asked, who):
        return self._changes.promote(asked.rule, who)

    def _rollback(self, asked, who):
        return self._changes.rollback(asked.rule, who)

    def _rm(self, asked, who):
        if (asked.rule is None) == (asked.version is None):
            raise TidegateError("rule.rm: name a rule, or a version such as hot@2")
        return self._changes.remove_rule(asked.rule, who) if asked.version is None else self._changes.remove_version(asked.version, who)

    def _job(self, asked, who):
        return self._jobs.get(asked.id).to_dict()

    # --- looking

    def _ls(self, asked, who):
        running = rules(self._core)
        return {"rules": [self._row(d, running) for d in self._core.deployments.values()],
                "versions": [version_dict(v) for v in self._core.store.versions()]}

    def _row(self, deployment, running):
        def label(part):
            return None if not part else self._label(part["digest"] if isinstance(part, dict) else part)

        d = deployment
        return {"rule": d.rule, "input": d.input, "version": label(d.digest), "digest": d.digest, "params": d.params, "limits": d.limits, "lanes": d.lanes,
                "enabled": d.enabled, "previous": label(d.previous), "shadow": label(d.shadow), "configured": bool(d.configured),
                **{"state": "not running", **running.get(d.rule, {})}}

    def _label(self, digest):
        name, version = self._changes.version_of(digest)
        return f"{name}@{version}" if name else digest[:12]

    def _show(self, asked, who):
        name = asked.rule
        if name in self._core.deployments:
            d = self._core.deployments[name]
            shown = {"running": self._row(d, rules(self._core)), "previous": d.previous, "shadow": d.shadow}
            digest = d.digest
        else:
            shown, digest = {}, self._core.store.resolve(name).digest
        version = self._core.store.find(digest)
        return shown | {"version": version_dict(version) if version else None,
                        "parameters": [msgspec.to_builtins(p) for p in self._core.module(digest).manifest.parameters]}

    def _stats(self, asked, who):
        found = rules(self._core)
        if asked.rule is None:
            return found
        if asked.rule not in found:
            raise no_rule(asked.rule, found)
        return {asked.rule: found[asked.rule]}

    def _logs(self, asked, who):
        events = self.chronicle.of(asked.rule)
        if not events and asked.rule not in self._core.deployments:
            raise no_rule(asked.rule, self._core.deployments)
        return {"rule": asked.rule, "events": events}

    def _diff(self, asked, who):
        self._changes.deployment(asked.rule)
        return self._core.diff(asked.rule)

    def _audit_of(self, asked, who):
        limit = max(1, min(asked.limit, AUDIT_LINES_MAX))
        found = self._audit.newest(limit) if asked.after is None else self._audit.lines(asked.after, limit)
        now, (at, head, _) = self._monotonic(), self._chain
        if at is None or now - at >= VERIFIED_S or head != self._audit.head:
            self._chain = now, self._audit.head, self._audit.verify()
        return {**self._chain[2], "lines": found}

    def _tail(self, asked, who):
        return self._taps.read(asked.stream, asked.after)

    def _stream(self, name):
        return next((s for s in self._core.pipeline.streams if s.name == name), None)


def deeper(value, depth) -> bool:
    """Whether plain data is nested more than depth deep."""
    if not depth:
        return isinstance(value, (dict, list))
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(deeper(part, depth - 1) for part in inside)


def version_dict(version) -> dict:
    """A stored version as plain data."""
    return {"label": version.label, **msgspec.structs.asdict(version)}


def _horizon(given):
    """Nanoseconds; None when nothing is said. Raises TidegateError."""
    try:
        return None if given is None else duration_ns(given)
    except ValueError as error:
        raise TidegateError(f"horizon {error}") from None
