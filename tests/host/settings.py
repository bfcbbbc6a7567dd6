"""Sections of a configuration that many tests' gateways have."""

GATEWAY = """
[gateway]
name = "g1"
data = "data"
[listener]
[upstream]
host = "nowhere"
"""

# A stream with event time; its fields go on where it is used.
ENV = """
[streams.env]
topics = ["env/+"]
key = "device"
time = "ts"
lateness = "2s"
idle = "5s"
[streams.env.fields]
device = "str"
seq = "i64"
ts = { type = "time", format = "ms" }
"""

ONCE = """
[rules.once]
input = "env"
module = "dedup"
params = { id = "seq", within = "1m" }
"""
TUMBLE = """
[rules.tumble]
input = "once"
module = "window"
params = { length = "5s", fields = ["temp"], functions = ["count", "mean", "stddev", "min", "last"] }
"""
GONE = """
[rules.gone]
input = "env"
module = "missing"
params = { after = "12s" }
"""
