"""Management topics against a real broker: links cut, messages twice, two tools at once, retained and hostile requests."""

import json
import random
import re
import threading
import time
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from count_world import MOSQUITTO, Mosquitto
from edge.errors import RuleError, UpstreamError
from gateway import client
from gateway.forward.upstream import Upstream
from gateway.manage import mailbox, postbox, remote
from gateway.manage.mailbox import Mailbox, decode
from gateway.reactor import Reactor
from gateway.requests import NoAnswer
from fake_manager import FakeManager
from site_world import free_port

WASM = random.Random(6).randbytes(200_000)
IN, OUT = mailbox.topics("g1")
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt install mosquitto")


class Gateway:
    """An Upstream without lanes but with a mailbox, in a thread of its own."""

    def __init__(self, port, version=5, **options):
        self.manager, self.reactor, self.events = FakeManager(), Reactor(), []
        self.mailbox = Mailbox(self.reactor, "g1", self.manager.handle, self._event)
        self.upstream = Upstream(self.reactor, [], host="127.0.0.1", port=port, client_id="gateway-g1", version=version, mailbox=self.mailbox,
                                 on_event=self._event, **options)
        self.upstream.start()
        self._ends = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _event(self, *event):
        self.events.append(event)

    def _run(self):
        while not self._ends:
            self.reactor.turn(0.2)

    def cut(self):
        """The connection breaks, now or at the reactor's next turn."""
        self.reactor.soon(lambda: self.upstream._link.drop("cut by the test"))

    def close(self):
        self._ends = True
        self.reactor.soon(bool)
        self._thread.join()
        self.upstream.close()
        self.reactor.close()


class Tool:
    """A client that says exactly what the test wants said."""

    def __init__(self, port, answers=OUT):
        self.answers, ready = [], threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_connect = lambda c, *_: c.subscribe(answers, 1)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = lambda c, d, m: self.answers.append(m)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert ready.wait(10)

    def say(self, request, topic=IN, retain=False, **properties):
        payload = request if isinstance(request, bytes) else json.dumps(request).encode()
        wanted = Properties(PacketTypes.PUBLISH)
        for name, value in properties.items():
            setattr(wanted, name, value)
        self.client.publish(topic, payload, 1, retain, wanted).wait_for_publish(10)

    def wait(self, count):
        """The first `count` answers, decoded."""
        wait_for(lambda: len(self.answers) >= count)
        return [json.loads(m.payload) for m in self.answers]

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


def wait_for(holds, seconds=60):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come to hold"
        time.sleep(0.01)


@pytest.fixture
def broker(tmp_path):
    one = Mosquitto(tmp_path, free_port())
    yield one
    one.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client, "BACKOFF_MIN_S", 0.05)
    monkeypatch.setattr(client, "BACKOFF_MAX_S", 0.2)
    monkeypatch.setattr(postbox, "REPEAT_S", 0.3)
    for name in ("RATE", "BURST"):
        monkeypatch.setattr(mailbox, name, 10_000.0)


@pytest.fixture
def gateway(broker):
    one = Gateway(broker.port)
    wait_for(lambda: one.mailbox.listening)
    yield one
    one.close()


@pytest.fixture
def tool(broker):
    one = Tool(broker.port)
    yield one
    one.stop()


@needs_broker
@pytest.mark.parametrize("version", [4, 5])
def test_a_module_goes_through_the_broker(broker, version):
    gateway = Gateway(broker.port, version)
    try:
        with remote.connect(f"mqtt://127.0.0.1:{broker.port}/g1") as there:
            digest = there.push(WASM)
            assert gateway.manager.complete[digest] == WASM
            assert there.ask({"do": "rule.push", "digest": digest})["job"] == "1"
            with pytest.raises(RuleError, match="no version before"):
                there.ask({"do": "rule.rollback", "rule": "hot"})
        assert {who for _, who in gateway.manager.asked} == {"mqtt:upstream"}
    finally:
        gateway.close()


@needs_broker
def test_an_upload_survives_cut_links_and_a_restarted_broker(broker, gateway):
    handle, seen = gateway.manager.handle, []

    def handle_and_cut(request, who):
        seen.append(request["do"])
        answer = handle(request, who)
        if len(seen) in (2, 5):
            gateway.cut()
        if len(seen) == 4:
            threading.Thread(target=broker.restart, args=(0.1,)).start()
        return answer

    gateway.mailbox._handle = handle_and_cut
    with remote.connect(f"mqtt://127.0.0.1:{broker.port}/g1") as there:
        digest = there.push(WASM)
    assert gateway.manager.complete[digest] == WASM
    offsets = [request["offset"] for request in gateway.manager.did("upload.chunk")]
    assert offsets == sorted(set(offsets)), f"a chunk was handled twice: {offsets}"
    assert gateway.upstream.status()["connects"] >= 3


@needs_broker
def test_a_request_that_comes_again_is_done_once_and_answered_again(gateway, tool):
    request = {"id": "a-1", "request": {"do": "rule.rollback", "rule": "hot"}}
    for _ in range(3):
        tool.say(request)
    answers = tool.wait(3)
    assert answers[0] == answers[1] == answers[2] == {"id": "a-1", "ok": False, "error": "there is no version before", "fault": "rule"}
    assert len(gateway.manager.did("rule.rollback")) == 1
    tool.say({"id": "a-1", "request": {"do": "rule.rollback", "rule": "cold"}})
    assert "was another request's" in tool.wait(4)[3]["error"]
    assert len(gateway.manager.did("rule.rollback")) == 1


@needs_broker
def test_a_retained_request_is_never_carried_out(broker, tool):
    tool.say({"id": "old", "request": {"do": "rule.rm", "rule": "hot"}}, retain=True)
    gateway = Gateway(broker.port, version=4)        # MQTT 3.1.1 has no word to decline retained messages
    try:
        wait_for(lambda: gateway.mailbox.listening)
        tool.say({"id": "new", "request": {"do": "rule.ls"}})
        assert [answer["id"] for answer in tool.wait(1)] == ["new"]
        assert not gateway.manager.did("rule.rm")
    finally:
        gateway.close()


@needs_broker
def test_two_tools_at_once_get_their_own_answers(broker, gateway):
    results = {}

    def push(number):
        wasm = random.Random(number).randbytes(150_000)
        with remote.connect(f"mqtt://127.0.0.1:{broker.port}/g1") as there:
            results[number] = there.push(wasm), wasm

    tools = [threading.Thread(target=push, args=(number,)) for number in (1, 2)]
    for thread in tools:
        thread.start()
    for thread in tools:
        thread.join()
    assert {digest: wasm for digest, wasm in results.values()} == gateway.manager.complete


@needs_broker
def test_answers_go_where_they_are_wanted_but_not_outside(broker, gateway, tool):
    mine = Tool(broker.port, OUT + "/me")
    other = Tool(broker.port, "tidegate/g1/alerts")
    try:
        mine.say({"id": "1", "request": {"do": "rule.ls"}}, ResponseTopic=OUT + "/me", CorrelationData=b"\x01\x02")
        assert mine.wait(1)[0]["ok"] and mine.answers[0].properties.CorrelationData == b"\x01\x02"
        mine.say({"id": "2", "request": {"do": "rule.ls"}}, ResponseTopic="tidegate/g1/alerts")
        wait_for(lambda: gateway.mailbox.malformed == 1)
        assert not other.answers and len(gateway.manager.asked) == 1
        assert any("answers go to" in message for _, message in gateway.events)
    finally:
        mine.stop()
        other.stop()


@needs_broker
def test_what_cannot_be_read_is_answered_and_the_next_request_served(gateway, tool):
    for wrong in (b"{", b"\xc1", b"", b'{"id": 5, "request": {"do": "rule.ls"}}', b'{"id": "x"}', b"[" * 50_000, b"{" + b" " * 100_000 + b"}"):
        tool.say(wrong)
    tool.say({"id": "good", "request": {"do": "rule.stats"}})
    wait_for(lambda: len(tool.answers) == 8)
    assert json.loads(tool.answers[-1].payload) == {"id": "good", "ok": True, "value": {"did": "rule.stats"}}
    assert gateway.mailbox.malformed == 7 and gateway.upstream.status()["connects"] == 1


@needs_broker
def test_a_packet_too_long_ends_the_connection_and_nothing_else(broker, tool):
    gateway = Gateway(broker.port, version=4)        # at MQTT 5 the broker keeps to Maximum Packet Size
    try:
        wait_for(lambda: gateway.mailbox.listening)
        tool.say(b"x" * (1 << 20))
        wait_for(lambda: gateway.upstream.status()["connects"] == 2)
        wait_for(lambda: gateway.mailbox.listening)
        tool.say({"id": "good", "request": {"do": "rule.ls"}})
        assert tool.wait(1)[0]["ok"]
    finally:
        gateway.close()


@needs_broker
def test_a_flood_is_bounded_and_a_mistake_in_the_gateway_does_not_stop_it(gateway, tool, monkeypatch):
    monkeypatch.setattr(mailbox, "RATE", 20.0)
    gateway.mailbox._tokens = 0
    for i in range(200):
        tool.client.publish(IN, json.dumps({"id": str(i), "request": {"do": "rule.promote", "rule": "hot"}}).encode(), 1)
    wait_for(lambda: gateway.mailbox.dropped + gateway.mailbox.handled >= 200 - mailbox.REQUESTS_MAX and gateway.mailbox.dropped > 100)
    assert len(gateway.mailbox._requests) <= mailbox.REQUESTS_MAX and len(gateway.mailbox._answers) <= mailbox.ANSWERS_MAX
    assert "a mistake in the gateway" in tool.wait(1)[0]["error"]
    wait_for(lambda: not gateway.mailbox._requests)


@needs_broker
def test_a_gateway_that_takes_no_requests_is_named(broker):
    with remote.connect(f"mqtt://127.0.0.1:{broker.port}/g1") as there, pytest.raises(NoAnswer, match="upstream.manage"):
        there.ask({"do": "rule.ls"}, timeout_s=0.5)


@needs_broker
def test_the_pages_acl_lets_the_people_ask_and_nobody_else(broker):
    page = (Path(__file__).resolve().parents[2] / "docs/management.md").read_text()
    (acl,) = re.findall(r"```\n(pattern write.*?)```", page, re.S)
    broker.stop()
    (broker.folder / "acl").write_text(acl)
    with (broker.folder / "mosquitto.conf").open("a") as conf:
        conf.write(f"acl_file {broker.folder}/acl\n")
    broker.start()
    gateway = Gateway(broker.port, username="g1")
    try:
        wait_for(lambda: gateway.mailbox.listening)
        with remote.connect(f"mqtt://ops@127.0.0.1:{broker.port}/g1") as ops:
            assert ops.ask({"do": "rule.stats"}) == {"did": "rule.stats"}
        with remote.connect(f"mqtt://eve@127.0.0.1:{broker.port}/g1") as eve, pytest.raises(NoAnswer):
            eve.ask({"do": "rule.rm", "rule": "hot"}, timeout_s=1)
        assert not gateway.manager.did("rule.rm")
    finally:
        gateway.close()


# --- the mailbox alone

class Turns:
    """A reactor that turns when told."""

    now = 100.0

    def __init__(self):
        self.due = []

    def soon(self, fn):
        self.due.append(fn)

    def later(self, delay_s, fn):
        self.due.append(fn)

    def turn(self):
        due, self.due = self.due, []
        for fn in due:
            fn()


def box(handle=None):
    turns = Turns()
    one = Mailbox(turns, "g1", handle or FakeManager().handle)
    one.connected()
    return one, turns


def request(identity, **fields):
    return msgspec.msgpack.encode({"id": identity, "request": fields})


def test_one_request_is_handled_a_turn_and_none_while_answers_wait():
    one, turns = box()
    for i in range(12):
        one.take(IN, request(str(i), do="rule.ls"), False)
    for handled in range(1, mailbox.ANSWERS_MAX + 1):
        turns.turn()
        assert one.handled == handled
    turns.turn()
    assert one.handled == mailbox.ANSWERS_MAX
    assert one.next(turns.now, 0) and one.next(turns.now, 0) and one.next(turns.now, 0) is None      # IN_FLIGHT_MAX
    turns.turn()
    assert one.handled == mailbox.ANSWERS_MAX + 1


def test_what_is_remembered_is_bounded():
    one, turns = box(lambda request, who: "x" * 10_000)
    for i in range(1000):
        one.take(IN, request(str(i), do="rule.enable", rule="hot"), False)
        turns.turn()
        if message := one.next(turns.now, 0):
            one.acknowledged(message)
        assert len(one._known) <= mailbox.KNOWN_MAX and one._known_bytes <= mailbox.KNOWN_BYTES_MAX
    assert one.handled == 1000 and "999" in one._known


def test_an_answer_too_long_for_the_server_says_so():
    one, turns = box(lambda request, who: ["y" * 1000] * 90)
    one.connected(packet_bytes_max=4096)
    one.take(IN, request("1", do="rule.logs", rule="hot"), False)
    turns.turn()
    answer = msgspec.msgpack.decode(one.next(turns.now, 0).payload)
    assert not answer["ok"] and "fit a message" in answer["error"]


def test_a_server_that_refuses_answers_is_left_alone_for_a_while():
    one, turns = box()
    one.take(IN, request("1", do="rule.ls"), False)
    one.take(IN, request("2", do="rule.ls"), False)
    turns.turn()
    turns.turn()
    assert one.next(turns.now, 0)
    one.refused("Not authorized", turns.now)
    assert one.next(turns.now, 0) is None and one.due_at(turns.now) == turns.now + mailbox.HOLD_S
    assert one.next(turns.now + mailbox.HOLD_S, 0)


PLAIN = st.recursive(st.none() | st.booleans() | st.integers(-2**63, 2**64 - 1) | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
                     lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12)

REQUESTS = st.dictionaries(st.sampled_from(["do", "data", "x"]), PLAIN | st.just("job"))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | PLAIN.map(msgspec.msgpack.encode) | REQUESTS.map(lambda request: msgspec.msgpack.encode({"id": "1", "request": request}))
       | st.text(max_size=200).map(lambda text: b"{" + text.encode(errors="replace")))
def test_any_bytes_are_a_plain_request_or_an_upstream_error(payload):
    try:
        identity, request = decode(payload)
    except UpstreamError as error:
        assert "\n" not in str(error)
        return
    assert 0 < len(identity) <= 64 and isinstance(request["do"], str)
    assert json.loads(json.dumps(request, allow_nan=False)) == request


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100), st.integers(0, 100))
def test_a_damaged_request_is_no_harm(noise, at):
    one, turns = box()
    good = request("1", do="upload.begin", digest="d", size=1)
    one.take(IN, good[:at] + noise + good[at:], False)
    one.take(IN, request("2", do="rule.stats"), False)
    turns.turn()
    turns.turn()
    assert len(one._answers) == 2
    assert msgspec.msgpack.decode(one._answers[1].payload) == {"id": "2", "ok": True, "value": {"did": "rule.stats"}}
