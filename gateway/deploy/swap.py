"""Swaps: changes of what runs, asked for at any time and carried out between two turns, one after another.

    ask -> "waiting" -> [warm up from the journal, in slices: "warming"] -> build -> commit -> "done"      or "failed" with .error, and the old rule goes on

Only one warms up at a time; those that need none pass it by. A later one for the same rule takes the place of an earlier one.
"""

from time import perf_counter

from msgspec.structs import replace

from edge.errors import ConfigError, DiskError, RuleError
from edge.graph import order
from edge.host.rule import Rule
from edge.warmup import Warmup

POLICIES = ("auto", "keep", "replay", "fresh")
HORIZON_NS = 3600 * 10**9
WAITING_MAX = 32
RETRY_NS = 10 * 10**9                    # of receive time, between two automatic rollbacks that the disk refused
OPEN = ("waiting", "warming")


class Swap:
    """One change. aim: fn(Deployment now, or None) -> the Deployment to come, or None to remove it; asked when its turn comes, raises ConfigError.
    heir: fn(stream that it reads) -> a Rule that has its state already. `policy`: the one used, "" before. `notes`: what whoever asked should know.
    `progress`: of the warm-up, 0 to 1."""

    def __init__(self, rule, aim, *, kind="swap", policy="auto", horizon_ns=None, who="", automatic=False, heir=None):
        if policy not in POLICIES:
            raise ConfigError(f"policy {policy!r} is none; use one of {', '.join(POLICIES)}")
        self.rule, self.aim, self.kind, self.who, self.automatic, self.heir = rule, aim, kind, who, automatic, heir
        self.asked = policy
        self.horizon_ns = HORIZON_NS if horizon_ns is None else horizon_ns
        self.state, self.error, self.policy, self.notes = "waiting", "", "", []
        self.deployment = self.warmup = None
        self.queued = False              # it needs a warm-up, and another's is under way

    @property
    def progress(self) -> float:
        return 1.0 if self.state == "done" else self.warmup.progress if self.warmup else 0.0

    def end(self, error=""):
        self.state, self.error, self.warmup, self.heir = "failed" if error else "done", error, None, None


class Swaps:
    """The swaps of a core."""

    def __init__(self, core):
        self._core = core
        self._open = []
        self._given_up = {}              # (rule, digest) whose automatic rollback failed -> receive time of the next try, None for never

    @property
    def busy(self) -> bool:
        """There is something to go on with."""
        return bool(self._open)

    def ask(self, swap) -> Swap:
        """Take a swap in. Raises ConfigError when too many wait."""
        if len(self._open) >= WAITING_MAX:
            raise ConfigError(f"{WAITING_MAX} changes of rules wait for their turn: try again later")
        for earlier in [s for s in self._open if s.rule == swap.rule]:
            self._fail(earlier, "a later change of the same rule took its place")
        self._open.append(swap)
        return swap

    def advance(self, budget_s) -> bool:
        """Go on, between two turns, for about this time. True when something was committed."""
        self._fall_back()
        committed = False
        for swap in [s for s in self._open if s.state == "waiting"]:
            if not (swap.queued and self._warming):      # building it each turn would cost the events their time
                committed |= self._attempt(swap, self._begin)
        until, first = perf_counter() + budget_s, True
        while (swap := self._warming) and (first or perf_counter() < until or swap.warmup.near):
            committed |= self._attempt(swap, self._warm)
            first = False
        return committed

    @property
    def _warming(self):
        """The swap that warms up, or None."""
        return next((s for s in self._open if s.state == "warming"), None)

    def _attempt(self, swap, do) -> bool:
        """Whether it was committed."""
        try:
            do(swap)
        except (ConfigError, RuleError, DiskError) as error:
            if swap.automatic and swap.asked == "replay" and not isinstance(error, DiskError):
                swap.notes.append(f"no replay: {error}")
                swap.asked, swap.state, swap.warmup = "fresh", "waiting", None
                return False
            if swap.automatic:
                now = self._core.deployments[swap.rule]
                self._given_up[now.rule, now.digest] = self._core.pipeline.received_ns + RETRY_NS if isinstance(error, DiskError) else None
            self._fail(swap, str(error))
        return swap.state == "done"

    def _fail(self, swap, error):
        self._open.remove(swap)
        swap.end(error)
        self._core.tell("failed", swap.rule, f"{swap.kind} failed: {error}", level="error" if swap.automatic else "warning", who=swap.who)

    def _fall_back(self):
        """A rule in quarantine gives way to the version before."""
        core = self._core
        for stage in core.pipeline.stages:
            if stage.rule.quarantined and stage.enabled and (now := core.deployments.get(stage.name)) and now.previous:
                retry_ns = self._given_up.get((now.rule, now.digest), 0)
                if retry_ns is not None and core.pipeline.received_ns >= retry_ns and not any(s.rule == now.rule for s in self._open):
                    self.ask(Swap(now.rule, lambda now: before(now, keep=False), kind="rollback", policy="replay", who="gateway", automatic=True))

    # --- one swap

    def _begin(self, swap):
        """Its turn has come: commit it, or begin to warm up."""
        core, stage = self._core, self._core.stage(swap.rule)
        swap.deployment = then = swap.aim(core.deployments.get(swap.rule))
        if then is None:
            self._commit(swap, stage, None, None, "fresh")
            return
        source, names = self._place(then)
        core.pipeline.catch_up()         # what waits for CPU is the present version's
        if swap.heir is not None:
            self._commit(swap, stage, swap.heir(source), source, "keep", names)
            return
        if swap.kind in ("enable", "disable") and stage is None:
            raise ConfigError(f"rule {swap.rule} does not run: {core.refused.get(swap.rule, 'it was left out')}")
        if self._is_same(swap, stage, source):
            self._commit(swap, stage, stage.rule, source, "keep", names)
            return
        rule = self._rule(then, source)
        if swap.asked in ("auto", "keep"):
            try:
                keep(stage, rule, source)
            except RuleError:
                if swap.asked == "keep":
                    raise
                rule = self._rule(then, source)
            else:
                self._commit(swap, stage, rule, source, "keep", names)
                return
        if swap.asked == "fresh":
            self._commit(swap, stage, rule, source, "fresh", names)
        elif self._warming:
            swap.queued = True
        else:
            swap.state, swap.warmup = "warming", Warmup(core.pipeline, rule, source, core.identity.schemas(), swap.horizon_ns)

    def _is_same(self, swap, stage, source):
        """Only what stands around the rule changes, such as its lanes. A quarantine ends when the rule is deployed again, not when it is enabled."""
        if stage is None or stage.input is not source or not same_rule(swap.deployment, self._core.deployments.get(swap.rule)):
            return False
        return swap.kind in ("enable", "disable") or (swap.asked in ("auto", "keep") and not stage.rule.quarantined)

    def _warm(self, swap):
        """A step of the warm-up; with the last one the swap is committed."""
        core, warmup = self._core, swap.warmup
        if not warmup.fits:
            swap.state, swap.warmup = "waiting", None    # a rule above was changed meanwhile
            return
        warmup.step()
        if not warmup.level:
            return
        core.pipeline.catch_up()
        warmup.finish()
        rule = warmup.stage.rule
        if rule.quarantined:
            raise RuleError(f"it trapped {warmup.traps} times on recorded events, lastly: {warmup.trouble}", rule=swap.rule, digest=rule.digest)
        for said, count in (("calls on recorded events failed", warmup.traps), ("recorded events or records are damaged or were evicted meanwhile", warmup.missing)):
            if count:
                swap.notes.append(f"{count} {said}")
        if warmup.short:
            swap.notes.append("the journal does not go back over the whole horizon")
        rule.begin_counting()
        source, names = self._place(swap.deployment)
        self._commit(swap, core.stage(swap.rule), rule, source, "replay", names, warmup.stage.input.watermarks)

    def _place(self, deployment):
        """(the stream that it reads, names of all rules in order). Raises ConfigError for a stream or lane that is not there, and a circle."""
        pipeline, lanes = self._core.pipeline, self._core.outboxes
        unknown = [name for name in deployment.lanes if name not in lanes]
        if unknown:
            raise ConfigError(f"rule {deployment.rule}: there is no lane {unknown[0]!r}; there are {', '.join(lanes) or 'none'}")
        pairs = [(stage.name, deployment.input if stage.name == deployment.rule else stage.input.name) for stage in pipeline.stages]
        if deployment.rule not in (name for name, _ in pairs):
            pairs.append((deployment.rule, deployment.input))
        names = order(pairs, [stream.name for stream in pipeline.inputs])
        return next(stream for stream in pipeline.streams if stream.name == deployment.input), names

    def _rule(self, deployment, source):
        module = self._core.module(deployment.digest)
        return Rule(deployment.rule, module, deployment.params, source.schema, cache=self._core.cache(), limits=deployment.bounds)

    def _commit(self, swap, stage, rule, source, policy, names=(), watermarks=None):
        """Make the change in memory and commit it. Raises ConfigError, RuleError, DiskError; then nothing has changed."""
        core, then = self._core, swap.deployment
        core.pipeline.catch_up()
        change = core.succession()
        closes = stage is not None and (policy == "fresh" or stage.input is not source)
        if closes:
            change.close(stage)
        if then is None and stage is not None:
            change.remove(stage)
        elif then is not None and stage is None:
            change.add(rule, source, then.lanes, then.enabled)
        elif then is not None and stage.input is not source:
            change.move(stage, rule, source, then.lanes, then.enabled)
        elif then is not None:
            change.replace(stage, rule, then.lanes, then.enabled)
        if source is not None and not source.stages:
            change.begin_watermarks(source, watermarks)
        if names:
            change.order(names)
        core.commit(change, swap.rule, then)
        swap.policy = policy
        swap.notes += change.notes
        self._given_up = {(rule, digest): at_ns for (rule, digest), at_ns in self._given_up.items() if rule != swap.rule}
        self._open.remove(swap)
        swap.end()
        what = said(swap.kind, then) if then else "is removed"
        if swap.automatic:
            what += ", because the other is in quarantine"
        core.tell(swap.kind, swap.rule, "; ".join([what, *swap.notes]), level="warning" if swap.automatic else "info", policy=policy, who=swap.who,
                  digest=then.digest if then else "", automatic=swap.automatic)


def keep(stage, rule, source):
    """Give a new rule the state of a stage's. Raises RuleError that says why it cannot have it."""
    if stage is None:
        raise RuleError(f"rule {rule.name}: there is no state to keep; swap it with policy replay or fresh", rule=rule.name)
    if stage.input is not source:
        raise RuleError(f"rule {rule.name}: its state is of {stage.input.name}, it would read {source.name}; swap it with policy replay or fresh", rule=rule.name)
    old = stage.rule
    if old.identity == rule.identity:
        rule.load_image(old.image())
        return
    saved = old.saved()
    if saved is None:
        raise RuleError(f"rule {rule.name}: version {old.digest[:12]} has no tg_save, so its state cannot be kept; swap it with policy replay or fresh", rule=rule.name)
    rule.take_over(saved, old.module.manifest.state)


def said(kind, then) -> str:
    """What became of a rule."""
    version = then.digest[:12]
    known = {"swap": f"runs version {version}", "promote": f"runs version {version}, which was its shadow", "rollback": f"is back at version {version}",
             "shadow": f"has version {then.shadow['digest'][:12]} for a shadow" if then.shadow else "", "unshadow": "has no shadow any more"}
    return known.get(kind, f"is {kind}d")


def same_rule(one, other) -> bool:
    """Two deployments differ in nothing that a Rule is made of."""
    return other is not None and (one.digest, one.params, one.limits, one.input) == (other.digest, other.params, other.limits, other.input)


def before(now, keep):
    """The deployment that goes back to the previous version. keep: the present one is then the previous. Raises ConfigError."""
    if now is None or now.previous is None:
        raise ConfigError(f"rule {now.rule if now else ''}: there is no previous version to go back to")
    return replace(now.before(), previous=now.kept if keep else None)
