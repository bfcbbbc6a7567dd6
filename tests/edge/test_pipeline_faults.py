"""A disk that is full or fails: nothing acknowledged is lost, nothing doubled, and service comes back when the disk does."""

import errno

import pytest
from memory_disk import FaultyDisk
from pipeline_world import RULES, S, World, env, modules

from edge.errors import DiskError

__all__ = ["modules"]


def test_while_the_disk_is_full_nothing_is_acknowledged_and_it_goes_on_when_there_is_room(modules):
    full = []
    world = World(modules, disk=FaultyDisk(lambda i, name: errno.ENOSPC if full and name in ("create", "pwrite", "truncate", "fdatasync") else None)).start()
    for i in range(5):
        world.now_ns += S
        assert world.put(env("a", i, world.now_ns // 10**6, 1.0 * i))
    full.append(True)
    world.now_ns += S
    assert not world.put(env("a", 5, world.now_ns // 10**6, 5.0), (b"env/a", b"{"))
    for _ in range(20):
        assert not world.commit()
        world.assert_balanced()
        world.drain()                            # what is durable leaves all the same
    assert world.account("once").into in (5, 6) and len(world.of("env")) == 5
    full.clear()
    assert world.commit()
    world.tick(30)
    world.drain()
    world.assert_balanced()
    assert len(world.of("env")) == 6 and len(world.letters()) == 1
    world.crash(0)
    world.drain()
    assert len(world.of("env")) == 6 and not world.missing() and not world.announced()


def test_a_start_on_a_full_disk_sends_what_there_is_and_takes_in_nothing(modules):
    world = World(modules).start()
    for i in range(5):
        world.now_ns += S
        world.put(env("a", i, world.now_ns // 10**6, 1.0 * i))
    found = world.disk.after_cut(0)
    full = [True]
    world.disk = FaultyDisk(lambda i, name: errno.ENOSPC if full and name in ("create", "pwrite", "truncate", "fdatasync") else None,
                            {path: bytes(node.data) for path, node in found.files.items()})
    world.start()
    assert any("no checkpoint" in message for _, message in world.lines.lines)
    assert world.pipeline.journal.log.keep_from is not None, "the journal's quota takes nothing that the next start needs"
    world.drain()
    assert len(world.of("env")) == 5
    world.now_ns += S
    assert not world.put(env("a", 5, world.now_ns // 10**6, 5.0))
    full.clear()
    assert world.commit()
    world.crash(0)
    world.drain()
    assert len(world.of("env")) == 6 and not world.missing() and not world.announced()
    world.assert_balanced()


def test_an_outbox_that_is_refused_holds_back_in_memory_and_says_so(modules):
    refuse = []
    world = World(modules, disk=FaultyDisk(lambda i, name: None))
    original = world.disk.operate

    def operate(name, path=""):
        fails = refuse and "/outbox/" in path and name in ("create", "pwrite", "fdatasync")
        world.disk.fault = lambda i, n: errno.ENOSPC if fails else None
        original(name, path)

    world.disk.operate = operate
    world.start()
    refuse.append(True)
    turns = 0
    while not world.pipeline.blocked:
        world.now_ns += S
        assert world.put(*(env(f"d{k}", turns, world.now_ns // 10**6, 20.0 + k) for k in range(400)))
        world.assert_balanced()
        turns += 1
    assert "the disk refuses" in world.pipeline.blocked
    with pytest.raises(DiskError):
        world.pipeline.flush()
    refuse.clear()
    world.pipeline.flush()
    assert not world.pipeline.blocked
    world.forward()
    world.drain()
    world.assert_balanced()
    assert len(world.of("env")) == 400 * turns and not world.missing()
    assert not any(account.out["pending"] for account in world.ledger if account.kind == "lane"), "all that waited leaves, without anything new"


def test_a_journal_that_is_full_of_files_that_go_on_with_each_other_lets_go_of_them(modules):
    """Each sync fails once, so that no file of the journal is without the one before; none may go alone."""
    syncs, world = [], World(modules, RULES + '[journal]\nquota = "64KiB"\n', FaultyDisk(lambda i, name: None))
    original = world.disk.operate

    def operate(name, path=""):
        syncs.extend([path] * ("/journal/" in path and name == "fdatasync"))
        fails = name == "fdatasync" and len(syncs) % 2 and syncs[-1] == path
        world.disk.fault = lambda i, n: errno.EIO if fails else None
        original(name, path)

    world.disk.operate = operate
    world.start()
    journal = world.pipeline.journal.log
    turns = 0
    while not journal.full:
        world.now_ns += S
        assert world.put(*(env(f"d{k}", turns, world.now_ns // 10**6, 20.0 + k) for k in range(40)))
        turns += 1
    assert all(segment.continues for segment in journal._segments[1:])
    world.disk.operate = original
    world.checkpoint()
    assert not journal.full and not world.pipeline.blocked
    world.put(env("d0", turns, world.now_ns // 10**6, 1.0))
    world.crash(0)
    world.drain()
    world.assert_balanced()
    assert len(world.of("env")) == 40 * turns + 1 and not world.missing() and not world.announced()
