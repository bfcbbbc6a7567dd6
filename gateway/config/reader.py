"""Reading a configuration: TOML in, a spec.Config or every problem at once with its place and what to do."""

import tomllib
from pathlib import Path

from edge import tables
from edge.books import STREAM
from edge.errors import ConfigError
from edge.host.public_key import is_public_key
from gateway.config import spec
from gateway.config.units import Durability, Duration, Part, Size

LOOPBACK = ("localhost", "127.0.0.1", "::1")
USUAL = Path("tidegate.toml")                            # what a command reads that names no file: here,
INSTALLED = Path("/etc/tidegate/tidegate.toml")          # or else the Debian package's


class Problems(ConfigError):
    """All that is wrong with a configuration. `items`: (place such as "lanes.alerts.age", what and what to do). `sound`: a Config of the streams
    and rules that have nothing wrong with them, for whoever looks further; None if the text is no TOML."""

    def __init__(self, source, items, sound=None):
        self.source = source
        self.items = items
        self.sound = sound
        super().__init__("\n".join(f"{source}: {place}: {what}" if place else f"{source}: {what}" for place, what in items))


def place(path) -> Path:
    """The file that is meant by what a command was given."""
    path = Path(path)
    return INSTALLED if path == USUAL and not path.exists() and INSTALLED.exists() else path


def load(path) -> spec.Config:
    """The configuration in a file; relative paths in it are relative to the file. Raises Problems."""
    path = place(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Problems(path, [("", f"cannot be read: {error.strerror}; name the file with -c")]) from None
    except UnicodeDecodeError as error:
        raise Problems(path, [("", f"is not UTF-8 at byte {error.start}")]) from None
    return parse(text, path)


def parse(text, path=Path("tidegate.toml")) -> spec.Config:
    """The configuration in a text. Raises Problems with everything that is wrong with it."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Problems(path, [("", f"is not TOML: {error}")]) from None
    problems = []
    config = _struct(spec.Config, data, "", problems)
    _relate(data, problems)
    if problems:
        raise Problems(path, problems, _finished(_sound(data), path))
    return _finished(config, path)


def _finished(config, path):
    for stream in config.streams.values():
        stream.fields = {name: spec.FieldSpec(f) if isinstance(f, str) else f for name, f in stream.fields.items()}
    _resolve_paths(config, Path(path).absolute().parent)
    return config


def _sound(data):
    """A configuration of the streams without a problem, and of the rules without one that read them."""
    config = spec.Config(streams={})
    config.gateway = _struct(spec.Gateway, data.get("gateway", {}), "gateway", []) or config.gateway
    for name, table in _table(data, "streams").items():
        stream = _struct(spec.Stream, table, name, wrong := [])
        if not wrong:
            config.streams[name] = stream
    for name, table in _table(data, "rules").items():
        rule = _struct(spec.Rule, table, name, wrong := [])
        if not wrong and name not in config.streams and rule.input in config.streams:
            config.rules[name] = rule
    return config


def _struct(kind, data, place, problems):
    return tables.read(kind, data, place, problems, _quantity)


def _quantity(kind, data):
    if kind in (Durability, Duration, Size, Part):
        if not isinstance(data, str):
            raise ValueError(f"must be {kind.summary} in quotes")
        return kind.parse(data)
    raise NotImplementedError(kind)


def _relate(data, problems):
    """What no single table can tell: names that must exist, tables that need each other. Reads the raw data, so that it can speak
    although a table has mistakes of its own."""
    streams, rules, lanes = _table(data, "streams"), _table(data, "rules"), _table(data, "lanes")
    if "listener" not in data and "broker" not in data:
        problems.append(("", "nothing comes in: add a [listener] for devices, or a [broker] to subscribe to"))
    if "streams" in data and not streams:
        problems.append(("streams", "there is none: add [streams.NAME] with topics and fields"))
    for name in sorted(set(streams) & set(rules)):
        problems.append((f"rules.{name}", "a stream has this name; a rule's output is a stream of the rule's name, so take another"))
    known = [*streams, *rules, *(f"{rule}.late" for rule in rules)]
    for name in rules:
        _known_stream(f"rules.{name}.input", _table(rules, name).get("input"), known, problems)
    for name in lanes:
        lane = _table(lanes, name)
        fed_by = lane.get("streams")
        for i, stream in enumerate(fed_by if isinstance(fed_by, list) else ()):
            _known_stream(f"lanes.{name}.streams[{i}]", stream, [*known, STREAM], problems)
            if stream == STREAM and str(lane.get("topic", "")).startswith("{stream}"):
                problems.append((f"lanes.{name}.topic", f"would begin with $ for {STREAM}; put another level in front"))
        if isinstance(lane.get("topic"), str):
            _topic_template(f"lanes.{name}.topic", lane["topic"], problems)
    if lanes and "upstream" not in data:
        problems.append(("upstream", "is missing: lanes need an [upstream] with the host of a broker"))
    signing = _table(data, "signing")
    if signing.get("policy") == "required" and not _table(signing, "keys"):
        problems.append(("signing.keys", 'is missing: with policy = "required" and no key no rule could be pushed; `tidegate rule keygen` makes one'))
    for end in ("listener", "broker", "upstream", "api"):
        tls = _table(_table(data, end), "tls")
        if ("cert" in tls) != ("key" in tls):
            problems.append((f"{end}.tls", "cert and key go together"))
    for end in ("listener", "api"):
        if "tls" in _table(data, end) and "cert" not in _table(_table(data, end), "tls"):
            problems.append((f"{end}.tls.cert", "is missing: who listens with tls needs cert and key"))
        if "alpn" in _table(_table(data, end), "tls"):
            problems.append((f"{end}.tls.alpn", "is for connections that the gateway makes: broker and upstream; leave it out"))
    _relate_listener(_table(data, "listener"), problems)
    if "tls" not in _table(data, "api") and _table(data, "api").get("host", "localhost") not in LOOPBACK:
        problems.append(("api.tls", "is missing: tokens do not go over the network in the clear; add it, or listen on 127.0.0.1"))


def _relate_listener(listener, problems):
    """Denied by default: from the network only over TLS and by name, if nothing else is said."""
    names = "password_file" in listener or "ca" in _table(listener, "tls")
    if listener.get("host", "localhost") not in LOOPBACK and not ("tls" in listener and names) and listener.get("anonymous") is not True:
        problems.append(("listener", "devices could connect from the network " + ("without TLS" if names else "without showing who they are") + ": add [listener.tls] "
                         "with cert and key, and password_file (`tidegate passwd FILE USER` writes it) or tls.ca for certificates of devices; or say anonymous = true"))
    if names and "acl_file" not in listener:
        problems.append(("listener.acl_file", "is missing: devices that show who they are may publish nowhere unless it says where; a first line could be: "
                         "pattern write sensors/%c/#"))


def _table(data, name):
    table = data.get(name)
    return table if isinstance(table, dict) else {}


def _known_stream(place, name, known, problems):
    if isinstance(name, str) and name not in known:
        problems.append((place, f"there is no stream or rule {name!r}{tables.near(name, known)}"))


def _topic_template(place, template, problems):
    try:
        topic = template.format(gateway="g", lane="l", stream="s")
    except (KeyError, IndexError, ValueError):
        problems.append((place, "only {gateway}, {lane} and {stream} are known in braces"))
        return
    if not topic or any(c in topic for c in "+#\0") or topic.startswith("$"):
        problems.append((place, "is not a topic to publish on: no + or #, and no $ at the start"))


def _resolve_paths(config, base):
    def absolute(path):
        return None if path is None else str(base / path)

    config.gateway.data = absolute(config.gateway.data)
    config.gateway.cache = absolute(config.gateway.cache)
    config.gateway.mask_key_file = absolute(config.gateway.mask_key_file)
    config.gateway.encryption_key_file = absolute(config.gateway.encryption_key_file)
    for rule in config.rules.values():
        if rule.module.endswith(".wasm"):
            rule.module = absolute(rule.module)
    config.signing.keys = {name: key if is_public_key(key) else absolute(key) for name, key in config.signing.keys.items()}
    config.api.access = absolute(config.api.access)
    for end in (config.listener, config.broker, config.upstream, config.api):
        if end is None:
            continue
        if end.tls:
            end.tls.ca, end.tls.cert, end.tls.key = absolute(end.tls.ca), absolute(end.tls.cert), absolute(end.tls.key)
        for name in ("password_file", "acl_file"):
            if getattr(end, name, None):
                setattr(end, name, absolute(getattr(end, name)))
