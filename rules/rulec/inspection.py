"""A module looked at from all sides: what it asks for and may do, and every reason why a gateway would refuse it."""

import hashlib
import json
import tempfile

import msgspec

from edge.columns.schema import KIND_NAMES
from edge.errors import ConfigError, RuleError
from edge.host._instance import Instance
from edge.host.compile import Cache
from edge.host.limits import PAGE, Limits
from edge.host.manifest import Manifest
from edge.host.module import EXTERNAL, Layout, Module, problems
from edge.host.plan import ANY, EMIT, NUMBER, OPTIONAL
from edge.rehearsal import trial
from edge.rehearsal.samples import parse

KINDS = KIND_NAMES | {ANY: "any", NUMBER: "number"}
FILTERS = "the rows of its input that pass"


def inspect(wasm: bytes, name: str) -> dict:
    """Plain data. refused: every reason found, in a gateway's order; empty where it would be taken. What a module does not tell, because it is
    refused before, is absent."""
    found = {"file": name, "bytes": len(wasm), "digest": hashlib.sha256(wasm).hexdigest(), "refused": problems(wasm)}
    _layout(found, wasm)
    if found["refused"]:
        return found
    module = Module(wasm, name)
    limits = Limits().lowered(module.manifest.limits)
    found |= {"digest": module.digest, "signed": bool(module.signature), "memory_bytes": module.memory_pages * PAGE, "globals": len(module.globals),
              "carries_state": {"gives": "tg_save" in module.exports, "takes": "tg_migrate" in module.exports, "version": module.manifest.state},
              "limits": {"time_ms": limits.time_ns / 1e6, "memory_bytes": limits.memory_bytes, "output_bytes": limits.output_bytes}}
    with tempfile.TemporaryDirectory(prefix="tidegate-check-") as directory:
        cache = Cache(directory)
        try:
            code = cache.load(module)
            samples = parse(module.cases, f"{name} (embedded samples)") if module.cases else None
            _plan(found, module, samples, code, limits)
            _samples(found, module, samples, cache)
        except (ConfigError, RuleError) as error:
            found["refused"].append(str(error).removeprefix(f"{name}: ").removeprefix(f"rule {module.manifest.name}: "))
    return found


def _layout(found, wasm):
    """Imports and manifest, as far as they can be read."""
    try:
        layout = Layout(wasm)
        found["imports"] = [f"{EXTERNAL[kind]} {name}" for name, kind in layout.imports]
        if layout.manifest is not None:
            manifest = Manifest.read(layout.manifest)
            found["manifest"] = msgspec.to_builtins(manifest)
    except ValueError:
        pass


def _plan(found, module, samples, code, limits):
    """What it reads and puts out: as its manifest declares it, and as it says itself with the parameters of its first case, or with none."""
    manifest = module.manifest
    found |= {"reads": msgspec.to_builtins(manifest.inputs), "puts_out": msgspec.to_builtins(manifest.outputs), "with": None}
    case = next((c for c in samples.cases if not c.refused), None) if samples else None
    params = case.head.params if case else {}
    missing = [p.name for p in manifest.parameters if p.required and p.name not in params]
    if missing:                          # nobody says with which parameters: "with" stays None
        Instance(manifest.name, module, code, limits)
        return
    plan = Instance(manifest.name, module, code, limits).open(manifest.arguments(params, manifest.name))
    found["with"] = params
    found["reads"] = [{"name": field, "type": KINDS[kind], "optional": bool(flags & OPTIONAL)} for field, kind, flags in plan.inputs]
    if plan.mode == EMIT:
        found["puts_out"] = [_output(plan, *output) for output in plan.outputs]
        found["key"], found["time"] = (None if at is None else found["puts_out"][at]["name"] for at in (plan.key, plan.time))
    else:
        found["puts_out"] = FILTERS


def _output(plan, name, kind, flags):
    if kind != ANY:
        return {"name": name, "type": KINDS[kind]}
    source, source_kind, _ = plan.inputs[flags]
    return {"name": name or source, "type": KINDS[source_kind]}


def _samples(found, module, samples, cache):
    if samples is None:
        found["samples"] = None
        return
    report = trial.run(module, samples, cache)
    found["samples"] = {"cases": len(report.results), "failed": [r.name for r in report.failures]}
    found["refused"] += [f"its sample {r.name!r} fails; `tidegate rule test` shows how" for r in report.failures]


# --- in words


def lines(found) -> list[str]:
    """For people."""
    out = []
    if manifest := found.get("manifest"):
        out += [f"{found['file']}: {manifest['name']} {manifest['version']}: {manifest['summary']}", ""]
    else:
        out += [f"{found['file']}: a file without a readable manifest", ""]
    out += _line("size", f"{found['bytes']:,} bytes, digest {found['digest']}")
    if "signed" in found:
        out += _line("signed", "yes; a gateway says whether it knows the key" if found["signed"] else "no; a gateway that requires signatures refuses it")
    if "reads" in found:
        out += _fields(found)
    if manifest:
        out += _parameters(manifest)
    if "limits" in found:
        out += _means(found)
    if found["refused"]:
        return out + ["", "REFUSED by a gateway:"] + [f"  {reason}" for reason in found["refused"]]
    return out + ["", "A gateway takes it."]


def _line(title, text):
    return [f"{title:12}{text}"]


def _many(title, texts):
    return [f"{title if i == 0 else '':12}{text}" for i, text in enumerate(texts)]


def _fields(found):
    given = found["with"]
    if given is None:
        out = _line("reads", "what its parameters say; " + ("declared: " + _list(found["reads"]) if found["reads"] else "it declares no fields"))
        return out + (_line("puts out", _list(found["puts_out"])) if found["puts_out"] else [])
    out = _line("with", ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in given.items()) or "no parameters given")
    out += _line("reads", _list(found["reads"]) or "nothing")
    if found["puts_out"] == FILTERS:
        return out + _line("puts out", FILTERS)
    roles = {found["key"]: "the key", found["time"]: "the event time"}
    return out + _line("puts out", ", ".join(f"{_spell(f)} {f['type']}" + (f" ({roles[f['name']]})" if f["name"] in roles else "") for f in found["puts_out"]))


def _list(fields):
    return ", ".join(f"{_spell(f)} {f['type']}" + (f" in {f['unit']}" if f.get("unit") else "") + (" if there is one" if f.get("optional") else "") for f in fields)


def _spell(field):
    return {"$key": "the stream's key", "$time": "the event time"}.get(field["name"], field["name"])


def _parameters(manifest):
    return _many("parameters", [_parameter(p) for p in manifest["parameters"]] or ["none"])


def _parameter(p):
    said = [f"list of {p['type']}" if p["list"] else p["type"]]
    said += [f"{word} {p[bound]}" for word, bound in (("from", "min"), ("up to", "max")) if p[bound] is not None]
    if p["choices"] is not None:
        said.append(f"one of {', '.join(map(str, p['choices']))}")
    if p["required"]:
        said.append("required")
    elif p["default"] is not None:
        said.append(f"{json.dumps(p['default'], ensure_ascii=False)} if left out")
    return f"{p['name']} ({', '.join(said)}): {p['summary']}"


def _means(found):
    limits, carries = found["limits"], found["carries_state"]
    out = _line("imports", "none, and none are given: no clock, no randomness, no files, no network")
    out += _line("may use", f"{limits['time_ms']:g} ms of CPU for up to 1,024 rows, {_size(limits['memory_bytes'])} of memory, {_size(limits['output_bytes'])} of output a call")
    out += _line("memory", f"begins with {_size(found['memory_bytes'])}, and {found['globals']} globals that hold state; a gateway keeps both over restarts")
    gives, takes = carries["gives"], carries["takes"]
    how = "gives its state to the next version and takes the last one's" if gives and takes else "gives its state to the next version" if gives else \
        "takes the last version's state" if takes else "neither gives nor takes it: a new version begins by replay or afresh"
    out += _line("state", f"{how} (version {carries['version']})")
    if "samples" in found:
        samples = found["samples"]
        out += _line("samples", "none embedded" if samples is None else f"{samples['cases']} embedded, {len(samples['failed']) or 'none'} of them fail")
    return out


def _size(count):
    return f"{count >> 20} MiB" if count >= 1 << 20 and count % (1 << 20) == 0 else f"{count / 1024:g} KiB" if count >= 1024 else f"{count} bytes"
