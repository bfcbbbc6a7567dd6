"""Changes to what runs: a push from its upload to its swap, new parameters, going back, switching off, removing.

    push    upload -> admission (a child process) -> rule store -> swap or shadow
    others  swap

Each is a Job: it is followed here until its swap is done, and what became of it stands in the audit log and in the rule's chronicle.
"""

from contextlib import contextmanager

import msgspec

from edge.deployment import Deployment
from edge.errors import DiskError, RuleError, TidegateError
from gateway.deploy import signing
from gateway.deploy.examine import changed, comes_after
from gateway.requests import Unknown, fault_of

FOLLOW_S = 0.02
ONCE_LINES = 256                     # of the audit log, in which a request that comes again after a restart is looked for
SHADOW = "@shadow"


class Changes:
    """daemon: has core, config, reactor and log. wall: fn() -> seconds since 1970."""

    def __init__(self, daemon, uploads, audit, jobs, admission, chronicle, wall):
        self._daemon, self._core, self._reactor, self._log = daemon, daemon.core, daemon.reactor, daemon.log
        self._uploads, self._audit, self._jobs, self._admission, self._chronicle, self._wall = uploads, audit, jobs, admission, chronicle, wall
        self._pending = {}               # digests of jobs under way, which the rule store must keep: job -> digest
        self._following = False
        protected = self._core.store.protected
        self._core.store.protected = lambda: {*protected(), *self._pending.values()}
        self._core.on_event = self.event
        self._recorded = {line["once"] for line in audit.newest(ONCE_LINES) if isinstance(line.get("once"), str)}
        self._once = {}

    @contextmanager
    def once(self, name):
        """What is changed meanwhile is recorded under this name (None: under none). Raises TidegateError when a start before this one did."""
        if name is not None and str(name) in self._recorded:
            raise TidegateError(f"request {str(name)[:80]!r} was recorded before the gateway started again: `tidegate rule audit` tells what became of it")
        self._once = {} if name is None else {"once": str(name)}
        try:
            yield
        finally:
            self._once = {}

    def deployment(self, rule) -> Deployment:
        """What runs under a name. Raises TidegateError."""
        found = self._core.deployments.get(rule)
        if found is None:
            raise no_rule(rule, self._core.deployments)
        return found

    # --- push

    def push(self, asked, horizon_ns, who) -> dict:
        """A job. asked: gateway.manage.manager.Push."""
        stored = None
        if self._uploads.complete(asked.digest):
            path, file = self._uploads.path(asked.digest), asked.digest
        else:
            stored = self._core.store.find(asked.digest) or self._core.store.resolve(asked.digest)
            path, file = self._core.store.path(stored.digest), stored.file
        keys = signing.encoded(signing.public_keys(self._daemon.config.signing))
        self._lanes(asked.lanes)
        question = {"path": path, "file": file, "cache": self._daemon.config.gateway.modules, "policy": self._daemon.config.signing.policy, "keys": keys, "force": asked.force,
                    "asked": {"rule": asked.rule, "input": asked.input, "params": asked.params, "limits": asked.limits and asked.limits.given()},
                    "rules": self._running(), "streams": {s.name: s.schema.to_dict() for s in self._core.pipeline.streams},
                    "inputs": list(self._daemon.config.streams)}
        job = self._jobs.begin("push", asked.rule or "", who)
        try:
            self._admission.examine(question, lambda report: self._examined(job, asked, horizon_ns, stored, file, report))
        except TidegateError as error:
            job.fail(str(error), fault_of(error))
            raise
        return job.to_dict()

    def _running(self):
        """What admission compares with."""
        running = {}
        for name, d in self._core.deployments.items():
            module, version = self.version_of(d.digest)
            running[name] = {"input": d.input, "params": d.params, "limits": d.limits, "digest": d.digest, "name": module, "version": version}
        return running

    def version_of(self, digest) -> tuple[str, int]:
        """(name, version) of a module, the configuration's too; ("", 0) when it is gone."""
        known = self._core.store.find(digest)
        if known is not None:
            return known.name, known.version
        try:
            manifest = self._core.module(digest).manifest
        except RuleError:
            return "", 0
        return manifest.name, manifest.version

    def _lanes(self, lanes):
        known = self._daemon.config.lanes
        for lane in lanes or ():
            if lane not in known:
                raise TidegateError(f"there is no lane {lane!r}; there are {', '.join(known) or 'none'}")

    def _examined(self, job, asked, horizon_ns, stored, file, report):
        job.report = {name: report[name] for name in ("checks", "why", "details", "module", "signed_by", "plan") if name in report}
        if not report["ok"]:
            self._refused(job, {"digest": file}, report["why"], report["fault"])
            return
        plan, module = report["plan"], report["module"]
        job.rule, job.version = plan["rule"], f"{module['name']}@{module['version']}"
        facts = {"rule": job.rule, "version": job.version, "digest": module["digest"]}
        self._attempt(job, lambda: self._admit(job, asked, horizon_ns, stored, file, report, facts), facts)

    def _admit(self, job, asked, horizon_ns, stored, file, report, facts):
        """Keep the module, and let it run."""
        plan, module = report["plan"], report["module"]
        if not asked.force:
            self._core.store.check(job.version, module["digest"])
            comes_after(module["name"], module["version"], module["digest"], self._running().get(job.rule))      # another may have come meanwhile
        self._pending[job.number] = module["digest"]
        more = {"signed_by": report["signed_by"], "params": plan["params"], "policy": "shadow" if asked.shadow else asked.policy,
                **({"forced": True} if asked.force else {})}
        self._audit.append(job.who, "admitted", **facts, **more)
        self._chronicle.note(job.rule, "admitted", f"{job.version} ({module['digest'][:12]})" + (f", signed by {report['signed_by']}" if report["signed_by"] else ""), job.who)
        if stored is None:
            self._core.store.put(self._uploads.content(file), who=job.who, when_ns=int(self._wall() * 1e9), signed_by=report["signed_by"], force=asked.force)
        current = self._core.deployments.get(job.rule)
        if asked.shadow:
            self._swap(job, self._core.shadow(job.rule, module["digest"], plan["params"], who=job.who))
        else:
            lanes = asked.lanes if asked.lanes is not None else current.lanes if current is not None else []
            fresh = {"input": plan["input"], "digest": module["digest"], "params": plan["params"], "limits": plan["limits"], "lanes": lanes}
            wanted = Deployment(rule=job.rule, **fresh) if current is None else msgspec.structs.replace(current, **fresh, enabled=True)
            self._swap(job, self._core.deploy(wanted, policy=asked.policy, horizon_ns=horizon_ns, who=job.who))
        if stored is None:
            self._uploads.drop(file)

    # --- the others

    def set(self, rule, params, policy, horizon_ns, who) -> dict:
        """Other parameters."""
        current = self.deployment(rule)
        wanted = msgspec.structs.replace(current, params=changed(current.params, params))
        return self._change("set", rule, who, lambda: self._core.deploy(wanted, policy=policy, horizon_ns=horizon_ns, who=who), params=wanted.params, policy=policy)

    def enable(self, rule, enabled, who) -> dict:
        """Let a rule work, or events pass it by."""
        self.deployment(rule)
        return self._change("enable" if enabled else "disable", rule, who, lambda: self._core.set_enabled(rule, enabled, who=who))

    def rollback(self, rule, who) -> dict:
        """Back to the version before."""
        current = self.deployment(rule)
        if current.previous is None:
            raise RuleError(f"{rule} has no version to go back to", rule=rule)
        return self._change("rollback", rule, who, lambda: self._core.rollback(rule, who=who), digest=current.previous["digest"], params=current.previous["params"])

    def promote(self, rule, who) -> dict:
        """The shadow takes over."""
        current = self.deployment(rule)
        if current.shadow is None:
            raise RuleError(f"{rule} has no shadow: `tidegate rule push --shadow` starts one", rule=rule)
        return self._change("promote", rule, who, lambda: self._core.promote(rule, who=who), digest=current.shadow["digest"], params=current.shadow["params"])

    def remove_rule(self, rule, who) -> dict:
        """The rule ends; its versions stay in the store."""
        self.deployment(rule)
        return self._change("remove", rule, who, lambda: self._core.remove(rule, who=who))

    def remove_version(self, text, who) -> dict:
        """A stored version goes; RULE@shadow: the rule's shadow ends, its version stays in the store."""
        if text.endswith(SHADOW):
            rule = text.removesuffix(SHADOW)
            self.deployment(rule)
            return self._change("unshadow", rule, who, lambda: self._core.unshadow(rule, who=who))
        version = self._core.store.resolve(text)
        facts = {"version": version.label, "digest": version.digest}
        self._audit.append(who, "remove", **facts, **self._once)
        try:
            self._core.store.remove(version.digest)
        except TidegateError as error:
            self._note(who, "refused", **facts, why=str(error))
            raise
        return {"removed": version.label}

    def _change(self, what, rule, who, act, **details) -> dict:
        """A job that begins with its swap."""
        job = self._jobs.begin(what, rule, who)
        facts = {"rule": rule, **details}
        try:
            self._audit.append(who, what, **facts, **self._once)
        except Exception as error:
            job.fail(str(error), fault_of(error))
            raise
        self._chronicle.note(rule, what, ", ".join(f"{name} {value}" for name, value in details.items()), who)
        self._attempt(job, lambda: self._swap(job, act()), {"rule": rule})
        if job.state == "failed":
            error = RuleError(job.error, rule=rule)
            error.fault = job.fault
            raise error
        return job.to_dict()

    # --- following

    def _attempt(self, job, act, facts):
        try:
            act()
        except TidegateError as error:
            self._refused(job, facts, str(error), fault_of(error))
        except Exception as error:           # a change that fails must not stop the gateway
            self._refused(job, facts, f"a mistake in the gateway: {error!r}", "gateway")

    def _refused(self, job, facts, why, fault):
        self._pending.pop(job.number, None)
        job.fail(why, fault)
        self._note(job.who, "refused", **facts, why=why)
        if job.rule:
            self._chronicle.note(job.rule, "refused", why, job.who)
        self._log.warning("rule", f"{job.rule or facts.get('digest', '')[:12]}: {job.what} is refused: {why}")

    def _swap(self, job, swap):
        """Follow a swap of the core's to its end, which event() hears of; None: it is done."""
        job.swap = swap
        self._follow_one(job)
        self._follow_soon()

    def _follow_soon(self):
        if not self._following and any(job.swap is not None for job in self._jobs.unfinished()):
            self._following = True
            self._reactor.later(FOLLOW_S, self._follow)

    def _follow(self):
        self._following = False
        for job in self._jobs.unfinished():
            if job.swap is not None:
                self._follow_one(job)
        self._follow_soon()

    def _follow_one(self, job):
        swap = job.swap
        if swap is None:
            job.state = "done"
        else:
            job.state, job.policy, job.progress, job.error, job.notes = swap.state, swap.policy, swap.progress, swap.error, list(swap.notes)
        if job.finished:
            job.swap, job.fault = None, "rule" if job.error else ""
            self._pending.pop(job.number, None)

    def event(self, kind, rule, text="", who="", **details):
        """What the core tells of: what a swap came to, and what it does by itself (a trap, a quarantine, going back)."""
        what = {"swap": "swapped", "rollback": "rolled back", "enable": "is enabled", "disable": "is disabled", "remove": "is removed", "promote": "promoted",
                "shadow": "has a shadow", "unshadow": "has no shadow"}.get(kind, kind)
        self._chronicle.note(rule, what, text, who)
        if kind != "trap":
            self._note(who or "gateway", what, rule=rule, text=text, **{name: value for name, value in details.items() if value})

    def _note(self, who, what, **details):
        """A line in the audit log about what has happened already."""
        try:
            self._audit.append(who, what, **details)
        except DiskError as error:
            self._log.error("rule", f"not in the audit log: {what} {details}: {error}")


def no_rule(name, known) -> Unknown:
    """There is no such rule."""
    import difflib  # seldom needed

    near = difflib.get_close_matches(name, known, 1)
    return Unknown(f"there is no rule {name[:80]!r}" + (f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}" if known else ""))
