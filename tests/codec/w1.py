"""Workload W1 as rows: 100 devices in turn, small random walks, one event in ten hot (the distributions of the benchmark's generator)."""
import random

from edge.columns.schema import Field, Schema

SCHEMA = Schema(
    "env",
    (
        Field("device", "str"), Field("ts", "time"), Field("temp", "f64", "C"), Field("hum", "f64"), Field("seq", "i64"),
        Field("site", "str"), Field("pres", "f64", "hPa"), Field("bat", "f64", "V"),
    ),
    key="device", time="ts",
)  # fmt: skip


def rows(count, *, seed=1, devices=100, rate=10_000, shuffled=False):
    """`count` events at `rate` a second; shuffled: devices report in random order instead of in rounds."""
    r = random.Random(seed)
    temp = [1800 + r.randrange(1000) for _ in range(devices)]
    hum = [350 + r.randrange(200) for _ in range(devices)]
    pres = [10132] * devices
    out = []
    for i in range(count):
        d = r.randrange(devices) if shuffled else i % devices
        temp[d] = min(2950, max(1500, temp[d] + r.randrange(21) - 10))
        hum[d] = min(900, max(200, hum[d] + r.randrange(5) - 2))
        pres[d] = min(10300, max(10000, pres[d] + r.randrange(3) - 1))
        t = 3001 + r.randrange(998) if r.randrange(10) == 0 else temp[d]
        ms = 1_700_000_000_123 + i * 1000 // rate
        out.append({
            "device": f"dev-{d:03d}", "ts": ms * 1_000_000, "temp": t / 100, "hum": hum[d] / 10, "seq": 10_000_000 + i,
            "site": "s1", "pres": pres[d] / 10, "bat": (360 + i // 100_000 % 40) / 100,
        })  # fmt: skip
    return out
