"""Simulated gateway-years: everything that goes wrong in a year, and no promise broken.

    python years_run.py --seed 1 --count 1 [--first 0]

A gateway-year is 365 days in virtual time. Of each day the gateway is awake for AWAKE_S seconds at full detail (every turn of the real daemon, every byte on its
wires, every operation on its disk); the rest of the day it sleeps, as a suspended machine does: its boot clock goes on, nothing is sent, and timers are late.
In a year there are about: 60 power cuts, within 40 operations of the disk and at any moment of a start; 12 kills and 12 orderly restarts; 60 uplink outages,
from seconds to four days; 50 days with an upstream that never acknowledges, acknowledges out of order, refuses, flaps, or sends malformed packets; 24 steps of the
wall clock of up to 14 days and 6 boots in 1970; 24 days with a disk that refuses (EIO, EROFS), and 24 on which it is full (ENOSPC, EDQUOT); 40 changes of rules; 200 losses of device
links; and 13,000 events of six devices with QoS 0, 1 and 2, of which one is four hours behind, one sends out of order, one twice, one malformed, and one comes
online every few days with all that it kept.

The lane telemetry may hold no more than a few days of what waits, and a full disk makes the journal and the lanes let go of their oldest; the lane alerts may let go
of nothing in every other year. The oracle keeps what the journal let go (some 15,000 records), and asks that each row a lane let go (some 400) was announced.
"""

import errno
import random
import sys

from worlds import main  # first: it finds the other folders
from machinery import S
from simulation import CONFIG, World

import oracle

DAY_S = 86400
DAYS = 365
AWAKE_S = 4
TIGHT = 'quota = "32KiB"\n'              # of the lane telemetry: some days' rows
SPELLS = ("slow", "mute", "shuffle", "flap", "garbage", "refuse")
DEVICES = (("clean", 1, 0, ()), ("old", 0, 0, ()), ("exact", 2, 0, ()), ("behind", 1, -4 * 3600, ("disorder",)), ("stutter", 1, 3.0, ("twice", "broken")),
           ("rover", 1, 0, ("unplugged",)))


class Year:
    """One year of one gateway."""

    def __init__(self, seed, folder):
        alerts = random.Random(f"{seed}").choice(("evict-oldest", "backpressure"))
        self.world, self.days = World(seed, folder, CONFIG.replace("priority = 0", f'priority = 0\nfull = "{alerts}"') + TIGHT), 0
        self.random = self.world.random
        self.figures = dict.fromkeys(("outages", "spells", "clock_steps", "refusing_days", "full_days", "link_losses", "restarts"), 0)
        self._outage_until = 0

    def play(self):
        world = self.world
        try:
            world.start()
            for name, qos, skew_s, traits in DEVICES:
                device = world.add_device(name, qos, skew_s=skew_s, traits=traits)
                if "unplugged" not in traits:
                    device.plug()
            for self.days in range(1, DAYS + 1):
                self._day()
            world.settle()
            return self._sum() | self.figures, oracle.problems(world)
        finally:
            world.close()

    def _sum(self):
        world = self.world
        return {"events": len(world.truth), "acknowledged": sum(e.acked for e in world.truth), "rows": len(world.broker.rows), "rows_let_go": len(oracle.announced(world)),
                "records_let_go": len(world.let_go), "sent_again": sum(d.resent for d in world.devices),
                "cuts": world.cuts, "kills": world.kills, "swaps": world.swaps, "messages": world.broker.messages, "turns": world.turns}

    def _day(self):
        world = self.world
        self._morning()
        for _ in range(AWAKE_S):
            for device in world.devices:
                device.measure(self.random.randrange(4))
            self._something()
            world.run(1)
        world.skip(DAY_S - AWAKE_S)

    def _morning(self):
        world, random = self.world, self.random
        world.broker.behaviour = random.choice(SPELLS) if random.random() < 0.14 else "good"
        self.figures["spells"] += world.broker.behaviour != "good"
        if not world.broker.reachable and self.days >= self._outage_until:
            world.broker.reachable = True
        elif random.random() < 0.05:
            self.figures["outages"] += 1
            self._outage_until = self.days + random.randrange(1, 5)
            world.broker.reachable = False
            world.broker.cut(random.random() < 0.3)
        rover = world.devices[-1]
        rover.plug() if random.random() < 0.3 else rover.unplug()
        until_ns = world.universe.now_ns + int(random.uniform(0.5, 6) * S)
        world.disk.faults = type(world.disk).faults
        if random.random() < 0.07:
            self.figures["refusing_days"] += 1
            world.disk.faults = world.refusing(until_ns, random.choice((errno.EIO, errno.EROFS)), random.choice((1.0, 0.3, 0.02)))
        if random.random() < 0.07:
            self.figures["full_days"] += 1
            world.fill(until_ns, random.choice((errno.ENOSPC, errno.EDQUOT)))

    def _something(self):
        world, random = self.world, self.random
        dice = random.random()
        if dice < 0.042:
            world.cut_power()
            if random.random() < 0.1:
                self._set_wall(-world.universe.true_ns() + random.randrange(1000) * S)      # no battery: it boots in 1970
        elif dice < 0.05:
            world.kill()
        elif dice < 0.058:
            self.figures["restarts"] += 1
            world.stop()
            world.start()
        elif dice < 0.075:
            self._set_wall(random.choice((0, 1, 1)) * random.randint(-14 * DAY_S, 14 * DAY_S) * S)
        elif dice < 0.1:
            world.swap()
        elif dice < 0.24:
            self.figures["link_losses"] += 1
            world.cut_devices(0.3)
        elif dice < 0.27:
            self.figures["outages"] += 1
            world.broker.cut(random.random() < 0.3)

    def _set_wall(self, error_ns):
        self.figures["clock_steps"] += 1
        self.world.wall_error_ns = error_ns


def unit(seed, folder):
    return Year(seed, folder).play()


if __name__ == "__main__":
    sys.exit(main(unit, __doc__))
