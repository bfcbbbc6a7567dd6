"""One rule through three doors of a real daemon: local socket, HTTP API, MQTT. The same is answered, done, and written down."""

import threading

import msgspec
import paho.mqtt.client as paho
import pytest
import tidegate_rules

pytest.importorskip("litestar", reason="the extra `api` is not installed")

from count_world import HEAD, LANE, LISTENER, MOSQUITTO, STREAM, UPSTREAM, CountSite, Device, Mosquitto
from gateway.manage import access, manager as manage, remote, shapes
from gateway.requests import Unknown

CONFIG = HEAD + LISTENER + UPSTREAM + "manage = true\n" + STREAM + LANE + "[api]\nport = 0\n"
PASS = {"field": "seq", "op": ">=", "value": 0}
DOORS = ("local", "http", "mqtt")
SHAPES = {"job": shapes.Job, "rule.ls": shapes.Listing, "rule.logs": shapes.Logs, "rule.audit": shapes.Audit, "tail": shapes.Tail}
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt install mosquitto")


class Cloud:
    """Who subscribes upstream: topics, as messages come."""

    def __init__(self, port):
        self.topics, ready = [], threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda c, *_: c.subscribe("tidegate/#", 1)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = lambda c, d, m: self.topics.append(m.topic)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert ready.wait(10)

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


class Doors(CountSite):
    """Gateway, broker, API; `remotes` by door."""

    def __init__(self, folder):
        super().__init__(folder, CONFIG)
        self.broker = Mosquitto(folder, self.words["UPSTREAM"])
        self.cloud = Cloud(self.words["UPSTREAM"])
        self.start_gateway()
        token = access.add_token(self.folder / "api.access", "ann", "write")
        self.start("api", "gateway.cli", "api", "-c", "tidegate.toml", "--port-file", "port")
        port = self.wait_for(lambda: (self.folder / "port").exists() and (self.folder / "port").read_text().strip(), "the API")
        self.remotes = {"local": remote.connect(str(self.folder / "data")), "http": remote.connect(f"http://127.0.0.1:{port}", token=token),
                        "mqtt": remote.connect(f"mqtt://127.0.0.1:{self.words['UPSTREAM']}/site")}

    def change(self, door, name, **fields):
        """The finished job of a change that was asked for at a door."""
        there = self.remotes[door]
        job = there.ask({"do": name, **fields})
        return self.wait_for(lambda: (now := there.ask({"do": "job", "id": job["job"]}))["state"] in ("done", "failed") and now, f"{name} by {door}")

    def close(self):
        self.remotes["mqtt"].close()
        self.cloud.stop()
        super().close()
        self.broker.stop()


@pytest.fixture
def doors(tmp_path):
    one = Doors(tmp_path)
    yield one
    one.close()


def test_the_same_rule_goes_through_each_door(doors):
    wasm = tidegate_rules.path("threshold").read_bytes()
    device, jobs, shown = Device(doors.port), {}, {}
    try:
        for door in DOORS:
            there, steps = doors.remotes[door], []
            with pytest.raises(Unknown, match="there is no rule 'seen'"):
                there.ask({"do": "rule.stats", "rule": "seen"})
            digest = there.push(wasm, lambda reached, size: steps.append(reached))
            assert steps[0] == 0 and steps[-1] == len(wasm), "it was there before"
            jobs[door] = doors.change(door, "rule.push", digest=digest, rule="seen", params=PASS, lanes=["main"])
            assert jobs[door]["state"] == "done", jobs[door]
            before = len(doors.cloud.topics)
            device.publish(5)
            doors.wait_for(lambda: any("/seen" in topic for topic in doors.cloud.topics[before:]), f"output of the rule that came by {door}")
            assert there.ask({"do": "rule.set", "rule": "seen", "params": {"value": 1}})["what"] == "set"
            doors.wait_for(lambda: there.ask({"do": "rule.ls"})["rules"][0]["params"]["value"] == 1, "the parameter")
            shown[door] = there.ask({"do": "rule.show", "rule": "seen"})
            for name, shape in SHAPES.items():
                fields = {"rule.logs": {"rule": "seen"}, "tail": {"stream": "env"}, "job": {"id": jobs[door]["job"]}}.get(name, {})
                answer = there.ask({"do": name, **fields})
                msgspec.convert(answer, shape, strict=True)
                assert name != "job" or set(answer) == {f.name for f in msgspec.structs.fields(shape)}
            assert doors.change(door, "rule.rm", rule="seen")["state"] == "done"
            assert there.ask({"do": "rule.rm", "version": "threshold@1"}) == {"removed": "threshold@1"}
    finally:
        device.stop()
    same = [{k: v for k, v in jobs[door].items() if k not in ("job", "report")} for door in DOORS]
    assert same[0] == same[1] == same[2]
    parameters = [shown[door]["parameters"] for door in DOORS]
    assert parameters[0] == parameters[1] == parameters[2]
    audits = [doors.remotes[door].ask({"do": "rule.audit", "limit": 200}) for door in DOORS]
    assert audits[0] == audits[1] == audits[2] and audits[0]["broken"] is None
    admitted = [line["who"] for line in audits[0]["lines"] if line["what"] == "admitted"]
    assert admitted[0].startswith("local:") and admitted[1:] == ["token:ann", "mqtt:upstream"]
    doors.balanced()


def test_the_bodies_of_the_api_have_the_fields_that_the_manager_takes():
    for mine, his in ((shapes.Push, manage.Push), (shapes.Params, manage.SetParams), (shapes.Limits, manage.RuleLimits)):
        assert {f.name for f in msgspec.structs.fields(mine)} == {f.name for f in msgspec.structs.fields(his)} - {"rule" if mine is shapes.Params else ""}
