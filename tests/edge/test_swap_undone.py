"""A swap whose commit the disk refused is undone, and no later start finds it."""

import errno
from contextlib import suppress

import pytest
from memory_disk import FaultyDisk, PowerCut
from pipeline_world import World, modules
from swap_world import AT, RULES, after, before, change, feed, reference

__all__ = ["modules"]


@pytest.mark.parametrize("name", ["fresh", "keep"])
@pytest.mark.parametrize("refused", ["pwrite", "fdatasync"])
def test_a_swap_that_was_undone_is_found_by_no_later_start(modules, name, refused):
    """What a save that failed left in memory would reach the disk with the next one, and the power may go between the two."""
    for cut in range(1 + len(refused) % 2, 13, 2):
        refusing = []
        world = World(modules, RULES, FaultyDisk(lambda i, operation: None, seed=cut)).start()
        before(world)
        operate = world.disk.operate

        def once(operation, path="", disk=world.disk, operate=operate):
            disk.fault = lambda i, n: errno.ENOSPC if operation == refused and "/checkpoints/" in path and not refusing and not refusing.append(1) else None
            operate(operation, path)

        world.disk.operate = once
        assert change(world, name).state == "failed" and refusing
        world.core.settle()
        feed(world, AT, AT + 3)
        world.drain()
        world.disk.cut_at = world.disk.operations + cut
        with suppress(PowerCut):
            world.checkpoint()
        world.crash((1, 0.5)[cut % 2])
        rows, deployments = reference(modules, None)[:2]
        assert world.core.deployments == deployments, cut
        after(world, AT + 3)
        assert world.rows == rows, cut
