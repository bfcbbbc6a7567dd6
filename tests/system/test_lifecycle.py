"""Stops, starts and changed configurations: nothing acknowledged is lost, nothing comes twice, the accounts go on."""

import time

import pytest

from count_world import HEAD, LANE, LISTENER, PLAIN, STREAM, UPSTREAM, Device

HOT = """
[rules.hot]
input = "env"
module = "threshold"
params = { field = "temp", op = ">", value = $LIMIT }
"""
ONCE = """
[rules.once]
input = "env"
module = "dedup"
params = { id = "seq" }
"""
BOTH = LANE.replace('["env"]', '["env", "hot"]')
RULED = HEAD + LISTENER + UPSTREAM + STREAM + HOT + BOTH


def above(events, limit):
    return [(device, n) for device, n in events if 20 + n % 10 > limit]


def deploy(world, text, **words):
    """Stop (exit status 0), change the configuration, start."""
    world.words.update(words)
    world.restart(text)


@pytest.mark.parametrize("qos", [1, 2])
def test_sigterm_under_load_loses_nothing(site, devices, qos):
    world = site()
    world.start_receiver()
    world.start_gateway()
    devices += [Device(world.port, f"dev-{i}", qos=qos, version=4 + i % 2) for i in range(3)]
    for _ in range(3):
        for device in devices:
            device.publish(1500)
        time.sleep(0.15)
        before = world.ask("ledger")["accounts"]
        assert world.stop("gateway") == 0, world.errors()
        world.start_gateway()
        after = {(a["kind"], a["name"]): a["in"] for a in world.ask("ledger")["accounts"]}
        assert all(after[a["kind"], a["name"]] >= a["in"] for a in before), "the accounts go on"
    published = [e for device in devices for e in device.all_events()]
    for device in devices:
        device.settle(40)
    world.wait_for(lambda: set(published) <= set(world.numbers()), "all events upstream")
    world.wait_for(lambda: world.account("lane", "main/env").get("pending", 0) == 0, "the lane to be empty")
    world.balanced()
    numbers = world.numbers()
    sequences = [row["sequence"] for row in world.rows()]
    assert len(sequences) == len(set(sequences)), "a row of the gateway's came twice"
    assert world.account("stream", "env")["in"] == len(numbers)        # QoS 1, and QoS 2 over a restart: a device may send again what it sent


def test_the_accounts_survive_restarts(site, devices):
    world = site(RULED, LIMIT="25.0")
    world.start_receiver()
    world.start_gateway()
    devices.append(Device(world.port))
    for turn in range(1, 4):
        devices[0].publish(100)
        world.expect(devices[0].settle())
        world.expect(above(devices[0].events(), 25), "hot")
        assert world.account("stream", "env")["in"] == 100 * turn
        assert world.account("rule", "hot")["selected"] == 40 * turn
        world.wait_for(lambda n=100 * turn: world.account("lane", "main/env").get("acknowledged") == n, "the account of the lane")
        assert world.ask("status")["streams"]["env"]["next_sequence"] == 100 * turn
        world.restart()


def test_a_changed_rule_starts_anew_and_its_outputs_reach_the_receiver(site, devices):
    world = site(RULED, LIMIT="25.0")
    world.start_receiver()
    world.start_gateway()
    devices.append(Device(world.port))
    devices[0].publish(200)
    first = devices[0].settle()
    world.expect(above(first, 25), "hot")
    deploy(world, RULED, LIMIT="27.0")
    devices[0].publish(200)
    second = [e for e in devices[0].settle() if e not in set(first)]
    world.expect(above(first, 25) + above(second, 27), "hot")
    world.expect(first + second)


def test_a_rule_added_removed_and_brought_back(site, devices):
    world = site(RULED, LIMIT="25.0")
    world.start_receiver()
    world.start_gateway()
    devices.append(Device(world.port))
    wanted, seen = [], set()
    for text, limit in ((RULED, "25.0"), (PLAIN, None), (RULED, "25.0"), (RULED + ONCE, "25.0"), (PLAIN, None), (RULED, "25.0")):
        deploy(world, text)
        devices[0].publish(50)
        events = [e for e in devices[0].settle() if e not in seen]
        seen |= set(events)
        wanted += above(events, float(limit)) if limit else []
        world.expect(seen)
        world.expect(wanted, "hot")


def test_a_rule_that_is_refused_for_a_while_is_missed_but_its_numbers_go_on(site, devices):
    """Its module's file was away, and from the rule store too: after its return the receiver must not take new rows for old ones."""
    import shutil

    import tidegate_rules

    text = RULED.replace('module = "threshold"', 'module = "mine.wasm"')
    world = site(text, LIMIT="25.0")
    module = world.folder / "mine.wasm"
    shutil.copy(tidegate_rules.path("threshold"), module)
    world.start_receiver()
    world.start_gateway()
    devices.append(Device(world.port))
    devices[0].publish(100)
    first = devices[0].settle()
    world.expect(above(first, 25), "hot")
    module.rename(world.folder / "away.wasm")
    world.restart()
    devices[0].publish(100)
    second = [e for e in devices[0].settle() if e not in first]
    world.expect(above(first + second, 25), "hot")       # the rule store has it
    first += second
    for stored in (world.folder / "data/rules").glob("*.wasm"):
        stored.unlink()
    world.restart()
    assert world.ask("status")["rules"]["hot"]["state"].startswith("refused")
    devices[0].publish(100)
    devices[0].settle()
    (world.folder / "away.wasm").rename(module)
    world.restart()
    before = set(devices[0].events())
    devices[0].publish(100)
    third = [e for e in devices[0].settle() if e not in before]
    world.expect(above(first + third, 25), "hot")


def test_a_stream_removed_and_brought_back(site, devices):
    other = STREAM.replace("streams.env", "streams.other").replace("sensors/+/env", "sensors/+/other")
    with_other = HEAD + LISTENER + UPSTREAM + STREAM + other + LANE.replace('["env"]', '["env", "other"]')
    world = site(with_other)
    world.start_receiver()
    world.start_gateway()
    device = Device(world.port, topic="sensors/{}/other")
    devices.append(device)
    device.publish(60)
    first = device.settle()
    world.expect(first, "other")
    deploy(world, PLAIN)
    device.publish(7)
    unrouted = set(device.settle()) - set(first)
    assert world.account("stream", "(no stream)")["in"] == 7
    deploy(world, with_other)
    device.publish(60)
    world.expect(set(device.settle()) - unrouted, "other")


def test_a_field_added_in_version_2(site, devices):
    world = site(RULED, LIMIT="25.0")
    world.start_gateway()                                  # upstream is away: version 1 waits in the outbox
    devices.append(Device(world.port))
    devices[0].publish(100)
    first = devices[0].settle()
    deploy(world, RULED.replace('temp = "f64"', 'temp = "f64"\nhum = { type = "f64", required = false }').replace('key = "device"', 'key = "device"\nversion = 2'))
    devices[0].publish(100)
    devices[0].publish(1, b'{"seq": 1000, "temp": 20, "hum": 45.5}')
    devices[0].settle()
    world.start_receiver()
    events = [("dev-1", n) for n in range(200)]
    world.expect([*events, ("dev-1", 1000)])
    world.expect(above(events, 25), "hot")
    rows = {row["seq"]: row for row in world.rows()}
    assert "hum" not in rows[first[0][1]] and rows[1000]["hum"] == 45.5


def test_a_lane_added_removed_and_brought_back(site, devices):
    extra = '[lanes.extra]\nstreams = ["hot"]\nage = "0s"\n'
    one, two = RULED.replace(BOTH, LANE), RULED.replace(BOTH, LANE) + extra
    world = site(two, LIMIT="25.0")
    world.start_gateway()
    devices.append(Device(world.port))
    devices[0].publish(100)
    devices[0].settle()                                    # hot rows wait in extra's outbox, upstream is away
    deploy(world, one)
    devices[0].publish(100)
    devices[0].settle()
    world.start_receiver()
    world.expect(devices[0].events())
    assert world.rows("hot") == []
    deploy(world, two)
    devices[0].publish(100)
    devices[0].settle()
    world.expect(devices[0].events())
    world.expect([("dev-1", n) for n in (*range(100), *range(200, 300)) if 20 + n % 10 > 25], "hot")
    world.restart()
    world.expect(devices[0].events())


def test_a_rule_changed_after_a_crash(site, devices):
    """Between checkpoint and crash the old rule's outputs may have left; those of the changed rule must not be taken for them."""
    world = site(RULED.replace('"1s"', '"1h"', 1), LIMIT="25.0")
    world.start_receiver()
    world.start_gateway()
    devices.append(Device(world.port))
    devices[0].publish(100)
    first = devices[0].settle()
    world.expect(above(first, 25), "hot")
    world.kill()
    world.words["LIMIT"] = "21.0"
    world.write("tidegate.toml", RULED)
    world.start_gateway()
    devices[0].publish(100)
    devices[0].settle()
    second = [("dev-1", n) for n in range(100, 200)]
    world.wait_for(lambda: set(above(first, 25) + above(second, 21)) <= set(world.numbers("hot")), "what the changed rule says")
    world.balanced()
