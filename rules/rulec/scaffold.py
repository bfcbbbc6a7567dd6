"""A new rule's folder, from templates: it builds and passes as it stands."""

import re
from pathlib import Path
from string import Template

from edge.errors import ConfigError
from rulec import toolchain
from rulec.project import CASES, FILE

TEMPLATES = Path(__file__).parent / "templates"
ENDINGS = {"sql": "sql", "c": "c", "assemblyscript": "ts", "rust": "rs"}
SDK_FILES = {"assemblyscript": ["edge_rule.ts"], "rust": ["edge_rule.rs"]}        # that stand beside the source
TOOLCHAINS = {
    "sql": "SQL needs no other tool.",
    "c": "C needs one: `pip install ziglang==0.17.1`",
    "assemblyscript": "AssemblyScript needs Node.js, and in this folder once: `npm install`",
    "rust": "Rust needs rustc with a WebAssembly target, once: `rustup target add wasm32-unknown-unknown`",
}


def scaffold(parent, name, language) -> list[Path]:
    """Make the folder parent/name. Returns its files. Raises ConfigError where there is something already."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", name):
        raise ConfigError(f"{name!r} is no name for a rule: it has letters, digits, _ and -, and begins with a letter")
    folder = Path(parent) / name
    source = f"{name}.{ENDINGS[language]}"
    values = {"name": name, "language": language, "source": source, "toolchain": TOOLCHAINS[language]}
    rule, cases, readme = ((TEMPLATES / file).read_text() for file in (FILE, CASES, "README.md"))
    if language == "sql":
        rule = rule.partition("\n[output]")[0]           # the query says
    files = {FILE: Template(rule).substitute(values), CASES: cases, "README.md": Template(readme).substitute(values)}
    for file in sorted((TEMPLATES / language).iterdir()):
        files[source if file.stem == "rule" else file.name] = file.read_text()
    for file in SDK_FILES.get(language, ()):
        files[file] = (toolchain.sdk(language) / file).read_text()
    try:
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text)
    except FileExistsError:
        raise ConfigError(f"{folder} exists already; take another name, or remove it") from None
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from None
    return [folder / file for file in files]
