"""Mistakes to be found: each is put into the gateway for as long as it is asked for. A campaign that does not notice them proves nothing.

    python planted.py [CAMPAIGN ...]       tries each on each campaign, a few units at most, and prints who noticed
"""

import os
import sys
from contextlib import contextmanager

import worlds  # noqa: F401  (finds the other folders)
import clocks_run
import upstream_run
import windows_run
import years_run

from edge._watermark import FORGOTTEN
from edge.outbox import Outbox
from edge.pipeline import Pipeline
from gateway import core
from gateway.clock import TRUSTED
from gateway.daemon import Daemon
from gateway.forward import track
from gateway.forward.lane import Lane


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


def counts_a_step_twice(clock_set):
    def planted(self, delta_ns, away=False):
        clock_set(self, delta_ns, away)
        self._clock_set(delta_ns, away)

    return planted


def leaks_watermarks(watermarks):
    """The furthest device's time is everybody's."""
    class Leaking(watermarks):
        most = -1 << 62

        def observe(self, batch):
            super().observe(batch)
            known = batch.watermarks()
            self.most = max([self.most, *(at for _, at in known if at != FORGOTTEN)])
            batch.set_watermarks([(key, self.most) for key, _ in known])

    return Leaking


def forgets_the_steps(state):
    return lambda self: state(self) | {"steps": []}


def cuts_a_record_short(cut_back):
    return lambda self, state, *then: cut_back(self, state | {"head": max(self.log.tail, state["head"] - 1)}, *then)


def sends_what_is_not_durable(lane):
    return lambda *args, cleared, **options: lane(*args, **options)


MISTAKES = {
    "acknowledges before the sync": (Daemon, "_store", acknowledges_before_the_sync),
    "a lane moves its cursor on send": (Lane, "_count_sent", moves_the_cursor_on_send),
    "windows close again after a start": (core, "capture", forgets_the_watermarks),
    "an outbox is not cut back": (Outbox, "cut_back", lambda cut_back: lambda self, state, *then: self.load(state)),
    "a step of the clock counts twice": (Pipeline, "clock_set", counts_a_step_twice),
    "a device's clock makes the others late": (core, "Watermarks", leaks_watermarks),
    "re-timed rows do not say so": (track, "RETIMED", lambda retimed: TRUSTED),
    "rows are not re-timed": (Outbox, "set_since", lambda set_since: lambda self, position: (0, True)),
    "a checkpoint forgets the steps of the clock": (Outbox, "state", forgets_the_steps),
    "an outbox is cut back a record short": (Outbox, "cut_back", cuts_a_record_short),
    "the time away is a silence": (Daemon, "now_ns", lambda now_ns: lambda self: self.clock.now_ns()),
    "rows leave before their cause is durable": (core, "Lane", sends_what_is_not_durable),
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
        for name in sys.argv[1:] or CAMPAIGNS:
            for mistake in MISTAKES:
                print(f"{name}: {mistake}: {noticed(mistake, CAMPAIGNS[name], folder, 7 if name == 'upstream' else 3)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
