"""The examination of a module, in a process of its own under limits: `python -m gateway.deploy.examine` reads a question from standard input, writes
a JSON line for each check as it is passed, and a last one that says yes or no. gateway/deploy/admission.py starts it and may kill it at any moment.

question   {"path", "file", "cache", "policy", "keys", "force", "asked", "rules", "streams", "inputs"}
    asked: {"rule", "input", "params", "limits"} of the push, each may be None; rules: what runs now, name -> {"input", "params", "limits", "name",
    "version", "digest"}; streams: name -> schema of all that a rule may read; inputs: the names of those that devices feed
answers    {"check", "said", "ms"} ... then {"ok": true, "module": {...}, "signed_by", "plan"} or {"ok": false, "why", "fault", "details"}
    plan: {"rule", "input", "params"}: what would run, from what was asked, what runs now and what the manifest says

What it leaves behind is the compiled code in the cache: the daemon loads it.
"""

import base64
import hashlib
import json
import os
import resource
import sys
import time

from edge.errors import ConfigError, DiskError, RuleError

CPU_S = 20
ADDRESS_BYTES = 1 << 30
FILE_BYTES = 80 << 20                    # compiled code is at most 64 MiB
FILES = 64
DETAILS_MAX = 40                         # lines about samples that failed
NICE = 10


class Examination:
    """The checks, in order. Raises RuleError, ConfigError or DiskError at the first that fails; `details` says more of it, in lines."""

    def __init__(self, question, tell):
        self.question, self._tell = question, tell
        self.details = []
        self._began = time.monotonic()

    def run(self) -> dict:
        """The last answer."""
        module = self._module()
        signed_by = self._signature(module)
        plan, running = self._plan(module.manifest)
        self._version(module, running)
        code = self._code(module)
        confine()
        self._binding(module, code, plan)
        self._samples(module, code)
        m = module.manifest
        return {"ok": True, "signed_by": signed_by, "plan": plan, "module": {"name": m.name, "version": m.version, "digest": module.digest, "summary": m.summary}}

    def _passed(self, check, said):
        now = time.monotonic()
        self._tell({"check": check, "said": said, "ms": round((now - self._began) * 1000, 1)})
        self._began = now

    def _module(self):
        from edge.host.module import MODULE_BYTES_MAX, Module

        path = self.question["path"]
        try:
            with open(path, "rb") as f:
                wasm = f.read(MODULE_BYTES_MAX + 1)
        except OSError as error:
            raise DiskError(f"{path}: {error.strerror}: push the module again") from None
        if hashlib.sha256(wasm).hexdigest() != self.question["file"]:
            raise DiskError(f"{path}: its bytes are not those that came: push the module again")
        module = Module(wasm)
        m = module.manifest
        self._passed("module", f"{m.name}@{m.version}, {len(wasm):,} bytes, ABI {m.abi}, asks for {module.memory_pages * 64} KiB of memory")
        return module

    def _signature(self, module) -> str:
        from gateway.deploy import signing

        keys = {name: base64.b64decode(key) for name, key in self.question["keys"].items()}
        name = signing.signer(module, keys, self.question["policy"] == "required")
        self._passed("signature", f"by {name}" if name else "by a key that is not known here, and none is required" if module.signature else "none, and none is required")
        return name

    def _plan(self, manifest):
        """What would run, and what runs under that name now (or None)."""
        asked, streams, inputs = self.question["asked"], self.question["streams"], self.question["inputs"]
        rule = asked["rule"] or manifest.name
        running = self.question["rules"].get(rule)
        params = changed((running or {}).get("params", {}), asked["params"] or {})
        limits = asked["limits"] or (running or {}).get("limits")
        stream = asked["input"] or (running or {}).get("input") or (inputs[0] if len(inputs) == 1 else None)
        if stream is None:
            raise ConfigError(f"which stream shall {rule} read? name it as input; there are {', '.join(streams)}")
        if stream not in streams:
            raise ConfigError(f"there is no stream or rule {stream!r} to read; there are {', '.join(streams)}")
        return {"rule": rule, "input": stream, "params": params, "limits": limits}, running

    def _version(self, module, running):
        m = module.manifest
        if not self.question["force"]:
            comes_after(m.name, m.version, module.digest, running)
        if running is not None and running["name"] == m.name and running["digest"] != module.digest:
            self._passed("version", f"{m.version} after {running['version']}" + (", forced" if m.version <= running["version"] else ""))

    def _code(self, module):
        from edge.host.compile import Cache
        from edge.host.rule import Loaded

        cache = Cache(self.question["cache"])
        code = Loaded(cache.place, cache.load(module))
        self._passed("code", "compiled, or in the cache")
        return code

    def _binding(self, module, code, plan):
        from edge.columns.schema import Schema
        from edge.host.limits import Limits
        from edge.host.rule import Rule

        limits = Limits(**plan["limits"]) if plan["limits"] else None
        rule = Rule(plan["rule"], module, plan["params"], Schema.from_dict(self.question["streams"][plan["input"]]), cache=code, limits=limits)
        fields = ", ".join(f"{f.name} {f.kind}" for f in rule.output_schema.fields)
        self._passed("input", f"runs on {plan['input']}, puts out {fields}")

    def _samples(self, module, code):
        if not module.cases:
            return
        from edge.rehearsal import samples, trial

        try:
            parsed = samples.parse(module.cases, "the embedded samples")
        except ConfigError as error:
            raise RuleError(str(error)) from None
        report = trial.run(module, parsed, code)
        if report.failures:
            for result in report.failures:
                self.details += [f"CASE {result.name}", *trial.explain(result)]
            raise RuleError(f"{len(report.failures)} of its {len(report.results)} samples fail, the first is {report.failures[0].name!r}")
        self._passed("samples", f"{len(report.results)} passed")


def confine():
    """From here on code of the module runs, in this process: it can reach no more than in the gateway's worker (gateway/isolation/sandbox.py), where the kernel
    sees to that. What is still to be imported is imported before."""
    from edge.columns import schema  # noqa: F401
    from edge.host import _wasmtime, limits, rule
    from edge.rehearsal import samples, trial  # noqa: F401
    from gateway.isolation import sandbox

    try:
        sandbox.disarm()
        sandbox.shut()
        _wasmtime.watch()
        sandbox.seal()
    except (sandbox.Unconfined, OSError):
        pass                                 # then it has what this user has, as rules have with isolation = "none"


def comes_after(name, version, digest, running):
    """running: what runs under the rule's name ({"name", "version", "digest"}), or None. Raises RuleError for an older version of the same module."""
    if running is not None and running["name"] == name and running["digest"] != digest and version <= running["version"]:
        raise RuleError(f"{name}@{version} does not come after version {running['version']}, which runs: raise the manifest's version, go back with "
                        "`tidegate rule rollback`, or force it")


def changed(params, changes) -> dict:
    """Parameters with changes; None takes one out, so that it has its default again."""
    return {name: value for name, value in {**params, **changes}.items() if value is not None}


def limit():
    """What this process may use, from here on."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICE)                            # the events come first
    try:
        with open("/proc/self/oom_score_adj", "w") as f:
            f.write("1000")                  # and if memory runs out, this process goes and the gateway stays
    except OSError:
        pass


def main() -> int:
    """Reads the question, writes the answers."""
    limit()

    def tell(answer):
        print(json.dumps(answer), flush=True)

    examination = Examination(json.loads(sys.stdin.buffer.read()), tell)
    try:
        tell(examination.run())
    except (RuleError, ConfigError, DiskError) as error:
        fault = "rule" if isinstance(error, RuleError) else "configuration" if isinstance(error, ConfigError) else "disk"
        tell({"ok": False, "why": str(error), "fault": fault, "details": examination.details[:DETAILS_MAX]})
    except MemoryError:
        tell({"ok": False, "why": f"examining it took more than {ADDRESS_BYTES >> 20} MiB of memory: make it smaller", "fault": "rule", "details": []})
    return 0


if __name__ == "__main__":
    os._exit(main())                         # a sealed process has no more than this
