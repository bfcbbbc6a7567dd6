"""The order in which rules run: each after what feeds it."""


from edge.errors import ConfigError


def order(rules, streams) -> list[str]:
    """Names of rules so that each comes after those that feed it, otherwise as given.

    rules: (name, input) pairs; an input is a stream, a rule (its output) or RULE.late. streams: names of the input streams.
    Raises ConfigError on an unknown input, a name used twice, and a cycle.
    """
    rules, streams = list(rules), set(streams)
    makers = {}
    for name, _ in rules:
        for made in (name, f"{name}.late", f"{name}.partial"):
            if made in makers or made in streams:
                raise ConfigError(f"rule {name}: {made} is the name of another stream or rule; take another name")
            makers[made] = name
    for name, _ in rules:
        del makers[f"{name}.partial"]    # what a rule leaves when it goes is for people, not for rules
    feeder = {}
    for name, source in rules:
        if source not in makers and source not in streams:
            import difflib  # seldom needed

            near = difflib.get_close_matches(source, [*streams, *makers], 1)
            raise ConfigError(f"rule {name}: there is no stream or rule {source!r}" + (f"; did you mean {near[0]}?" if near else ""))
        feeder[name] = makers.get(source)
    done = []
    for name, _ in rules:
        path = []
        while name is not None and name not in done:
            if name in path:
                raise ConfigError(f"rule {name}: rules feed each other in a circle: {' -> '.join([name, *reversed(path[path.index(name):])])}")
            path.append(name)
            name = feeder[name]
        done.extend(reversed(path))
    return done
