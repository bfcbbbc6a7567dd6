"""Samples run in the gateway's own engine, in virtual time: what passes, what differs and how that is told."""

import re
import time

import pytest
import tidegate_rules
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rule_module import ABOVE_4, module

from edge.decoding.contract import Contract, FieldSource
from edge.errors import ConfigError
from edge.host.module import Module
from edge.rehearsal.samples import parse
from edge.rehearsal.stand import S, Stand
from edge.rehearsal.trial import explain, run, updated

HEAD = "FIELD device str\nFIELD ts time ms\nFIELD temp f64 optional\nKEY device\nTIME ts\n"
WINDOW = HEAD + 'PARAM length = "10s"\nPARAM fields = ["temp"]\nPARAM functions = ["count", "sum"]\n'
TRAPS = module(process="(unreachable)")
FIELDS = [FieldSource("device", "str"), FieldSource("ts", "time", time_format="ms"), FieldSource("temp", "f64", required=False)]


def ready(name):
    return Module(tidegate_rules.path(name).read_bytes(), name)


def try_out(cache, rule, text, **settings):
    samples = parse(text, "x.samples")
    return samples, run(ready(rule) if isinstance(rule, str) else Module(rule, "probe"), samples, cache, **settings)


def passes(cache, rule, text):
    samples, report = try_out(cache, rule, text)
    assert report.passed, "\n".join(line for result in report.failures for line in explain(result))
    assert updated(samples, report) == text


def told(cache, rule, text):
    _, report = try_out(cache, rule, text)
    assert not report.passed
    return "\n".join(line for result in report.failures for line in explain(result))


def event(device, ts, temp="null"):
    return f'IN {{"device": "{device}", "ts": {ts}, "temp": {temp}}}\n'


# --- what the engine does


def test_windows_close_by_watermark_and_late_rows_are_said(cache):
    passes(cache, "window", WINDOW + "CASE one\n" + event("a", 1000, 20) + event("a", 9000, 22) + event("a", 10000, 1) +
           'OUT {"device": "a", "window_start": 0, "window_end": 10000, "count": 2, "temp_sum": 42}\n' +
           event("a", 2000, 5) + 'LATE {"device": "a", "ts": 2000, "temp": 5}\n' + event("a", 11000) + "IGNORED 1\n")


def test_a_silent_key_closes_after_idle_and_ticks_come_each_second(cache):
    text = WINDOW + "IDLE 30s\nLATENESS 2s\nCASE one\n" + event("a", 1500, 20) + "AT "
    out = 'OUT {"device": "a", "window_start": 0, "window_end": 10000, "count": 1, "temp_sum": 20}\n'
    passes(cache, "window", text + "41.999s\n")                     # watermark 1.5 + (42 - 1.5 - 30) - 2 = 10 s at 42 s
    passes(cache, "window", text + "42s\n" + out)


def test_watermark_moves_one_key_and_neither_the_clock_nor_another(cache):
    text = WINDOW + "CASE one\n" + event("a", 1500, 20) + event("b c", 2500, 1)
    passes(cache, "window", text + "WATERMARK a 9.999999999s\nWATERMARK a 10s\nOUT " +
           '{"device": "a", "window_start": 0, "window_end": 10000, "count": 1, "temp_sum": 20}\nWATERMARK a 3s\nRESTART\n' +
           event("a", 9999, 1) + 'LATE {"device": "a", "ts": 9999, "temp": 1}\n' +
           'WATERMARK "b c" 1970-01-01T00:00:10Z\nOUT {"device": "b c", "window_start": 0, "window_end": 10000, "count": 1, "temp_sum": 1}\n')
    passes(cache, "window", 'FIELD n i64\nPARAM length = "10s"\nPARAM functions = ["count"]\nCASE one\nIN {"n": 1}\nWATERMARK 10s\n' +
           'OUT {"window_start": "1970-01-01T00:00:00Z", "window_end": "1970-01-01T00:00:10Z", "count": 1}\n')
    assert "no event of key 'c' has come" in told(cache, "window", text + "WATERMARK c 1s\n")


def test_a_restart_goes_through_checkpoint_and_a_new_instance(cache):
    passes(cache, "window", WINDOW + "CASE one\n" + event("a", 1000, 20) + "RESTART\n" + event("a", 2000, 1) + "RESTART\nRESTART\n" + event("a", 10000, 0) +
           'OUT {"device": "a", "window_start": 0, "window_end": 10000, "count": 2, "temp_sum": 21}\n' + "RESTART\nAT 25h\n" +
           'OUT {"device": "a", "window_start": 10000, "window_end": 20000, "count": 1, "temp_sum": 0}\n')


def test_and_puts_an_event_into_the_same_batch(cache):
    late = event("a", 10000, 1), event("a", 1000, 2)
    passes(cache, "window", WINDOW + "CASE one\n" + late[0] + late[1] + 'LATE {"device": "a", "ts": 1000, "temp": 2}\n')
    passes(cache, "window", WINDOW + "CASE one\n" + late[0] + late[1].replace("IN", "AND") +
           'OUT {"device": "a", "window_start": 0, "window_end": 10000, "count": 1, "temp_sum": 2}\n')


def test_an_event_is_received_when_it_happened_unless_it_says_when(cache):
    silent = 'FIELD device str\nFIELD ts time s\nKEY device\nTIME ts\nPARAM after = "10s"\nCASE one\nIN {"device": "a", "ts": 0}\n'
    assert run(ready("missing"), parse(silent + 'IN {"device": "b", "ts": 100}\nOUT {"device": "a", "time": 10, "last_seen": 0, "silent": true}'), cache).passed
    passes(cache, "missing", silent + 'IN @1s {"device": "b", "ts": 100}\n')
    assert "does not go back to 1s" in told(cache, "missing", silent + 'AT 2s\nIN @1s {"device": "b", "ts": 100}\n')


def test_what_breaks_the_contract_is_dead_as_in_the_gateway(cache):
    passes(cache, "threshold", HEAD + 'PARAM field = "temp"\nPARAM value = 1\nCASE one\nIN {"device": "a", "ts": 1, "temp": "x"}\nDEAD field temp: expected f64\n'
           'IN {"device": \nDEAD not JSON\n' + event("a", 1) + "IGNORED 1\n")


def test_a_trap_is_said_and_three_of_them_are_quarantine(cache):
    passes(cache, TRAPS, "FIELD t f64\nCASE one\n" + 3 * 'IN {"t": 1}\nTRAP unreachable\n' + 'IN {"t": 1}\n')
    assert "TRAP trapped in tg_process: wasm `unreachable` instruction executed" in told(cache, TRAPS, 'FIELD t f64\nCASE one\nIN {"t": 1}\n')


def test_a_filter_gives_its_input_rows_and_times_in_their_own_format(cache):
    body = 'IN {"t": 4.5, "at": "1970-01-01T00:00:01Z"}\n'
    passes(cache, module(process=ABOVE_4), "FIELD t f64\nFIELD at time rfc3339\nTIME at\nCASE one\n" + body + body.replace("IN", "OUT"))
    passes(cache, module(process=ABOVE_4), "FIELD t f64\nFIELD at time us\nFIELD n i64 optional\nTIME at\nCASE one\n" +
           'IN {"t": 4.5, "at": 17}\nOUT {"at": 17, "t": 45e-1}\n')


def test_the_manifest_says_what_the_stream_holds_where_the_case_does_not(cache):
    manifest = {"name": "probe", "version": 1, "abi": 1, "summary": "x", "key": "id",
                "inputs": [{"name": "t", "type": "number"}, {"name": "id", "type": "str"}, {"name": "at", "type": "time", "optional": True}]}
    passes(cache, module(process=ABOVE_4, manifest=manifest), 'CASE one\nIN {"t": 5, "id": "x", "at": 7}\nOUT {"t": 5, "id": "x", "at": 7}\nWATERMARK x 7ms\n')
    assert "write FIELD lines" in told(cache, module(), "CASE one\nRESTART")


def test_a_refusal_can_be_expected(cache):
    passes(cache, "window", WINDOW + 'CASE one\nPARAM hop = "20s"\nREFUSED hop must be above 0 and at most length\n')
    assert "has no parameter 'lenght'" in told(cache, "window", WINDOW + 'CASE one\nPARAM lenght = "1s"\nRESTART\n')
    assert "x.samples:10: the rule runs, it should be refused: never" in told(cache, "window", WINDOW + "CASE one\nREFUSED never\n")


def test_numbers_that_json_has_not_are_spelled(cache):
    """Sums of doubles that overflow."""
    passes(cache, "window", WINDOW + "CASE one\n" + event("a", 0, "1e308") + event("a", 0, "1e308") + "WATERMARK a 10s\n" +
           'OUT {"device": "a", "window_start": 0, "window_end": 10000, "count": 2, "temp_sum": Infinity}\n')


# --- what is told


def test_a_difference_is_shown_with_lines_and_fields(cache):
    said = told(cache, "window", WINDOW + "CASE one\n" + event("a", 1000, 20) + event("a", 10000, 22) +
                'OUT {"device": "a", "window_start": 0, "window_end": 10000, "count": 2, "temp_sum": 20}\n')
    assert said == """\
     10  IN {"device": "a", "ts": 1000, "temp": 20}
     11  IN {"device": "a", "ts": 10000, "temp": 22}
-    12  OUT {"device": "a", "window_start": 0, "window_end": 10000, "count": 2, "temp_sum": 20}
+        OUT {"device": "a", "window_start": 0, "window_end": 10000, "count": 1, "temp_sum": 20.0}
?        count is 1, not 2"""


def test_what_no_line_says_must_not_happen(cache):
    said = told(cache, "window", WINDOW + "CASE one\n" + event("a", 1000) + "CASE two\n" + event("a", 1000, 1) + 'LATE {"device": "a", "ts": 1000, "temp": 1}\n')
    assert "+        IGNORED 1" in said and "-    13  LATE" in said


def test_an_update_writes_what_came_out_below_the_step_it_came_of_and_then_passes(cache):
    text = (WINDOW + "# keep me\nCASE one\n" + event("a", 1000, 20) + event("a", 10000, 22) + event("a", 20000, 22) +
            "OUT {}\n\n# and me\n" + event("a", 21000, "null") + 'IN {"device": 1}\n' + "CASE two\nPARAM hop = \"1h\"\nREFUSED so\n")
    samples, report = try_out(cache, "window", text)
    new = updated(samples, report)
    assert re.sub("(OUT|IGNORED|DEAD|REFUSED) .*\n", "", new) == re.sub("(OUT|REFUSED) .*\n", "", text)
    passes(cache, "window", new)
    words = [line.split(" ")[0] for line in new.splitlines()[9:]]
    assert words == ["CASE", "IN", "IN", "OUT", "IN", "OUT", "", "#", "IN", "IGNORED", "IN", "DEAD", "CASE", "PARAM", "REFUSED"]


# --- virtual time


def stand(cache, rule, params, every_tick, **settings):
    return Stand(ready(rule), Contract("env", ["env"], FIELDS, key="device", time="ts"), params, cache, every_tick=every_tick, **settings)


HISTORY = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 40_000), st.integers(0, 3)), min_size=1, max_size=8)
RULES = [("window", {"length": "10s", "hop": "3s", "fields": ["temp"]}), ("missing", {"after": "7s"}), ("dedup", {"id": "temp", "within": "20s"})]


@pytest.mark.parametrize("rule, params", RULES, ids=[name for name, _ in RULES])
@settings(max_examples=15, deadline=None)
@given(history=HISTORY)
def test_ticks_that_are_left_out_change_nothing(cache, rule, params, history):
    def play(every_tick):
        there, told = stand(cache, rule, params, every_tick, idle_ns=5 * S, lateness_ns=S), []
        for device, ms, temp in history:
            there.put([b'{"device": "%s", "ts": %d, "temp": %d}' % (device.encode(), ms, temp)], there.now_ns + ms * 10**6)
            told.append(there.taken())
        there.advance(there.now_ns + 60 * S)
        return told, there.taken()

    assert play(False) == play(True)


def test_keys_that_are_forgotten_at_once_or_apart_leave_the_same_order(cache):
    def play(every_tick):
        there = stand(cache, "window", {"length": "1h", "fields": ["temp"]}, every_tick=False)
        for at_s, device in enumerate(["a", "b", "c", "d", "e", "b", "d"]):
            there.put([b'{"device": "%s", "ts": %d, "temp": 1}' % (device.encode(), 23 * 3600_000)], at_s * S * 3)
        there.advance(24 * 3600 * S - 60 * S)
        there._every_tick = every_tick
        there.advance(24 * 3600 * S + 60 * S)
        return there.taken()

    assert play(False) == play(True)


def test_weeks_of_virtual_time_take_seconds(cache):
    """Two devices that report once an hour for four weeks, silent in between."""
    text = WINDOW.replace('"10s"', '"1h"') + "CASE one\n"
    expected = ""
    for hour in range(4 * 7 * 24):
        for device in "ab":
            if hour:
                expected = f'OUT {{"device": "{device}", "window_start": {(hour - 1) * 3600000}, "window_end": {hour * 3600000}, "count": 1, "temp_sum": 1}}\n'
            text += event(device, hour * 3600000, 1) + ""
    began = time.process_time()
    _, report = try_out(cache, "window", text + "AT 28d\n" + expected)
    assert time.process_time() - began < 20
    assert len(report.results[0].mismatches[0].actual) == 2 * (4 * 7 * 24 - 1)


STEPS = st.one_of(
    st.builds(event, st.sampled_from("ab"), st.integers(-10**4, 10**5) | st.sampled_from([2**62 // 10**6, 10**13]), st.sampled_from(["1", "null", '"x"', "1e400", "2.5"])),
    st.builds("AND {{\"device\": \"a\", \"ts\": {}}}\n".format, st.integers(0, 10**5)),
    st.builds("IN @{}s {{\"device\": \"b\", \"ts\": 1, \"temp\": 2}}\n".format, st.integers(0, 500)),
    st.builds("ADVANCE {}s\n".format, st.integers(0, 100) | st.just(10**6)),
    st.builds("AT {}s\n".format, st.integers(0, 1000) | st.just(2**62 // 10**9)),
    st.builds("WATERMARK {} {}s\n".format, st.sampled_from("abc"), st.integers(0, 1000)),
    st.just("RESTART\n"), st.just("OUT {}\n"), st.just("IGNORED 3\n"), st.just("DEAD x\n"),
)


@settings(max_examples=60, deadline=None)
@example(steps=[event("a", 0, "1"), 'AND {"device": "a", "ts": 0}\n', "ADVANCE 15s\n", event("a", 0, "null"), "OUT {}\n"])
@given(steps=st.lists(STEPS, min_size=1, max_size=12))
def test_whatever_the_steps_an_update_passes_or_a_line_says_why_not(cache, steps):
    text = WINDOW + "IDLE 5s\nCASE one\n" + "".join(steps)
    try:
        samples, report = try_out(cache, "window", text)
    except ConfigError as error:
        assert str(error).startswith("x.samples:")
        return
    (result,) = report.results
    if result.error:
        assert re.match(r"x\.samples:\d+: [A-Z]+: ", result.error) and updated(samples, report) == text
    else:
        passes(cache, "window", updated(samples, report))
