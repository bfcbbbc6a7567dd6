"""Slow and hostile upstreams: nothing is lost, memory stays bounded, and all arrives when they behave again.

    python upstream_run.py --seed 1 --count 7 [--first 0]

Unit i tries behaviour i mod 7: slow (4 messages at a time, each acknowledged after seconds), mute (accepts and never acknowledges), shuffle (acknowledges in any
order), forget (acknowledges and throws away), flap (ends each connection after a second), garbage (malformed packets, and acknowledgements of what it never took),
refuse (MQTT 5 quota exceeded). It lasts for two minutes of traffic, with a power cut in it every other time; then upstream behaves. What a broker acknowledged and threw away
the gateway cannot know: there the receiver must name exactly those rows as missing.
"""

import sys

from worlds import main  # first: it finds the other folders
from broker import BEHAVIOURS
from simulation import World

import oracle

SPELL_S = 120
IN_FLIGHT_MAX = 64 + 4 + 1                 # messages: the windows of two lanes, and what is being sent
GROWTH_BYTES_MAX = 4 << 20


def unit(seed, folder):
    behaviour = BEHAVIOURS[1 + int(seed.rpartition("/")[2]) % (len(BEHAVIOURS) - 1)]
    world, most, most_bytes = World(seed, folder), 0, 0
    random = world.random
    cut_at = random.randrange(SPELL_S) if random.random() < 0.5 else None
    try:
        world.start()
        for i, (qos, traits) in enumerate(((1, ()), (1, ("disorder",)), (2, ("twice",)))):
            world.add_device(f"d{i}", qos, traits=traits).plug()
        for _ in range(5):
            for device in world.devices:
                device.measure()
            world.run(1)
        world.broker.behaviour = behaviour
        for second in range(SPELL_S):
            for device in world.devices:
                device.measure(random.randrange(4))
            if second == cut_at:
                world.cut_power()
            world.run(1)
            due, world.disk.cut_at = world.disk.cut_at, None         # a power cut befalls the gateway's turns, not who asks it
            status = world.daemon.parts.upstream.status()
            world.disk.cut_at = due
            most, most_bytes = max(most, status["in_flight"]), max(most_bytes, status["bytes_in_flight"])
        forgot = len(world.broker.lost_rows())
        world.settle()
        problems = oracle.problems(world)
        if most > IN_FLIGHT_MAX or most_bytes > GROWTH_BYTES_MAX:
            problems.append(f"{behaviour}: {most} messages, {most_bytes} bytes in flight")
        if behaviour == "forget":
            missing = sum(count for entry in world.broker.receiver.report() for _, count in entry["missing"])
            if not missing or len(world.broker.lost_rows()) < missing:
                problems.append(f"forget: {missing} rows are named as missing, {len(world.broker.lost_rows())} are")
    finally:
        world.close()
    problems = [f"{behaviour}: {problem}" for problem in problems]
    return {"events": len(world.truth), "messages": world.broker.messages, "doubles": world.broker.doubles, "forgotten": forgot, "cuts": world.cuts, behaviour: 1}, problems


if __name__ == "__main__":
    sys.exit(main(unit, __doc__))
