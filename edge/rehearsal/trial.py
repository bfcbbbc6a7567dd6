"""Trying a rule out: its samples (edge/rehearsal/samples.py) on a test stand (edge/rehearsal/stand.py), and what came out beside what they say.

OUT and LATE rows are compared word by word as edge/rehearsal/spelling.py spells them, each in the order of the engine; DEAD and TRAP say a part of the reason;
rows that a rule ignores are counted. What no line says must not happen.
"""

import difflib
import json

from msgspec import Struct

from edge.decoding.contract import Contract, FieldSource
from edge.errors import ConfigError, RuleError, TidegateError
from edge.rehearsal.spelling import expected_text, row_text
from edge.rehearsal.stand import Stand

ORDER = ("OUT", "LATE", "IGNORED", "DEAD", "TRAP")
STEPS_SHOWN = 6                          # of a group, the last ones
KINDS_OF_DECLARED = {"number": "f64", "any": "f64"}


class Said(Struct):
    """A line that should be there, or is. line: its number, or that of the step that it comes of."""

    word: str
    rest: str
    line: int

    @property
    def text(self) -> str:
        return f"{self.word} {self.rest}"


class Mismatch(Struct):
    """A group of steps, and what they should put out and did, spelled alike. steps: (number, text). given: line number -> text, as in the samples.
    said: what they did, step by step: rows ignored are not added up over steps."""

    steps: list
    expected: list[Said]
    actual: list[Said]
    given: dict
    said: list[Said]


class Result(Struct):
    """Of one case. error: why it could not be run to its end, with the line, or "". refused: the reason why the rule did not want to run, or ""."""

    name: str
    line: int
    mismatches: list[Mismatch]
    error: str = ""
    refused: str = ""

    @property
    def passed(self) -> bool:
        return not self.mismatches and not self.error


class Report(Struct):
    """Of all cases that ran."""

    results: list[Result]

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> list[Result]:
        return [r for r in self.results if not r.passed]


def run(module, samples, cache, *, limits=None) -> Report:
    """Every case. module: edge.host.module.Module. samples: edge.rehearsal.samples.Samples. cache: edge.host.compile.Cache. Raises RuleError for a module that cannot
    be compiled, DiskError from the cache."""
    cache.load(module)
    return Report([run_case(module, samples, case, cache, limits=limits) for case in samples.cases])


def run_case(module, samples, case, cache, *, limits=None) -> Result:
    """One case, in an engine of its own."""
    result = Result(case.name, case.line, [])
    head = case.head
    try:
        contract = contract_of(head, module.manifest)
        stand = Stand(module, contract, head.params, cache, lateness_ns=head.lateness_ns, idle_ns=head.idle_ns, skew_ns=head.skew_ns, limits=limits)
    except (ConfigError, RuleError) as error:
        return _refused(samples, case, result, str(error).removeprefix(f"rule {module.manifest.name}: "))
    if case.refused:
        return _refused(samples, case, result, "")
    time_format = next((f.time_format for f in contract.fields if f.name == contract.time), "rfc3339")
    for group in case.groups:
        actual = []
        try:
            for batch in _batches(group.steps):
                before = stand.ignored
                _step(stand, batch)
                actual += _said(stand, before, batch[-1].number, time_format)
        except TidegateError as error:
            result.error = f"{samples.name}:{batch[0].number}: {batch[0].word}: {error}"
            return result
        mismatch = _compare(group, _expected(group, stand, contract, time_format), actual)
        if mismatch:
            result.mismatches.append(mismatch)
    return result


def contract_of(head, manifest) -> Contract:
    """Of the stream that a case feeds: as its head says, else as the manifest declares its inputs. Raises ConfigError."""
    fields, key, time = head.fields, head.key, head.time
    if fields is None:
        fields = [_declared(d) for d in manifest.inputs if not d.name.startswith("$")]
        kinds = {f.name: f.kind for f in fields}
        times = [name for name, kind in kinds.items() if kind == "time"]
        key = key or (manifest.key if kinds.get(manifest.key) == "str" else None)
        time = time or (times[0] if len(times) == 1 else None)
    if not fields:
        raise ConfigError("what the stream holds is not known: neither the manifest nor the case says; write FIELD lines, such as FIELD temp f64")
    return Contract(head.stream, [head.stream], fields, key=key, time=time)


def _declared(d):
    kind = KINDS_OF_DECLARED.get(d.type, d.type)
    return FieldSource(d.name, kind, required=not d.optional, unit=d.unit, time_format="ms" if kind == "time" else None)


# --- steps


def _batches(steps):
    """Steps one by one, an IN with the AND lines below it."""
    batch = []
    for step in steps:
        if batch and step.word != "AND":
            yield batch
            batch = []
        batch.append(step)
    yield batch


def _step(stand, lines):
    word, value = lines[0].word, lines[0].value
    if word == "IN":
        stand.put([value[1].encode(), *(line.value.encode() for line in lines[1:])], value[0])
    elif word == "AT":
        stand.advance(value)
    elif word == "ADVANCE":
        stand.advance(stand.now_ns + value)
    elif word == "WATERMARK":
        stand.force((value[0] or "").encode(), value[1])
    elif word == "RESTART":
        stand.restart()


def _said(stand, ignored_before, line, time_format):
    said = [Said(word, what if fields is None else row_text(what, fields, time_format), line) for word, what, fields in stand.taken()]
    if stand.ignored > ignored_before:
        said.append(Said("IGNORED", str(stand.ignored - ignored_before), line))
    return said


def _expected(group, stand, contract, time_format):
    fields = {"OUT": stand.rule.output_schema.fields, "LATE": contract.schema.fields}
    return [Said(e.word, expected_text(e.value, fields[e.word], time_format) if e.word in fields else str(e.value), e.number) for e in group.expected]


# --- comparing


def _compare(group, expected, actual):
    """A Mismatch, or None."""
    ordered = [_ordered(said) for said in (expected, actual)]
    texts = [[s.text for s in side] for side in ordered]
    _believe_parts(*texts)
    if texts[0] == texts[1]:
        return None
    steps = [(s.number, s.text) for s in group.steps]
    wanted = [Said(s.word, text.partition(" ")[2], s.line) for s, text in zip(ordered[0], texts[0])]
    return Mismatch(steps, wanted, ordered[1], {e.number: e.text for e in group.expected}, actual)


def _ordered(said):
    """By word, otherwise as they came, the ignored rows as one number."""
    ignored = [s for s in said if s.word == "IGNORED"]
    if len(ignored) > 1:
        total = Said("IGNORED", str(sum(int(s.rest) for s in ignored)), ignored[-1].line)
        said = [s for s in said if s.word != "IGNORED"] + [total]
    return sorted(said, key=lambda s: ORDER.index(s.word))


def _believe_parts(expected, actual):
    """DEAD and TRAP say a part of the reason: where the reason has it, take it whole."""
    rest = [a for a in actual if a.startswith(("DEAD ", "TRAP "))]
    for i, line in enumerate(expected):
        word, _, part = line.partition(" ")
        if word in ("DEAD", "TRAP"):
            found = next((a for a in rest if a.startswith(word) and part in a), None)
            if found is not None:
                rest.remove(found)
                expected[i] = found


def _refused(samples, case, result, reason):
    """The Result of a case whose rule did not want to run (reason), or should not have wanted to ("")."""
    expected = case.refused.value if case.refused else None
    result.refused = reason
    if reason and expected is None:
        result.error = f"{samples.name}:{case.line}: the rule does not run: {reason}"
    elif not reason:
        result.error = f"{samples.name}:{case.refused.number}: the rule runs, it should be refused: {expected}"
    elif expected not in reason:
        result.error = f"{samples.name}:{case.refused.number}: the rule is refused for another reason: {reason}"
    return result


# --- telling


def explain(result) -> list[str]:
    """Lines that say where a case differs: - what should be and is not, + what is and should not be."""
    lines = [result.error] if result.error else []
    for mismatch in result.mismatches:
        shown = mismatch.steps[-STEPS_SHOWN:]
        if len(mismatch.steps) > len(shown):
            lines.append(f"       ... {len(mismatch.steps) - len(shown)} steps from line {mismatch.steps[0][0]} on")
        lines += [f"  {number:5}  {text}" for number, text in shown]
        lines += _difference(mismatch)
    return lines


def _difference(mismatch):
    expected, actual = mismatch.expected, mismatch.actual
    lines = []
    matcher = difflib.SequenceMatcher(None, [s.text for s in expected], [s.text for s in actual], autojunk=False)
    for what, a, b, c, d in matcher.get_opcodes():
        if what == "equal":
            lines += [f"  {s.line:5}  {mismatch.given[s.line]}" for s in expected[a:b]]
            continue
        for i in range(max(b - a, d - c)):
            if a + i < b:
                lines.append(f"- {expected[a + i].line:5}  {mismatch.given[expected[a + i].line]}")
            if c + i < d:
                lines.append(f"+ {'':5}  {actual[c + i].text}")
            if a + i < b and c + i < d:
                lines += [f"? {'':5}  {what}" for what in _fields(expected[a + i], actual[c + i])]
    return lines


def _fields(expected, actual):
    """The fields in which two rows of one kind differ, in one line or none."""
    if expected.word != actual.word or expected.word not in ("OUT", "LATE"):
        return []
    wanted, got = json.loads(expected.rest), json.loads(actual.rest)
    said = [f"{name} is {_one(got[name])}, not {_one(wanted[name])}" for name in wanted if name in got and _one(got[name]) != _one(wanted[name])]
    said += [f"there is no field {name} (there are {', '.join(got)})" for name in wanted if name not in got]
    return ["; ".join(said)]


def _one(value):
    return json.dumps(value)


def updated(samples, report) -> str:
    """The samples' text with what came out in place of what was expected, where these differ; each line stands below the step it comes of.
    A case that could not be run to its end stays as it is, but for the reason of one that is REFUSED."""
    drop, add = set(), {}
    cases = {case.name: case for case in samples.cases}
    for result in report.failures:
        refusal = cases[result.name].refused
        if refusal and result.refused:
            drop.add(refusal.number)
            add[refusal.number] = [f"REFUSED {result.refused}"]
        elif not result.error:
            for mismatch in result.mismatches:
                drop |= {s.line for s in mismatch.expected}
                for said in sorted(mismatch.said, key=lambda s: (s.line, ORDER.index(s.word))):
                    add.setdefault(said.line, []).append(said.text)
    return samples.text(drop, add)
