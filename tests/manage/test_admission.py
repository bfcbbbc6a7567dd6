"""Admission: the daemon's thread only watches; whatever the child does, there is one report, and nothing is left of the child."""

import base64
import hashlib
import os
import re
import time

import pytest
import wasmtime
from module_maker import rule
from rule_module import MANIFEST, STREAM, module, with_manifest

from edge.errors import TidegateError
from edge.host.module import CASES_SECTION, Module, with_section
from gateway.deploy.admission import WAITING_MAX, Admission
from gateway.reactor import Reactor
from rulec import keys


RUNNING = {"input": "s", "params": {}, "limits": None, "name": "hot", "version": 2, "digest": "0"}


@pytest.fixture
def reactor():
    reactor = Reactor()
    yield reactor
    reactor.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("admission") / "compiled")


def question(tmp_path, cache, wasm, running=None, **changes):
    path = tmp_path / "module.wasm"
    path.write_bytes(wasm)
    asked = {"rule": None, "input": None, "params": None, "limits": None} | {n: changes.pop(n) for n in ("rule", "input", "params", "limits") if n in changes}
    return {"path": str(path), "file": hashlib.sha256(wasm).hexdigest(), "cache": cache, "policy": "optional", "keys": {}, "force": False, "asked": asked,
            "rules": {"hot": RUNNING | running} if running else {}, "streams": {"s": STREAM.to_dict()}, "inputs": ["s"]} | changes


def wait(reactor, reports, count=1, timeout_s=60):
    until, turns = time.monotonic() + timeout_s, 0
    while len(reports) < count:
        assert time.monotonic() < until, reports
        reactor.turn(0.01)
        turns += 1
    assert turns > 1, "a turn waited for the child"
    return reports


def examine(reactor, asked, **options):
    reports = []
    admission = Admission(reactor, **options)
    admission.examine(asked, reports.append)
    report = wait(reactor, reports)[0]
    admission.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)           # nothing is left of it
    return report


def test_a_sound_module_is_examined_compiled_and_told_of(reactor, tmp_path, cache):
    report = examine(reactor, question(tmp_path, cache, rule("hot", 3), running={"version": 2}))
    assert report["ok"], report
    assert [c["check"] for c in report["checks"]] == ["module", "signature", "version", "code", "input"]
    assert report["module"]["digest"] == Module(rule("hot", 3)).digest and report["signed_by"] == ""
    assert report["plan"] == {"rule": "hot", "input": "s", "params": {}, "limits": None}
    assert any(name.endswith(".cwasm") for name in os.listdir(cache)), "the daemon will map it"


POOR = STREAM.to_dict() | {"fields": [f for f in STREAM.to_dict()["fields"] if f[0] != "t"]}
REFUSALS = {                             # name: (module, question, what the reason says, the last check passed)
    "junk": (b"\0asm junk", {}, "version 1 is supported", None),
    "imports": (with_manifest(wasmtime.wat2wasm('(module (import "a" "b" (func)))'), MANIFEST), {}, "imports a.b; a rule imports nothing", None),
    "invalid code": (rule().replace(b"\x20\x00", b"\x20\x7f", 1), {}, "not a module for rules", "signature"),
    "unsigned": (rule(), {"policy": "required"}, "is not signed", "module"),
    "older": (rule("hot", 1), {"running": {"version": 2}}, "does not come after version 2.*rollback", "signature"),
    "the same version": (rule("hot", 2), {"running": {"version": 2}}, "does not come after version 2", "signature"),
    "an endless start": (module(opens="(loop (result i32) (br 0))"), {}, "longer than 10 ms", "code"),
    "a parameter": (rule(), {"params": {"limt": 3}}, "no parameter 'limt'", "code"),
    "an unknown stream": (rule(), {"input": "x"}, "no stream or rule 'x' to read; there are s", "signature"),
    "no stream named": (rule(), {"streams": {"s": POOR, "u": POOR}, "inputs": ["s", "u"]}, "which stream shall probe read.*there are s, u", "signature"),
    "a missing field": (rule(), {"streams": {"s": POOR}}, "t", "code"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_may_not_run_is_refused_with_the_reason(reactor, tmp_path, cache, name):
    wasm, changes, says, last = REFUSALS[name]
    report = examine(reactor, question(tmp_path, cache, wasm, **changes))
    assert not report["ok"] and re.search(says, report["why"]), report
    assert not re.search("\n|Traceback|status", report["why"]), report["why"]
    assert (report["checks"] or [{"check": None}])[-1]["check"] == last, report


def test_an_older_version_may_be_forced(reactor, tmp_path, cache):
    report = examine(reactor, question(tmp_path, cache, rule("hot", 1), running={"version": 2}, force=True))
    assert report["ok"] and "1 after 2, forced" in [c["said"] for c in report["checks"]]


def test_the_signer_is_found_out_and_a_changed_module_refused(reactor, tmp_path, cache):
    public = keys.generate(tmp_path / "key")
    signed = keys.sign(rule("hot"), keys.load(tmp_path / "key"))
    asked = {"policy": "required", "keys": {"plant": base64.b64encode(public).decode()}}
    assert examine(reactor, question(tmp_path, cache, signed, **asked))["signed_by"] == "plant"
    changed = signed.replace(b"for tests", b"for TESTS")
    assert changed != signed
    report = examine(reactor, question(tmp_path, cache, changed, **asked | {"policy": "optional"}))
    assert not report["ok"] and "changed after it was signed" in report["why"]


CASES = """FIELD id str
FIELD t f64

CASE above four
IN {"id": "a", "t": 5.0}
OUT {"id": "a", "t": 5.0}

CASE below
IN {"id": "a", "t": %s}
"""


def test_the_embedded_samples_are_run(reactor, tmp_path, cache):
    report = examine(reactor, question(tmp_path, cache, with_section(rule(), CASES_SECTION, (CASES % "3.0").encode())))
    assert report["ok"] and report["checks"][-1] == report["checks"][-1] | {"check": "samples", "said": "2 passed"}
    report = examine(reactor, question(tmp_path, cache, with_section(rule(), CASES_SECTION, (CASES % "5.0").encode())))
    assert not report["ok"] and "1 of its 2 samples fail, the first is 'below'" in report["why"]
    assert any(line.startswith("+") and "OUT" in line for line in report["details"]), report["details"]
    report = examine(reactor, question(tmp_path, cache, with_section(rule(), CASES_SECTION, b"IN nonsense")))
    assert not report["ok"] and "the embedded samples:1" in report["why"] and report["fault"] == "rule"


def test_bytes_that_are_not_those_that_came_are_refused(reactor, tmp_path, cache):
    report = examine(reactor, question(tmp_path, cache, rule(), file="0" * 64))
    assert not report["ok"] and report["fault"] == "disk" and "push the module again" in report["why"]


@pytest.mark.parametrize(("child", "says"), [
    ("import time; time.sleep(60)", "more than 1 s"),
    ("import os, time; os.fork() or time.sleep(60)", "more than 1 s"),
    ("import subprocess; subprocess.run(['sleep', '60'])", "more than 1 s"),
    ("import time; print('{\"ok\": true}', flush=True); time.sleep(60)", "more than 1 s"),
    ("while True: print('x' * 9999)", "says more than 256 KiB"),
    ("import resource; resource.setrlimit(resource.RLIMIT_CPU, (0, 1))\nwhile True: pass", "s of CPU"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "status -11"),
    ("raise SystemExit('out of luck')", "status 1.*out of luck"),
    ("print('[' * 100000); print('null'); print('{}')", "status 0.*nothing was said"),
    ("import os; os.close(1); os.close(0)", "status 0|s of CPU"),
])
def test_a_child_that_fails_in_any_way_is_a_refusal_and_is_gone(reactor, tmp_path, child, says):
    report = examine(reactor, {}, wall_s=1.0, command=("-c", child))
    assert not report["ok"] and re.search(says, report["why"]), report


def test_one_at_a_time_and_the_queue_is_bounded(reactor):
    """The child says how many of its kind there are."""
    reports = []
    child = "import json, sys; print(json.dumps({'ok': True, 'n': json.load(sys.stdin)['n']}))"
    admission = Admission(reactor, command=("-c", child))
    for n in range(WAITING_MAX + 1):
        admission.examine({"n": n, "padding": "x" * 200_000}, reports.append)
    with pytest.raises(TidegateError, match="try again"):
        admission.examine({"n": 9}, reports.append)
    wait(reactor, reports, WAITING_MAX + 1)
    assert [r["n"] for r in reports] == list(range(WAITING_MAX + 1))


def test_close_kills_what_runs_and_tells_nobody(reactor):
    reports = []
    admission = Admission(reactor, command=("-c", "import time; time.sleep(60)"))
    admission.examine({}, reports.append)
    admission.examine({}, reports.append)
    admission.close()
    reactor.turn(0)
    assert not reports
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_without_a_process_the_module_is_refused_and_it_is_said_why(reactor, monkeypatch):
    def no_child(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("gateway.deploy.admission.Child", no_child)
    reports = []
    Admission(reactor).examine({}, reports.append)
    reactor.turn(0.01)
    assert not reports[0]["ok"] and "Cannot allocate memory: free memory" in reports[0]["why"]
