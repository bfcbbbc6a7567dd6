"""Shares of CPU: all rules together may use a part of one core, and when that is not enough each gets a fair part of it.

Time is what the modules took (edge/cost.py), set against the time that went by, which the owner passes in. A stage's credit is filled up at the same rate
for all; what one has no use for goes to the others (max-min fairness), up to a second's worth. While the credits' sum is positive the rules are
within their budget and nobody waits, whoever spent it. Beyond that, those in debt wait (edge/backlog.py) and those in credit do not; of those that wait, the
one with most credit goes first, which is deficit round robin without rounds. So a rule that takes less than its part never waits for a greedy one's calls.

A shadow has its own account, and runs only while there is more than RESERVE left: it stops before anybody waits because of it.
"""

BURST_NS = 1_000_000_000             # of time that may be saved up
DEAL_NS = 50_000_000                 # while nobody waits, time is dealt out this often
RESERVE = 0.25


class Share:
    """cpu: the part of one core that all rules may use together, up to 1. `left_ns`: the sum of the credits, as dealt out last and charged since."""

    def __init__(self, cpu):
        self.cpu = cpu
        self.left_ns = self._most_ns = cpu * BURST_NS
        self._elapsed_ns = BURST_NS      # not yet dealt out

    def grant(self, elapsed_ns, stages):
        """So much time went by. stages: all there are."""
        self._elapsed_ns += elapsed_ns
        if self._elapsed_ns >= DEAL_NS or self.left_ns <= RESERVE * self._most_ns:
            self._deal([*stages, *(stage.shadow for stage in stages if stage.shadow is not None)])

    def _deal(self, accounts):
        most = self._most_ns / max(1, len(accounts))
        pool, self._elapsed_ns = self.cpu * self._elapsed_ns, 0
        hungry = [account for account in accounts if account.credit_ns < most]
        while hungry and pool > 1:
            each, pool = pool / len(hungry), 0
            for account in hungry:
                account.credit_ns += each
                if account.credit_ns > most:
                    pool += account.credit_ns - most
                    account.credit_ns = most
            hungry = [account for account in hungry if account.credit_ns < most]
        self.left_ns = sum(account.credit_ns for account in accounts)

    def charge(self, account, ns):
        """A call of this stage or shadow took so long."""
        account.credit_ns -= ns
        self.left_ns -= ns

    def holds(self, stage) -> bool:
        """Whether a call of this stage must wait."""
        return self.left_ns <= 0 and stage.credit_ns <= 0

    @property
    def spare(self) -> bool:
        """Whether shadows may run."""
        return self.left_ns > RESERVE * self._most_ns

    def report(self, waiting) -> dict:
        """Plain data: the budget, how much of it is saved up (below 0: overdrawn), and who waits."""
        return {"budget": self.cpu, "left_ms": round(self.left_ns / 1e6, 1), "waiting": sorted(stage.name for stage in waiting)}

    def next(self, waiting):
        """The stage that goes first of those that wait, None while none may go."""
        stage = max(waiting, key=lambda stage: stage.credit_ns, default=None)
        return None if stage is None or self.holds(stage) else stage
