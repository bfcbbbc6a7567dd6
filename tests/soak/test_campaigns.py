"""CI's share of every campaign, two processes at a time. The seed is always the same, so that a change is judged by itself; `make soak` takes others, and
TIDEGATE_SEED any."""

import json
import os
import subprocess
import sys

import pytest
from campaigns import CAMPAIGNS

SEED = int(os.environ.get("TIDEGATE_SEED", 3337460898))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("campaign", CAMPAIGNS, ids=lambda c: c.name)
def test_promises_hold(campaign):
    chunk = min(campaign.chunk, -(-campaign.ci // 2))
    chunks = [(first, min(chunk, campaign.ci - first)) for first in range(0, campaign.ci, chunk)]
    broken = tried(campaign, chunks)
    if broken and campaign.noisy:
        print(f"{campaign.name}: once more, one process at a time, for it judges time or memory: {broken}")
        broken = [what for chunk in chunks for what in tried(campaign, [chunk])]
    assert not broken, f"{campaign.name}, seed {SEED}: {broken}"


def tried(campaign, chunks):
    """What is broken, over the processes of these chunks."""
    runs = [subprocess.Popen(campaign.command(sys.executable, SEED, *chunk), stdout=subprocess.PIPE, text=True) for chunk in chunks]
    broken = []
    for run in runs:
        said = run.communicate()[0].strip().splitlines()
        results = json.loads(said[-1]) if said else {"broken": [f"the process ended with status {run.returncode} and said nothing"]}
        broken += results["broken"] or ([f"status {run.returncode}"] if run.returncode else [])
    return broken
