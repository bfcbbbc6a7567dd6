"""From a rule's folder to its module: one file with manifest and samples inside. The same folder gives the same bytes, wherever it lies."""

import importlib.util
import json
import sys
from pathlib import Path

from edge.errors import ConfigError, RuleError
from edge.host.module import CASES_SECTION, MANIFEST_SECTION, Module, with_section
from edge.rehearsal import samples
from rulec import project, toolchain


def build(folder) -> bytes:
    """Raises ConfigError for rule.toml, the samples or a missing compiler, RuleError for the source, with the compiler's words."""
    rule = project.load(folder)
    if rule.cases:
        samples.parse(rule.cases, str(rule.folder / project.CASES))
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
    from rulec.sql import compile

    said = json.loads(rule.manifest_bytes())
    return compile(project.read(rule.folder / rule.source), schema=rule.schema, optional=rule.optional, name=said["name"], version=said["version"],
                   summary=said["summary"], parameters=said["parameters"], limits=said.get("limits"), cases=rule.cases)


def _c(rule):
    if importlib.util.find_spec("ziglang") is None:
        raise toolchain.missing("the C compiler", "pip install ziglang==0.17.1")
    headers = toolchain.sdk("c")
    return toolchain.compiled(rule.folder, lambda output: [
        sys.executable, "-m", "ziglang", "cc", *(headers / "flags").read_text().split(), f"-I{headers}", f"-DRULE_STATE={rule.manifest.state}",
        rule.source, "-o", output])


def _assemblyscript(rule):
    compiler = toolchain.find("asc", rule.folder / "node_modules" / ".bin")
    if compiler is None:
        raise toolchain.missing("the AssemblyScript compiler", "npm install   (in the rule's folder; needs Node.js)")
    return toolchain.compiled(rule.folder, lambda output: [compiler, rule.source, "--outFile", output])    # the folder's asconfig.json has the options


def _rust(rule):
    compiler = next((rustc for rustc in toolchain.every("rustc") if _has_wasm(rustc)), None)
    if compiler is None:
        raise toolchain.missing("a Rust compiler with the target wasm32-unknown-unknown", "rustup target add wasm32-unknown-unknown   (or from Debian: "
                                "apt install rustc libstd-rust-dev-wasm32 lld)")
    flags = (toolchain.sdk("rust") / "flags").read_text().split()
    return toolchain.compiled(rule.folder, lambda output: [compiler, *flags, "--crate-name", "rule", rule.source, "-o", output])


def _has_wasm(rustc):
    try:
        return any(Path(toolchain.run([rustc, "--print", "target-libdir", "--target", "wasm32-unknown-unknown"], ".")).glob("libstd-*"))
    except (ConfigError, RuleError):
        return False


LANGUAGES = {"sql": _sql, "c": _c, "assemblyscript": _assemblyscript, "rust": _rust}
