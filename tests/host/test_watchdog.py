"""The watchdog and the bindings: who is stopped, who is not, and which library is refused."""

import ctypes
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import rule_module as m
from edge.errors import RuleError
from edge.host import _wasmtime
from edge.host.limits import Limits
from edge.host.rule import Rule

LOOP = "(loop $l (br $l)) (i32.const 0)"


def test_the_watchdog_sleeps_while_no_rule_runs(cache):
    rule = Rule("probe", m.checked(m.module()), {}, m.STREAM, cache=cache)
    rule.process(m.batch())
    time.sleep(0.02)
    before = _wasmtime.looks()
    time.sleep(0.2)
    assert _wasmtime.looks() == before


def test_only_the_call_that_took_too_long_is_stopped(cache):
    """A rule in another thread, whose calls alternate with those that are stopped, never is."""
    good = Rule("good", m.checked(m.module(process=m.ABOVE_4)), {}, m.STREAM, cache=cache)
    bad = Rule("bad", m.checked(m.module(process=LOOP)), {}, m.STREAM, cache=cache, limits=Limits(time_ns=2_000_000))
    batch, failures, done = m.batch(1000), [], threading.Event()

    def work():
        while not done.is_set():
            try:
                assert good.process(batch).out_count == 995
            except Exception as error:
                failures.append(error)
                return

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(30):
        with pytest.raises(RuleError, match="longer than 2 ms"):
            bad.process(batch)
        bad.reset()
    done.set()
    thread.join()
    assert not failures and good.calls > 0


def test_larger_batches_get_more_time(cache):
    body = """(local $n i32) (local.set $n (i32.const 40000000)) (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (i32.const 0)"""
    rule = Rule("probe", m.checked(m.module(process=body, pages=128)), {}, m.STREAM, cache=cache, limits=Limits(time_ns=1_000_000))
    assert rule.process(m.batch(200_000)).out_count == 0


def test_a_rule_is_not_entered_twice(cache):
    rule = Rule("probe", m.checked(m.module(process=LOOP)), {}, m.STREAM, cache=cache, limits=Limits(time_ns=300_000_000))
    thread = threading.Thread(target=lambda: pytest.raises(RuleError, rule.process, m.batch()))
    thread.start()
    time.sleep(0.1)
    with pytest.raises(RuntimeError, match="in use"):
        rule.process(m.batch())
    thread.join()


def test_another_wasmtime_is_refused():
    from wasmtime import _ffi

    expected = _wasmtime._expected()
    _wasmtime._check(expected, _ffi.dll)
    expected["wasmtime_func_call_unchecked"] = expected["wasmtime_func_call_unchecked"][:-1]
    with pytest.raises(ImportError, match="tidegate was built for"):
        _wasmtime._check(expected, _ffi.dll)
    with pytest.raises(ImportError, match="wasmtime_gone"):
        _wasmtime._check({"wasmtime_gone": [ctypes.c_int]}, object())


def test_a_trap_does_not_end_a_process_with_faulthandler(tmp_path):
    script = f"""
import faulthandler, sys
faulthandler.enable()
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]}
import rule_module as m
from edge.host.compile import Cache
from edge.host.rule import Rule
try:
    Rule("probe", m.checked(m.module(process="(i32.load (i32.const 0x7fffffff))")), {{}}, m.STREAM, cache=Cache({str(tmp_path / "c")!r})).process(m.batch())
except Exception as error:
    print(error.code, error)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert said.stdout.startswith("trap rule probe: trapped in tg_process: out of bounds memory access"), said
