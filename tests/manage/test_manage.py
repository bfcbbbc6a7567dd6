"""Management: what is asked is decided, recorded and told of; what is refused changes nothing."""

import base64
import hashlib
import re

import pytest
from fake_core import CONFIG, Box
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from module_maker import rule

from edge.errors import ConfigError, DiskError, RuleError, TidegateError
from edge.host.module import Module
from edge.storage.disk import Disk
from gateway.deploy.jobs import UNFINISHED_MAX
from gateway.requests import ROUTES
from rulec import keys


@pytest.fixture
def box(tmp_path, monkeypatch, compiled):
    """The child reads real files: a real disk."""
    monkeypatch.chdir(tmp_path)
    compiled(tmp_path)
    made = Box(Disk())
    yield made
    made.close()


def digest(wasm):
    return hashlib.sha256(wasm).hexdigest()


def upload(box, wasm, size=400):
    offset = box.ask("upload.begin", digest=digest(wasm), size=len(wasm))["offset"]
    while offset < len(wasm):
        data = base64.b64encode(wasm[offset:offset + size]).decode()
        offset = box.ask("upload.chunk", digest=digest(wasm), offset=offset, data=data)["offset"]
    return digest(wasm)


def push(box, wasm, **fields):
    return box.wait(box.ask("rule.push", digest=upload(box, wasm), **fields))


def recorded(box):
    return [(line["what"], line["who"]) for line in box.ask("rule.audit")["lines"]]


def test_a_pushed_module_is_examined_kept_and_runs(box):
    job = push(box, rule("hot"), lanes=["main"], params={})
    assert job["state"] == "done" and (job["rule"], job["version"], job["policy"]) == ("hot", "hot@1", "keep"), job
    assert [c["check"] for c in job["report"]["checks"]] == ["module", "signature", "code", "input"]
    shown = box.ask("rule.show", rule="hot")
    assert shown["running"]["version"] == "hot@1" and shown["running"]["input"] == "s" and shown["running"]["lanes"] == ["main"]
    assert shown["version"]["who"] == "local:0" and shown["version"]["when_ns"] == 1_700_000_000 * 10**9
    assert recorded(box) == [("admitted", "local:0"), ("swapped", "local:0")]
    assert [e["what"] for e in box.ask("rule.logs", rule="hot")["events"]] == ["admitted", "swapped"]
    assert box.ask("upload.begin", digest=digest(rule("hot")), size=len(rule("hot")))["offset"] == len(rule("hot")), "it need not come again"
    assert [r["rule"] for r in box.ask("rule.ls")["rules"]] == ["hot"] and [v["label"] for v in box.ask("rule.ls")["versions"]] == ["hot@1"]


def test_a_push_over_a_running_rule_keeps_what_is_not_said(box):
    push(box, rule("hot"), rule="warm", lanes=["main"], limits={"time_ns": 5_000_000})
    job = push(box, rule("hot", 2), rule="warm", policy="replay", horizon="10m")
    assert job["state"] == "done" and job["policy"] == "replay"
    name, wanted, policy, horizon_ns, who = box.core.calls[-1]
    assert (wanted.rule, wanted.lanes, wanted.limits, policy, horizon_ns) == ("warm", ["main"], {"time_ns": 5_000_000}, "replay", 600 * 10**9)
    row = box.ask("rule.ls")["rules"][0]
    assert (row["version"], row["previous"]) == ("hot@2", "hot@1")
    back = box.wait(box.ask("rule.rollback", rule="warm"))
    assert back["state"] == "done" and box.core.deployments["warm"].digest == Module(rule("hot")).digest
    assert recorded(box)[-2:] == [("rollback", "local:0"), ("rolled back", "local:0")]


def test_what_admission_refuses_changes_nothing_and_is_recorded(box):
    job = push(box, rule("hot"), params={"no": 1})
    assert job["state"] == "failed" and "no parameter 'no'" in job["error"] and job["fault"] == "configuration"
    assert not box.core.deployments and not box.core.store.versions() and recorded(box) == [("refused", "local:0")]
    job = push(box, b"\0asm junk")
    assert job["state"] == "failed" and job["fault"] == "rule"
    assert len(box.log.lines) == 2


def test_versions_do_not_go_back_unless_forced(box):
    push(box, rule("hot", 2))
    older = push(box, rule("hot", 1))
    assert older["state"] == "failed" and "does not come after version 2" in older["error"]
    assert push(box, rule("hot", 1), force=True)["state"] == "done"
    other = push(box, rule("hot", 1, summary="other"), rule="third")
    assert other["state"] == "failed" and "in the store with another content" in other["error"]
    assert push(box, rule("hot", 1, summary="other"), rule="third", force=True)["state"] == "done"
    assert [line["forced"] for line in box.ask("rule.audit")["lines"] if "forced" in line] == [True, True]


def test_versions_do_not_go_back_either_when_two_are_on_their_way(box):
    push(box, rule("hot", 1))
    newer, older = (box.ask("rule.push", digest=upload(box, rule("hot", version))) for version in (3, 2))
    assert box.wait(newer)["state"] == "done"
    older = box.wait(older)
    assert older["state"] == "failed" and "does not come after version 3" in older["error"]
    assert box.ask("rule.ls")["rules"][0]["version"] == "hot@3"


def test_a_change_that_is_asked_for_again_after_a_restart_is_not_done_again(box):
    for version in (1, 2):
        push(box, rule("hot", version))
    assert box.wait(box.ask("rule.rollback", rule="hot", once="a-1"))["state"] == "done"
    box.close()
    box.start()
    with pytest.raises(TidegateError, match="recorded before.*rule audit"):
        box.ask("rule.rollback", rule="hot", once="a-1")
    assert box.ask("rule.ls")["rules"][0]["version"] == "hot@1"
    assert box.wait(box.ask("rule.rollback", rule="hot", once="a-2"))["state"] == "done"
    assert box.ask("rule.ls")["rules"][0]["version"] == "hot@2"


def test_parameters_nested_too_deeply_are_refused_in_words(box):
    push(box, rule("hot"))
    nested = []
    for _ in range(400):
        nested = [nested]
    with pytest.raises(TidegateError, match="nested"):
        box.ask("rule.set", rule="hot", params={"value": nested})
    with pytest.raises(TidegateError, match="nested"):
        box.ask("rule.push", digest="hot@1", params={"value": nested})


def test_a_stored_version_is_pushed_again_by_its_name(box):
    push(box, rule("hot", 1))
    push(box, rule("hot", 2))
    assert box.wait(box.ask("rule.push", digest="hot@1", rule="other"))["state"] == "done"
    assert box.core.deployments["other"].digest == Module(rule("hot", 1)).digest
    with pytest.raises(RuleError, match="has no 'hot@7'"):
        box.ask("rule.push", digest="hot@7")


def test_a_required_signature_is_asked_for(tmp_path, monkeypatch, compiled):
    monkeypatch.chdir(tmp_path)
    compiled(tmp_path)
    public = keys.generate(tmp_path / "key")
    config = CONFIG + f'[signing]\npolicy = "required"\nkeys = {{ plant = "{base64.b64encode(public).decode()}" }}\n'
    box = Box(Disk(), config)
    assert "is not signed" in push(box, rule("hot"))["error"]
    signed = keys.sign(rule("hot"), keys.load(tmp_path / "key"))
    assert push(box, signed)["state"] == "done"
    version = box.core.store.resolve("hot")
    assert version.signed_by == "plant" and version.file == digest(signed) and version.digest == digest(rule("hot"))
    assert box.ask("upload.begin", digest=digest(signed), size=len(signed))["offset"] == len(signed)
    box.close()


def test_a_shadow_is_pushed_and_promoted(box):
    assert "does not run" in push(box, rule("hot", 1), shadow=True)["error"]
    push(box, rule("hot", 1))
    assert push(box, rule("hot", 2), shadow=True)["state"] == "done"
    assert box.ask("rule.ls")["rules"][0]["shadow"] == "hot@2"
    assert box.ask("rule.diff", rule="hot") == {"rule": "hot"}
    assert box.wait(box.ask("rule.rm", version="hot@shadow"))["state"] == "done" and box.ask("rule.ls")["rules"][0]["shadow"] is None
    assert push(box, rule("hot", 2), shadow=True)["state"] == "done"
    assert box.wait(box.ask("rule.promote", rule="hot"))["state"] == "done"
    assert box.ask("rule.ls")["rules"][0]["version"] == "hot@2" and recorded(box)[-1] == ("promoted", "local:0")
    with pytest.raises(RuleError, match="has no shadow"):
        box.ask("rule.promote", rule="hot")


def test_parameters_change_one_by_one_and_none_takes_one_back(box):
    push(box, rule("hot", parameters=[{"name": n, "type": "f64", "summary": "x"} for n in "ab"]), params={"a": 1.0, "b": 2.0})
    assert box.ask("rule.set", rule="hot", params={"a": 3.0})["state"] == "done"
    assert box.core.deployments["hot"].params == {"a": 3.0, "b": 2.0}
    box.ask("rule.set", rule="hot", params={"b": None}, policy="fresh")
    assert box.core.deployments["hot"].params == {"a": 3.0} and box.core.calls[-1][2] == "fresh"
    assert [p["name"] for p in box.ask("rule.show", rule="hot")["parameters"]] == ["a", "b"]


def test_a_rule_is_disabled_enabled_and_removed(box):
    push(box, rule("hot"))
    box.ask("rule.disable", rule="hot")
    assert not box.core.deployments["hot"].enabled
    box.manager.handle({"do": "rule.enable", "rule": "hot"}, "token:ci")
    assert box.core.deployments["hot"].enabled
    with pytest.raises(RuleError, match="in use"):
        box.ask("rule.rm", version="hot@1")
    box.ask("rule.rm", rule="hot")
    with pytest.raises(TidegateError, match="no rule 'hot'"):
        box.ask("rule.set", rule="hot", params={})
    assert box.ask("rule.rm", version="hot@1") == {"removed": "hot@1"}
    assert [what for what, _ in recorded(box)][2:] == ["disable", "is disabled", "enable", "is enabled", "remove", "refused", "remove", "is removed", "remove"]


def test_a_swap_is_followed_and_its_failure_told(box):
    push(box, rule("hot"))
    box.core.turns = 5
    job = box.ask("rule.set", rule="hot", params={})
    assert job["state"] == "warming" and job["progress"] == 0.5
    assert box.wait(job)["state"] == "done"
    box.core.error = "the new one trapped"
    job = box.wait(box.ask("rule.set", rule="hot", params={}))
    assert job["state"] == "failed" and job["error"] == "the new one trapped"
    box.core.refuse = RuleError("hot: cannot be kept: use replay or fresh")
    with pytest.raises(RuleError, match="use replay"):
        box.ask("rule.set", rule="hot", params={})
    box.core.refuse = ZeroDivisionError("a bug")
    with pytest.raises(TidegateError, match="a mistake in the gateway"):
        box.ask("rule.set", rule="hot", params={})
    assert box.ask("rule.logs", rule="hot")["events"][-1]["what"] == "refused"


def test_changes_under_way_are_bounded(box):
    push(box, rule("hot"))
    box.core.turns = 10**9
    for _ in range(UNFINISHED_MAX):
        box.ask("rule.set", rule="hot", params={})
    with pytest.raises(TidegateError, match="try again"):
        box.ask("rule.set", rule="hot", params={})
    with pytest.raises(TidegateError, match="no job"):
        box.ask("job", id="99999")


def test_a_module_on_its_way_to_its_swap_is_not_evicted(box):
    box.core.turns = 10**9
    job = box.ask("rule.push", digest=upload(box, rule("hot")))
    while job["state"] != "warming":
        box.reactor.turn(0.02)
        job = box.ask("job", id=job["job"])
    assert Module(rule("hot")).digest in set(box.core.store.protected())


def test_what_the_core_does_by_itself_is_told_and_recorded(box):
    push(box, rule("hot"))
    box.core.on_event("trap", "hot", "unreachable")
    box.core.on_event("rollback", "hot", "the new version is in quarantine", who="gateway", automatic=True)
    assert recorded(box)[-1] == ("rolled back", "gateway")
    assert [e["what"] for e in box.ask("rule.logs", rule="hot")["events"]][-2:] == ["trap", "rolled back"]


def test_where_nothing_can_be_recorded_nothing_is_changed(box, monkeypatch):
    push(box, rule("hot"))
    monkeypatch.setattr(box.manager._audit, "append", lambda *a, **k: (_ for _ in ()).throw(DiskError("full")))
    with pytest.raises(DiskError):
        box.ask("rule.disable", rule="hot")
    assert box.core.deployments["hot"].enabled
    assert push(box, rule("cold"))["state"] == "failed" and not box.core.store.versions("cold")


def test_a_tampered_audit_log_is_named(box, tmp_path):
    push(box, rule("hot"))
    box.ask("rule.disable", rule="hot")
    assert box.ask("rule.audit", after=1, limit=1)["lines"][0]["n"] == 2 and box.ask("rule.audit")["broken"] is None
    file = next((tmp_path / "data/rules/audit").iterdir())
    file.write_bytes(file.read_bytes().replace(b'"is disabled"', b'"is enabled"', 1))
    box.clock_s += 5
    assert box.ask("rule.audit")["broken"]["line"] in (4, 0)


def test_whoever_asks_for_the_audit_log_again_and_again_does_not_have_it_verified_each_time(box, monkeypatch):
    push(box, rule("hot"))
    verified, verify = [], box.manager._audit.verify
    monkeypatch.setattr(box.manager._audit, "verify", lambda: verified.append(1) or verify())
    for _ in range(20):
        assert box.ask("rule.audit")["broken"] is None
    assert len(verified) == 1
    box.wait(box.ask("rule.disable", rule="hot"))
    assert box.ask("rule.audit")["head"][0] == box.manager._audit.head[0] and len(verified) == 2


# --- strange requests


@pytest.mark.parametrize(("request_", "says"), [
    (None, "no request"), ([], "no request"), ({}, "no request"), ({"do": 3}, "no request"), ({"do": "rule.pus"}, "no request 'rule.pus'"),
    ({"do": "rule.ls", "x": 1}, "rule.ls: .*unknown field"), ({"do": "rule.set", "rule": "x"}, "rule.set: .*params"),
    ({"do": "rule.push", "digest": "x" * 64, "policy": "never"}, "rule.push: .*policy"), ({"do": "rule.rm"}, "name a rule, or a version"),
    ({"do": "rule.push", "digest": "0" * 64, "horizon": "soon"}, "horizon is 'soon'"), ({"do": "rule.push", "digest": "0" * 64}, "rule store has no"),
    ({"do": "upload.chunk", "digest": "0" * 64, "offset": 0, "data": "?"}, "not base64"), ({"do": "rule.logs", "rule": "x"}, "no rule 'x'"),
    ({"do": "tail", "stream": "nothing"}, "no stream or rule 'nothing'"), ({"do": "rule.stats", "rule": "x"}, "no rule 'x'"),
])
def test_a_wrong_request_is_told_what_is_wrong(box, request_, says):
    with pytest.raises(TidegateError, match=says):
        box.manager.handle(request_, "local:0")


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.sampled_from(["hot", "hot@1", "0" * 64]),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6)
FIELDS = st.sampled_from(["digest", "size", "offset", "data", "rule", "input", "params", "limits", "lanes", "policy", "horizon", "shadow", "force", "id", "version",
                          "after", "limit", "stream"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(list(ROUTES)), fields=st.dictionaries(FIELDS, JSON, max_size=5))
def test_any_request_is_answered_or_refused_in_words(box, name, fields):
    try:
        box.manager.handle({"do": name, **fields}, "local:0")
    except (TidegateError, ConfigError) as error:
        assert str(error) and not re.search("Traceback", str(error))
