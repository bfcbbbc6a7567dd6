"""Operations of a whole gateway whose crash states are visited: what the receiver has in the end is what it has after a run without a cut."""

import tempfile

import swap_world
from pipeline_world import World
from swap_world import AT, ROWS

import gateway.core
from edge.codec.receiver import Receiver

gateway.core.SEGMENT_BYTES = 64 << 10
MODULES = tempfile.TemporaryDirectory(prefix="tidegate-modules-")


class CoreOperation:
    """act: fn(self, world) after swap_world.before(); change: the name of what it changes, or None. Mixtures are visited in full up to 2^6."""

    bounds = (6, 8)

    def __init__(self, act, change=None, settled=True):
        self._act, self.change, self.settled = act, change, settled

    def prepare(self, disk, rng):
        self.disk, self.done, self.turns = disk, False, AT
        self.world = World(MODULES.name, swap_world.RULES, disk).start()
        swap_world.before(self.world)

    def act(self):
        self._act(self, self.world)
        self.done = True

    def turn(self, world):
        """Devices send, and are told that all is taken."""
        swap_world.feed(world, self.turns, self.turns + 1)
        self.turns += 1

    def promise(self):
        world = self.world
        return (self.done, self.turns, len(world.rows)), (self.done, self.turns, world.receiver.dump(), dict(world.rows), world.epoch)

    def check(self, found, promise):
        done, turns, receiver, rows, epoch = promise
        world = World(MODULES.name, swap_world.RULES, found)
        world.receiver, world.rows, world.epoch = Receiver(receiver), dict(rows), epoch
        world.start()
        assert not world.recovered.lost and not world.recovered.failed, world.recovered
        arrived = world.stream("env").next_sequence
        assert arrived % ROWS == 0 and arrived >= turns * ROWS, f"{arrived} events are there of {turns * ROWS} that were acknowledged"
        swapped = swap_world.finish(world, MODULES.name, self.change, "", arrived // ROWS)
        assert swapped or not (done and self.change), "what was reported as done stays"
        world.close()
        return swapped


def committed(name):
    def act(self, world):
        assert swap_world.change(world, name).state == "done"

    return CoreOperation(act, name)


def started(self, world):
    """The process has died, nothing of it synced that need not be; the next one starts, on files that are not yet on stable storage."""
    self.disk.kill()
    world.start()


CORE = {
    "core: turn": CoreOperation(lambda self, world: (self.turn(world), self.turn(world))),
    "core: checkpoint": CoreOperation(lambda self, world: (self.turn(world), world.checkpoint())),
    "core: cursor advance": CoreOperation(lambda self, world: (world.drain(), world.checkpoint())),
    "core: start": CoreOperation(started, settled=False),
    **{f"core: swap, {name}": committed(name) for name in swap_world.CHANGES},
}
