"""Workload W1: 100 devices, 115-byte JSON, one event in ten above 30 degrees; as PUBLISH packets, and what a gateway is to do with it.

Rule 1 forwards every event with temp > 30; rule 2 gives mean, min, max and count of temp by device for each second.
"""

import random

DEVICES = 100
TOPICS = [b"sensors/s1/dev-%03d/env" % d for d in range(DEVICES)]
FIRST_SEQ = 10_000_000
START_MS = 1_700_000_000_000

GATEWAY = """
[gateway]
name = "bench"
data = "data"
isolation = "none"
"""

STREAM = """
[streams.env]
topics = ["sensors/+/+/env"]
key = "device"
time = "ts"
lateness = "1s"
idle = "2s"
[streams.env.fields]
device = "str"
ts = { type = "time", format = "ms" }
temp = "f64"
hum = "f64"
seq = "i64"
site = "str"
pres = "f64"
bat = "f64"
"""

RULES = """
[rules.hot]
input = "env"
module = "threshold"
params = { field = "temp", op = ">", value = 30.0 }
[rules.seconds]
input = "env"
module = "window"
params = { length = "1s", fields = ["temp"], functions = ["count", "mean", "min", "max"], decimals = 3 }
"""


def events(count, rate=1000, seed=1, first=0):
    """(topic, payload, temp) of `count` events from number `first` on, `rate` a second of their own time; the same for the same seed."""
    rng = random.Random(seed)
    temp = [rng.randint(1800, 2800) for _ in range(DEVICES)]
    hum = [rng.randint(350, 550) for _ in range(DEVICES)]
    pres = [10132] * DEVICES
    for i in range(first, first + count):
        d = rng.randrange(DEVICES)
        temp[d] = min(2950, max(1500, temp[d] + rng.randint(-10, 10)))
        hum[d] = min(900, max(200, hum[d] + rng.randint(-2, 2)))
        pres[d] = min(10300, max(10000, pres[d] + rng.randint(-1, 1)))
        t = rng.randint(3001, 3998) if rng.random() < 0.1 else temp[d]
        yield TOPICS[d], (b'{"device":"dev-%03d","ts":%d,"temp":%d.%02d,"hum":%d.%d,"seq":%d,"site":"s1","pres":%d.%d,"bat":3.%d}' % (
            d, START_MS + i * 1000 // rate, t // 100, t % 100, hum[d] // 10, hum[d] % 10, FIRST_SEQ + i, pres[d] // 10, pres[d] % 10,
            60 + i // 100000 % 40)), t


def packets(count, rate=1000, seed=1, first=0) -> bytes:
    """The events as MQTT 3.1.1 PUBLISH packets at QoS 0, back to back."""
    return b"".join(packet(topic, payload) for topic, payload, _ in events(count, rate, seed, first))


def packet(topic, payload) -> bytes:
    """PUBLISH at QoS 0 of less than 16 KiB, MQTT 3.1.1 section 3.3."""
    size = 2 + len(topic) + len(payload)
    return b"\x30" + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + len(topic).to_bytes(2, "big") + topic + payload
