"""The examples of rules/examples build and pass their samples, and docs/rules/sql-examples.md shows them as they are."""

import re
from pathlib import Path

import pytest
from query_world import InThisProcess

from edge.host.module import Module
from edge.rehearsal import samples, trial
from rulec.build import build

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(p.parent for p in (ROOT / "rules" / "examples").glob("*/rule.toml"))


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda f: f.name)
def test_an_example_passes_its_samples(folder):
    report = trial.run(Module(build(folder), folder.name), samples.parse((folder / "cases.samples").read_text()), InThisProcess)
    assert report.passed, "\n".join(line for failure in report.failures for line in trial.explain(failure))


def test_the_page_shows_the_examples_as_they_are():
    shown = re.findall(r"\(\.\./\.\./rules/examples/(\w+)/rule\.toml\).*?```sql\n(.*?)```", (ROOT / "docs/rules/sql-examples.md").read_text(), re.S)
    assert dict(shown) == {f.name: (f / f"{f.name}.sql").read_text() for f in EXAMPLES}
