"""One rule in every language: the same samples pass, and on random events the outputs are equal, byte for byte. A language without its compiler is skipped."""

import os
import random
from pathlib import Path

import pytest

from edge._watermark import Watermarks
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.errors import ConfigError
from edge.host.compile import Cache
from edge.host.module import Module
from edge.host.rule import Rule
from edge.rehearsal import samples, trial
from rulec.build import build
from rulec.scaffold import ENDINGS, scaffold

ENV = Schema("env", (Field("device", "str"), Field("ts", "time"), Field("temp", "f64", "°C"), Field("place", "str")), key="device", time="ts")
S = 10**9
NODE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidegate" / "node_modules"      # scripts/prerequisites puts the compiler there


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """language -> Module, or the reason why there is none; each built once, when asked for."""
    folder, made = tmp_path_factory.mktemp("languages"), {}

    def of(language):
        if language not in made:
            made[language] = _build(folder, language)
        if isinstance(made[language], str):
            pytest.skip(made[language])
        return made[language]

    return of


def _build(folder, language):
    try:
        scaffold(folder / language, "warm", language)
        if NODE.is_dir() and language == "assemblyscript":
            (folder / language / "warm" / "node_modules").symlink_to(NODE)
        return Module(build(folder / language / "warm"))
    except (ConfigError, ModuleNotFoundError) as error:
        return str(error)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(tmp_path_factory.mktemp("compiled"))


def batches(seed, n=40):
    """Random events of a few devices: nulls, late ones, values around the limit; watermarks as the gateway makes them. No NaN, which SQL puts above all numbers."""
    chance, marks, now = random.Random(seed), Watermarks(2 * S, 30 * S, 60 * S, 24 * 3600 * S), 1000 * S
    for _ in range(n):
        rows = []
        for _ in range(chance.randrange(1, 60)):
            now += chance.randrange(S)
            rows.append({"device": chance.choice(["a", "b", "ä", "key-4", ""]), "ts": now - chance.choice([0, 0, 0, 1, 5, 40]) * S,
                         "temp": chance.choice([None, chance.uniform(20, 40), 30.0, -0.0, float("inf")]), "place": chance.choice([None, "", "hall", "yard", "test bench"])})
        batch = Batch.from_rows(ENV, rows, received_ns=now)
        marks.observe(batch)
        yield batch


def outputs(module, cache, seed, restart_at=None):
    """What a rule answers to each batch: rows put out, rows that are late, how many it ignored."""
    rule = Rule("warm", module, {"limit": 29.5}, ENV, cache=cache)
    for i, batch in enumerate(batches(seed)):
        if i == restart_at:
            image = rule.image()
            rule.reset()
            rule.load_image(image)
        yield answer(rule, batch)


def answer(rule, batch):
    result = rule.process(batch)
    return result.out(batch).rows() if result.out_count else [], result.late(batch).rows() if result.late_count else [], result.ignored


@pytest.mark.parametrize("language", ENDINGS)
def test_a_new_rule_builds_and_passes_as_scaffolded(language, built, cache):
    module = built(language)
    report = trial.run(module, samples.parse(module.cases, "cases.samples"), cache)
    assert len(report.results) == 4 and report.passed, "\n".join(line for result in report.failures for line in trial.explain(result))


@pytest.mark.parametrize("language", [language for language in ENDINGS if language != "c"])
@pytest.mark.parametrize("seed", range(5))
def test_every_language_puts_out_the_same(language, seed, built, cache):
    want, got = (list(outputs(built(one), cache, seed)) for one in ("c", language))
    assert got == want, f"seed {seed}"
    assert sum(len(rows) for rows, _, _ in want) > 50 and sum(len(late) for _, late, _ in want) > 3


@pytest.mark.parametrize("language", ENDINGS)
def test_state_survives_a_restart_in_every_language(language, built, cache):
    assert list(outputs(built(language), cache, 7, restart_at=20)) == list(outputs(built(language), cache, 7))


@pytest.mark.parametrize("language", ["sql", "c"])
def test_another_instance_takes_the_state_over(language, built, cache):
    module = built(language)
    old, new, other = (Rule("warm", module, {"limit": limit}, ENV, cache=cache) for limit in (29.5, 29.5, 35.0))
    for i, (batch, want) in enumerate(zip(batches(7), outputs(module, cache, 7))):
        if i == 20:
            new.take_over(old.saved(), module.manifest.state)
            other.take_over(old.saved(), module.manifest.state)
        assert answer(new if i >= 20 else old, batch) == want
    assert answer(other, batch)[2] == want[2]


@pytest.mark.parametrize("language", ["sql", "c", *(pytest.param(slow, marks=pytest.mark.slow) for slow in ("assemblyscript", "rust"))])
def test_a_build_is_the_same_from_another_folder(language, built, tmp_path):
    module, again = built(language), _build(tmp_path / "another", language)
    assert again.content == module.content
    assert str(tmp_path).encode() not in again.content
