"""The page that `tidegate discover` prints: a configuration's streams in TOML, with comments that say what was heard. Text from elsewhere is shown cut, and never as
it is where it could steer a terminal or end a comment."""

import re

from gateway.discover.patterns import WILD, dealt, of_topics
from gateway.discover.payload import SAID
from gateway.discover.proposal import Proposal
from gateway.discover.survey import PAYLOAD_BYTES_MAX
from gateway.inspection.store import plain

EXAMPLE_MAX = 24                         # characters
NAMES_MAX = 160                          # of a topic in a comment
LEFT_OUT_MAX = 40                        # lines
COLUMN = 48                              # where comments behind begin


def propose(survey) -> list[Proposal]:
    """A Proposal for each pattern of what a Survey heard, in the order in which streams are to stand. Where no contract can be made for a pattern its topics
    fall to what else takes them, and that is looked at again."""
    topics = list(survey.topics.values())
    patterns, known = of_topics(topics), {}
    while True:
        found, again = [], False
        for pattern, members in dealt(patterns, topics):
            which = id(pattern), pattern.refused, tuple(topic.name for topic in members)
            if which not in known:
                known[which] = Proposal(pattern.of(members))
            found.append(known[which])
            if known[which].table is None and pattern.readable:
                pattern.refused, again = known[which].why, True
        if not again:
            return _named(found)


def _named(proposals):
    names = set()
    for proposal in proposals:
        proposal.name = _name(proposal.pattern, names)
        names.add(proposal.name)
    return proposals


def _name(pattern, taken):
    literal = [re.sub(r"[^A-Za-z0-9_-]", "_", level).strip("_-") for level in pattern.levels if level != WILD]
    words = [word for word in literal if word][::-1] or ["events"]
    tries = ["_".join(words[:n][::-1])[:56] for n in range(1, len(words) + 1)]
    tries += [f"{tries[0]}_{n}" for n in range(2, len(taken) + 3)]
    return next(name for name in tries if name not in taken)


def streams(proposals, seconds) -> str:
    """The tables of all that can be proposed, each with what was seen, and comments on the rest."""
    good = [proposal for proposal in proposals if proposal.table]
    parts = [_stream(proposal, seconds) for proposal in good]
    rest = [proposal for proposal in proposals if not proposal.table]
    if rest:
        lines = [comment(f"{_topics(one)} ({_heard(one, seconds)}): {one.why}") for one in rest[:LEFT_OUT_MAX]]
        more = [comment(f"and {len(rest) - LEFT_OUT_MAX:,} more")] if len(rest) > LEFT_OUT_MAX else []
        parts.append("\n".join([comment("Not proposed:"), *lines, *more]) + "\n")
    return "\n".join(parts)


def table(name, values) -> str:
    """A table of a configuration; values that are tables follow as tables of their own."""
    lines = [f"[{name}]"]
    inner = []
    for key, value in values.items():
        if isinstance(value, dict):
            inner.append(table(f"{name}.{quoted_key(key)}", value))
        else:
            lines.append(f"{quoted_key(key)} = {_value(value)}")
    return "\n".join(lines) + "\n" + "".join(inner)


def _value(value):
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return quoted(value) if isinstance(value, str) else str(value).lower()


def summary(survey, seconds) -> str:
    """What was heard, in a line."""
    retained = sum(topic.retained for topic in survey.topics.values())
    beyond = f"; {survey.beyond:,} of them on topics that are too long, or beyond the first {len(survey.topics):,}, were not looked into" if survey.beyond else ""
    fresh = survey.count - retained
    return (f"{_many(survey.count, 'message')} on {_many(len(survey.topics), 'topic')} in {seconds:.3g} s, {_rate(fresh, seconds)} a second, "
            f"{survey.bytes / max(seconds, 1e-3) / 1000:.1f} kB/s of payload" + (f", {retained:,} retained" if retained else "") + beyond)


def comment(text) -> str:
    """A line of comment."""
    return f"# {plain(text)}"


def quoted(text) -> str:
    """A TOML string."""
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}" for c in text)
    return f'"{escaped}"'


def _stream(proposal, seconds):
    pattern, table = proposal.pattern, proposal.table
    lines = [comment(_heard(proposal, seconds)), f"[streams.{quoted_key(proposal.name)}]", _topic_line(table["topics"])]
    if len(pattern.topics) > 1 or len(table["topics"]) > 1:
        lines.insert(1, comment(f"{_many(len(pattern.topics), 'topic')}, such as {_cut(pattern.topics[0].name.decode(), NAMES_MAX)}"))
    if WILD not in pattern.levels and any(c.isdigit() for level in pattern.levels for c in level):
        lines.insert(1, comment("one topic: if more devices are to come, put + in the place of its level"))
    if table["format"] != "json":
        lines.append(f'format = "{table["format"]}"')
    lines += [f"{role} = {quoted(proposal.roles[role])}" for role in ("key", "time", "sequence", "id") if role in proposal.roles]
    if proposal.lateness_s:
        lines.append(_behind(f'lateness = "{proposal.lateness_s}s"', "by so much a device's times went back"))
    lines.append(f"[streams.{quoted_key(proposal.name)}.fields]")
    for name, spec in table["fields"].items():
        lines.append(_behind(f"{quoted_key(name)} = {_field(spec)}", _said(proposal.fields[name])))
    left_out = proposal.left_out
    lines += [comment(f"left out: {_cut(place, NAMES_MAX)}: {why}") for place, why in left_out[:LEFT_OUT_MAX]]
    if len(left_out) > LEFT_OUT_MAX:
        lines.append(comment(f"left out: {len(left_out) - LEFT_OUT_MAX:,} more"))
    return "\n".join(lines) + "\n"


def _topic_line(topics):
    if len(topics) < 4:
        return f"topics = [{', '.join(map(quoted, topics))}]"
    return "\n".join(["topics = [", *(f"    {quoted(topic)}," for topic in topics), "]"])


def quoted_key(name):
    """A key of TOML."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quoted(name)


def _field(spec):
    if isinstance(spec, str):
        return quoted(spec)
    return "{ " + ", ".join(f"{word} = {_value(value)}" for word, value in spec.items()) + " }"


def _said(field):
    examples = ", ".join(_cut(value, EXAMPLE_MAX) for value in field.examples if isinstance(value, str))
    return ", such as ".join(filter(None, (field.note, examples))) if field.note else f"such as {examples}" if examples else ""


def _behind(text, said):
    return f"{text:{COLUMN}} {comment(said)}" if said else text


def _rate(count, seconds):
    rate = count / max(seconds, 1e-3)
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def _many(count, noun):
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _cut(text, most):
    text = plain(text[:most + 1])
    return text if len(text) <= most else text[:most - 1] + "…"


def _topics(proposal):
    return _cut(proposal.pattern.text, NAMES_MAX)


def _heard(proposal, seconds):
    """Counts, rate, size, QoS, retained; what was looked into and what of it the contract takes."""
    topics = proposal.pattern.topics
    count, size = sum(topic.count for topic in topics), sum(topic.bytes for topic in topics)
    retained, large = sum(topic.retained for topic in topics), sum(topic.large for topic in topics)
    qos = [sum(topic.qos[level] for topic in topics) for level in range(3)]
    parts = [_many(count, "message"), f"{_rate(count - retained, seconds)} a second", f"{size / max(count, 1):.0f} bytes each",
             SAID.get(proposal.pattern.form, "not looked into"), "QoS " + " and ".join(str(level) for level in range(3) if qos[level])]
    if retained:
        parts.append(f"{retained:,} retained: they come again at each start")
    if large:
        parts.append(f"{large:,} above {PAYLOAD_BYTES_MAX >> 10} KiB not looked into")
    if proposal.table:
        lost = proposal.looked - proposal.taken
        parts.append(f"all {proposal.looked:,} looked into are taken" if not lost else f"{proposal.taken:,} of {proposal.looked:,} looked into are taken, the others would be dead "
                     f"letters: {', '.join(f'{_cut(reason, NAMES_MAX)} ({n:,})' for reason, n in proposal.reasons.most_common(3))}")
    return ", ".join(parts)
