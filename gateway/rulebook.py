"""The rules of a configuration, loaded and bound in the order they run; and the contracts that they read from."""

import tidegate_rules
from edge.compile import Cache
from edge.contract import Contract, FieldSource, check_filter
from edge.errors import ConfigError, DiskError, RuleError
from edge.graph import order
from edge.limits import Limits
from edge.rule import Rule
from gateway import spec


def contracts_of(config) -> list[Contract]:
    """The streams' contracts, in order. Raises ConfigError with its place."""
    contracts = []
    for name, stream in config.streams.items():
        try:
            contracts.append(_contract(name, stream))
        except ConfigError as error:
            raise ConfigError(f"streams.{name}: {error}") from None
    return contracts


def _contract(name, stream):
    fields = [_field(field, f) for field, f in stream.fields.items()]
    return Contract(name, stream.topics, fields, format=stream.format, version=stream.version, key=stream.key, time=stream.time)


def _field(name, f):
    return FieldSource(name, f.type, f.from_, required=f.required, unit=f.unit, time_format=f.format)


class Rulebook:
    """rules: those that can run, each after what feeds it. refused: name -> why. origin: rule name -> the input stream it stems from.
    feeds: rule name -> the stream it reads."""

    def __init__(self, config, contracts, cache_directory):
        """Raises ConfigError when rules feed each other in a circle, DiskError when there is no place for compiled code."""
        self.rules, self.refused, self.origin, self.feeds = [], {}, {}, {}
        cache = Cache(cache_directory) if config.rules else None
        schemas = {c.name: c.schema for c in contracts}
        origins = {c.name: c.name for c in contracts}
        for name in order([(name, rule.input) for name, rule in config.rules.items()], schemas):
            given = config.rules[name]
            if given.input not in schemas:
                self.refused[name] = f"{given.input}, which it reads, is left out"
                continue
            try:
                rule = Rule(name, module_path(given.module), given.params, schemas[given.input], cache=cache, limits=_limits(given.limits))
            except (ConfigError, RuleError, DiskError) as error:
                self.refused[name] = str(error)
                continue
            self.rules.append(rule)
            self.feeds[name] = given.input
            self.origin[name] = origins[given.input]
            schemas |= {name: rule.output_schema, f"{name}.late": rule.late_schema}
            origins |= {name: origins[given.input], f"{name}.late": origins[given.input]}


def module_path(module):
    """A ready-made rule's file, or the path itself. Raises ConfigError for a name that is neither."""
    if module.endswith(".wasm"):
        return module
    try:
        return tidegate_rules.path(module)
    except KeyError as error:
        raise ConfigError(f"module: {error.args[0]}; or give the path of a .wasm file") from None


def _limits(limits):
    return None if limits is None else Limits(limits.time, limits.memory, limits.output)


def problems(config) -> list[tuple[str, str]]:
    """What `check` says beyond the configuration's own problems: (place, problem) of contracts and rules. Compiles modules into a folder of its own."""
    found, contracts = [], []
    for name, stream in config.streams.items():
        wrong = _contract_problems(name, stream)
        found += wrong
        if not wrong:
            contracts.append(_contract(name, stream))
    sound = {c.name for c in contracts}
    kept = {name: rule for name, rule in config.rules.items() if rule.input in sound or rule.input.removesuffix(".late") in config.rules}
    import tempfile                      # the daemon has no use for it

    with tempfile.TemporaryDirectory(prefix="tidegate-check-") as directory:
        try:
            book = Rulebook(spec.Config(streams={n: config.streams[n] for n in sound}, rules=kept), contracts, directory)
        except ConfigError as error:
            return [*found, ("rules", str(error))]
        return found + [(f"rules.{name}", reason) for name, reason in book.refused.items()]


def _contract_problems(name, stream):
    """Every topic filter and field that is wrong; if none is, what is wrong between them."""
    tries = [(f"streams.{name}.topics[{i}]", lambda topic=topic: check_filter(topic)) for i, topic in enumerate(stream.topics)]
    tries += [(f"streams.{name}.fields.{field}", lambda field=field, f=f: _field(field, f)) for field, f in stream.fields.items()]
    found = [(place, problem) for place, attempt in tries if (problem := _problem(attempt))]
    if not found and (problem := _problem(lambda: _contract(name, stream))):
        found.append((f"streams.{name}", problem))
    return found


def _problem(attempt):
    try:
        attempt()
    except ConfigError as error:
        return str(error)
    return None
