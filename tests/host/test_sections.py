"""Custom sections: samples and signature travel in the module, and a signed module is the same rule."""

import pytest

from edge.errors import RuleError
from edge.host.module import CASES_BYTES_MAX, CASES_SECTION, SIGNATURE_SECTION, Module, with_section
from rule_module import MANIFEST, module


def test_a_signature_does_not_change_what_a_module_is():
    plain = module()
    signed = with_section(plain, SIGNATURE_SECTION, b"by someone")
    a, b = Module(plain), Module(signed)
    assert (a.digest, a.content, a.wasm) == (b.digest, b.content, b.wasm)
    assert (a.signature, b.signature) == (b"", b"by someone")


def test_nothing_may_follow_a_signature():
    with pytest.raises(RuleError, match="not the last thing"):
        Module(with_section(with_section(module(), SIGNATURE_SECTION, b"x"), b"other", b"y"))


def test_samples_are_read_and_change_what_a_module_is():
    with_cases = Module(with_section(module(), CASES_SECTION, "OUT {\"n\": \"°\"}".encode()))
    assert with_cases.cases == 'OUT {"n": "°"}'
    assert with_cases.digest != Module(module()).digest


@pytest.mark.parametrize("content, message", [(b"\xff", "not UTF-8"), (b"x" * (CASES_BYTES_MAX + 1), "the limit is")])
def test_samples_that_cannot_be_are_refused(content, message):
    with pytest.raises(RuleError, match=message):
        Module(with_section(module(), CASES_SECTION, content))


def test_two_sets_of_samples_are_refused():
    with pytest.raises(RuleError, match="two sets of samples"):
        Module(with_section(with_section(module(), CASES_SECTION, b"a"), CASES_SECTION, b"b"))


@pytest.mark.parametrize("name", ["", "../etc", "a b", "x" * 65, "-x"])
def test_a_name_that_is_no_name_is_refused(name):
    with pytest.raises(RuleError, match="a name has letters"):
        Module(module(manifest=MANIFEST | {"name": name}))


def test_declared_fields_are_read():
    manifest = Module(module(manifest=MANIFEST | {"state": 3, "inputs": [{"name": "t", "type": "number"}], "outputs": [{"name": "m", "type": "f64", "unit": "K"}],
                                                  "key": "id"})).manifest
    assert (manifest.state, manifest.inputs[0].name, manifest.outputs[0].unit, manifest.key) == (3, "t", "K", "id")
