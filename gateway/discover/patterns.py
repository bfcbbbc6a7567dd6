"""Patterns: many topics that differ in a level, with payloads alike, become one with + in that level.

Topics are compared where they have equally many levels and payloads of one make: the same format, and for objects mostly the same members. A level
can be where devices differ if its values look like names of devices: most have a digit in them. Words alone tell devices apart only where no other
level does, and not words for what is measured. Up to WILD_MAX levels become + together.
"""

import re
from collections import defaultdict
from itertools import combinations

from gateway.discover import payload

WILD = "+"
WILD_MAX = 3
VARYING_MAX = 8                          # levels that are tried, those with the most values
ROUNDS_MAX = 8
FILTERS_MAX = 50                         # topics of a stream that are named one by one
FEW = 0.1
MAKES_MAX = 200                          # makes of payload that are told apart
ALIKE = 0.5                              # of all members of two objects so many are in both
WORDS_LEAST = 6                          # words that tell devices apart where the payload is a bare value
MEASURES = frozenset("""temp temperature hum humidity pres pressure baro volt voltage volts current curr power watt watts energy kwh wh va amp amps bat batt battery rssi snr lqi lux light
    illuminance co co2 co2e pm1 pm2 pm4 pm10 pm25 tvoc voc no2 o3 nox noise level flow speed velocity rpm vib vibration accel acceleration dist distance weight mass angle lat latitude
    lon lng longitude alt altitude freq frequency wind rain soil moist moisture dew ph ec value val ratio percent torque force strain load volume concentration gas uv""".split())
WORDS = MEASURES | frozenset("state status stat alarm alert event info error cmd command set get config online door motion switch relay available availability".split())


class Pattern:
    """levels: texts, WILD where topics differ; filters: what a contract takes, that or else the topics one by one; topics: survey.Topics of it;
    form: of payload.SAID, of most messages, or unseen; key: the level that tells devices apart, or None."""

    def __init__(self, levels, topics, form, filters=None):
        self.levels, self.topics, self.form = levels, topics, form
        self.refused = ""            # why no contract can be made for it: its topics fall to others
        self.filters = filters or [levels]
        self.text = "/".join(levels)
        wild = [(len({topic.levels[i] for topic in topics}), i) for i, level in enumerate(levels) if level == WILD]
        self.key = max(wild)[1] if wild else None

    @property
    def readable(self) -> bool:
        """Whether a contract can read such payloads."""
        return self.form in payload.FORMATS and not self.refused

    def of(self, topics):
        """The same with these topics."""
        other = Pattern(self.levels, topics, self.form, self.filters)
        other.refused = self.refused
        return other


def of_topics(topics) -> list[Pattern]:
    """Patterns of survey.Topics, in the order in which they are to take topics."""
    found = defaultdict(list)
    for (form, _), group in sorted(_makes(topics).items(), key=lambda item: item[0]):
        for levels, members in _merged(group, form in ("json", "msgpack")):
            found[levels].append(Pattern(levels, members, form))
    patterns = [pattern for same in found.values() for pattern in _told_apart(same)]
    patterns.sort(key=lambda pattern: (pattern.filters[0].count(WILD), pattern.levels, pattern.form))
    return patterns


def _told_apart(same):
    """Patterns of one text: those of one format become one; of several formats the largest keeps the text, and the others' topics are named one by one.
    All that can be read is named one by one where nearly as much or more cannot. What is left out falls to who keeps the text, and is said there."""
    formats = defaultdict(list)
    for pattern in same:
        formats[payload.FORMATS.get(pattern.form)].append(pattern)
    parts = []
    for group in formats.values():
        most = max(group, key=lambda pattern: (len(pattern.topics), pattern.form))
        parts.append(Pattern(most.levels, [topic for pattern in group for topic in pattern.topics], most.form))
    parts.sort(key=lambda part: (not part.readable, -len(part.topics)))
    unread = [part for part in parts if not part.readable]
    if unread and parts[0].readable and (unread[0].form != "binary" or FEW * sum(len(part.topics) for part in parts) > len(unread[0].topics)):
        parts.remove(unread[0])
    keeps = parts[0] if parts[-1].readable or len(parts[0].topics) > FILTERS_MAX else parts[-1]
    rest = [part for part in parts if part is not keeps and len(part.topics) <= FILTERS_MAX]
    return [keeps] + [Pattern(part.levels, part.topics, part.form, sorted(topic.levels for topic in part.topics)) for part in rest]


def dealt(patterns, topics) -> list:
    """(pattern, its topics): each topic to the first readable pattern that takes it, as a gateway would; what none of those takes to another."""
    literal, wild = {}, defaultdict(list)
    for pattern in sorted(patterns, key=lambda pattern: not pattern.readable):
        for levels in pattern.filters:
            if WILD in levels:
                wild[len(levels)].append((levels, pattern))
            else:
                literal.setdefault(levels, pattern)
    found = defaultdict(list)
    for topic in topics:
        pattern = literal.get(topic.levels)
        if pattern is None or not pattern.readable:
            takers = (one for levels, one in wild[len(topic.levels)] if all(level in (WILD, own) for level, own in zip(levels, topic.levels)))
            pattern = next((one for one in takers if one.readable or pattern is None), pattern)
        found[id(pattern)].append(topic)
    return [(pattern, found[id(pattern)]) for pattern in patterns if id(pattern) in found]


# --- makes of payload


def _makes(topics):
    """(form, number of the make) -> topics, of topics alike in form, number of levels and members."""
    made, known = defaultdict(list), defaultdict(list)
    for topic in topics:
        form, members = make(topic)
        depth = len(topic.levels)
        number = next((number for number, other in known[form, depth] if not (members or other) or len(members & other) >= ALIKE * len(members | other)), None)
        if number is None and len(made) < MAKES_MAX:
            number = len(made)
            known[form, depth].append((number, members))
        made[form, -depth if number is None else number].append(topic)
    return made


def make(topic):
    """(form, names of an object's members) that most of a topic's messages have."""
    forms = defaultdict(lambda: [0, frozenset()])
    for _, data, _ in topic.kept:
        form, value = payload.read(data)
        one = forms[form]
        one[0] += 1
        if isinstance(value, dict):
            one[1] |= frozenset(list(value)[:64])
    if not forms:
        return "unseen", frozenset()
    full = {form: one for form, one in forms.items() if form != "empty"} or forms
    form = max(full, key=lambda name: (full[name][0], name))
    return form, full[form][1]


# --- merging


def _merged(topics, alike):
    """(levels, topics) of a make's topics. alike: their members say that they are of one make, where words alone may tell devices apart."""
    left, done = topics, []
    for _ in range(ROUNDS_MAX):
        tried = [(cost, mask, groups) for mask in _masks(left) for cost, groups in [_grouped(left, mask, alike)] if groups]
        if not tried:
            break
        groups = min(tried, key=lambda one: one[:2])[2]
        done += groups.items()
        merged = {topic.name for members in groups.values() for topic in members}
        left = [topic for topic in left if topic.name not in merged]
    return done + [(topic.levels, [topic]) for topic in left]


def _masks(topics):
    """Sets of levels that may become wild, each of levels in which topics differ."""
    values = [len(set(column)) for column in zip(*(topic.levels for topic in topics))]
    varying = sorted(sorted((i for i, n in enumerate(values) if n > 1), key=lambda i: -values[i])[:VARYING_MAX])
    return [mask for size in range(1, WILD_MAX + 1) for mask in combinations(varying, size)]


def _grouped(topics, mask, alike):
    """((whether words tell apart, patterns that result, wild levels), {levels: topics}) with the levels of a mask wild."""
    groups = defaultdict(list)
    for topic in topics:
        groups[tuple(WILD if i in mask else level for i, level in enumerate(topic.levels))].append(topic)
    good, weak = {}, False
    for levels, members in groups.items():
        looks = [_looks({topic.levels[i] for topic in members}) for i in mask]
        if all(look == "names" for look in looks):
            good[levels] = members
        elif looks == ["numbered"] or looks == ["words"] and len(levels) > 1 and (alike or len(members) >= WORDS_LEAST):
            good[levels] = members
            weak = True
    merged = sum(len(members) for members in good.values())
    return (weak, len(topics) - merged + len(good), len(mask)), good


def _looks(values):
    """What the values of a level look like: one, names (of devices), numbered measures, words, or measures (what is measured or meant)."""
    if len(values) < 2:
        return "one"
    measures = [value for value in values if says(value, WORDS)]
    if any(value.lower() in WORDS or not _numbered(value) for value in measures):
        return "measures"
    if 2 * sum(map(_numbered, values)) <= len(values):
        return "words"
    return "numbered" if measures else "names"


def says(name, words) -> bool:
    """Whether a word of a name is one of these: air_temp and airTemp say temp."""
    parts = re.split(r"[^A-Za-z0-9]+", name)
    return any(part.lower() in words for part in (*parts, *re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)))


def _numbered(value):
    return any(c.isdigit() for c in value)
