"""What the pages show works as shown."""

import contextlib
import io
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_rule_authors_ten_lines_print_what_the_page_says():
    page = (DOCS / "rule-author.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "rule-author.md", "exec"), {})
    assert said.getvalue().strip() == re.search(r"# (\[.*\])", code)[1]


def test_the_readmes_configuration_is_one(tmp_path):
    from gateway.config import reader as config
    from gateway.deploy import rulebook

    (text,) = re.findall(r"```toml\n(.*?)```", (DOCS.parent / "README.md").read_text(), re.S)
    assert rulebook.problems(config.parse(text)) == []


def test_the_first_rule_is_what_rule_new_makes(tmp_path):
    from rulec.scaffold import scaffold

    page = (DOCS / "rules/first-rule.md").read_text()
    for language in ("sql", "c"):
        scaffold(tmp_path / language, "warm", language)
        (shown,) = re.findall(rf"```{language}\n(.*?)```", page, re.S)
        assert shown == (tmp_path / language / "warm" / f"warm.{language}").read_text()
