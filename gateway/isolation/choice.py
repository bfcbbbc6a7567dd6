"""Whether rules run in a process of their own: what the configuration says, else what the board has room for (docs/adr/0012-rules-in-a-process-of-their-own.md)."""

import os

from edge.errors import ConfigError

SMALL_BYTES = 1 << 30                # of memory; with less, the process of the rules costs too much of it


def begin(asked):
    """A worker that is coming up, for place(); None where there is to be none. asked: gateway.isolation of the configuration."""
    if not wanted(asked):
        return None
    from gateway.isolation.child import Child
    from gateway.isolation.sandbox import Unconfined

    try:
        return Child()
    except Unconfined:                       # place() tries again, and says why not
        return None


def place(asked, log, worker=None):
    """A gateway.isolation.workshop.Workshop, or None for this process. worker: of begin(). Raises ConfigError where "process" is asked for and cannot be; by
    default rules run in this process then, and the log says so."""
    if not wanted(asked):
        return None
    from gateway.isolation.sandbox import Unconfined
    from gateway.isolation.workshop import Workshop

    try:
        workshop = Workshop(first=worker)
    except Unconfined as error:
        if asked == "process":
            raise ConfigError(f"gateway.isolation: rules cannot have a process of their own here: {error}; or set it to \"none\"") from None
        log.warning("rule", f"rules run in the gateway's own process: {error}")
        return None
    workshop.on_death = lambda why: log.error("rule", f"the process of the rules ended: {why}; it is started again, and the rules have their states back")
    return workshop


def wanted(asked) -> bool:
    """Whether rules are to have a process of their own."""
    return asked == "process" or asked == "auto" and os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") > SMALL_BYTES
