"""The line-up of a start: what could run under each rule's name, best first.

What was committed wins over the configuration's entry that it was made over. An entry that says something else than then (its table, or the
module's bytes) wins over what was committed. Behind the winner stand the version before it and the other of the two, so that a module
that is gone, damaged or refused costs its version and never the start.
"""

import hashlib
import json

from msgspec.structs import replace

import tidegate_rules
from edge.deployment import Deployment
from edge.errors import ConfigError, RuleError
from edge.host.rule import read_module


class Lineup:
    """choices: rule -> Deployments, the best first. modules: digest -> Module of the configuration's. fingerprints: rule -> of its entry.
    refused: rule -> why there is no choice. removed: tombstones of configured rules. said: what the log should tell."""

    def __init__(self, config, committed=()):
        """committed: Deployments."""
        self.choices, self.modules, self.fingerprints, self.refused = {}, {}, {}, {}
        self.removed, self.said = [], []
        known = {deployment.rule: deployment for deployment in committed}
        for name in [*config.rules, *(name for name in known if name not in config.rules)]:
            choices = self._configured(name, config.rules[name], known.get(name)) if name in config.rules else self._pushed(known[name])
            if choices:
                self.choices[name] = choices

    def module(self, digest, store):
        """Raises RuleError when neither configuration nor store has it."""
        if digest in self.modules:
            return self.modules[digest]
        if store is None:
            raise RuleError(f"there is no module {digest[:12]}", digest=digest)
        return store.module(digest)

    def _pushed(self, was):
        """The configuration has no such rule."""
        if was.configured:
            if was.digest:
                self.said.append(f"{was.rule} is not in the configuration any more: it is removed")
            return []
        return [was, *_before(was)]

    def _configured(self, name, spec, was):
        entry = self._entry(name, spec)
        mark, digest = self.fingerprints[name].split(":")
        if was is None or was.configured.partition(":")[0] != mark or (digest and was.configured != self.fingerprints[name]):
            return self._changed(entry, was)
        if not was.digest:
            self.removed.append(was)
            return []
        if entry is None:
            self.said.append(f"{name}: {self.refused.pop(name)}; the stored version runs")
        return [was, *_before(was), *([entry] if entry else [])]

    def _changed(self, entry, was):
        """What the configuration says is new."""
        if was is None or not was.digest:
            return [entry] if entry else []
        if entry is None:
            self.said.append(f"{was.rule}: {self.refused.pop(was.rule)}; the stored version runs")
            return [was, *_before(was)]
        same = (was.digest, was.params) == (entry.digest, entry.params)
        if not same:
            self.said.append(f"{was.rule}: the configuration says something new: that runs; `tidegate rule rollback {was.rule}` goes back to {was.digest[:12]}")
        return [replace(entry, previous=was.previous if same else was.kept), was, *_before(was)]

    def _entry(self, name, spec):
        """The configuration's own deployment; None, and `refused`, when its module cannot be read."""
        limits = None if spec.limits is None else {"time_ns": int(spec.limits.time), "memory_bytes": int(spec.limits.memory), "output_bytes": int(spec.limits.output)}
        mark = hashlib.sha256(json.dumps([spec.input, spec.params, limits], sort_keys=True, default=str).encode()).hexdigest()[:16]
        try:
            module = read_module(module_path(spec.module), name)
        except (ConfigError, RuleError) as error:
            self.refused[name] = str(error)
            self.fingerprints[name] = f"{mark}:"
            return None
        self.modules[module.digest] = module
        self.fingerprints[name] = f"{mark}:{module.digest}"
        return Deployment(name, spec.input, module.digest, spec.params, limits, configured=self.fingerprints[name])


def _before(deployment):
    """The version before, in its place."""
    if deployment.previous is None:
        return []
    return [deployment.before()]


def module_path(module):
    """A ready-made rule's file, or the path itself. Raises ConfigError for a name that is neither."""
    if module.endswith(".wasm"):
        return module
    try:
        return tidegate_rules.path(module)
    except KeyError as error:
        raise ConfigError(f"module: {error.args[0]}; or give the path of a .wasm file") from None
