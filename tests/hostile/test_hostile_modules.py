"""Two thousand hostile modules: none ends the process, changes what another rule puts out, runs on past its time or keeps memory."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import hostile_modules
import pytest

RUN = Path(__file__).with_name("hostile_run.py")
PROCESSES = 2
MODULES = 1000                           # in each
SEED = int(os.environ.get("TIDEGATE_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.mark.timeout(600)
def test_hostile_modules_harm_nobody():
    runs = [subprocess.Popen([sys.executable, RUN, "--seed", str(SEED), "--first", str(i * MODULES), "--count", str(MODULES)], stdout=subprocess.PIPE)
            for i in range(PROCESSES)]
    for run in runs:
        said, _ = run.communicate()
        assert said, f"seed {SEED}: the process ended with status {run.returncode}"
        results = json.loads(said)
        assert results["broken"] == [], results
        fates = results["fates"]
        assert fates["quarantined"] > 50 and fates["ran"] > 100 and sum(n for fate, n in fates.items() if fate.startswith("refused")) > 100, results


@pytest.mark.parametrize("family", range(len(hostile_modules.FAMILIES)), ids=lambda i: f"{i}-{hostile_modules.FAMILIES[i].__name__}")
def test_a_module_is_the_same_for_the_same_seed(family):
    assert hostile_modules.module(7, family) == hostile_modules.module(7, family)
