"""Each sample of docs/rules runs as it stands, and each kind of line has one."""

import re
from pathlib import Path

import pytest
import tidegate_rules
from rule_module import module

from edge.host.module import Module
from edge.rehearsal.samples import WORDS, parse
from edge.rehearsal.trial import explain, run

PAGES = Path(__file__).resolve().parents[2] / "docs/rules"
BLOCKS = [pytest.param(name, text, id=f"{page.stem}-{i}-{name}") for page in sorted(PAGES.glob("*.md"))
          for i, (name, text) in enumerate(re.findall(r"^```samples (\w+)\n(.*?)^```", page.read_text(), re.M | re.S))]


@pytest.mark.parametrize("name, text", BLOCKS)
def test_the_pages_samples_run_as_they_stand(cache, name, text):
    rule = module(process="(unreachable)") if name == "traps" else tidegate_rules.path(name).read_bytes()
    report = run(Module(rule), parse(text, name), cache)
    assert report.passed, "\n".join(line for result in report.failures for line in explain(result))


def test_the_page_of_the_format_shows_every_line():
    page = (PAGES / "samples.md").read_text()
    shown = {line.split()[0] for _, text in re.findall(r"^```samples (\w+)\n(.*?)^```", page, re.M | re.S) for line in text.splitlines() if line.strip() and line[0] != "#"}
    told = set(re.findall(r"`([A-Z]+)\b", page))
    assert set(WORDS) <= told | shown and set(WORDS) - shown <= {"STREAM", "LATENESS", "SKEW", "AT"}, set(WORDS) - shown
