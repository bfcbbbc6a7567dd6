"""The simulated world itself: a seed replays exactly, and what is planted is found. The campaigns over it are run by tests/soak."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

TRACE = """
import sys; sys.path.insert(0, sys.argv[1])
import worlds, years_run, os
from simulation import Folder
years_run.DAYS = 25
with Folder() as folder:
    os.makedirs(folder + "/data")
    year = years_run.Year("5/0", folder)
    figures, problems = year.play()
    print(year.world.universe.trace, len(year.world.broker.rows), problems)
"""


def test_a_seed_replays_exactly_in_another_process():
    """Every byte on every wire at the same moment: whatever the hash seed, the descriptors and the machine's speed."""
    said = {subprocess.run([sys.executable, "-c", TRACE, str(HERE)], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed}).stdout
            for seed in ("1", "2")}
    assert len(said) == 1, said
    assert said.pop().endswith(" []\n")


def test_the_oracle_is_short():
    assert len((HERE / "oracle.py").read_text().splitlines()) < 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("w")
    (folder / "data").mkdir()
    return str(folder)


@pytest.mark.parametrize("mistake, campaign", [
    ("acknowledges before the sync", "windows"), ("a lane moves its cursor on send", "upstream"), ("windows close again after a start", "windows"), ("an outbox is not cut back", "windows"),
    ("a step of the clock counts twice", "clocks"), ("a device's clock makes the others late", "clocks"), ("re-timed rows do not say so", "clocks"),
    ("a checkpoint forgets the steps of the clock", "clocks"), ("an outbox is cut back a record short", "years"), ("the time away is a silence", "years")])
def test_a_planted_mistake_is_found(mistake, campaign, folder, monkeypatch):
    import planted

    monkeypatch.setattr(planted.years_run, "DAYS", 30)
    assert planted.noticed(mistake, planted.CAMPAIGNS[campaign], folder, 4), "no run found it"
