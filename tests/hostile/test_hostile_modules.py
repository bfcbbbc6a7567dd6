"""The modules of the hostile campaign (tests/soak)."""

import hostile_modules
import pytest


@pytest.mark.parametrize("family", range(len(hostile_modules.FAMILIES)), ids=lambda i: f"{i}-{hostile_modules.FAMILIES[i].__name__}")
def test_a_module_is_the_same_for_the_same_seed(family):
    assert hostile_modules.module(7, family) == hostile_modules.module(7, family)
