"""Jobs: what was asked for and takes longer than an answer may. A bounded table; finished jobs are kept for a while, so that their outcome can be asked for."""

from edge.errors import TidegateError
from gateway.requests import Unknown

UNFINISHED_MAX = 8
KEPT_MAX = 64
FINISHED = ("done", "failed")


class Job:
    """One of them. state: "examining", "waiting", "warming", "done" or "failed"; policy: of the swap, as it came to be; progress: 0 to 1 of a warm-up;
    report: of the admission, or None; error: why it failed; notes: what whoever asked should know."""

    def __init__(self, number, what, rule, who):
        self.number, self.what, self.rule, self.who = number, what, rule, who
        self.state, self.policy, self.progress, self.version, self.error, self.fault = "examining", "", 0.0, "", "", ""
        self.report, self.notes = None, []
        self.swap = None                 # while it is under way

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    def fail(self, error, fault="rule"):
        """It failed: this is why."""
        self.state, self.error, self.fault, self.swap = "failed", error, fault, None

    def to_dict(self) -> dict:
        """Plain data."""
        return {"job": str(self.number), "what": self.what, "rule": self.rule, "version": self.version, "state": self.state, "policy": self.policy,
                "progress": self.progress, "error": self.error, "fault": self.fault, "notes": self.notes,
                "report": self.report}


class Jobs:
    """All jobs, by number."""

    def __init__(self):
        self._jobs = {}
        self._number = 0

    def begin(self, what, rule, who) -> Job:
        """A new job. Raises TidegateError when too many are unfinished."""
        if len(self.unfinished()) >= UNFINISHED_MAX:
            raise TidegateError(f"{UNFINISHED_MAX} changes are under way: try again in a moment")
        self._number += 1
        job = self._jobs[self._number] = Job(self._number, what, rule, who)
        for number in [n for n, old in self._jobs.items() if old.finished][:max(0, len(self._jobs) - KEPT_MAX)]:
            del self._jobs[number]
        return job

    def unfinished(self) -> list[Job]:
        """Those under way, in the order they began."""
        return [job for job in self._jobs.values() if not job.finished]

    def get(self, number) -> Job:
        """Raises TidegateError."""
        job = self._jobs.get(int(number)) if str(number).isascii() and str(number).isdigit() else None
        if job is None:
            raise Unknown(f"there is no job {str(number)[:20]!r}: jobs are forgotten some time after they end, and when the gateway stops")
        return job
