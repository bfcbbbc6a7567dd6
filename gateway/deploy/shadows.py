"""Shadows: which rule has one stands in its deployment; here it is built, warmed up from the journal in slices between turns, and put beside its stage.

    deployment.shadow -> built -> "warming" -> "runs" -> "stopped" (its third trap)        or "refused", with the reason

The active rule notices nothing of it. What a shadow has seen is in memory alone: after a restart it is warmed up again and compares from there on.
"""

from time import perf_counter

from msgspec.structs import replace

from edge.errors import ConfigError, DiskError, RuleError
from edge.host.rule import Rule
from edge.shadow import Shadow, diff
from edge.warmup import Warmup
from gateway.deploy.swap import HORIZON_NS, Swap


class Entry:
    """One rule's shadow. version: {"digest", "params"}. gaps: what its state lacks, "" for nothing."""

    def __init__(self, version):
        self.version, self.state, self.error, self.gaps = version, "waiting", "", ""
        self.warmup = self.shadow = self.source = None


class Shadows:
    """The shadows of a core."""

    def __init__(self, core):
        self._core = core
        self._entries = {}
        self._seen = None                # the deployments that the entries are of

    # --- what can be asked for

    def begin(self, rule, digest, params, who) -> Swap:
        """Put a version beside the active one. Raises ConfigError, RuleError, DiskError when it cannot run there."""
        version = {"digest": digest, "params": params}
        stage = self._core.stage(rule)
        if stage is None:
            raise ConfigError(f"rule {rule} does not run, so nothing can run beside it")
        self._rule(replace(self._core.deployments[rule], **version), stage)
        return Swap(rule, lambda now: replace(now, shadow=version), kind="shadow", policy="keep", who=who)

    def end(self, rule, who) -> Swap:
        """Let a rule's shadow go. Raises ConfigError when it has none."""
        self._known(rule)
        return Swap(rule, lambda now: replace(now, shadow=None), kind="unshadow", policy="keep", who=who)

    def promote(self, rule, who) -> Swap:
        """Let the shadow take over, with the state that it has; if that has gaps, with the active rule's or a replayed one. Raises ConfigError."""
        version, entry = self._known(rule), self._entries.get(rule)
        if entry is not None and entry.state == "runs" and entry.shadow.stopped:
            raise ConfigError(f"rule {rule}: its shadow was stopped: {entry.shadow.stopped}")

        def aim(now):
            if now is None or now.shadow != version:
                raise ConfigError(f"rule {rule}: its shadow was changed meanwhile")
            return replace(now, **version, previous=now.kept, shadow=None)

        gaps = self._gaps(rule)
        swap = Swap(rule, aim, kind="promote", policy="auto" if gaps else "keep", who=who, heir=None if gaps else lambda source: self._heir(rule))
        swap.notes += [f"the shadow's own state is not used: {gaps}"] if gaps else []
        return swap

    def diff(self, rule) -> dict:
        """How far the shadow is, and once it runs what edge.shadow.diff says. Plain data. Raises ConfigError when there is none."""
        version, entry, stage = self._known(rule), self._entries.get(rule), self._core.stage(rule)
        if entry is None or stage is None:
            return {"rule": rule, **version, "state": "waiting"}
        state = "stopped" if entry.state == "runs" and entry.shadow.stopped else entry.state
        told = {"rule": rule, **version, "state": state, "error": entry.error, "gaps": self._gaps(rule)}
        return told | ({"progress": entry.warmup.progress} if entry.warmup else {}) | (diff(stage) if stage.shadow is not None else {})

    def _known(self, rule):
        deployment = self._core.deployments.get(rule)
        if deployment is None or deployment.shadow is None:
            raise ConfigError(f"rule {rule} has no shadow")
        return deployment.shadow

    def _gaps(self, rule) -> str:
        entry, stage = self._entries.get(rule), self._core.stage(rule)
        if entry is None or entry.state != "runs" or stage is None or stage.shadow is not entry.shadow:
            return "it does not run yet"
        shed = entry.shadow.shed_calls
        return entry.gaps or (f"it left out {shed} calls for want of CPU" if shed else f"it trapped {entry.shadow.traps} times" if entry.shadow.traps else "")

    def _heir(self, rule):
        """The shadow's rule, as it is when its turn comes."""
        gaps = self._gaps(rule)
        if gaps:
            raise RuleError(f"rule {rule}: {gaps}; promote it again, and the state is kept or replayed as for any new version", rule=rule)
        heir = self._entries[rule].shadow.rule
        heir.begin_counting()
        return heir

    # --- going on

    @property
    def busy(self) -> bool:
        """There is something to go on with."""
        return self._seen is not self._core.deployments or any(entry.state in ("waiting", "warming") for entry in self._entries.values())

    def advance(self, budget_s) -> bool:
        """Bring the stages' shadows to what the deployments say, between two turns, for about this time. True when rules ran for it."""
        if self._seen is not self._core.deployments:
            self._take_in()
        until, ran = perf_counter() + budget_s, False
        while (name := self._first("warming") or self._first("waiting")) and perf_counter() < until:
            ran |= self._step(name, self._entries[name])
        return ran

    def _first(self, state):
        return next((name for name, entry in self._entries.items() if entry.state == state), None)

    def _take_in(self):
        """Forget shadows that nobody wants, begin those that are new or no longer fit."""
        core = self._core
        self._seen = core.deployments
        wanted = {name: d.shadow for name, d in core.deployments.items() if d.shadow is not None and core.stage(name) is not None}
        self._entries = {name: entry for name, entry in self._entries.items() if wanted.get(name) == entry.version}
        for stage in core.pipeline.stages:
            entry = self._entries.get(stage.name)
            if entry is None or entry.state != "runs" or stage.shadow is not entry.shadow:
                stage.shadow = None
            if entry is not None and entry.state == "runs" and stage.shadow is None:
                self._begin_anew(stage, entry)
        self._entries = {name: self._entries.get(name) or Entry(version) for name, version in wanted.items()}

    def _begin_anew(self, stage, entry):
        """Another active rule: the comparison begins anew, and so does the shadow where it reads something else now."""
        if entry.shadow.rule.input_schema == stage.input.schema and not entry.shadow.stopped:
            stage.shadow = entry.shadow = Shadow(entry.shadow.rule)
        else:
            self._entries[stage.name] = Entry(entry.version)

    def _step(self, name, entry) -> bool:
        core = self._core
        stage, deployment = core.stage(name), core.deployments[name]
        try:
            if entry.state == "waiting":
                rule = self._rule(replace(deployment, **entry.version), stage)
                entry.warmup = Warmup(core.pipeline, rule, stage.input, core.identity.schemas(), HORIZON_NS)
                entry.state, entry.source = "warming", stage.input
            elif entry.source is not stage.input or not entry.warmup.fits:
                entry.state, entry.warmup = "waiting", None
            elif not entry.warmup.level:
                entry.warmup.step()
            else:
                self._attach(stage, entry)
                return True
        except (ConfigError, RuleError, DiskError) as error:
            entry.state, entry.error, entry.warmup = "refused", str(error), None
            core.tell("shadow", name, f"the shadow cannot run: {error}", level="warning")
        return False

    def _attach(self, stage, entry):
        """Warm: from here on it sees what the active rule sees."""
        core, warmup = self._core, entry.warmup
        core.pipeline.catch_up()         # the warm-up has seen what waits for CPU
        warmup.finish()
        rule = warmup.stage.rule
        if rule.quarantined:
            raise RuleError(f"it trapped {warmup.traps} times on recorded events, lastly: {warmup.trouble}", rule=stage.name, digest=rule.digest)
        gaps = [f"{count} {what}" for what, count in (("calls on recorded events failed", warmup.traps),
                                                      ("recorded events or records are damaged or were evicted", warmup.missing)) if count]
        if warmup.short:
            gaps.append("the journal does not go back over the whole horizon")
        rule.begin_counting()
        entry.state, entry.gaps, entry.warmup = "runs", "; ".join(gaps), None
        stage.shadow = entry.shadow = Shadow(rule)
        core.tell("shadow", stage.name, f"its shadow {rule.digest[:12]} runs", digest=rule.digest)

    def _rule(self, deployment, stage):
        core = self._core
        return Rule(deployment.rule, core.module(deployment.digest), deployment.params, stage.input.schema, cache=core.cache(), limits=deployment.bounds)
