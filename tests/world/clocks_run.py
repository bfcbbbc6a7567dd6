"""Clocks: boots in 1970, steps of up to 14 days, devices hours off. Nothing lost, order kept, no window fired twice, nobody late by another's clock.

    python clocks_run.py --seed 1 --count 1 [--first 0]

A run is 50 jumps of the gateway's wall clock, each to within 14 days of the truth or back to it, and 6 power cuts after which it boots in 1970 or with
whatever the clock said; five devices send all the while, with clocks 0 s, 3 h, -5 h and 400 days off, and one in 1970.
Events that were stored while the clock was known to be wrong, and had not left when it was set, must arrive with a time of receipt that is true, marked as
re-timed.
"""

import sys

from worlds import main  # first: it finds the other folders
from machinery import S
from simulation import World

import oracle

DAY_S = 86400
JUMPS, BOOTS = 50, 6
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
    """The power goes; it comes back in 1970 or not, while upstream is away, and the clock is set a little later."""
    world.broker.reachable = False
    world.broker.cut()
    world.cut_power(1)
    world.run(0.5)
    if early:
        world.wall_error_ns = -world.universe.true_ns() + 10 * S
        world.cut_power(1)
    for _ in range(3):
        for device in world.devices:
            device.measure()
        world.run(1)
    world.wall_error_ns = 0
    world.run(2)
    world.broker.reachable = True
    world.run(3)


def wrongly_timed(world):
    """Rows of the device whose clock is right that say they were re-timed, and are not. Rows that go together have the first one's time of receipt."""
    found = []
    for name, received_ns in world.broker.received.items():
        row = world.broker.rows[name]
        if name[0] == "env" and row["device"] == "true" and not -30 * S <= received_ns - row["ts"] <= 30 * S:
            found.append(f"{name} of {row['ts']} is re-timed to {received_ns}")
    return found[:3]


if __name__ == "__main__":
    sys.exit(main(unit, __doc__))
