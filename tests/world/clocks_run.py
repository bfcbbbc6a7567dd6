"""Clocks: boots in 1970, steps of up to 14 days, devices hours off. Nothing lost, order kept, no window fired twice, nobody late by another's clock.

    python clocks_run.py --seed 1 --count 1 [--first 0]

A run is 50 jumps of the gateway's wall clock, each to within 14 days of the truth or back to it, and 6 power cuts after which it boots in 1970 or with
whatever the clock said, and is sometimes killed when it was set; five devices send all the while, with clocks 0 s, 3 h, -5 h and 400 days off, and one in 1970.
Events that were stored while the clock was known to be wrong, and had not left when it was set, must arrive with a time of receipt that is true, marked as
re-timed.
"""

import sys

from worlds import main  # first: it finds the other folders
from machinery import S
from simulation import World

import oracle

from edge.codec.batches import decode_columns
from edge.storage.records import BATCH
from gateway.clock import RETIMED, TRUSTED, UNSYNCHRONISED

DAY_S = 86400
JUMPS, BOOTS = 50, 6
MARKS = {UNSYNCHRONISED: "was not set", RETIMED: "was set since"}
DEVICES = (("true", 0), ("ahead", 3 * 3600), ("behind", -5 * 3600), ("future", 400 * DAY_S), ("unset", None))


def unit(seed, folder):
    world = World(seed, folder)
    random = world.random
    try:
        world.start()
        for name, skew_s in DEVICES:
            skew_s = -world.universe.true_ns() / S if skew_s is None else skew_s
            world.add_device(name, random.choice((1, 2)), skew_s=skew_s).plug()
        boots = set(random.sample(range(JUMPS), BOOTS))
        for jump in range(JUMPS):
            if jump in boots:
                boot(world, early=random.random() < 0.7)
            else:
                world.wall_error_ns = random.choice((0, 1, 1)) * random.randint(-14 * DAY_S, 14 * DAY_S) * S
            for _ in range(random.randrange(2, 6)):
                for device in world.devices:
                    device.measure(random.randrange(1, 3))
                world.run(1)
        world.settle()
        problems = oracle.problems(world)
        late = sorted({row["device"] for (stream, _, _), row in world.broker.rows.items() if stream.endswith(".late")})
        problems += [f"{name} was late, and its own clock never went back" for name in late]
        problems += wrongly_timed(world)
    finally:
        world.close()
    return {"jumps": JUMPS, "boots": world.cuts, "events": len(world.truth), "rows_retimed": world.broker.qualities[2]}, problems


def boot(world, early):
    """The power goes, for up to days; it comes back in 1970 or not, while upstream is away, and the clock is set a little later."""
    world.broker.reachable = False
    world.broker.cut()
    world.lose_power(world.random.choice((0, 1, 3600, 3 * DAY_S)), early)
    for _ in range(3):
        for device in world.devices:
            device.measure()
        world.run(1)
    world.wall_error_ns = 0
    world.run(2)
    if world.random.random() < 0.4:
        world.run(4)                     # a checkpoint
        world.kill()
    world.broker.reachable = True
    world.run(3)


def wrongly_timed(world):
    """Rows that come while the gateway's clock is right have a right time of receipt, that of the first of those that go together; the device's skew is known here. And
    what the journal says was stored by a clock that was not set is not said to be trusted."""
    found, skews = [], {device.name: int(device.skew_s * 1000) * 10**6 for device in world.devices}
    for name, (mark, received_ns) in world.broker.timed.items():
        if mark and name[0] == "env":
            row = world.broker.rows[name]
            made_ns = row["ts"] - skews[row["device"]]
            if not -10 * S <= received_ns - made_ns <= 30 * S:
                found.append(f"{name} of {made_ns} says it was received at {received_ns}, by a clock that {MARKS[mark]}")
    pipeline = world.daemon.core.pipeline
    stream = pipeline.inputs[0]
    for record in world.journal():
        if record.kind == BATCH and record.stream == stream.number and decode_columns(record.payload, stream.schema).clock == UNSYNCHRONISED:
            marks = {world.broker.marks.get(("env", pipeline.epoch, record.first + i)) for i in range(record.count)}
            if TRUSTED in marks:
                found.append(f"env {record.first}: stored by a clock that was not set, and says nothing of it")
    return found[:3]


if __name__ == "__main__":
    sys.exit(main(unit, __doc__))
