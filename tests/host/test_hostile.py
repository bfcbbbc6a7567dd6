"""Modules that mean harm: each ends in a RuleError, harms no other rule, and takes no more than it was given."""

import struct
import time
from pathlib import Path

import pytest

import rule_module as m
from edge.errors import RuleError
from edge.host.limits import Limits
from edge.host.plan import Plan, Wrong
from edge.host.rule import Rule

EMIT_PLAN = [1, 2, 1, m.PLAN + 40, 3, m.PLAN + 56, 0, m.NONE, 0, 0]
OUTPUTS = f"""{m.text(0x90, "key")} {m.text(0x98, "v")} {m.text(0x9c, "b")}
  {m.data(m.PLAN + 56, 0x90, 3, 4, 0, 0x98, 1, 1, 0, 0x9c, 1, 3, 0)}
  {m.data(m.RESULT, 0, 0, 2, m.OUT, 0, 0, 0, 0)}
  {m.data(m.OUT, 4, 0x700, 0x720, 2, 0x730, 0x740, 1, 0x780, 0, 0, 0, 0, 3, 0x790, 0, 0, 0, 0)}
  {m.data(0x700, 0, 1)} {m.data(0x720, 3)} {m.data(0x730, 0, 1, 3)} {m.text(0x740, "aé")}
  {m.data(0x780, 0, 0x3FF00000, 0, 0x40000000)} {m.data(0x790, 0x0701)}"""
WILD = (0, 1, -1, 0x40000 - 1, 0x40000, 0x40001, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def rule(cache, wasm, **options):
    return Rule("probe", m.checked(wasm), {}, m.STREAM, cache=cache, **options)


def run_wild(cache, wasm, changed):
    """Whatever the module says, the host answers with a RuleError or a well-formed result."""
    try:
        r = rule(cache, wasm)
        batch = m.batch(10)
        result = r.process(batch)
        for made in (result.out(batch), result.late(batch)):
            made.rows()
        return True
    except RuleError as error:
        assert error.code in ("bad output", "trap", "limit", "refused"), changed
        return False


@pytest.fixture(scope="module")
def wild(cache):
    return Wild(cache)


class Wild:
    """The emitting module, with single words overwritten by hand through its image: compiled once."""

    def __init__(self, cache):
        self.rule = rule(cache, m.module(OUTPUTS, process=f"(i32.const {m.RESULT})", plan=EMIT_PLAN))
        self.image = self.rule.image()

    def with_word(self, address, value):
        memory = bytearray(self.image[0])
        memory[address : address + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")
        self.rule.reset()
        self.rule.load_image((memory, self.image[1]))
        batch = m.batch(10)
        try:
            result = self.rule.process(batch)
            result.out(batch).rows(), result.late(batch).rows()
            return result
        except RuleError as error:
            assert error.code == "bad output"
            return None


def test_the_probe_is_right_when_left_alone(wild):
    result = wild.with_word(0, 0)
    assert result.out(m.batch(10)).rows() == [{"key": "a", "v": 1.0, "b": True}, {"key": "é", "v": 2.0, "b": True}]


@pytest.mark.parametrize("value", WILD, ids=hex)
def test_every_word_of_the_result_may_be_wild(wild, value):
    words = [*range(m.RESULT, m.RESULT + 32, 4), *range(m.OUT, m.OUT + 72, 4), 0x700, 0x704, 0x720, 0x730, 0x734, 0x738, 0x740]
    for address in words:
        wild.with_word(address, value)


@pytest.mark.parametrize(("address", "value"), [(m.RESULT + 12, 0x3FFFC), (m.OUT + 4, 0x3FFFC), (m.OUT, 1), (m.OUT + 12, 0xFFFFFFFF), (m.OUT + 16, 0),
                                                (m.OUT + 20, 0x40000), (0x704, 2), (0x730, 2), (0x738, 0), (0x740, 0x80FFC000), (m.OUT + 28, 4),
                                                (m.RESULT + 16, 11), (m.RESULT + 8, 0x40000)])
def test_a_wrong_value_is_refused(wild, address, value):
    assert wild.with_word(address, value) is None


@pytest.mark.parametrize("value", WILD, ids=hex)
def test_every_word_of_the_plan_may_be_wild(value):
    memory = bytearray(0x40000)
    def put(address, *words):
        struct.pack_into(f"<{len(words)}I", memory, address, *words)
    put(m.PLAN, *EMIT_PLAN[:7], m.NONE, 0x700, 4)
    put(m.PLAN + 40, 0x80, 1, 1, 0)
    put(m.PLAN + 56, 0x90, 3, 4, 0, 0x98, 1, 1, 0, 0x9C, 1, 3, 0)
    memory[0x80:0x81], memory[0x90:0x93], memory[0x98:0x99], memory[0x9C:0x9D], memory[0x700:0x704] = b"t", b"key", b"v", b"b", b"no! "
    assert Plan.read(memory, m.PLAN).error == "no! "
    put(m.PLAN + 32, 0)
    for address in range(m.PLAN, m.PLAN + 104, 4):
        before = bytes(memory)
        put(address, value & 0xFFFFFFFF)
        try:
            plan = Plan.read(memory, m.PLAN)
            plan.error or plan.bind(m.STREAM, "probe", 1)
        except (Wrong, RuleError):
            pass
        memory[:] = before
    assert Plan.read(memory, m.PLAN).bind(m.STREAM, "probe", 1).output.key == "key"


@pytest.mark.parametrize("value", WILD, ids=hex)
def test_returned_addresses_may_be_wild(cache, value):
    assert not run_wild(cache, m.module(alloc=f"(i32.const {value})"), "alloc") or value == 0
    assert not run_wild(cache, m.module(opens=f"(i32.const {value})"), "open")
    assert run_wild(cache, m.module(process=f"(i32.const {value})"), "process") == (value == 0)


LOOP = "(loop $l (br $l)) (i32.const 0)"


@pytest.mark.parametrize(("where", "wasm"), [("process", lambda: m.module(process=LOOP)), ("open", lambda: m.module(opens=LOOP)), ("alloc", lambda: m.module(alloc=LOOP)),
                                             ("start", lambda: m.module("(func $s (loop $l (br $l))) (start $s)"))])
def test_an_endless_loop_is_stopped(cache, where, wasm):
    module = m.checked(wasm())
    cache.load(module)
    began = time.thread_time()
    with pytest.raises(RuleError, match="longer than 20 ms") as caught:
        Rule("probe", module, {}, m.STREAM, cache=cache, limits=Limits(time_ns=20_000_000)).process(m.batch())
    assert caught.value.code == "limit"
    assert 0.015 < time.thread_time() - began < 2


def test_bitmaps_are_copied_into_bytes_of_their_own(cache):
    r = rule(cache, m.module(m.data(m.RESULT, m.OUT, 0, 0, 0, 0, 0, 0, 0) + m.data(m.OUT, 0xFF), process=f"(i32.const {m.RESULT})"))
    assert r.process(m.batch(3)).selected_count == 3
    assert bytes([255])[0] == 255        # CPython shares bytes of length 1


def test_recursion_traps_and_says_where(cache):
    r = rule(cache, m.module("(func $f (export \"deep\") (param i32) (result i32) (i32.add (call $f (local.get 0)) (i32.const 1)))", process="(call $f (i32.const 0))"))
    with pytest.raises(RuleError, match="stack") as caught:
        r.process(m.batch())
    assert caught.value.code == "trap" and caught.value.backtrace and caught.value.digest == r.digest
    with pytest.raises(RuleError, match="made anew"):
        r._instance.process(m.batch())


def test_memory_grows_to_its_limit_and_no_further(cache):
    body = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (i32.const 0)"
    r = rule(cache, m.module(process=body), limits=Limits(memory_bytes=1 << 20, time_ns=1_000_000_000))
    r.process(m.batch())
    assert r.memory_bytes == 1 << 20


def test_a_large_first_memory_is_refused(cache):
    with pytest.raises(RuleError, match="asks for 19660800 bytes"):
        rule(cache, m.module(pages=300))


def test_tables_do_not_grow_past_their_limit(cache):
    with pytest.raises(RuleError, match="instantiated"):
        rule(cache, m.module("(table 100000 funcref)"))
    with pytest.raises(RuleError, match="table.grow"):
        rule(cache, m.module("(table $t 1 funcref)", process="(table.grow $t (ref.null func) (i32.const 100000))"))


def test_output_has_a_limit(cache):
    r = rule(cache, m.module(OUTPUTS, process=f"(i32.const {m.RESULT})", plan=EMIT_PLAN), limits=Limits(output_bytes=30))
    with pytest.raises(RuleError, match="limit"):
        r.process(m.batch())


def test_data_outside_the_memory_is_refused(cache):
    with pytest.raises(RuleError):
        rule(cache, m.module('(data (i32.const 0x3ffff) "ab")'))


def test_a_trap_leaves_other_rules_and_their_state_alone(cache):
    count = "(global.set $n (i32.add (global.get $n) (i32.const 1))) (i32.const 0)"
    good = rule(cache, m.module("(global $n (mut i32) (i32.const 0))", process=count))
    bad = rule(cache, m.module(process="unreachable"))
    good.process(m.batch())
    before = good.image()
    for _ in range(5):
        with pytest.raises(RuleError, match="unreachable"):
            bad.process(m.batch())
        bad.reset()
    assert good.image() == before
    good.process(m.batch())
    assert good.image() != before


def test_instances_that_are_thrown_away_leave_nothing(cache):
    r = rule(cache, m.module(process="(memory.fill (i32.const 0x9000) (i32.const 1) (i32.const 0x20000)) unreachable"))
    def churn(n):
        for _ in range(n):
            with pytest.raises(RuleError):
                r.process(m.batch(1))
            r.reset()
    churn(100)
    before = rss_kib()
    churn(500)
    assert rss_kib() - before < 4096


def rss_kib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4
