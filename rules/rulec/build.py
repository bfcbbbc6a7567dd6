"""From a rule's folder to its module: one file with manifest and samples inside. The same folder gives the same bytes, wherever it lies."""

import importlib.util
import sys

from edge.errors import RuleError
from edge.module import CASES_SECTION, MANIFEST_SECTION, Module, with_section
from rulec import project, toolchain


def build(folder) -> bytes:
    """Raises ConfigError for rule.toml or a missing compiler, RuleError for the source, with the compiler's words."""
    rule = project.load(folder)
    wasm = LANGUAGES[rule.language](rule)
    if rule.language != "sql":
        wasm = _dressed(rule, wasm)
    Module(wasm, rule.source)
    return wasm


def _dressed(rule, wasm):
    """With manifest and samples."""
    if MANIFEST_SECTION in wasm:
        raise RuleError(f"{rule.source}: it has a manifest of its own (in C: RULE(...)): take it out, {project.FILE} is the manifest")
    wasm = with_section(wasm, MANIFEST_SECTION, rule.manifest_bytes())
    return with_section(wasm, CASES_SECTION, rule.cases.encode()) if rule.cases else wasm


def _sql(rule):
    from rulec.sql.compile import compile

    m = rule.manifest
    return compile(project.read(rule.folder / rule.source), schema=rule.schema, optional=rule.optional, name=m.name, version=m.version, summary=m.summary,
                   parameters=m.parameters, limits=m.limits, state=m.state, cases=rule.cases)


def _c(rule):
    if importlib.util.find_spec("ziglang") is None:
        raise toolchain.missing("the C compiler", "pip install ziglang==0.17.1")
    headers = toolchain.sdk("c")
    return toolchain.compiled(rule.folder, lambda output: [
        sys.executable, "-m", "ziglang", "cc", *(headers / "flags").read_text().split(), f"-I{headers}", f"-DRULE_STATE={rule.manifest.state}",
        rule.source, "-o", output])


LANGUAGES = {"sql": _sql, "c": _c}
