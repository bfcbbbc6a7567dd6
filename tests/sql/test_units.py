"""Units: what an output is measured in."""

import pytest
from query_world import ENV, World

from edge.columns.schema import Field, Schema
from edge.host.module import Module

UNITS = Schema("env", tuple(Field(f.name, f.kind, {"temp": "°C", "n": "pcs"}.get(f.name, "")) for f in ENV.fields), key="device", time="ts")


EVENTS = [{"device": f"d{i % 2}", "ts": i * 10**9 // 4, "temp": float(i), "hum": i / 2, "n": i} for i in range(20)]


@pytest.mark.parametrize("text, units", [
    ("SELECT device, temp, n AS pieces, temp * 2 AS twice FROM env", {"temp": "°C", "pieces": "pcs", "twice": ""}),
    ("SELECT device, LAG(temp) AS before, hum FROM env", {"before": "°C", "hum": ""}),
    ("SELECT device, min(temp) AS lo, avg(temp) AS mid, avg(n) AS n_mid, last(n) AS n, count(*) AS c, variance(temp) AS v, percentile(temp, 0.9) AS p FROM env "
     "GROUP BY device, TUMBLE(ts, INTERVAL '1' SECOND)", {"lo": "°C", "mid": "°C", "n_mid": "", "n": "pcs", "c": "", "v": "", "p": "°C"})])
def test_what_is_measured_in_the_same_keeps_its_unit(text, units):
    """The unit is the stream's that the rule reads, not the one that it was compiled for; the manifest says what it was compiled for."""
    world, other = World(text, schema=UNITS), World(text, bound=UNITS)
    for rule in (world.rule, other.rule):
        assert {f.name: f.unit for f in rule.output_schema.fields if f.name in units} == units
    assert {f.name: f.unit for f in Module(world.wasm).manifest.outputs if f.name in units} == units
    assert world.send(*EVENTS) == other.send(*EVENTS) == World(text).send(*EVENTS)


def test_a_field_that_the_stream_lacks_stays_a_field_of_the_output():
    lacking = Schema("env", tuple(f for f in UNITS.fields if f.name != "temp"), key="device", time="ts")
    world = World("SELECT device, temp FROM env", schema=UNITS, optional=("temp",), bound=lacking)
    assert [f.name for f in world.rule.output_schema.fields] == ["device", "temp"]
