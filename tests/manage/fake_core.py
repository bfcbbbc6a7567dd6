"""A core that swaps nothing but its table of deployments, and the daemon around it: for tests of what decides before and tells after."""

import msgspec
from rule_module import STREAM
from settings import GATEWAY

from edge.deployment import Deployment
from edge.errors import RuleError
from edge.rule_store import RuleStore
from gateway.config.reader import parse
from gateway.manage.manager import Manager
from gateway.reactor import Reactor

CONFIG = GATEWAY + """
[streams.s]
topics = ["s"]
fields = { t = "f64" }
[lanes.main]
streams = ["s"]
"""


class Swap:
    """turns: how often it is looked at before it is done. error: it fails."""

    def __init__(self, policy, turns, error, end):
        self.policy, self.notes = "keep" if policy == "auto" else policy, []
        self.error, self._turns, self._fails, self._end = "", turns, error, end

    @property
    def state(self):
        self._turns -= 1
        if self._turns >= 0:
            return "warming"
        self.error = self._fails
        self._end(self.error, self.policy)
        return "failed" if self.error else "done"

    @property
    def progress(self):
        return 0.5


class Stream:
    def __init__(self, schema):
        self.name, self.schema, self.tap = schema.stream, schema, None


class Pipeline:
    def __init__(self):
        self.streams, self.stages = [Stream(STREAM)], []


class FakeCore:
    """turns, error: of the next swaps; refuse: raised by the next call."""

    def __init__(self, disk):
        self.store = RuleStore(disk, "data/rules")
        self.deployments, self.refused, self.pipeline = {}, {}, Pipeline()
        self.turns, self.error, self.refuse, self.calls = 0, "", None, []

    def module(self, digest):
        return self.store.module(digest)

    def _swap(self, kind, rule, wanted, policy="keep", who=""):
        if self.refuse is not None:
            raise self.refuse

        def end(error, used):
            if error:
                self.on_event("failed", rule, error, who=who)
                return
            self.deployments = {name: d for name, d in self.deployments.items() if name != rule} | ({rule: wanted} if wanted else {})
            self.store.save_deployments(self.store.deployments()[0] + 1, [d.to_dict() for d in self.deployments.values()])
            self.on_event(kind, rule, f"{kind} done", who=who, policy=used, automatic=False)

        return Swap(policy, self.turns, self.error, end)

    def deploy(self, wanted, *, policy="auto", horizon_ns=None, who=""):
        self.calls.append(("deploy", wanted, policy, horizon_ns, who))
        old = self.deployments.get(wanted.rule)
        if old is not None and old.digest != wanted.digest:
            wanted = msgspec.structs.replace(wanted, previous=old.kept)
        return self._swap("swap", wanted.rule, wanted, policy, who)

    def rollback(self, rule, *, who=""):
        old = self.deployments[rule]
        return self._swap("rollback", rule, msgspec.structs.replace(old.before(), previous=old.kept), who=who)

    def set_enabled(self, rule, enabled, *, who=""):
        return self._swap("enable" if enabled else "disable", rule, msgspec.structs.replace(self.deployments[rule], enabled=enabled), who=who)

    def shadow(self, rule, digest, params, *, who=""):
        if rule not in self.deployments:
            raise RuleError(f"{rule} does not run: there is nothing to run beside")
        return self._swap("shadow", rule, msgspec.structs.replace(self.deployments[rule], shadow={"digest": digest, "params": params}), who=who)

    def unshadow(self, rule, *, who=""):
        return self._swap("unshadow", rule, msgspec.structs.replace(self.deployments[rule], shadow=None), who=who)

    def promote(self, rule, *, who=""):
        old = self.deployments[rule]
        return self._swap("promote", rule, msgspec.structs.replace(old, digest=old.shadow["digest"], params=old.shadow["params"], shadow=None, previous=old.kept), who=who)

    def remove(self, rule, *, who=""):
        return self._swap("remove", rule, None, who=who)

    def diff(self, rule):
        return {"rule": rule}


class Lines:
    """Stands in for gateway.logs.Log."""

    def __init__(self):
        self.lines = []

    def __call__(self, part, message, level="info", **details):
        self.lines.append((part, message))

    warning = error = __call__


class Box:
    """A Manager over a disk, with a FakeCore. restart() begins anew on the same disk."""

    def __init__(self, disk, config=CONFIG):
        self.disk, self.config = disk, parse(config)
        self.clock_s = 1000.0
        self.start()

    def start(self):
        self.reactor, self.log = Reactor(), Lines()
        self.core = FakeCore(self.disk)
        for d in self.core.store.deployments()[1]:
            self.core.deployments[d["rule"]] = Deployment.from_dict(d)
        self.manager = Manager(self, disk=self.disk, wall=lambda: 1_700_000_000.0, monotonic=lambda: self.clock_s)

    def ask(self, name, who="local:0", **fields):
        return self.manager.handle({"do": name, **fields}, who)

    def wait(self, job, turns=3000):
        """The job when it is finished."""
        for _ in range(turns):
            job = self.ask("job", id=job["job"])
            if job["state"] in ("done", "failed"):
                return job
            self.reactor.turn(0.02)
        raise AssertionError(job)

    def close(self):
        self.manager.close()
        self.reactor.close()
