"""`tidegate rule test [FOLDER | FILE.wasm | FILE.samples]`: run a rule's samples in virtual time, in the engine of the gateway.

Touches nothing of a gateway on the same machine: logs are in memory, compiled code in a directory that is made and removed. Exit status 1 when a case fails.
"""

import json
import os
import tempfile
import time

from edge.errors import ConfigError
from edge.host.compile import Cache
from edge.rehearsal import trial
from rulec.subject import find


def add_arguments(parser):
    parser.add_argument("paths", nargs="*", metavar="FOLDER|FILE.wasm|FILE.samples", help="a rule's folder, its module, its samples (the folder here)")
    parser.add_argument("--update", action="store_true", help="write what came out into the samples, in place of what was expected: read it before you keep it")
    parser.add_argument("--case", metavar="NAME", help="only this case")
    parser.add_argument("--junit", metavar="FILE", help="write a report for CI, as JUnit XML")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")


def run(arguments):
    subject = find(arguments.paths)
    samples = subject.samples
    if samples is None:
        raise ConfigError(f"{subject.module.name}: there are no samples, neither in the module nor as cases.samples beside it: write some, or name the file")
    if arguments.update and subject.file is None:
        raise ConfigError(f"{samples.name}: embedded samples cannot be updated; name the rule's folder or the .samples file")
    cases = [case for case in samples.cases if arguments.case in (None, case.name)]
    if not cases:
        raise ConfigError(f"{samples.name}: there is no case {arguments.case!r}; there are {', '.join(case.name for case in samples.cases)}")
    results = _try_out(subject.module, samples, cases)
    if arguments.junit:
        _write(arguments.junit, _junit(samples, results))
    (_print_json if arguments.json else _print)(subject.module, samples, results)
    failed = [result for result, _ in results if not result.passed]
    if arguments.update and failed:
        return _update(subject, samples, trial.Report(failed))
    return int(bool(failed))


def _try_out(module, samples, cases):
    """(Result, seconds) of each case."""
    results = []
    with tempfile.TemporaryDirectory(prefix="tidegate-test-") as directory:
        cache = Cache(directory)
        cache.load(module)
        for case in cases:
            began = time.perf_counter()
            results.append((trial.run_case(module, samples, case, cache), time.perf_counter() - began))
    return results


def _print(module, samples, results):
    failed = 0
    for result, _ in results:
        if not result.passed:
            failed += 1
            print(f"FAILED {samples.name}:{result.line} {result.name}")
            print("\n".join(trial.explain(result)), end="\n\n")
    seconds = sum(seconds for _, seconds in results)
    verdict = f"{failed} of {_count(len(results))} failed" if failed else f"{_count(len(results))} passed"
    print(f"{samples.name}: {verdict}, {module.manifest.name} {module.manifest.version}, {seconds:.2f} s")


def _count(number):
    return f"{number} case{'s' * (number != 1)}"


def _print_json(module, samples, results):
    cases = [{"name": r.name, "line": r.line, "passed": r.passed, "seconds": round(seconds, 6), "said": trial.explain(r)} for r, seconds in results]
    print(json.dumps({"samples": samples.name, "rule": module.manifest.name, "version": module.manifest.version, "digest": module.digest,
                      "passed": all(c["passed"] for c in cases), "cases": cases}, ensure_ascii=False))


def _update(subject, samples, report):
    """Exit status: 1 while a case could not be run to its end."""
    _write(subject.file, trial.updated(samples, report).encode())
    stuck = [r for r in report.results if r.error and not r.refused]
    print(f"{subject.file}: {_count(len(report.results) - len(stuck))} updated" + (f", {_count(len(stuck))} could not be run to the end" if stuck else ""))
    return int(bool(stuck))


def _junit(samples, results) -> bytes:
    from xml.etree import ElementTree as xml

    suite = xml.Element("testsuite", name=samples.name, tests=str(len(results)), failures=str(sum(not r.passed for r, _ in results)),
                        errors="0", time=f"{sum(s for _, s in results):.3f}")
    for result, seconds in results:
        case = xml.SubElement(suite, "testcase", classname=samples.name, name=_xml(result.name), file=samples.name, line=str(result.line), time=f"{seconds:.3f}")
        if not result.passed:
            said = trial.explain(result)
            xml.SubElement(case, "failure", message=_xml(result.error or f"{len(result.mismatches)} differences")).text = _xml("\n".join(said))
    return xml.tostring(suite, encoding="utf-8", xml_declaration=True) + b"\n"


def _xml(text):
    """Without the characters that XML 1.0 has no place for (section 2.2)."""
    return "".join(c if c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff" or c in "\t\n" else "\ufffd" for c in text)


def _write(path, data):
    """Whole, or not at all."""
    beside = f"{path}.new"
    try:
        with open(beside, "wb") as file:
            file.write(data)
        os.replace(beside, path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
