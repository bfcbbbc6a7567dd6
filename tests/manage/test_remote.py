"""One Remote, whatever the way: the local socket here; the others in test_api and test_mqtt_manage."""

import hashlib
import os
import random
import threading

import pytest

from edge.errors import ConfigError, RuleError, TidegateError
from gateway.manage import remote
from gateway.requests import ROUTES, NoAnswer
from fake_manager import Box

WASM = random.Random(5).randbytes(100_000)


@pytest.fixture
def box(tmp_path):
    one = Box(tmp_path)
    yield one
    one.close()


def test_a_module_goes_over_in_chunks_and_its_progress_is_told(box):
    steps = []
    digest = remote.connect(box.directory).push(WASM, lambda there, size: steps.append((there, size)))
    assert box.manager.complete[digest] == WASM
    assert steps[0] == (0, 100_000) and steps[-1] == (100_000, 100_000) and steps == sorted(steps) and len(steps) == 5


def test_an_upload_goes_on_where_it_ended(box):
    there = remote.connect(box.directory)
    digest = hashlib.sha256(WASM).hexdigest()
    there.begin(digest, len(WASM))
    there.chunk(digest, len(WASM), 0, WASM[:32768])
    box.manager.asked.clear()
    assert there.push(WASM) == digest and box.manager.complete[digest] == WASM
    assert [request["offset"] for request in box.manager.did("upload.chunk")] == [32768, 65536, 98304]


def test_a_module_that_is_there_is_not_sent_again(box):
    there = remote.connect(box.directory)
    there.push(WASM)
    box.manager.asked.clear()
    there.push(WASM)
    assert [request["do"] for request, _ in box.manager.asked] == ["upload.begin"]


def test_an_upload_waits_for_a_gateway_that_restarts(box, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "RETRY_S", 0.05)
    there, boxes = remote.connect(box.directory), []
    kept = box.manager
    box.close()

    def restart():
        boxes.append(Box(tmp_path))
        boxes[0].manager = kept

    timer = threading.Timer(0.3, restart)
    timer.start()
    try:
        assert kept.complete == {}
        digest = there.push(WASM, patience_s=20)
        assert kept.complete[digest] == WASM
    finally:
        timer.join()
        box.close = boxes[0].close


def test_an_upload_begins_again_with_a_gateway_that_knows_nothing_of_it(box, monkeypatch):
    monkeypatch.setattr(remote, "RETRY_S", 0.01)
    steps = []

    def forget_once(reached, size):
        steps.append(reached)
        if len(steps) == 3:
            box.manager.uploads.clear()

    digest = remote.connect(box.directory).push(WASM, forget_once)
    assert box.manager.complete[digest] == WASM and steps.count(0) == 2


def test_an_upload_gives_up_when_nobody_comes_back(tmp_path):
    with pytest.raises(NoAnswer, match="is it running"):
        remote.connect(str(tmp_path)).push(WASM, patience_s=0.05)


def test_an_upload_that_never_grows_ends_with_an_error(box):
    box.manager._upload_chunk = lambda request: {"offset": 0}
    with pytest.raises(TidegateError, match="does not get beyond 0 bytes"):
        remote.connect(box.directory).push(WASM, patience_s=0.05)


def test_the_record_names_the_user_and_no_other_that_is_claimed(box):
    there = remote.Local(box.directory)
    there.ask({"do": "rule.ls"})
    remote.Local(box.directory, who="token:ann").ask({"do": "rule.ls"})
    remote.Local(box.directory, who="mqtt:upstream").ask({"do": "rule.ls"})
    remote.Local(box.directory, who="token:" + "a" * 100).ask({"do": "rule.ls"})
    me = f"local:{os.getuid()}"
    assert [who for _, who in box.manager.asked] == [me, "token:ann", me, me]


def test_an_error_names_whose_fault_it_is(box):
    there = remote.connect(box.directory)
    with pytest.raises(RuleError, match="no version before"):
        there.ask({"do": "rule.rollback", "rule": "hot"})
    with pytest.raises(TidegateError, match="no rule 'hot'"):
        there.ask({"do": "rule.show", "rule": "hot"})
    with pytest.raises(TidegateError, match="a mistake in the gateway") as caught:
        there.ask({"do": "rule.promote", "rule": "hot"})
    assert caught.value.fault == "gateway"


@pytest.mark.parametrize("where, problem", [
    ("ftp://a", "not a gateway's address"), ("https://", "not a gateway's address"), ("https://a:99999", "ort"), ("https://a:1/v1", "ends with the port"),
    ("mqtt://broker", "name is missing"), ("mqtt://broker/a/b", "name is missing"), ("mqtt://broker/+", "name is missing"),
])
def test_an_address_that_is_none_is_explained(where, problem):
    with pytest.raises(ConfigError, match=problem):
        remote.connect(where)


def test_a_token_does_not_go_over_the_network_in_the_clear():
    with pytest.raises(ConfigError, match="in the clear"):
        remote.connect("http://192.0.2.1:80", token="secret")
    remote.connect("http://127.0.0.1:80", token="secret")


def test_nobody_there_is_one_line(tmp_path):
    for where in (str(tmp_path), "http://127.0.0.1:9", "mqtt://127.0.0.1:9/g1"):
        with pytest.raises(NoAnswer) as caught:
            remote.connect(where).ask({"do": "rule.ls"})
        assert "\n" not in str(caught.value)


def test_every_path_of_the_table_is_filled_by_its_request():
    there = remote.Api("127.0.0.1", 9)
    called = []
    there._call = lambda method, path, *rest, **more: called.append((method, path))
    there.ask({"do": "rule.stats"})
    there.ask({"do": "rule.stats", "rule": "hot"})
    there.ask({"do": "rule.rm", "version": "hot@3"})
    there.ask({"do": "tail", "stream": "hot.late", "after": 7})
    there.ask({"do": "rule.set", "rule": "hot", "params": {}})
    assert called == [("GET", "/stats"), ("GET", "/rules/hot/stats"), ("DELETE", "/versions/hot%403"), ("GET", "/tail/hot.late?after=7"),
                      ("PUT", "/rules/hot/params")]
    with pytest.raises(ConfigError, match="there is no request"):
        there.ask({"do": "reboot"})
    assert {route.writes for name, route in ROUTES.items() if route.method != "GET"} == {True}
