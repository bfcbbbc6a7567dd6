"""What a rule sees of a batch, what comes of its answer, its parameters, its state, and the order of rules."""

import json
import struct

import pytest

import rule_module as m
from edge._watermark import Watermarks
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.errors import ConfigError, RuleError
from edge.graph import order
from edge.host.plan import encode_params
from edge.host.rule import Rule


def rule(cache, wasm, params=None, schema=m.STREAM, **options):
    return Rule("probe", m.checked(wasm), params or {}, schema, cache=cache, **options)


def reading(*inputs):
    """A filter whose plan reads these (name, kind, flags) and that leaves the area for the test to look at."""
    at, fields, texts = 0x800, [], ""
    for name, kind, flags in inputs:
        fields += [at, len(name), kind, flags]
        texts += m.text(at, name)
        at += 16
    return m.module(texts + m.data(0x200, *fields), plan=[1, 1, len(inputs), 0x200, 0, 0, m.NONE, m.NONE, 0, 0],
                    process="(memory.copy (i32.const 0x20000) (i32.const 0x8000) (i32.const 0x8000)) (i32.const 0)")


class Seen:
    """The Batch structure as the module saw it, read by rules/ABI.md and nothing else."""

    def __init__(self, rule):
        memory, mutable = rule.image()
        left_out = struct.unpack_from("<II", mutable)[1]             # the area, which stands before
        self.memory = memory[0x20000 - left_out : 0x28000 - left_out]
        head = struct.unpack_from("<IIQqqIIIIIIQ", self.memory)
        self.rows, self.n, self.first, self.received, self.watermark, self.flags, self.keys, self.key_watermarks, self.key_codes, columns = head[:10]
        self.columns = [struct.unpack_from("<6I", self.memory, columns - m.AREA + 24 * i) for i in range(self.n)]

    def at(self, address, form):
        return list(struct.unpack_from("<" + form, self.memory, address - m.AREA))

    def values(self, i):
        kind, values = self.columns[i][:2]
        return self.at(values, f"{self.rows}{'_dqBIq'[kind]}")

    def strings(self, i):
        _, _, _, n, offsets, text = self.columns[i]
        ends = self.at(offsets, f"{n + 1}I")
        return [bytes(self.memory[text - m.AREA + a : text - m.AREA + b]).decode() for a, b in zip(ends, ends[1:])]


def test_a_batch_is_laid_out_as_the_abi_says(cache):
    r = rule(cache, reading(("t", 6, 0), ("$key", 4, 0), ("$time", 5, 0), ("ok", 0, 0), ("n", 2, 0), ("gone", 1, 1), ("id", 4, 0)))
    batch = Batch.from_rows(m.STREAM, [*m.rows(9), {"id": "ünder", "t": None, "n": -5, "ok": True, "at": None}], first_sequence=77, received_ns=10**12)
    marks = Watermarks()
    marks.observe(batch)
    batch.clock = 1
    r.process(batch)
    seen = Seen(r)
    assert (seen.rows, seen.first, seen.received, seen.flags, seen.watermark) == (10, 77, 10**12, 2, batch.watermark_ns)
    assert seen.values(0) == [*map(float, range(9)), 0.0] and seen.at(seen.columns[0][2], "H") == [0xFDFF]
    assert seen.strings(1) == ["d0", "d1", "d2", "ünder"] and seen.values(1) == [0, 1, 2] * 3 + [3]
    assert seen.values(2) == batch.times() and seen.columns[2][2] == 0
    assert seen.values(3) == [1, 0] * 4 + [1, 1] and seen.values(4) == [*range(9), -5]
    assert seen.columns[5] == (0,) * 6 and seen.columns[6] == seen.columns[1]
    assert seen.key_codes == seen.columns[1][1]
    assert seen.at(seen.key_watermarks, f"{seen.keys}q") == [marks.watermark(k.encode()) for k in seen.strings(1)]
    assert all(column[1] % 8 == 0 for column in seen.columns)


def test_a_tick_names_the_quiet_keys(cache):
    r = rule(cache, reading(("$key", 4, 0), ("t", 1, 0)))
    marks = Watermarks(idle_ns=10**9)
    batch = m.batch(6)
    marks.observe(batch)
    tick = marks.tick(m.STREAM, batch.received_ns + 5 * 10**9)
    r.process(tick)
    seen = Seen(r)
    assert (seen.rows, seen.flags, seen.keys) == (0, 1, 3) and sorted(seen.strings(0)) == ["d0", "d1", "d2"]
    assert seen.at(seen.key_watermarks, "3q") == [marks.watermark(s.encode()) for s in seen.strings(0)]


def test_keys_are_given_to_rules_that_do_not_read_them(cache):
    r = rule(cache, reading(("t", 1, 0)))
    r.process(m.batch(5))
    seen = Seen(r)
    assert seen.keys == 3 and seen.at(seen.key_codes, "5I") == [0, 1, 2, 0, 1]


def test_large_and_small_batches_alternate(cache):
    r = rule(cache, m.module(process=m.ABOVE_4))
    for n in (1, 3000, 0, 7, 1000, 6000, 5):
        batch = m.batch(n)
        result = r.process(batch)
        assert result.out(batch).column("t") == [float(i) for i in range(5, n)] and result.out_count == max(0, n - 5)


def test_a_filter_keeps_the_input_schema_under_its_own_name(cache):
    r = rule(cache, m.module(process=m.ABOVE_4))
    assert r.is_filter and r.output_schema == Schema("probe", m.STREAM.fields, 1, "id", "at") and r.late_schema.stream == "probe.late"
    batch = m.batch(8)
    out = r.process(batch).out(batch)
    assert out.schema == r.output_schema and out.rows() == m.rows(8)[5:] and out.received_ns == batch.received_ns


def test_late_and_ignored_rows_are_told_apart(cache):
    r = rule(cache, m.module(m.data(0x400, 0x600, 0x604, 0, 0, 3, 0, 0, 0) + m.data(0x600, 0xFF03, 0x30), process="(i32.const 0x400)"))
    batch = m.batch(7)
    result = r.process(batch)
    assert (result.selected_count, result.late_count, result.ignored) == (2, 2, 3)
    assert result.late(batch).column("n") == [4, 5] and result.late(batch).schema == r.late_schema
    with pytest.raises(RuleError, match="ignored"):
        r.process(m.batch(6))


def test_a_row_is_not_selected_and_late(cache):
    r = rule(cache, m.module(m.data(0x400, 0x600, 0x600, 0, 0, 0, 0, 0, 0) + m.data(0x600, 1), process="(i32.const 0x400)"))
    with pytest.raises(RuleError, match="both"):
        r.process(m.batch())


@pytest.mark.parametrize(("inputs", "says"), [([("tmp", 1, 0)], "no field 'tmp'.*it has id str, t f64"), ([("t", 4, 0)], "t of stream s is f64, the rule needs str"),
                                              ([("id", 6, 0)], "needs a number"), ([("att", 5, 0)], "did you mean at?")])
def test_what_a_stream_lacks_is_said(cache, inputs, says):
    with pytest.raises(RuleError, match=says):
        rule(cache, reading(*inputs))


def test_a_rule_by_key_needs_a_key(cache):
    with pytest.raises(RuleError, match="give the stream a key"):
        rule(cache, reading(("$key", 4, 0)), schema=Schema("bare", (Field("t", "f64"),)))


# --- parameters

PARAMETERS = [{"name": "level", "type": "f64", "required": True, "min": 0, "max": 10, "summary": "l"}, {"name": "every", "type": "duration", "default": "10s", "max": "1h", "summary": "e"},
              {"name": "how", "type": "str", "default": "mean", "choices": ["mean", "max"], "summary": "h"}, {"name": "fields", "type": "field", "list": True, "default": [], "summary": "f"},
              {"name": "strict", "type": "bool", "default": False, "summary": "s"}, {"name": "depth", "type": "i64", "summary": "d"}]


def arguments(given):
    return m.checked(m.module(manifest={**m.MANIFEST, "parameters": PARAMETERS})).manifest.arguments(given, "hot")


def test_parameters_get_their_defaults_and_their_types():
    assert arguments({"level": 3, "every": "1.5s", "fields": ["a", "b"], "strict": True}) == {
        "level": (1, [3.0]), "every": (2, [1_500_000_000]), "how": (4, ["mean"]), "fields": (4, ["a", "b"]), "strict": (2, [1])}


@pytest.mark.parametrize(("given", "says"), [
    ({}, "rule hot: parameter level is missing"), ({"level": 11}, "level is 11, must be at most 10"), ({"level": True}, "must be of type f64"), ({"level": float("nan")}, "f64"),
    ({"level": 1, "evry": "1s"}, "no parameter 'evry'; did you mean every?"), ({"level": 1, "every": "2h"}, "at most 1h"), ({"level": 1, "every": "2 weeks"}, "duration"),
    ({"level": 1, "how": "median"}, "one of 'mean', 'max'"), ({"level": [1]}, "must be one value"), ({"level": 1, "fields": "a"}, "must be a list"), ({"level": 1, "depth": 2**63}, "i64")])
def test_what_is_wrong_with_a_parameter_is_said(given, says):
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        arguments(given)


def test_parameters_are_laid_out_as_the_abi_says():
    base, given = 0x1000, {"level": (1, [1.5, 2.5]), "n": (2, [-1]), "names": (4, ["ü", ""])}
    image = encode_params(given, base)
    count, entries = struct.unpack_from("<II", image)
    read = {}
    for i in range(count):
        name, size, kind, n, values, zero = struct.unpack_from("<6I", image, entries - base + 24 * i)
        assert values % (4 if kind == 4 else 8) == 0 and zero == 0
        found = struct.unpack_from(f"<{2 * n}I" if kind == 4 else f"<{n}{'d' if kind == 1 else 'q'}", image, values - base)
        if kind == 4:
            found = [image[a - base : a - base + s].decode() for a, s in zip(found[::2], found[1::2])]
        read[image[name - base : name - base + size].decode()] = (kind, list(found))
    assert read == given


def test_a_rule_refuses_its_parameters_in_its_own_words(cache):
    wasm = m.module(m.text(0x900, "10 is too much"), plan=[0, 0, 0, 0, 0, 0, 0, 0, 0x900, 14])
    with pytest.raises(RuleError, match="rule probe: 10 is too much"):
        rule(cache, wasm)


# --- state

COUNTER = """(global $calls (mut i32) (i32.const 0)) (global $wide (mut v128) (v128.const i64x2 1 2)) (global (mut f64) (f64.const nan:0x8000000000001))"""
COUNT = """(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
  (if (i32.eq (global.get $calls) (i32.const 2)) (then (drop (memory.grow (i32.const 3)))))
  (i32.store (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 4)) (global.get $calls))
  (i32.store (i32.const 0x400) (i32.const 0x600)) (i32.store (i32.const 0x600) (global.get $calls)) (i32.const 0x400)"""


def test_state_of_any_language_survives(cache):
    """Globals that the module never exported, and memory that has grown."""
    first = rule(cache, m.module(COUNTER, process=COUNT))
    for _ in range(3):
        first.process(m.batch())
    image = first.image()
    second = rule(cache, m.module(COUNTER, process=COUNT))
    second.load_image((memoryview(image[0]), memoryview(image[1])))
    assert second.memory_bytes == 7 * 65536 and second.image() == image and second.identity == first.identity
    for n in (5, 9, 0, 3000):
        batch = m.batch(n)
        a, b = first.process(batch), second.process(batch)
        assert a.out(batch).rows() == b.out(batch).rows()
    assert first.image() == second.image()


def test_equal_input_gives_equal_bytes(cache):
    images = []
    for _ in range(2):
        r = rule(cache, m.module(COUNTER, process=COUNT))
        for n in (10, 0, 1000, 3):
            r.process(m.batch(n))
        images.append(r.image())
    assert images[0] == images[1]


@pytest.mark.parametrize("spoil", [lambda a, b: (a[:-1], b), lambda a, b: (a[: 65536], b), (lambda a, b: (a, b[:-1])), lambda a, b: (a, b"\xff" * len(b)), lambda a, b: (a * 100, b)])
def test_a_state_of_something_else_is_refused(cache, spoil):
    r = rule(cache, m.module(COUNTER, process=COUNT))
    with pytest.raises(RuleError, match="saved state"):
        r.load_image(spoil(*r.image()))


def test_a_rule_that_keeps_trapping_is_put_in_quarantine(cache):
    r = rule(cache, m.module(process="unreachable"))
    for minute in (0, 20, 21, 40, 41, 42):
        batch = m.batch()
        batch.received_ns = minute * 60 * 10**9
        assert not r.quarantined
        with pytest.raises(RuleError):
            r.process(batch)
        r.reset()
    assert r.quarantined and r.traps == 6


# --- order

def test_rules_run_after_what_feeds_them():
    assert order([("c", "b.late"), ("a", "s"), ("b", "a"), ("d", "t")], ["s", "t"]) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("rules", "says"), [([("a", "b"), ("b", "c.late"), ("c", "a")], "circle: a -> c -> b -> a"), ([("a", "a")], "circle"), ([("a", "strem")], "did you mean stream"),
                                             ([("stream", "stream")], "another name"), ([("a", "stream"), ("a.late", "stream")], "another name")])
def test_rules_that_cannot_be_ordered_are_refused(rules, says):
    with pytest.raises(ConfigError, match=says):
        order(rules, ["stream"])


def test_the_manifest_may_only_lower_limits(cache):
    r = rule(cache, m.module(manifest={**m.MANIFEST, "limits": {"memory_bytes": 1 << 30, "time_ms": 5}}))
    assert (r.limits.memory_bytes, r.limits.time_ns) == (16 << 20, 5_000_000)
    assert json.dumps(r.limits.output_bytes)
