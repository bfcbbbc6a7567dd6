"""Faults around a running gateway: what can go on goes on, nothing acknowledged is lost, and it comes back by itself."""

import os
import random
import socket
import subprocess
import threading
import time

import pytest

from count_world import HEAD, LANE, LISTENER, PLAIN, STREAM, UPSTREAM, Device

SLOW_READER = HEAD + LISTENER + UPSTREAM + STREAM + LANE + "quota = \"128KiB\"\n"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MiB at data/; filled(True) takes what is free, filled(False) gives it back."""
    if os.getuid() != 0:
        pytest.skip("mounts a tmpfs: needs root")
    data = tmp_path / "data"
    data.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(data)], capture_output=True).returncode:
        pytest.skip("this system mounts no tmpfs")

    def filled(full):
        if not full:
            (data / "ballast").unlink()
            return
        with (data / "ballast").open("ab", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass

    yield filled
    subprocess.run(["umount", "-l", str(data)], check=True)


def block(world, device, small_disk):
    """Fill the disk until the gateway says so; what a log lets go of meanwhile is taken too."""
    def blocked():
        small_disk(True)
        if len(device.acknowledged) == device.published:
            device.publish(200)
        return world.ask("status")["blocked"]

    world.wait_for(blocked, "the gateway to say that it is blocked", 60)


def test_a_full_disk_acknowledges_nothing_and_loses_nothing(site, devices, small_disk):
    world = site()
    world.start_receiver()
    world.start_gateway()
    device = Device(world.port)
    devices.append(device)
    device.publish(200)
    device.settle()
    block(world, device, small_disk)
    device.publish(1000)
    time.sleep(0.6)
    acknowledged = len(device.acknowledged)
    time.sleep(1.2)
    assert len(device.acknowledged) == acknowledged < device.published, "no PUBACK while the disk is full"
    status = world.ask("status")
    assert status["blocked"] and "make room" in status["blocked"]
    small_disk(False)
    world.expect(device.settle())
    assert not world.ask("status")["blocked"]
    assert "Traceback" not in world.log() and "takes events again" in world.log()


@pytest.mark.parametrize("end", ["sigterm", "kill"])
def test_a_gateway_stopped_on_a_full_disk_starts_again(site, devices, small_disk, end):
    """While it is full too, as a supervisor would do: upstream takes what waits, and what is acknowledged arrives."""
    world = site()
    world.start_gateway()
    device = Device(world.port)
    devices.append(device)
    device.publish(500)
    device.settle()
    time.sleep(1.5)                                        # a checkpoint
    block(world, device, small_disk)
    if end == "sigterm":
        assert world.stop("gateway") == 0, world.errors()
    else:
        world.kill()
    world.start("gateway", "gateway.cli", "run", "-c", "tidegate.toml")
    time.sleep(2)
    assert world.processes["gateway"].poll() is None, world.errors()
    small_disk(False)
    world.wait_for(lambda: world.ask("status"), "the gateway to answer", 60)
    world.start_receiver()
    device.settle()
    wanted = set(device.all_events())
    world.wait_for(lambda: wanted <= set(world.numbers()), "all events upstream")
    world.balanced()
    assert "Traceback" not in world.log()


def test_a_full_disk_at_the_first_start_is_one_message(site, small_disk):
    from test_bad_input import refused

    world = site()
    small_disk(True)
    refused(world, "data", "No space")


def publish_random(device, count, rng):
    """Events that do not compress, a hundred at a time."""
    for _ in range(count // 100):
        for _ in range(100):
            device.publish(1, b'{"seq": %d, "temp": %.9f}' % (rng.randrange(1 << 60), rng.random()))
        device.settle()


def test_upstream_away_longer_than_the_quota_lasts(site, devices):
    """The oldest are evicted and announced, again and again; the ledger balances all the while, and what is held arrives."""
    world = site(SLOW_READER)
    world.start_gateway()
    device = Device(world.port)
    devices.append(device)
    rng = random.Random(7)
    for _ in range(10):
        publish_random(device, 3000, rng)
        world.balanced()
    status = world.ask("status")["lanes"]["main"]
    assert status["outbox"]["bytes"] <= 128 << 10
    world.restart()                                        # which writes the rows that still gathered: they may push others out
    lost = world.account("lane", "main/env")["evicted"]
    assert 0 < lost < device.published
    world.restart()
    assert world.balanced() and world.account("lane", "main/env")["evicted"] == lost
    world.start_receiver()
    world.wait_for(lambda: world.ask("status")["lanes"]["main"]["rows_waiting"] == 0, "the lane to drain")
    world.balanced()
    assert len(world.rows()) == device.published - lost
    assert world.stop("receiver") == 0
    stream = world.last_json("receiver")["streams"][0]
    assert stream["missing"] == [] and sum(count for _, count in stream["announced"]) == lost


@pytest.mark.parametrize("rate, checkpoint", [("1KiB", "1s"), ("100MiB", "1h")])
def test_eviction_while_the_lane_sends(site, devices, rate, checkpoint):
    """Rows that are evicted while they are under way, or after they were acknowledged but before a checkpoint, are counted once."""
    text = SLOW_READER.replace('"1s"', f'"{checkpoint}"', 1)
    world = site(text + f'rate_max = "{rate}"\nmessage_max = "4KiB"\n')
    world.start_receiver()
    world.start_gateway()
    device = Device(world.port)
    devices.append(device)
    rng = random.Random(8)
    for _ in range(8):
        publish_random(device, 3000, rng)
        world.balanced()
    world.wait_for(lambda: world.ask("status")["lanes"]["main"]["in_flight"] == 0 or checkpoint == "1h", "what is under way to arrive")
    waiting, account = world.ask("status")["lanes"]["main"]["rows_waiting"], world.account("lane", "main/env")
    evicted, arrived = account.get("evicted", 0), waiting - account.get("pending", 0)
    assert (evicted > 0) == (checkpoint == "1s")
    world.kill()
    world.write("tidegate.toml", text)
    world.start_gateway()
    world.balanced()
    publish_random(device, 500, rng)
    world.wait_for(lambda: world.ask("status")["lanes"]["main"]["rows_waiting"] == 0, "the lane to drain")
    world.balanced()
    account = world.account("lane", "main/env")
    assert account.get("pending", 0) == 0 and account["in"] == device.published, account
    lost = account.get("evicted", 0)
    assert lost >= evicted - max(0, arrived)               # rows that went while they were under way, and arrived, count as evicted until nothing is pending
    assert world.stop("receiver") == 0
    stream = world.last_json("receiver")["streams"][0]
    assert stream["missing"] == [] and stream["received"] + sum(count for _, count in stream["announced"]) == device.published
    assert stream["received"] >= device.published - lost


def test_a_flood_of_garbage_from_one_device_leaves_the_others_alone(site, devices):
    world = site()
    world.start_receiver()
    world.start_gateway()
    stop = threading.Event()

    def flood(seed):
        rng = random.Random(seed)
        while not stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", world.port), 2) as s:
                    s.settimeout(0.2)
                    if rng.random() < 0.5:
                        s.sendall(bytes.fromhex("100f00044d51545404020000") + b"\0\3evl")
                    while not stop.is_set():
                        s.sendall(rng.randbytes(rng.randrange(1, 3000)))
                        if rng.random() < 0.3:
                            s.recv(100)
            except OSError:
                pass

    threads = [threading.Thread(target=flood, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    bad = Device(world.port, "bad")
    devices += [bad, Device(world.port, "dev-1"), Device(world.port, "dev-2", version=5)]
    try:
        for payload in (b"{", b'{"seq": "x"}', b"\xff" * 2000, b"[" * 5000, b"", b'{"seq": 1e400, "temp": 1}', b'{"seq": 1}'):
            bad.publish(200, payload or b" ")
        for device in devices[1:]:
            device.publish(500)
        good = [e for device in devices[1:] for e in device.settle()]
        bad.settle()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    world.expect(good)
    status = world.ask("status")
    assert status["streams"]["env"]["dead_letters"] == 1400
    assert status["listener"]["malformed"] > 0 and "Traceback" not in world.log()
    assert len(world.log().splitlines()) < 100, "the log is bounded"


def test_a_damaged_journal_costs_what_it_hits(site, devices):
    """Records between checkpoint and crash are rotten: the gateway starts, says so, and new rows are not taken for old ones."""
    rule = '[rules.hot]\ninput = "env"\nmodule = "threshold"\nparams = { field = "temp", op = ">", value = 25.0 }\n'
    world = site((HEAD + LISTENER + UPSTREAM + STREAM + rule + LANE.replace('["env"]', '["env", "hot"]')).replace('"1s"', '"1h"', 1))
    world.start_receiver()
    world.start_gateway()
    device = Device(world.port)
    devices.append(device)
    for _ in range(20):
        device.publish(50)
        device.settle()
    world.expect(device.events())
    world.kill()
    segment = sorted((world.folder / "data/journal").glob("*.seg"))[-1]
    raw = bytearray(segment.read_bytes())
    used = len(raw.rstrip(b"\0"))
    raw[used // 2:used // 2 + 200] = bytes(200)
    segment.write_bytes(raw)
    world.start_gateway()
    device.publish(300)
    device.settle()
    fresh = [("dev-1", n) for n in range(1000, 1300)]
    world.wait_for(lambda: set(fresh) <= set(world.numbers()), "new events upstream")
    world.wait_for(lambda: {e for e in fresh if 20 + e[1] % 10 > 25} <= set(world.numbers("hot")), "new outputs upstream")
    world.balanced()
    assert "damaged" in world.log() and "Traceback" not in world.log()
