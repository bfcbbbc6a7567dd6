"""The rules of a configuration, loaded and bound in the order they run; and the contracts that they read from."""

import functools

from edge.decoding.contract import Contract, FieldSource, check_filter
from edge.errors import ConfigError, DiskError, RuleError
from edge.graph import order
from edge.host.compile import Cache
from edge.host.rule import Rule
from gateway import keys
from gateway.config import spec
from gateway.deploy.lineup import Lineup


def contracts_of(config) -> list[Contract]:
    """The streams' contracts, in order. Raises ConfigError with its place."""
    contracts, key = [], _mask_key(config)
    for name, stream in config.streams.items():
        try:
            contracts.append(_contract(name, stream, key))
        except ConfigError as error:
            raise ConfigError(f"streams.{name}: {error}") from None
    return contracts


def _mask_key(config):
    return None if config.gateway.mask_key_file is None else keys.load(config.gateway.mask_key_file, "gateway.mask_key_file")


def _contract(name, stream, key):
    fields = [_field(field, f) for field, f in stream.fields.items()]
    return Contract(name, stream.topics, fields, format=stream.format, version=stream.version, key=stream.key, time=stream.time,
                    id=stream.id, sequence=stream.sequence, mask_key=key)


def _field(name, f):
    return FieldSource(name, f.type, f.from_, required=f.required, unit=f.unit, time_format=f.format, mask=f.mask)


class Rulebook:
    """rules: those that can run, each after what feeds it. deployments: rule -> what runs, for all of them. refused: rule -> why it does not.
    feeds: rule -> the stream it reads. said: what the log should tell."""

    def __init__(self, lineup, contracts, cache, store=None):
        """cache: fn() -> edge.host.compile.Cache. Raises ConfigError when the configuration's rules feed each other in a circle, DiskError when there
        is no place for compiled code."""
        self.rules, self.deployments, self.refused, self.feeds, self.said = [], {}, dict(lineup.refused), {}, list(lineup.said)
        self._lineup, self._cache, self._store = lineup, cache, store
        self._schemas = {c.name: c.schema for c in contracts}
        for name in self._ordered():
            self._place(name, lineup.choices[name])

    def _ordered(self):
        """Names of the rules that have their input, each after what feeds it."""
        choices, streams = self._lineup.choices, set(self._schemas)
        feeds = {name: choices[name][0].input for name in choices}
        clash = [name for name in feeds if name in streams or {f"{name}.late", f"{name}.partial"} & streams]
        for name in clash:
            self.refused[name] = "a stream of the configuration has this name"
            del feeds[name]
        while missing := [name for name, source in feeds.items() if source not in streams and source.removesuffix(".late") not in feeds]:
            for name in missing:
                self.refused[name] = f"there is no stream or rule {feeds.pop(name)}, which it reads"
        try:
            return order(feeds.items(), streams)
        except ConfigError as error:     # what was pushed and what the configuration says now do not go together
            pushed = [name for name in feeds if choices[name][0].configured != self._lineup.fingerprints.get(name)]
            for name in pushed:
                self.refused[name] = str(error)
                del feeds[name]
            if not pushed:
                raise
            return order(feeds.items(), streams)

    def _place(self, name, choices):
        """Bind the first of the choices that can run."""
        troubles, cache = [], self._cache()
        for deployment in choices:
            if deployment.input not in self._schemas:
                troubles.append(f"{deployment.input}, which it reads, is left out")
                continue
            try:
                module = self._lineup.module(deployment.digest, self._store)
                rule = Rule(name, module, deployment.params, self._schemas[deployment.input], cache=cache, limits=deployment.bounds)
            except (ConfigError, RuleError, DiskError) as error:
                troubles.append(str(error))
                continue
            self.rules.append(rule)
            self.deployments[name] = deployment
            self.feeds[name] = deployment.input
            self._schemas |= {name: rule.output_schema, f"{name}.late": rule.late_schema}
            if troubles:
                self.said.append(f"{name}: {troubles[0]}; version {deployment.digest[:12]} runs instead")
            return
        self.refused[name] = troubles[0]


def problems(config) -> list[tuple[str, str]]:
    """What `check` says beyond the configuration's own problems: (place, problem) of contracts and rules. Compiles modules into a folder of its own."""
    found, contracts = [], []
    try:
        key = _mask_key(config)
    except ConfigError as error:
        found.append(("gateway.mask_key_file", str(error).removeprefix("gateway.mask_key_file: ")))
        key = bytes(32)                  # to look at the rest; nothing is hashed here
    for name, stream in config.streams.items():
        wrong = _contract_problems(name, stream, key)
        found += wrong
        if not wrong:
            contracts.append(_contract(name, stream, key))
    sound = {c.name for c in contracts}
    kept = {name: rule for name, rule in config.rules.items() if rule.input in sound or rule.input.removesuffix(".late") in config.rules}
    import tempfile  # the daemon has no use for it

    with tempfile.TemporaryDirectory(prefix="tidegate-check-") as directory:
        try:
            lineup = Lineup(spec.Config(streams={n: config.streams[n] for n in sound}, rules=kept))
            book = Rulebook(lineup, contracts, functools.cache(lambda: Cache(directory)))
        except ConfigError as error:
            return [*found, ("rules", str(error))]
        return found + [(f"rules.{name}", reason) for name, reason in book.refused.items()]


def _contract_problems(name, stream, key):
    """Every topic filter and field that is wrong; if none is, what is wrong between them."""
    tries = [(f"streams.{name}.topics[{i}]", lambda topic=topic: check_filter(topic)) for i, topic in enumerate(stream.topics)]
    tries += [(f"streams.{name}.fields.{field}", lambda field=field, f=f: _field(field, f)) for field, f in stream.fields.items()]
    found = [(place, problem) for place, attempt in tries if (problem := _problem(attempt))]
    if not found and (problem := _problem(lambda: _contract(name, stream, key))):
        found.append((f"streams.{name}", problem))
    return found


def _problem(attempt):
    try:
        attempt()
    except ConfigError as error:
        return str(error)
    return None
