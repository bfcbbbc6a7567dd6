"""Whether the tests notice what is changed in the Python code of proven.py.

Mutants are cosmic-ray's: a number, constant, condition, handler, loop or decorator replaced, an operator or comparison by the one of ITS_OTHER (as mutmut does; the
further ones of cosmic-ray say little more), but none in annotations. No file is changed: pytest collects the tests once, and each mutant is put into a forked child,
where the functions get their new code; then come the tests that run its statement, the quick ones first and SECONDS_MAX of them. The first that fails kills it, and
so does a child that runs for too long or falls over. What survives, and changes nothing that anybody can see, stands in equivalent.toml with the reason. A mutant's
share is the hash of what it is, so that a part of them is a fair sample.

    python tests/soak/mutants_run.py --first 0 --count 10 [--only edge/storage/log.py ...] [--trust]        the mutants of shares 0 to 9 of 100

Each outcome is kept in .soak/mutants.jsonl. One of the same code and tests is not tried again; with --trust, none that was killed while the module was as it is now.
"""

import argparse
import ast
import json
import os
import resource
import signal
import sys
import textwrap
import time
import tomllib
import types
from hashlib import sha256
from pathlib import Path

import coverage_run
from proven import PYTHON, TESTS

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".soak/mutants.jsonl"
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
SHARES = 100
SECONDS_MAX = 10.0                   # of tests a mutant, as they took under coverage
FILE_SECONDS_MAX = 4.0               # of them in one file
WALL_S_MAX = 120
DATA_BYTES_MAX = 1 << 30
KILLED_MIN = 0.9
ITS_OTHER = {"Add": "Sub", "Sub": "Add", "Mul": "FloorDiv", "Div": "Mul", "FloorDiv": "Mul", "Mod": "FloorDiv", "Pow": "Mul", "LShift": "RShift", "RShift": "LShift",
             "BitOr": "BitAnd", "BitAnd": "BitOr", "BitXor": "BitAnd", "Eq": "NotEq", "NotEq": "Eq", "Lt": "LtE", "LtE": "Lt", "Gt": "GtE", "GtE": "Gt", "Is": "IsNot",
             "IsNot": "Is"}
PAIRED = ("ReplaceBinaryOperator", "ReplaceComparisonOperator")


class Mutant:
    """One change of a module: its lines `was` become `becomes`; `line` is the first of them."""

    def __init__(self, module, source, changed):
        self.module, self.text = module, changed
        old, new = source.splitlines(), changed.splitlines()
        first = next((i for i, (a, b) in enumerate(zip(old, new)) if a != b), min(len(old), len(new)))
        last = next((i for i, (a, b) in enumerate(zip(reversed(old[first:]), reversed(new[first:]))) if a != b), min(len(old), len(new)) - first)
        self.line = first + 1
        self.was, self.becomes = ("\n".join(line.strip() for line in lines[first:len(lines) - last]) for lines in (old, new))

    def __str__(self):
        return f"{self.module}:{self.line}: {self.was}  ->  {self.becomes}"


def plain(tree):
    """A module's tree without annotations, as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
    return ast.dump(tree)


def pieces(source):
    """(name, first line, last line, text) of each function that is in no other, as they can be parsed alone; then ("", 1, last, source) for what is outside of them."""
    lines = source.splitlines(keepends=True)
    found = []

    def visit(body, prefix):
        for node in body:
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                found.append((f"{prefix}{node.name}", first, node.end_lineno, textwrap.dedent("".join(lines[first - 1:node.end_lineno]))))

    visit(ast.parse(source).body, "")
    return [*found, ("", 1, len(lines), source)]


def wanted(family, *what) -> bool:
    """Whether mutants of cosmic-ray's operator of this name are made. (Those of variables want names.)"""
    return not family.startswith("Variable") and (family not in PAIRED or ITS_OTHER.get(what[0]) == what[1])


def mutants(module, shares):
    """The mutants of a module that fall into these shares."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    source = (ROOT / module).read_text()
    lines, original, seen = source.splitlines(keepends=True), plain(ast.parse(source)), set()
    *inner, rest = pieces(source)
    within = {line for _, first, last, _ in inner for line in range(first, last + 1)}
    operators = {name: get_operator(name)() for name in sorted(operator_names()) if wanted(*name.rpartition("/")[2].split("_"))}
    for piece, first, last, text in (*inner, rest):
        nodes = list(ast_nodes(get_ast(text)))
        indent = len(lines[first - 1]) - len(lines[first - 1].lstrip())
        for name, operator in operators.items():
            for occurrence, (start, _) in enumerate([position for node in nodes for position in operator.mutation_positions(node)]):
                if piece == "" and start[0] in within or int(sha256(f"{module} {piece} {name} {occurrence}".encode()).hexdigest(), 16) % SHARES not in shares:
                    continue
                try:
                    changed = "".join((*lines[:first - 1], textwrap.indent(mutate_code(text, operator, occurrence), " " * indent), *lines[last:]))
                    tree = plain(ast.parse(changed))
                except (SyntaxError, AttributeError):            # cosmic-ray's: it replaces no handler of a dotted name
                    continue
                if tree != original and tree not in seen:
                    seen.add(tree)
                    yield Mutant(module, source, changed)


# --- putting one in

class Unlike(Exception):
    """A module that differs in more than the code of its functions and its constants."""


def of_module(source, path):
    module = types.ModuleType(path[:-3].replace("/", "."))
    module.__file__ = str(ROOT / path)
    sys.modules.setdefault(module.__name__, module)
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    return vars(module)


def function_of(value):
    """The function in a method of any kind, or None."""
    value = getattr(value, "__func__", value)
    value = value.fget if isinstance(value, property) else value
    return value if isinstance(value, types.FunctionType) else None


def put_in(path, source, changed):
    """Make the module at `path`, which is imported and used all over, as if it had been imported with the changed source. Raises Unlike."""
    running, before, after = vars(sys.modules[path[:-3].replace("/", ".")]), of_module(source, path), of_module(changed, path)
    exchange(running, before, after, set_global)
    for name, value in before.items():
        if isinstance(value, type) and value.__module__ == before["__name__"]:
            if defaults(value) != defaults(after[name]):
                set_class(running[name], after[name])
                continue
            exchange(vars(running[name]), vars(value), vars(after[name]), lambda attribute, old, new, owner=running[name]: setattr(owner, attribute, new))


def exchange(running, before, after, put):
    """Functions get their new code and defaults where these differ; put(name, old, new) sees to constants."""
    if set(before) != set(after):
        raise Unlike("names")
    for name, old in before.items():
        new = after[name]
        if type(old) is not type(new):
            raise Unlike(name)
        if (function := function_of(old)) is not None:
            target, new = function_of(running[name]), function_of(new)
            if getattr(old, "__module__", None) not in (None, before.get("__name__", getattr(old, "__module__", None))):
                continue                     # imported
            if function.__code__ != new.__code__:
                target.__code__ = new.__code__
            if (function.__defaults__, function.__kwdefaults__) != (new.__defaults__, new.__kwdefaults__) and not any(map(callable, function.__defaults__ or ())):
                target.__defaults__, target.__kwdefaults__ = new.__defaults__, new.__kwdefaults__
        elif isinstance(old, (int, float, str, bytes, tuple, list, dict, type(None))) and not name.startswith("__") and old != new:
            put(name, old, new)
        elif name == "__slots__" and old != new or isinstance(old, type) and old.__module__ == before.get("__name__") and old.__bases__ != new.__bases__ and type(old) is type:
            raise Unlike(name)


def set_global(name, old, new):
    """Everywhere, as `from module import NAME` copies it."""
    for module in list(sys.modules.values()):
        if type(held := getattr(module, "__dict__", {}).get(name)) is type(old) and held == old and module.__name__.partition(".")[0] in ("edge", "gateway"):
            setattr(module, name, new)


def defaults(value) -> list:
    """Of a Struct's fields, but for what each Struct makes anew."""
    return [d for d in getattr(value, "__struct_defaults__", ()) if isinstance(d, (int, float, str, bytes, tuple, type(None)))]


def set_class(old, new):
    """Everywhere, in the tests too: the defaults of a Struct's class cannot be changed."""
    for module in list(sys.modules.values()):
        for name in [name for name, held in getattr(module, "__dict__", {}).items() if held is old]:
            setattr(module, name, new)


def lines_of(module, line) -> range:
    """The lines of the statement at a line: of a definition its body, of what stands outside of all functions the whole module."""
    tree = ast.parse((ROOT / module).read_text())
    around = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and min([n.lineno, *(d.lineno for d in getattr(n, "decorator_list", ()))]) <= line <= n.end_lineno]
    functions = [n for n in around if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inner = max(around, key=lambda n: (n.lineno, -n.end_lineno), default=None)
    if inner is None or not functions:
        return range(1, tree.body[-1].end_lineno + 1)
    if inner in functions:
        return range(inner.body[0].lineno, inner.end_lineno + 1)
    return range(inner.lineno, max(inner.lineno, inner.body[0].lineno - 1) + 1 if getattr(inner, "body", None) else inner.end_lineno + 1)


def chosen(mutant, known):
    """(tests that run the mutant's statement, their seconds): file by file, in a file of each function one before a second, the quick ones first."""
    by_line, seconds = known["files"][mutant.module]["lines"], known["seconds"]
    tests = {t for line in lines_of(mutant.module, mutant.line) for t in by_line.get(str(line), ())}
    taken, spent = [], 0.0
    for file in TESTS:
        mine, nth, left = [], {}, min(FILE_SECONDS_MAX, SECONDS_MAX - spent)
        for test in sorted((t for t in tests if t.startswith(f"{file}::")), key=seconds.get):
            function = test.partition("[")[0]
            nth[function] = nth.get(function, 0) + 1
            mine.append((nth[function], seconds[test], test))
        for _, took, test in sorted(mine):
            if took <= left:
                taken.append(test)
                left, spent = left - took, spent + took
    return taken, spent


class Trial:
    """A pytest plugin: in the place of running what was collected, it tries mutants on it. yield_to: fn(survives), called once."""

    def __init__(self, use):
        self._use = use

    def pytest_runtestloop(self, session):
        self._items = {item.nodeid: item for item in session.items}
        self._use(self)
        return True

    def child(self, mutant, tests):
        """In the child: whether all pass."""
        from _pytest.runner import runtestprotocol

        if mutant is not None:
            put_in(mutant.module, (ROOT / mutant.module).read_text(), mutant.text)
        for test in tests:
            if any(report.failed for report in runtestprotocol(self._items[test], log=False, nextitem=None)):
                return False
        return True

    def survives(self, mutant, tests, seconds) -> bool:
        """Whether all of these tests pass with the mutant in. None: nothing changed."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setsid()
                quiet = os.open(os.devnull, os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(quiet, fd)
                resource.setrlimit(resource.RLIMIT_CPU, (int(4 + 2 * seconds),) * 2)
                resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES_MAX,) * 2)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 20,) * 2)
                status = 0 if self.child(mutant, tests) else 1
            finally:
                os._exit(status)
        end = time.monotonic() + WALL_S_MAX + 8 * seconds
        while not (done := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return False
            time.sleep(0.003)
        return done[1] == 0


def equivalents() -> dict:
    """{(module, was, becomes): why}."""
    return {(e["module"], e["was"], e["becomes"]): e["why"] for e in tomllib.loads(EQUIVALENT.read_text()).get("mutant", [])}


def outcomes(trial, known, only, shares, trust):
    """(mutant, "killed" | "survived" | "equivalent") of each; what is known already is not tried again."""
    excused, kept = equivalents(), {}
    for line in KEPT.read_text().splitlines() if KEPT.exists() else ():
        digest, tests, *what, outcome = json.loads(line)
        if tests == known["digest"] or (trust and outcome == "killed"):
            kept[digest, *what] = outcome
    for module in PYTHON:
        if only and module not in only:
            continue
        digest = sha256((ROOT / module).read_bytes()).hexdigest()[:16]
        for mutant in mutants(module, shares):
            what = (digest, mutant.line, mutant.was, mutant.becomes)
            if (module, mutant.was, mutant.becomes) in excused:
                yield mutant, "equivalent"
                continue
            if what not in kept:
                kept[what] = "survived" if trial.survives(mutant, *chosen(mutant, known)) else "killed"
                with open(KEPT, "a") as out:
                    out.write(json.dumps([digest, known["digest"], *what[1:], kept[what]]) + "\n")
            yield mutant, kept[what]


def tried(arguments) -> dict:
    """The campaign's results."""
    import hypothesis
    import pytest

    known, by_module, survived = coverage_run.known(), {}, []

    def use(trial):
        for mutant, outcome in outcomes(trial, known, arguments.only, range(arguments.first, arguments.first + arguments.count), arguments.trust):
            counts = by_module.setdefault(mutant.module, {"killed": 0, "survived": 0, "equivalent": 0})
            counts[outcome] += 1
            if outcome == "survived":
                survived.append(str(mutant))
                print(f"survived: {mutant}", file=sys.stderr, flush=True)

    hypothesis.settings.register_profile("mutants", database=None, derandomize=True, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
    hypothesis.settings.load_profile("mutants")
    status = pytest.main([*coverage_run.SETTINGS[1:], "--capture=no", "-p", "no:terminal", *TESTS], plugins=[Trial(use)])
    total = {name: sum(counts[name] for counts in by_module.values()) for name in ("killed", "survived", "equivalent")}
    share = total["killed"] / max(1, total["killed"] + total["survived"])
    broken = [f"the tests could not be collected: pytest's status {int(status)}"] if status else []
    if share < KILLED_MIN and by_module:
        broken.append(f"{share:.1%} of the mutants are killed, which is less than {KILLED_MIN:.0%}; the first that survive: {survived[:20]}")
    return {**total, "modules": by_module, "survivors": survived, "broken": broken}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="a campaign's; mutants are always the same")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=SHARES)
    parser.add_argument("--only", nargs="*", choices=PYTHON)
    parser.add_argument("--trust", action="store_true")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    modules = coverage_run.WORK / "modules"
    modules.mkdir(parents=True, exist_ok=True)
    os.environ["TIDEGATE_MODULES"] = str(modules)
    results = tried(arguments)
    print(json.dumps(results))
    return 1 if results["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
