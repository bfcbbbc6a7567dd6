"""CI's share of every campaign, two processes at a time, from a seed that is printed; TIDEGATE_SEED repeats one."""

import json
import os
import random
import subprocess
import sys

import pytest
from campaigns import CAMPAIGNS

SEED = int(os.environ.get("TIDEGATE_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("campaign", CAMPAIGNS, ids=lambda c: c.name)
def test_promises_hold(campaign, capfd):
    chunk = min(campaign.chunk, -(-campaign.ci // 2))
    runs = [subprocess.Popen(campaign.command(sys.executable, SEED, first, min(chunk, campaign.ci - first)), stdout=subprocess.PIPE, text=True)
            for first in range(0, campaign.ci, chunk)]
    for run in runs:
        said = run.communicate()[0].strip().splitlines()
        assert said, f"{campaign.name}, seed {SEED}: the process ended with status {run.returncode} and said nothing"
        results = json.loads(said[-1])
        assert results["broken"] == [] and run.returncode == 0, f"{campaign.name}, seed {SEED}: {results}"
