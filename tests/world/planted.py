"""Mistakes to be found: each is put into the gateway for as long as it is asked for. A campaign that does not notice them proves nothing.

    python planted.py        tries each on each campaign, a few units at most, and prints who noticed
"""

import os
import sys
from contextlib import contextmanager

import worlds  # noqa: F401  (finds the other folders)
import clocks_run
import upstream_run
import windows_run
import years_run

from edge.outbox import Outbox
from gateway import core
from gateway.daemon import Daemon
from gateway.lane import Lane


@contextmanager
def changed(place, name, value):
    before = getattr(place, name)
    setattr(place, name, value(before))
    try:
        yield
    finally:
        setattr(place, name, before)


def acknowledges_before_the_sync(store):
    def planted(self):
        store(self)
        for source in self.parts.sources:
            source.acknowledge()

    return planted


def moves_the_cursor_on_send(count_sent):
    def planted(self, message):
        count_sent(self, message)
        if message.group is not None:
            group, message.group = message.group, None
            group.track.acknowledged(group)

    return planted


def forgets_the_watermarks(capture):
    def planted(*args):
        meta, images = capture(*args)
        return meta, {name: image for name, image in images.items() if not name.startswith("watermarks/")}

    return planted


MISTAKES = {
    "acknowledges before the sync": (Daemon, "_store", acknowledges_before_the_sync),
    "a lane moves its cursor on send": (Lane, "_count_sent", moves_the_cursor_on_send),
    "windows close again after a start": (core, "capture", forgets_the_watermarks),
    "an outbox is not cut back": (Outbox, "cut_back", lambda cut_back: lambda self, state, sequences: self.load(state)),
}
CAMPAIGNS = {"windows": windows_run.unit, "upstream": upstream_run.unit, "clocks": clocks_run.unit, "years": years_run.unit}


def noticed(mistake, unit, folder, tries):
    """What a campaign says of a mistake: (unit, problem), or None. A gateway that falls over is noticed too."""
    with changed(*MISTAKES[mistake]):
        for i in range(tries):
            try:
                problems = unit(f"7/{i}", folder)[1]
            except Exception as error:
                problems = [repr(error)]
            if problems:
                return i, problems[0]
    return None


def main():
    from simulation import Folder

    with Folder() as folder:
        os.makedirs(f"{folder}/data")
        for name, unit in CAMPAIGNS.items():
            for mistake in MISTAKES:
                print(f"{name}: {mistake}: {noticed(mistake, unit, folder, 7 if name == 'upstream' else 3)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
