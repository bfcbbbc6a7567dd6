"""A daemon with a greedy rule goes on as if it had none: the other rules keep up, and what the greedy one owes is said."""

from edge.cost import Meter
from gateway.bench import workload
from gateway.bench.engine import DOORS, Engine
from gateway.status import ledger, metrics_text, status

GREEDY = '[rules.greedy]\ninput = "env"\nmodule = "threshold"\nparams = { field = "temp", op = ">", value = 20 }\n'


class Virtual(Meter):
    """A rule that takes 5 ms for an event, or no time at all, whatever the machine does."""

    def note(self, rows):
        self.last_ns = rows * 5_000_000 if self._rule.name == "greedy" else 0


def test_one_greedy_rule_slows_only_itself(tmp_path):
    run = Engine(tmp_path / "run", workload.STREAM + GREEDY + workload.RULES + DOORS)
    run.daemon.pipeline.share.cpu = 0.01
    for stage in run.pipeline.stages:
        stage.meter = Virtual(stage.rule)
    for turn in range(60):
        run._take(workload.packets(20, first=20 * turn), 1 << 20)
        assert all(stage.backlog is None for stage in run.pipeline.stages if stage.name != "greedy")
        assert ledger(run.daemon)["balanced"]
    now = status(run.daemon)
    assert now["rules_cpu"]["waiting"] == ["greedy"] and now["rules"]["greedy"]["state"] == "waits for CPU" and now["rules"]["greedy"]["lag_rows"] > 400
    assert f'tidegate_rule_lag_rows{{rule="greedy"}} {now["rules"]["greedy"]["lag_rows"]}' in metrics_text(run.daemon)
    assert now["rules"]["hot"]["in"] == now["rules"]["seconds"]["in"] == 1200
    run.pipeline.catch_up()
    assert not run.pipeline.deferred and ledger(run.daemon)["balanced"] and run.pipeline.stages[0].rule.rows_in == 1200
    run.close()
