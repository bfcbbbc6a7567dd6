"""Who plays which part in a replay: a module in the place of a recorded rule, or beside them on a stream."""

from pathlib import Path

import msgspec

from edge.errors import ConfigError
from edge.host.module import Module
from edge.rehearsal.recording import Ruled
from edge.rehearsal.replay import chain


def cast(recording, given, place=None, stream=None, params=()):
    """(Ruled, Module): given is a recorded rule's name, a .wasm file, or NAME@VERSION or a digest of the recording's rule store.

    place: the recorded rule whose input and parameters count; without it the one whose module has the same name. stream: to read instead, or where no
    rule is replaced. params: over those of the place. Raises ConfigError, RuleError."""
    rules = {ruled.rule: ruled for ruled in recording.settings.rules}
    if given in rules:
        module, ruled = recording.module(rules[given]), rules[given]
    else:
        module = _module(recording, given, rules)
        ruled = _place(recording, module, place, stream, rules)
    if stream is not None:
        ruled = msgspec.structs.replace(ruled, input=stream)
    return msgspec.structs.replace(ruled, params=ruled.params | dict(params)), module


def company(recording, ruled, module):
    """(Ruled, Module) of a rule and of all that feed it."""
    source = ruled.input.removesuffix(".late")
    feeds = chain(recording.settings.rules, source) if any(r.rule == source for r in recording.settings.rules) else []
    return [*((r, recording.module(r)) for r in feeds if r.rule != ruled.rule), (ruled, module)]


def _module(recording, given, rules):
    if given.endswith(".wasm"):
        try:
            return Module(Path(given).read_bytes(), given)
        except OSError as error:
            raise ConfigError(f"{given}: {error.strerror}") from None
    module = recording.stored(given)
    if module is None:
        raise ConfigError(f"{recording.name}: there is no rule or version {given!r}: name a rule ({', '.join(rules) or 'it has none'}) or a .wasm file")
    return module


def _place(recording, module, place, stream, rules):
    name = module.manifest.name
    if place is not None:
        if place in rules:
            return rules[place]
        if stream is None:
            raise ConfigError(f"--as {place}: no recorded rule has this name ({', '.join(rules) or 'there are none'}): say which stream it reads by --input")
        return _new(place, stream)
    same = [ruled for ruled in rules.values() if recording.module(ruled).manifest.name == name]
    if len(same) == 1:
        return same[0]
    if len(same) > 1 and stream is None:
        raise ConfigError(f"{name} runs as {', '.join(r.rule for r in same)}: say in whose place it goes by --as")
    streams = [stream] if stream else list(recording.events)
    if len(streams) != 1:
        raise ConfigError(f"no recorded rule is a {name}: say which stream it reads by --input ({', '.join(recording.events) or 'there are no events'}), or --as RULE")
    return _new(name, streams[0])


def _new(name, stream):
    return Ruled(name, stream, "")
