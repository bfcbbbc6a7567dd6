"""The house: import direction, sizes, nothing left over. What a review would say every time, said by a test."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from gateway.config import reference, spec

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 420
FUNCTION_LINES_MAX = 65
MAY_IMPORT = {"edge": {"edge"}, "gateway": {"gateway", "edge", "tidegate_rules"}, "firmware_sim": {"firmware_sim"}, "rulec": {"rulec", "edge", "tidegate_rules"},
              "tidegate_rules": set()}
OURS = set(MAY_IMPORT)


def tracked():
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / n for n in names if n and (ROOT / n).is_file()]


FILES = tracked()
CODE = [f for f in FILES if f.suffix in (".py", ".pyx", ".pxd", ".c", ".h")]
PACKAGES = {"edge": ROOT / "edge", "gateway": ROOT / "gateway", "firmware_sim": ROOT / "firmware-sim/firmware_sim", "tidegate_rules": ROOT / "rules/ready", "rulec": ROOT / "rules/rulec"}


def relative(path):
    return str(path.relative_to(ROOT))


def package_of(path):
    return next((name for name, folder in PACKAGES.items() if folder in path.parents), None)


def imports(path):
    found = re.findall(r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))", path.read_text(), re.M)
    return {(a or b).split(".")[0] for a, b in found}


@pytest.mark.parametrize("path", [f for f in CODE if package_of(f)], ids=relative)
def test_imports_go_one_way(path):
    upward = (imports(path) & OURS) - MAY_IMPORT[package_of(path)]
    assert not upward, f"{relative(path)} imports {upward}"


def modules(package):
    folder = PACKAGES[package]
    return {".".join((package, *p.relative_to(folder).with_suffix("").parts)): p for p in folder.rglob("*.py*") if p.suffix in (".py", ".pyx")}


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_have_no_import_cycle(package):
    known = modules(package)
    edges = {}
    for name, path in known.items():
        text = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text())
        top = re.findall(r"^(?:from\s+([\w.]+)\s+c?import\s+([^\n(]+|\([^)]*\))|c?import\s+([\w.]+))", text, re.M)
        targets = set()
        for base, names, plain in top:
            targets.add(base or plain)
            targets |= {f"{base}.{n.strip().split(' ')[0]}" for n in names.strip("()").split(",")}
        edges[name] = targets & set(known) - {name}
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name):], name])
        if name not in done:
            path.append(name)
            for target in sorted(edges[name]):
                visit(target)
            path.pop()
            done.add(name)

    for name in edges:
        visit(name)


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_files_are_nouns_of_bounded_length(path):
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", [f for f in CODE if f.suffix == ".py"], ids=relative)
def test_functions_fit_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{relative(path)}:{node.lineno} {node.name} has {length} lines"


def test_names_say_what_a_file_is():
    vague = [relative(f) for f in CODE if re.search(r"(^|_)(utils?|helpers?|common|misc|stuff)\b", f.stem)]
    assert not vague


def test_nothing_generated_or_left_over_is_tracked():
    wrong = [relative(f) for f in FILES if f.suffix in (".so", ".o", ".pyc", ".whl", ".orig", ".rej") or
             (f.suffix == ".c" and (f.with_suffix(".pyx")).exists())]
    assert not wrong
    open_ended = [relative(f) for f in CODE if f != Path(__file__) and re.search(r"\b(TODO|FIXME|XXX)\b(?!\()", f.read_text())]
    assert not open_ended, "a TODO names its owner: TODO(name)"


def test_every_extension_is_built_and_names_what_it_reads():
    text = (ROOT / "pyproject.toml").read_text()
    blocks = dict(re.findall(r'sources = \["([^"]+\.pyx)"[^\]]*\]\n(?:depends = (\[[^\]]*\]))?', text))
    sources = {relative(f): f for f in FILES if f.suffix == ".pyx"}
    assert set(blocks) == set(sources)
    for name, path in sources.items():
        read = {m.replace(".", "/") + ".pxd" for m in re.findall(r"^\s*from\s+(edge\.\w+|gateway\.\w+)\s+cimport", path.read_text(), re.M)}
        own = path.with_suffix(".pxd")
        read |= {relative(own)} if own.exists() else set()
        assert read <= set(re.findall(r'"([^"]+)"', blocks[name] or "")), f"{name} must list {read} under depends"


def test_the_configuration_reference_is_up_to_date():
    assert (ROOT / "docs/configuration.md").read_text() == reference.page(), "run `make docs`"
    import json

    assert json.loads((ROOT / "docs/tidegate.schema.json").read_text()) == json.loads(json.dumps(spec.schema())), "run `make docs`"


def test_documents_link_to_what_is_there():
    for page in (f for f in FILES if f.suffix == ".md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{relative(page)} links to {target}"
