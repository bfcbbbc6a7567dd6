"""Taking over a state: what a hostile or clumsy module may answer, and that the old rule goes on whatever happens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_module import STREAM, batch, checked, module, u32

import tidegate_rules
from edge.errors import RuleError
from edge.host.limits import Limits
from edge.host.rule import Rule

SAVED = 0x700                            # where the modules below say what they saved
SPIN = "(loop $l (br $l)) (unreachable)"


def saver(save, body="", migrate="(i32.const 1)", pages=4) -> bytes:
    return module(f"""(func (export "tg_save") (result i32) {save})
      (func (export "tg_migrate") (param $saved i32) (param $from i32) (result i32) {migrate}) {body}""", pages=pages)


def says(address, size) -> bytes:
    return saver(f"(i32.const {SAVED})", f'(data (i32.const {SAVED}) "{u32(address, size)}") (data (i32.const 0x1000) "state!")')


def made(wasm, cache, **limits):
    return Rule("r", checked(wasm), {}, STREAM, cache=cache, limits=Limits(**limits))


def test_state_goes_over_and_the_old_rule_is_untouched(cache):
    old = made(says(0x1000, 6), cache)
    before = old.image()
    assert old.saved() == b"state!" and old.image() == before
    checks = """(i32.and (i32.eq (local.get $from) (i32.const 7)) (i32.and (i32.eq (i32.load offset=4 (local.get $saved)) (i32.const 6))
        (i32.eq (i32.load8_u (i32.load (local.get $saved))) (i32.const 115))))"""
    new = made(saver("(i32.const 0)", migrate=checks), cache)
    new.take_over(old.saved(), 7)
    new.process(batch())
    with pytest.raises(RuleError, match="refuses the state of state version 6"):
        new.take_over(old.saved(), 6)
    new.process(batch())


def test_no_state_is_a_state(cache):
    old = made(says(0, 0), cache)
    assert old.saved() == b""
    made(saver("(i32.const 0)"), cache).take_over(b"", 1)


def test_a_module_without_the_exports_says_so(cache):
    rule = made(module(), cache)
    assert rule.saved() is None
    with pytest.raises(RuleError, match="has no tg_migrate.*replay or fresh"):
        rule.take_over(b"x", 1)
    rule.process(batch())


@pytest.mark.parametrize(("save", "message"), [
    ("(i32.const 0x701)", "tg_save returned 0x701"),
    ("(i32.const -4)", "tg_save returned 0xfffffffc"),
    ("(i32.const 0x3fffc)", "tg_save returned 0x3fffc"),
    ("(i32.const 0)", "cannot write down its state"),
    ("(unreachable)", "trapped in tg_save"),
    (SPIN, "stopped in tg_save"),
    ("(memory.fill (i32.const 0) (i32.const 255) (i32.const 0x40000)) (i32.const 16)", "bytes of state are at 0xffffffff"),
    ("(drop (memory.grow (i32.const 10000))) (i32.load (i32.const 0x7ffffff0))", "trapped in tg_save"),
])
def test_a_bad_tg_save_is_named_and_the_old_rule_goes_on(save, message, cache):
    old = made(saver(save), cache, time_ns=1_000_000)
    old.process(batch())
    before = old.image()
    with pytest.raises(RuleError, match=message):
        old.saved()
    assert old.image() == before and old.traps == 0
    old.process(batch())


@pytest.mark.parametrize(("address", "size"), [(0, 1), (0x1000, 0x40000), (0x40000, 1), (0x3FFFF, 2), (0xFFFFFFFF, 2), (1, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_a_saved_state_outside_memory_is_not_read(address, size, cache):
    with pytest.raises(RuleError, match="bytes of state are at") as caught:
        made(says(address, size), cache).saved()
    assert caught.value.code == "bad output"


def test_a_saved_state_at_the_very_end_of_memory_is_read(cache):
    assert made(says(0x3FFFF, 1), cache).saved() == b"\0"


@pytest.mark.parametrize(("migrate", "message"), [
    ("(i32.const 0)", "refuses the state"),
    ("(i32.const 2)", "tg_migrate returned 2"),
    ("(i32.const -1)", "tg_migrate returned 4294967295"),
    ("(unreachable)", "trapped in tg_migrate"),
    (SPIN, "stopped in tg_migrate"),
])
def test_a_rule_that_does_not_take_over_stays_what_it_was(migrate, message, cache):
    new = made(saver("(i32.const 0)", migrate=migrate), cache, time_ns=1_000_000)
    before = new.image()
    with pytest.raises(RuleError, match=message):
        new.take_over(b"abc", 1)
    assert new.image() == before
    new.process(batch())


def test_a_state_larger_than_the_new_memory_limit_is_refused(cache):
    new = made(saver("(i32.const 0)"), cache, memory_bytes=1 << 20)
    with pytest.raises(RuleError, match="raise the rule's memory limit"):
        new.take_over(bytes(2 << 20), 1)


def test_time_to_save_grows_with_memory(cache):
    """A large state is not refused because writing it takes longer than a batch."""
    spin = f"""(local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const 20000000))))
        (i32.const {SAVED})"""
    assert made(saver(spin, pages=1024), cache, time_ns=1_000_000, memory_bytes=64 << 20).saved() == b""
    with pytest.raises(RuleError, match="stopped in tg_save"):
        made(saver(spin), cache, time_ns=1_000_000).saved()


@given(saved=st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_bytes_of_any_kind_are_refused_by_a_ready_made_rule(saved, cache):
    rule = Rule("w", tidegate_rules.path("window"), {"length": "10s", "fields": ["t"]}, STREAM, cache=cache)
    with pytest.raises(RuleError, match="refuses the state"):
        rule.take_over(saved, 1)
