"""A session of discovery: listen, propose, and the page of it."""

import sys
import time

from gateway.config import address, spec
from gateway.discover import page
from gateway.discover.ears import hear
from gateway.discover.survey import Survey


class Proposed:
    """source: the spec.Broker or spec.Listener; count: streams that are proposed; streams: their tables, and comments on
    the rest; permits: filters for an acl_file, of what devices publish."""

    def __init__(self, source, survey, heard):
        proposals = page.propose(survey)
        kind = "broker" if isinstance(source, spec.Broker) else "listener"
        self._source = kind, address.table_of(source)
        self.count = sum(proposal.table is not None for proposal in proposals)
        self.said = f"heard at the {kind} {source.host}:{source.port}: {page.summary(survey, heard)}"
        self.streams = page.streams(proposals, heard)
        self.permits = [permit for proposal in proposals if proposal.table for permit in proposal.permits()]

    def whole(self) -> str:
        """A configuration that `tidegate check` accepts, if there is a stream."""
        head = [page.comment(f"Proposed by `tidegate discover`. {self.said[:1].upper()}{self.said[1:]}."),
                page.comment("Look it over: a minute shows neither what comes once a day nor what a value may become. `tidegate check` says whether it is sound.")]
        return "\n".join([*head, "", page.table(*self._source), self.streams])


def discovered(source, seconds, topics=None, say=None) -> Proposed:
    """Listen to a spec.Broker or as a spec.Listener, and propose. say(line): news for people, on standard error if nothing else is given. Raises ConfigError."""
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    survey = Survey()

    def ready(port):
        say(f"listening at {source.host}:{port or source.port} for {seconds:g} s; Ctrl-C ends earlier")

    heard = hear(source, survey, seconds=seconds, topics=topics or ("#",), tell=say, ready=ready, progress=_progress(survey))
    proposed = Proposed(source, survey, heard)
    say(f"{page.summary(survey, heard)}; streams proposed: {proposed.count:,}"
        + ("" if proposed.count else ". Was something sent? May this user read it? Is the time too short?"))
    return proposed


def _progress(survey):
    """On a terminal a line that is rewritten, once a second."""
    if not sys.stderr.isatty():
        return lambda: None
    told = [time.monotonic()]

    def progress():
        if time.monotonic() - told[0] > 1:
            told[0] = time.monotonic()
            print(f"\r\x1b[K{survey.count:,} messages on {len(survey.topics):,} topics\r", end="", file=sys.stderr, flush=True)

    return progress
