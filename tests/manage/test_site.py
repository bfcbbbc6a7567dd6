"""Rules come, change and go on a real gateway under load, with kill -9 in between: each event is upstream once, and the books balance."""

import os
import random
import time

import pytest
import tidegate_rules
from count_world import HEAD, LANE, LISTENER, STREAM, UPSTREAM, CountSite, Device
from rule_module import MANIFEST, NONE, PLAN, module

from edge.errors import TidegateError
from gateway.manage import remote
from gateway.requests import NoAnswer

CONFIG = HEAD + LISTENER + UPSTREAM + STREAM + LANE.replace("env", "once") + """
[rules.once]
input = "env"
module = "dedup"
params = { id = "seq" }
"""                                      # a device sends again what it had no PUBACK for


class ManagedSite(CountSite):
    """A site whose rules are managed over the local socket, by a client that asks again when the gateway is gone."""

    def __init__(self, folder):
        super().__init__(folder, CONFIG)
        self.waits = True
        self.gateway = remote.connect(str(self.folder / "data"))

    def manage(self, name, **fields):
        return self.gateway.ask({"do": name, **fields})

    def change(self, name, **fields):
        """The finished job of a change; None when the gateway went away meanwhile, so that nobody knows, or when nobody waits."""
        try:
            job = self.manage(name, **fields)
            if not self.waits:
                return None
            return self.wait_for(lambda: (now := self.manage("job", id=job["job"])) and now["state"] in ("done", "failed") and now, f"{name} to end")
        except NoAnswer:
            return None
        except TidegateError as error:
            if "there is no job" in str(error):      # of the gateway before the kill
                return None
            raise

    def push(self, module, rule, **fields):
        with open(tidegate_rules.path(module), "rb") as f:
            digest = self.gateway.push(f.read())
        job = self.change("rule.push", digest=digest, rule=rule, input="once", lanes=["main"], **fields)
        assert job["state"] == "done", job
        return job


@pytest.fixture
def site(tmp_path):
    site = ManagedSite(tmp_path)
    yield site
    site.close()


@pytest.fixture
def device(site):
    site.start_receiver()
    site.start_gateway()
    device = Device(site.port)
    yield device
    device.stop()


PASS = {"field": "seq", "op": ">=", "value": -1}


def changes(rng, site):
    """Changes at random, for ever. `every` passes all events whatever its parameters; `windows` counts all; `some` is off at times."""
    while True:
        yield rng.choice([
            lambda: site.change("rule.set", rule="every", params={"value": -rng.randint(1, 9)}, policy=rng.choice(["auto", "keep", "replay"])),
            lambda: site.change("rule.rollback", rule="every"),
            lambda: site.change("rule.push", digest="threshold@1", rule="every", params={"value": -rng.randint(10, 19)}),
            lambda: site.change("rule.set", rule="windows", params={"length": f"{rng.randint(1, 3)}s"}, policy="fresh"),
            lambda: site.change(rng.choice(["rule.disable", "rule.enable"]), rule="some")])


def counted(site):
    """Events that are in a window upstream, or said to be late for it."""
    return sum(row["count"] for stream in ("windows", "windows.partial") for row in site.rows(stream)) + len(site.rows("windows.late"))


def test_events_are_upstream_once_while_rules_change_and_the_gateway_is_killed(site, device):
    seed = int(os.environ.get("TIDEGATE_SEED", random.randrange(10**6)))
    print(f"seed {seed}")
    rng = random.Random(seed)
    site.push("threshold", "every", params=PASS)
    site.push("threshold", "some", params=PASS)
    site.push("window", "windows", params={"length": "1s", "fields": ["seq"], "functions": ["count"]})
    site.change("rule.set", rule="every", params={"value": -2})
    for number, change in zip(range(18), changes(rng, site)):
        device.publish(rng.randint(1, 60))
        site.waits = number % 6 != 5
        change()
        if not site.waits:
            time.sleep(rng.uniform(0, 0.02))
            site.kill()
            site.start_gateway()
    site.waits = True
    site.change("rule.enable", rule="some")
    events = device.settle()
    assert len(events) == device.published
    site.expect(events, "once")
    site.expect(events, "every")
    site.drained()
    some = site.numbers("some")
    assert len(some) == len(set(some)) and set(some) <= set(events)
    site.wait_for(lambda: counted(site) >= len(events), "the windows to close")
    assert counted(site) == len(events)
    ledger = site.balanced()
    seen = {a["name"]: a["in"] for a in ledger["accounts"] if a["kind"] == "rule"}
    assert seen.pop("once") >= len(events) and seen == dict.fromkeys(("every", "some", "windows"), len(events))
    audit = site.manage("rule.audit", limit=200)
    assert audit["broken"] is None and {"admitted", "swapped"} <= {line["what"] for line in audit["lines"]}


TRAPS = module(process="(unreachable)", plan=[1, 1, 0, PLAN + 40, 0, 0, NONE, NONE, 0, 0], manifest=MANIFEST | {"name": "bad", "parameters": [
    {"name": name, "type": kind, "summary": "as threshold has it"} for name, kind in (("field", "field"), ("op", "str"), ("value", "f64"))]})


def test_a_version_that_traps_gives_way_to_the_one_before_by_itself(site, device):
    site.push("threshold", "some", params=PASS)
    device.publish(20)
    before = device.settle()
    job = site.change("rule.push", digest=site.gateway.push(TRAPS), rule="some", policy="fresh")
    assert job["state"] == "done" and job["version"] == "bad@1"
    for _ in range(3):
        device.publish(1)
        device.settle()
    site.wait_for(lambda: site.manage("rule.ls")["rules"][-1]["version"] == "threshold@1", "the version before to be back")
    dead = set(device.events()) - set(before)
    device.publish(20)
    site.expect(set(device.settle()) - dead, "some")
    assert "rolled back" in [e["what"] for e in site.manage("rule.logs", rule="some")["events"]]
    line = next(line for line in site.manage("rule.audit")["lines"] if line["what"] == "rolled back")
    assert line["who"] == "gateway" and line["automatic"] is True


def test_events_are_watched_live_and_a_shadow_is_compared(site, device):
    site.push("threshold", "some", params=PASS)
    site.change("rule.push", digest="threshold@1", rule="some", params={"value": 10}, shadow=True)
    tails = site.manage("tail", stream="some")
    device.publish(30)
    events = device.settle()
    site.expect(events, "some")
    tails = site.manage("tail", stream="some", after=tails["next"])
    assert tails["rows"] and {row["seq"] for row in tails["rows"]} <= set(range(30)) and tails["seen"] == 30
    told = site.wait_for(lambda: (d := site.manage("rule.diff", rule="some"))["state"] == "runs" and d, "the shadow to run")
    assert told["rule"] == "some"
    assert site.change("rule.promote", rule="some")["state"] == "done"
    device.publish(30)
    site.expect(set(device.settle()), "some")
    assert site.manage("rule.show", rule="some")["running"]["params"]["value"] == 10
