"""A dead letter is retried once or not at all, wherever the power goes; the ledger says what the devices have sent, at every moment."""

from types import SimpleNamespace

import pytest
from memory_disk import FaultyDisk, MemoryDisk, PowerCut
from pipeline_world import CONFIG, World, env, modules, plain

from edge import fates
from edge.errors import DiskError
from edge.storage.records import BATCH, DEAD, FATE, between
from gateway.letters import LETTERS_MAX, Letters

__all__ = ["modules"]

LANE = '[lanes.all]\nstreams = ["env", "plain"]\nage = "0s"\n'
STRICT = CONFIG + LANE
RELAXED = STRICT.replace('n = "i64"', 'n = { type = "i64", required = false }\nm = { type = "i64", required = false }').replace('topics = ["plain/#"]', 'topics = ["plain/#", "new/#"]')
EVENTS = [(b"plain/a", b'{"m": 1}'), (b"plain/a", b'{"m": 2}'), (b"new/x", b'{"m": 3}'), (b"plain/a", b"no JSON"), (b"gone", b"{}")]
GOOD = 3                             # of them, by the relaxed contract
AFTER = ["retried", "waiting", "retried", "retried", "waiting"]          # topics that nobody took come first


class Gateway:
    """A world as Letters sees the daemon."""

    def __init__(self, world):
        self.world, self.pipeline, self.core, self.refuses = world, world.pipeline, world.core, ""
        self.clock = SimpleNamespace(now_ns=lambda: world.now_ns, quality=0)

    def now_ns(self):
        return self.world.now_ns

    def take(self, stored):
        self.pipeline.sync()
        self.pipeline.run(stored)
        self.world.forward()
        return True


def numbers(world):
    return [r.position for r in between(world.pipeline.dead.log, world.pipeline.dead.log.tail) if r.kind == DEAD]


def states(world):
    known = {}
    for record in between(world.pipeline.dead.log, world.pipeline.dead.log.tail):
        if record.kind == FATE:
            fates.learn(known, fates.fate(record))
    return [known.get(n, "waiting") for n in numbers(world)]


def ask(world, what="retry", **more):
    return Letters(Gateway(world)).handle({"do": what, "numbers": numbers(world), "who": "test", **more})


def retried_rows(world):
    """The m of each row that upstream has, or will have."""
    world.drain()
    return sorted(eval(row)["m"] for (stream, _), row in world.rows.items() if stream == "plain" and "'m'" in row and eval(row)["m"] is not None)


@pytest.fixture(scope="module")
def files(modules):
    """A stopped gateway with the letters of EVENTS, whose contract was relaxed since."""
    world = World(modules, STRICT).start()
    world.put(env("d1", 1, 1000, 20.0), plain(7), *EVENTS)
    world.checkpoint()
    world.close()
    world.config = RELAXED
    world.disk.kill()
    world.start()
    world.checkpoint()
    assert world.account("plain").into == 4 and world.account("(no stream)").into == 2
    world.close()
    return {path: bytes(node.data) for path, node in world.disk.files.items()}


def opened(modules, files, disk=MemoryDisk, **options):
    return World(modules, RELAXED, disk(files=files, **options)).start()


def total(world):
    return sum(a.into for a in world.ledger if a.kind == "stream")


def test_what_todays_contract_takes_goes_its_way_and_the_rest_stays(modules, files):
    world = opened(modules, files)
    answer = ask(world)
    assert sorted(answer["done"]) == [n for n, state in zip(numbers(world), AFTER) if state == "retried"]
    assert sorted([*answer["done"], *(n for n, _ in answer["refused"])]) == numbers(world)
    assert "no stream takes this topic" in answer["refused"][0][1]
    assert states(world) == AFTER
    assert retried_rows(world) == [1, 2, 3]
    world.assert_balanced()
    plain_account, unrouted = world.account("plain").to_dict(), world.account("(no stream)").to_dict()
    assert (plain_account["in"], plain_account["stored"], plain_account["dead_lettered"]) == (5, 4, 1) and unrouted["in"] == 1 and total(world) == 7


def test_it_is_retried_once_unless_forced(modules, files):
    world = opened(modules, files)
    ask(world)
    again = ask(world)
    assert not again["done"] and sum("retried before" in why for _, why in again["refused"]) == GOOD
    assert retried_rows(world) == [1, 2, 3] and total(world) == 7
    assert len(ask(world, force=True)["done"]) == 3
    assert retried_rows(world) == [1, 1, 2, 2, 3, 3] and total(world) == 10
    world.assert_balanced()


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_restart_agrees(modules, files, checkpoint):
    world = opened(modules, files)
    ask(world)
    if checkpoint:
        world.checkpoint()
    before = [a.to_dict() for a in world.ledger if a.kind == "stream"]
    world.crash(0)
    assert [a.to_dict() for a in world.ledger if a.kind == "stream"] == before
    assert states(world) == AFTER and retried_rows(world) == [1, 2, 3]
    assert not ask(world)["done"]


@pytest.mark.parametrize("survival", [0, 0.5, 1])
def test_a_power_cut_at_any_step_retries_it_once_or_not_at_all(modules, files, survival):
    def live(world):
        ask(world)
        world.now_ns += 10**9
        world.put(plain(8))
        world.checkpoint()
        return world

    whole = opened(modules, files)
    first = whole.disk.operations
    steps = live(whole).disk.operations - first
    outcomes = set()
    for cut in range(int(2 * survival), steps, 3):           # each survival its own third of them
        world = opened(modules, files, seed=cut)
        world.disk.cut_at = world.disk.operations + cut
        with pytest.raises(PowerCut):
            live(world)
        world.crash(survival)
        found, rows = states(world), retried_rows(world)
        where = f"survival {survival}, cut {cut} of {steps}"
        assert found in (["waiting"] * 5, AFTER), where
        assert rows == ([1, 2, 3] if "retried" in found else []), where
        assert total(world) in (7, 8), where
        world.assert_balanced()
        ask(world)
        assert retried_rows(world) == [1, 2, 3] and total(world) in (7, 8), where
        world.assert_balanced()
        world.crash(0)
        world.assert_balanced()
        assert states(world) == AFTER and total(world) in (7, 8), where
        outcomes.add(found[0])
    assert outcomes == {"waiting", "retried"}


def test_a_cut_that_was_settled_wrongly_would_show(modules, files, monkeypatch):
    """A planted bug: a start that takes every intent for done loses the events."""
    monkeypatch.setattr(fates, "_is_journaled", lambda journal, intent: True)
    with pytest.raises(AssertionError):
        test_a_power_cut_at_any_step_retries_it_once_or_not_at_all(modules, files, 1)


def test_a_disk_that_refuses_the_intent_changes_nothing(modules, files):
    for name in ("pwrite", "fdatasync", "create"):
        refusing = []
        world = World(modules, RELAXED, FaultyDisk(lambda number, operation: 28 if refusing and operation == name else None, files)).start()
        before = [a.to_dict() for a in world.ledger]
        refusing.append(True)
        with pytest.raises(DiskError):
            ask(world)
        assert [a.to_dict() for a in world.ledger] == before
        refusing.clear()
        assert world.put(plain(9)) and states(world) == ["waiting"] * 5
        assert len(ask(world)["done"]) == GOOD and retried_rows(world) == [1, 2, 3]
        world.assert_balanced()


def test_what_is_dropped_stays_whole_and_is_not_retried(modules, files):
    world = opened(modules, files)
    answer = ask(world, "drop")
    assert answer["done"] == numbers(world) and states(world) == ["dropped"] * 5
    assert not ask(world, "drop")["done"] and not ask(world)["done"]
    held = {r.position: r.payload for r in between(world.pipeline.dead.log, 0) if r.kind == DEAD}
    assert len(held) == 5 and all(payload for payload in held.values())
    world.assert_balanced()
    world.crash(0)
    assert states(world) == ["dropped"] * 5 and total(world) == 7


def test_a_rules_batch_and_what_was_cut_are_refused_with_what_to_do(modules, files):
    from edge.storage.records import letter

    world = opened(modules, files)
    dead = world.pipeline.dead
    dead.append(DEAD, 1, 0, 2, letter("trapped", 1, rule="hot", columns=b""))
    dead.append(DEAD, 1, 0, 1, letter("long", 1, topic="plain/a", payload=b"x" * 70_000))
    dead.append(DEAD, 1, 0, 1, b"\xc1")
    dead.sync()
    answer = Letters(Gateway(world)).handle({"do": "retry", "numbers": [*numbers(world)[-3:], dead.head + 9], "who": "test"})
    whys = [why for _, why in answer["refused"]]
    assert "--policy replay" in whys[0] and "only the first 65,536 of its 70,000 bytes" in whys[1] and "decoded" in whys[2] and "no such" in whys[3]


def test_requests_are_bounded(modules, files):
    world = opened(modules, files)
    for request in ({"do": "burn", "numbers": []}, {"do": "retry", "numbers": ["1"]}, {"do": "retry", "numbers": [-1]}, {"do": "retry", "numbers": list(range(LETTERS_MAX + 1))}):
        with pytest.raises(Exception, match="letters"):
            Letters(Gateway(world)).handle({"who": "test", **request})
    assert not any(r.kind == BATCH and r.count > LETTERS_MAX for r in between(world.pipeline.journal.log, 0))
