"""kill -9 at random moments: nothing acknowledged is lost, nothing is doubled after the receiver, the ledger balances."""

import os
import random
import time

import pytest

from site_world import Site

KILLS = int(os.environ.get("TIDEGATE_KILLS", "100"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_9_loses_nothing_and_doubles_nothing(tmp_path):
    seed = int(os.environ.get("TIDEGATE_SEED", random.randrange(10**6)))
    print(f"seed {seed}")
    rng = random.Random(seed)
    site = Site(tmp_path, SEED=seed, DEVICES=40, RATE="25.0")
    try:
        site.start_receiver()
        site.start_gateway()
        site.start_fleet(seconds=3600)
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.05, 1.2))
            site.kill()
            site.start_gateway(wait=False)
        site.wait_for(lambda: site.ask("status"), "the gateway to answer")
        time.sleep(2)
        site.processes["fleet"].terminate()
        site.processes["fleet"].wait(60)
        time.sleep(5)                                  # windows close by the idle time-out
        site.drained()
        ledger = site.ask("ledger")
        assert ledger["balanced"], ledger["problems"]
        assert site.stop("gateway") == 0
        site.stop("receiver")
        fleet = site.last_json("fleet")
        assert fleet["acknowledged"] > 100 * KILLS / 4, fleet
        for options in (["--stream", "once"], ["--stream", "hot", "--where", "temp > 30"]):
            ok, report = site.verify(*options)
            assert ok, (seed, options, {k: v for k, v in report.items() if k != "devices"})
    finally:
        site.close()
