"""What the person on call does with a real gateway: letters are retried and arrive, a damaged directory is repaired and starts, doctor tells of broker and gateway."""

import json
from pathlib import Path

from count_world import HEAD, LANE, LISTENER, PLAIN, STREAM, UPSTREAM, Device
from site_world import free_port
from test_operations import tidegate

BROKER = """
[broker]
host = "127.0.0.1"
port = $SOURCE
"""


def asked(world, *arguments, status=0):
    done = tidegate(world.folder, *arguments, "--json")
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_letters_of_a_contract_that_was_too_strict_arrive_after_it_is_mended(site, devices):
    world = site(PLAIN)
    world.start_receiver()
    world.start_gateway()
    device = Device(world.port)
    devices.append(device)
    device.publish(20)
    for n in range(300):
        device.client.publish("sensors/dev-9/env", json.dumps({"seq": n}), 1)
    device.client.publish("sensors/dev-9/env", b"no JSON", 1)
    device.settle()
    world.wait_for(lambda: world.account("stream", "env")["in"] == 321, "all events")
    assert asked(world, "dead-letters", "retry", "--all", status=1)["retried"] == []         # nothing is better yet
    assert world.account("stream", "env")["dead_lettered"] == 301

    world.restart(PLAIN.replace('temp = "f64"', 'temp = { type = "f64", required = false }'))
    done = asked(world, "dead-letters", "retry", "--stream", "env", "--reason", "temp", "--limit", "290")
    assert len(done["retried"]) == 290 and done["more"]
    done = asked(world, "dead-letters", "retry", "--all", status=1)
    assert len(done["retried"]) == 10 and len(done["refused"]) == 1
    world.expect([("dev-1", n) for n in range(20)] + [("dev-9", n) for n in range(300)])
    assert {k: v for k, v in world.account("stream", "env").items() if k in ("in", "stored", "dead_lettered")} == {"in": 321, "stored": 320, "dead_lettered": 1}
    left = asked(world, "dead-letters", "ls", "--state", "waiting")["letters"]
    assert len(left) == 1 and asked(world, "dead-letters", "drop", str(left[0]["number"]))["dropped"] == [left[0]["number"]]
    assert asked(world, "dead-letters", "ls", "--state", "waiting")["letters"] == []

    world.kill()                                              # and it stays so
    world.start_gateway()
    assert len(asked(world, "dead-letters", "retry", "--all")["retried"]) == 0
    assert world.account("stream", "env")["in"] == 321 and world.balanced()
    world.expect([("dev-1", n) for n in range(20)] + [("dev-9", n) for n in range(300)])
    assert tidegate(world.folder, "buffer", "verify").returncode == 0


def test_without_a_gateway_a_retry_says_what_to_do(site):
    world = site(PLAIN)
    world.start_gateway()
    assert world.stop("gateway") == 0
    done = tidegate(world.folder, "dead-letters", "retry", "1")
    assert done.returncode == 2 and "no gateway answers" in done.stderr and "Traceback" not in done.stderr


def test_a_damaged_directory_is_repaired_and_starts_again(site, devices):
    world = site(PLAIN)
    world.start_gateway()                                     # no receiver: all waits in the outbox
    device = Device(world.port)
    devices.append(device)

    def written():
        return len(tidegate(world.folder, "buffer", "export", "outbox/main").stdout.splitlines())

    for n in range(125, 501, 125):                            # rows gather until the next checkpoint: records of 125 rows at most
        device.publish(125)
        device.settle()
        world.wait_for(lambda n=n: written() == n, "the rows to be written")
    assert "stop it first" in tidegate(world.folder, "buffer", "repair").stderr
    assert world.stop("gateway") == 0
    for log in ("journal", "outbox/main"):
        path = sorted(Path(world.folder, "data", log).glob("*.seg"))[0]
        path.with_suffix(".idx").unlink(missing_ok=True)
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"rot" * 20)
    assert tidegate(world.folder, "buffer", "verify").returncode == 1
    readable = {tuple(sorted(json.loads(line).items())) for line in tidegate(world.folder, "buffer", "export", "outbox/main").stdout.splitlines()}
    assert asked(world, "buffer", "repair", "--dry-run", status=1)["logs"]["journal"]
    asked(world, "buffer", "repair")
    assert tidegate(world.folder, "buffer", "verify").returncode == 0
    world.start_receiver()
    world.start_gateway()
    device.publish(50)
    device.settle()
    events = {(dict(row)["device"], dict(row)["seq"]) for row in readable} | {("dev-1", n) for n in range(500, 550)}
    assert 550 - 2 * 125 <= len(events) < 550                 # the rot may reach over two records
    world.expect(events)


def test_doctor_on_a_site_that_is_well_and_on_one_that_is_not(site, mosquitto, devices):
    world = site(HEAD + LISTENER + BROKER + UPSTREAM + STREAM + LANE, SOURCE=free_port())
    broker = mosquitto(world.words["SOURCE"])
    world.start_receiver()
    world.start_gateway()
    world.wait_for(lambda: world.ask("status")["upstream"]["connection"] == world.ask("status")["broker"]["connection"] == "connected", "the connections")

    def found():
        answer = json.loads(tidegate(world.folder, "doctor", "--json").stdout)
        return {(f["check"], f["severity"]): f["what"] for f in answer["findings"]}

    well = found()
    assert {("gateway", "good"), ("ledger", "good"), ("rules", "good"), ("upstream", "good"), ("broker", "good")} <= well.keys()
    assert any(check == "write latency" for check, _ in well)
    assert "none dropped" in well["broker", "good"] and "mosquitto" in well["broker", "good"]
    broker.stop()
    world.kill("receiver")
    world.wait_for(lambda: world.ask("status")["broker"]["connection"] != "connected" and world.ask("status")["upstream"]["connection"] != "connected", "the links to break")
    ill = found()
    assert {("upstream", "warning"), ("broker", "error"), ("broker", "warning")} <= ill.keys()
    assert world.stop("gateway") == 0
    assert ("gateway", "warning") in found()
