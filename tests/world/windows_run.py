"""Windows over crashes: late and skewed input, the machine dies in the middle of windows, and what comes out is bit-equal to a run that nothing happened to.

    python windows_run.py --seed 1 --count 10 [--first 0]

A run is 10 crashes in about 50 seconds, of windows of 5 s and of 10 s every 5 s: power cuts within 40 operations of the disk, and kills. Six devices send in bursts,
late, out of order, twice, and with clocks that are hours off; some of it when its window has closed, which must come out as late, once. The truth is a gateway that
gets the journal's events without any fault; a count and a least value of each window are worked out from the events as well.
"""

import sys

from worlds import main  # first: it finds the other folders
from simulation import World

import oracle

CRASHES = 10
DEVICES = ((1, 0, ()), (1, -7200, ("disorder",)), (2, 5.0, ("disorder", "twice")), (1, 0, ("disorder", "broken")), (2, 7200, ()), (1, 0, ("unplugged", "disorder")))


def unit(seed, folder):
    world, crashes = World(seed, folder), 0
    random = world.random
    try:
        world.start()
        for i, (qos, skew_s, traits) in enumerate(DEVICES):
            world.add_device(f"d{i}", qos, skew_s=skew_s, traits=traits).plug()
        while world.cuts + world.kills < CRASHES:
            for device in world.devices:
                device.measure(random.choice((0, 1, 2, 2, 9)))
            if random.random() < 0.15:
                world.cut_devices(0.5)
            crashes += 1
            if crashes % 5 == 0 and random.random() < 0.7:
                world.cut_power()
            elif crashes % 5 == 0:
                world.kill()
            world.run(random.choice((0.3, 1.0, 1.7)))
        world.settle()
        problems = oracle.problems(world)
        rows = oracle.by_stream(world.broker.rows)
        if not rows["tumble.late"] or len(rows["tumble"]) < 30:
            problems.append("this run tried too little: no late events, or few windows")
    finally:
        world.close()
    return {"crashes": world.cuts + world.kills, "windows": len(rows["tumble"]) + len(rows["hop"]), "late": len(rows["tumble.late"]), "events": len(world.truth)}, problems


if __name__ == "__main__":
    sys.exit(main(unit, __doc__))
