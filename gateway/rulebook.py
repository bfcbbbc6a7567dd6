"""The rules of a configuration, loaded and bound in the order they run; and the contracts that they read from."""

import tidegate_rules
from edge.compile import Cache
from edge.contract import Contract, FieldSource
from edge.errors import ConfigError, DiskError, RuleError
from edge.graph import order
from edge.limits import Limits
from edge.rule import Rule


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
    fields = [FieldSource(field, spec.type, spec.from_, required=spec.required, unit=spec.unit, time_format=spec.format)
              for field, spec in stream.fields.items()]
    return Contract(name, stream.topics, fields, format=stream.format, version=stream.version, key=stream.key, time=stream.time)


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
            spec = config.rules[name]
            if spec.input not in schemas:
                self.refused[name] = f"{spec.input}, which it reads, is left out"
                continue
            try:
                rule = Rule(name, module_path(spec.module), spec.params, schemas[spec.input], cache=cache, limits=_limits(spec.limits))
            except (ConfigError, RuleError, DiskError) as error:
                self.refused[name] = str(error)
                continue
            self.rules.append(rule)
            self.feeds[name] = spec.input
            self.origin[name] = origins[spec.input]
            schemas |= {name: rule.output_schema, f"{name}.late": rule.late_schema}
            origins |= {name: origins[spec.input], f"{name}.late": origins[spec.input]}


def module_path(module):
    """A ready-made rule's file, or the path itself. Raises ConfigError for a name that is neither."""
    if module.endswith(".wasm"):
        return module
    try:
        return tidegate_rules.path(module)
    except KeyError as error:
        raise ConfigError(f"module: {error.args[0]}; or give the path of a .wasm file") from None


def _limits(spec):
    return None if spec is None else Limits(spec.time, spec.memory, spec.output)


def problems(config) -> list[tuple[str, str]]:
    """What `check` says beyond the configuration's own problems: (place, problem) of contracts and rules. Compiles modules into a folder of its own."""
    found, contracts = [], []
    for name, stream in config.streams.items():
        try:
            contracts.append(_contract(name, stream))
        except ConfigError as error:
            found.append((f"streams.{name}", str(error)))
    if found:
        return found
    import tempfile                      # the daemon has no use for it

    with tempfile.TemporaryDirectory(prefix="tidegate-check-") as directory:
        try:
            book = Rulebook(config, contracts, directory)
        except ConfigError as error:
            return [("rules", str(error))]
        return [(f"rules.{name}", reason) for name, reason in book.refused.items()]
