"""Whether rules run in a process of their own: what the configuration says, else what the board has room for (docs/adr/0012-rules-in-a-process-of-their-own.md)."""

import os

from edge.errors import ConfigError

SMALL_BYTES = 1 << 30                # of memory; with less, the process of the rules costs too much of it


def place(isolation, log):
    """A gateway.workshop.Workshop, or None for this process. isolation: "process", "none" or None for the default. Raises ConfigError where "process"
    is asked for and cannot be; by default rules run in this process then, and the log says so."""
    if not wanted(isolation):
        return None
    from gateway.sandbox import Unconfined
    from gateway.workshop import Workshop

    try:
        workshop = Workshop()
    except Unconfined as error:
        if isolation == "process":
            raise ConfigError(f"gateway.isolation: rules cannot have a process of their own here: {error}; or set it to \"none\"") from None
        log.warning("rule", f"rules run in the gateway's own process: {error}")
        return None
    workshop.on_death = lambda why: log.error("rule", f"the process of the rules ended: {why}; it is started again, and the rules have their states back")
    return workshop


def wanted(isolation) -> bool:
    """Whether rules are to have a process of their own."""
    return isolation != "none" and (isolation is not None or _memory_bytes() > SMALL_BYTES)


def _memory_bytes():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
