"""[journal] durability: nothing acknowledged is lost under any setting, and a power cut costs at QoS 0 what it says. A daemon's turns in virtual time."""

import random
from types import SimpleNamespace

import pytest
from memory_disk import MemoryDisk, PowerCut
from pipeline_world import CONFIG, World, modules
from turns import Turns

from edge.mqtt._intake import Intake, Topics
from edge.storage.records import BATCH
from gateway.config.units import Durability
from gateway.gathering import ACK_S, Gathering
from gateway.wear import SURE_S, wear


SMALL = CONFIG + '[journal]\nquota = "1MiB"\n'          # small files: a simulated disk copies them


def arrivals(seed, n=60):
    chance = random.Random(seed)
    at, made = 0.0, []
    for number in range(n):
        at += chance.choice((0.0, 0.001, 0.004, 0.03, 0.4))
        made.append((at, number, chance.choice((0, 0, 0, 0, 1, 2)) if seed % 3 else 0))
    return made


def numbers(world):
    world.pipeline.journal.log.sync()
    return {row["n"] for r in world.journaled(BATCH) for row in _rows(world, r)}


def _rows(world, record):
    from edge.codec.batches import decode_columns

    return decode_columns(record.payload, world.stream("plain").schema).rows()


@pytest.mark.parametrize("durability", ["ack", "10ms", "1s"])
def test_what_was_acknowledged_survives_a_power_cut_and_at_qos_0_all_but_the_last_moment_does(durability, modules):
    allowed_s = Durability.parse(durability).seconds
    for seed in range(25):
        chance = random.Random(f"{durability}/{seed}")
        world = World(modules, SMALL, MemoryDisk(seed=seed)).start()
        turns = Turns(world, durability, arrivals(seed))
        world.disk.cut_at = world.disk.operations + chance.randrange(1, 160)
        try:
            while turns.reactor.arrivals:
                turns.turn(1.0)
        except PowerCut:
            pass
        came = [(at, number) for at, number, _ in arrivals(seed)[:60 - len(turns.reactor.arrivals)]]
        now = turns.reactor.now
        world.disk.cut_at = None
        world.crash(survival=chance.random())
        there = numbers(world)
        assert turns.acknowledged <= there, f"{durability}, seed {seed}: acknowledged and lost: {turns.acknowledged - there}"
        lost = [at for at, number in came if number not in there]
        assert all(now - at <= allowed_s + 1e-9 for at in lost), f"{durability}, seed {seed}: lost what came {now - min(lost):.3f} s before the cut"


def test_an_event_waits_as_long_as_the_setting_says_and_an_acknowledgement_ten_milliseconds(modules):
    for durability in ("ack", "10ms", "1s"):
        world = World(modules, SMALL).start()
        turns = Turns(world, durability, arrivals(4, 200))
        qos = {number: q for _, number, q in turns.reactor.arrivals}
        while turns.reactor.arrivals or turns.reactor.taken:
            turns.turn(1.0)
        most = Durability.parse(durability).seconds
        waits = {number: then - at for number, (at, then) in turns.stored_at.items()}
        assert max(w for n, w in waits.items() if qos[n]) <= min(most, ACK_S) + 1e-9
        assert max(waits.values()) <= most + 1e-9
        world.close()


def test_gathering_spares_records_writes_and_syncs(modules):
    made = {}
    for durability in ("ack", "10ms", "1s"):
        world = World(modules, SMALL).start()
        turns = Turns(world, durability, [(i / 1000, i, 0) for i in range(2000)])
        before = world.core.logs["journal"].syncs, world.core.logs["journal"].written_bytes
        while turns.reactor.arrivals or turns.reactor.taken:
            turns.turn(1.0)
        assert numbers(world) == set(range(2000))
        log = world.core.logs["journal"]
        made[durability] = len(world.journaled(BATCH)), log.syncs - before[0], log.written_bytes - before[1]
        world.close()
    assert made["ack"][:2] == (2000, 2000) and made["10ms"][1] <= 200 and made["1s"][1] <= 3
    assert made["ack"][2] > 8 * made["10ms"][2] > 8 * made["1s"][2]


def test_a_half_full_intake_waits_no_longer():
    intake, gathering = Intake(Topics(), 10, 1000), Gathering(60.0)
    for i in range(4):
        assert intake.add(b"t", b"x")
        assert gathering.wait_s(intake, i) == 60.0 - i
    intake.add(b"t", b"x")
    assert gathering.wait_s(intake, 4.0) == 0.0
    intake.clear()
    gathering.stored()
    intake.add(b"t", b"x", 1, 1)
    assert gathering.wait_s(intake, 100.0) == pytest.approx(ACK_S) and not intake.half_full
    intake.add(b"t", b"x" * 500)
    assert gathering.wait_s(intake, 100.0) == 0.0


def test_a_cards_life_is_its_endurance_over_what_is_written():
    logs = {"journal": SimpleNamespace(written_bytes=3 * 10**9, syncs=8640), "checkpoints": SimpleNamespace(written_bytes=10**9, syncs=0)}
    told = wear(logs, 86_400.0, 10 * 10**12)
    assert told["written_bytes"] == {"journal": 3 * 10**9, "checkpoints": 10**9}
    assert (told["written_bytes_day"], told["syncs_per_s"], told["life_years"]) == (4 * 10**9, 0.1, 6.8)
    assert wear(logs, SURE_S - 1, 10**13)["life_years"] is None, "too early to tell"
    assert wear({}, SURE_S, 10**13)["life_years"] == 100
