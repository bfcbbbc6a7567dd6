"""A rule that cannot work with its parameters says so at once, in words for the operator."""

import pytest
from rule_harness import Refused, Rule
from rule_models import FIELDS

S = 1_000_000_000


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("threshold", {"field": "temp", "value": 1.0, "op": "==", "hysteresis": 1.0}, "hysteresis has no meaning with op =="),
        ("threshold", {"field": "temp", "value": 1.0, "hysteresis": -1.0}, "hysteresis must be 0 or above"),
        ("threshold", {"field": "temp", "value": 1.0, "hysteresis": 1.0, "max_keys": 0}, "max_keys must be from 1 to 1000000"),
        ("deadband", {"field": "temp", "change": float("nan")}, "change must be 0 or above"),
        ("deadband", {"field": "temp", "every": -1}, "every must be 0 or above"),
        ("rate", {"field": "temp", "limit": -2.0}, "limit must be 0 or above"),
        ("sample", {}, "give either nth or interval"),
        ("sample", {"nth": 2, "interval": S}, "give either nth or interval"),
        ("sample", {"nth": -2}, "must be 0 or above"),
        ("dedup", {"id": "n", "count": 0}, "count must be above 0"),
        ("dedup", {"id": "n", "mode": "sequence", "within": S}, "within has no meaning in mode sequence"),
        ("missing", {"after": 0}, "after must be above 0"),
        ("window", {"length": 0, "functions": ["count"]}, "length must be above 0"),
        ("window", {"length": S, "hop": 2 * S, "functions": ["count"]}, "hop must be above 0 and at most length"),
        ("window", {"length": 1000 * S, "hop": S, "functions": ["count"]}, "more than 64 windows"),
        ("window", {"length": S, "functions": []}, "functions is empty"),
        ("window", {"length": S, "functions": ["mean"]}, "fields is empty"),
        ("window", {"length": S, "functions": ["median"]}, "there is no median; use count, sum"),
        ("window", {"length": S, "fields": ["temp", "temp"]}, "temp stands twice"),
        ("window", {"length": S, "fields": ["temp"], "decimals": 16}, "decimals must be from 0 to 15"),
        ("window", {"length": S, "fields": [f"f{i}" for i in range(33)]}, "fields: 32 at most"),
        ("window", {"length": 9 * S, "hop": S, "functions": ["count"], "max_windows": 8}, "max_windows must be from length / hop"),
        ("project", {"keep": []}, "keep is empty"),
        ("project", {"keep": ["temp as"]}, "cannot read 'temp as'"),
        ("project", {"keep": ["temp * 1e3"]}, "cannot read 'temp * 1e3'"),
        ("project", {"keep": ["temp * 1.2345678901234567"]}, "cannot read"),
        ("project", {"keep": ["temp + "]}, "cannot read"),
        ("project", {"keep": ["temp - -"]}, "cannot read"),
        ("project", {"keep": ["temp as a b"]}, "cannot read"),
        ("project", {"keep": ["ä" * 300 + " *"]}, "cannot read 'ä"),
        ("project", {"keep": ["temp"] * 63}, "62 fields at most"),
    ],
)
def test_bad_parameters_are_refused_in_words(name, params, words):
    with pytest.raises(Refused) as refused:
        Rule(name, FIELDS, params, "device", "at")
    assert words in str(refused.value)


@pytest.mark.parametrize("name", ["threshold", "deadband", "window", "rate", "sample", "dedup", "missing", "project"])
def test_manifest_is_complete(name):
    try:
        rule = Rule(name, FIELDS, {}, "device", "at")
    except (Refused, AssertionError):
        rule = None
    from rule_harness import RULES, manifest

    m = manifest((RULES / "ready" / name / f"{name}.wasm").read_bytes())
    assert m["name"] == name and m["abi"] == 1 and isinstance(m["version"], int) and m["summary"]
    assert m["drops"] == ("duplicate" if name == "dedup" else "filtered")
    readme = (RULES / "ready" / name / "README.md").read_text()
    for p in m["parameters"]:
        assert p["type"] in ("f64", "i64", "bool", "str", "duration", "field") and p["summary"]
        assert set(p) <= {"name", "type", "list", "default", "required", "min", "max", "choices", "summary"}
        assert f"`{p['name']}`" in readme, p["name"]
    assert rule is None or rule.manifest == m
