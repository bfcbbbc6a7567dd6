"""Upkeep: files that are followed while the gateway runs: certificates, passwords, permits. A new file that cannot be used leaves the old one in force."""

import os

from edge.errors import ConfigError

EVERY_S = 5.0


class Followed:
    """Files that belong together. load(): what is in them, raises ConfigError; use(value): put it in force; note(message): for the log."""

    def __init__(self, what, paths, load, use, note):
        self._what, self._load, self._use, self._note = what, load, use, note
        self._paths = [path for path in paths if path]
        self._used = self._seen = self._stamps()

    def refresh(self):
        """Load the files when they are others than those in use, and have stood still since the last look: they may be replaced one after the other."""
        stamps = self._stamps()
        still, self._seen = stamps == self._seen, stamps
        if not still or stamps == self._used:
            return
        self._used = stamps
        try:
            value = self._load()
        except ConfigError as error:
            self._note("kept", f"the {self._what} in use stay in force: {error}")
            return
        self._use(value)
        self._note("renewed", f"the {self._what} are read again")

    def _stamps(self):
        return [stamp(path) for path in self._paths]


class Upkeep:
    """Looks after what is followed, every EVERY_S seconds."""

    def __init__(self, reactor, followed):
        self._reactor, self._followed = reactor, followed
        self._timer = reactor.later(EVERY_S, self._look) if followed else None

    def _look(self):
        self._timer = self._reactor.later(EVERY_S, self._look)
        for one in self._followed:
            one.refresh()

    def close(self):
        if self._timer is not None:
            self._timer.cancel()


def stamp(path):
    """What changes when a file is written anew; None for one that is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
