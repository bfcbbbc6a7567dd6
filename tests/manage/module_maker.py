"""Small modules for the tests of management: as many digests as wanted, each a sound rule."""

from rule_module import ABOVE_4, MANIFEST, module


def rule(name="probe", version=1, summary="for tests", **changes) -> bytes:
    """A filter of the stream `s` (tests/host/rule_module.py) that passes rows with t above 4."""
    return module(process=ABOVE_4, manifest=MANIFEST | {"name": name, "version": version, "summary": summary} | changes)
