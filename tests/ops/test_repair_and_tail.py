"""`tidegate buffer repair` mends what verify names and nothing else; `tidegate buffer tail` shows what comes."""

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.storage.disk import Disk
from gateway.commands.buffer import _ROWS
from gateway.inspection import store
from gateway.inspection.follow import tail
from written_world import World, answer, fingerprint, tidegate


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "data")
    made.fill(60)
    yield made
    made.close()


def stop(world):
    """The gateway stops."""
    world.close()
    world.logs = {}


def rot(world, name="journal", segment=1, at=900, data=b"rot"):
    path = Path(world.data, name, f"{world.logs[name]._segments[segment].name}.seg")
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)
    return path


def exported(capfdbinary, world, log="journal"):
    return tidegate(capfdbinary, "buffer", "export", log, data=world.data)[1].splitlines()


def test_repair_makes_verify_good_and_keeps_every_row(world, capfdbinary):
    paths = [rot(world), rot(world, "outbox/all", 2, 700)]
    damaged = {path: path.read_bytes() for path in paths}
    stop(world)
    rows = {log: exported(capfdbinary, world, log) for log in ("journal", "outbox/all")}
    assert tidegate(capfdbinary, "buffer", "verify", data=world.data)[0] == 1
    status, said, _ = tidegate(capfdbinary, "buffer", "repair", data=world.data)
    assert status == 0 and "journal: repaired" in said and "dead: good" in said
    assert tidegate(capfdbinary, "buffer", "verify", data=world.data)[0] == 0
    assert {log: exported(capfdbinary, world, log) for log in rows} == rows
    for path, data in damaged.items():
        assert (path.parent / "quarantine" / path.name).read_bytes() == data
        assert "not those that were written" in json.loads((path.parent / "quarantine" / f"{path.name}.why").read_text())["what"]
    found = answer(capfdbinary, "buffer", "verify", data=world.data)["logs"]["journal"]
    assert found["mended"] > 0 and found["quarantined"] == [paths[0].name]
    assert answer(capfdbinary, "buffer", "repair", data=world.data)["logs"] == {"journal": [], "outbox/all": [], "dead": []}


def test_a_dry_run_changes_nothing_and_needs_no_lock(world, capfdbinary):
    rot(world)
    before = fingerprint(world.data)
    status, said, _ = tidegate(capfdbinary, "buffer", "repair", "--dry-run", data=world.data)
    assert status == 1 and "would put aside" in said and "positions lost" in said
    assert fingerprint(world.data) == before


@pytest.mark.parametrize("whose", ["gateway", "log"])
def test_it_refuses_beside_a_gateway(world, capfdbinary, whose):
    rot(world)
    if whose == "gateway":
        stop(world)
    lock = Disk().lock(world.data) if whose == "gateway" else None
    before = fingerprint(world.data)
    status, _, err = tidegate(capfdbinary, "buffer", "repair", data=world.data)
    assert status == 2 and "a gateway runs on it; stop it first" in err and fingerprint(world.data) == before
    if lock is not None:
        os.close(lock)


# --- tail


def tailed(capfdbinary, world, *options):
    return [json.loads(line) for line in tidegate(capfdbinary, "buffer", "tail", *options, data=world.data)[1].splitlines()]


def test_tail_shows_the_newest_rows_of_a_live_log(world, capfdbinary):
    before = fingerprint(world.data)
    rows = [json.loads(line) for line in exported(capfdbinary, world)]
    assert tailed(capfdbinary, world, "journal") == rows[-10:]
    assert tailed(capfdbinary, world, "journal", "-n", "300") == rows[-300:]
    assert tailed(capfdbinary, world, "journal", "-n", "100000") == rows
    doors = [row for row in rows if row["stream"] == "door"]
    assert tailed(capfdbinary, world, "outbox/all", "-n", "7", "--stream", "door") == doors[-7:]
    assert fingerprint(world.data) == before


def test_tail_follows_across_segments_and_evictions(world):
    """Every row once, in order, while the log is written."""
    out, rounds = io.BytesIO(), []

    def wait():
        if len(rounds) == 12:
            raise KeyboardInterrupt
        rounds.append(world.turns)
        world.fill(len(rounds) * 2)

    arguments = SimpleNamespace(log="journal", lines=0, follow=True, stream=None, start=None, stop=None)
    known = len(world.journal)
    with pytest.raises(KeyboardInterrupt):
        tail(store.Store(SimpleNamespace(data=world.data)), arguments, _ROWS, out, wait)
    seen = [(row["stream"], row.get("temp", row["sequence"])) for row in map(json.loads, out.getvalue().splitlines())]
    assert seen == [(row["stream"], row.get("temp", row["sequence"])) for row in world.journal[known:]] and len(seen) > 1000


def test_tail_shows_dead_letters(world, capfdbinary):
    world.turn((b"nowhere", b"x"))
    assert [letter["payload"] for letter in tailed(capfdbinary, world, "dead")] == ["x"]
    assert tidegate(capfdbinary, "buffer", "tail", "checkpoints", data=world.data)[0] == 2
