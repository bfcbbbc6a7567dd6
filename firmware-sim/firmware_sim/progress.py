"""Progress of a run on standard error: live on a terminal when rich is there, else a plain line now and then."""

import sys
import time

from .connection import UP

PLAIN_EVERY_S = 5.0


def make_progress(quiet):
    """(function of the fleet, called about once a second; function that ends the display)."""
    if quiet:
        return (lambda fleet: None), (lambda: None)
    if sys.stderr.isatty():
        try:
            return _live()
        except ImportError:
            pass
    return _plain(), lambda: None


def _numbers(fleet):
    truth = fleet.truth
    up = sum(d.connection.state == UP for d in fleet.devices)
    waiting = sum(len(d.connection.queue) for d in fleet.devices)
    return (f"{fleet.elapsed / 1e9:.0f} s of scenario, {up}/{len(fleet.devices)} devices up, {truth.sent} sent, "
            f"{truth.acked_count} acknowledged, {waiting} waiting")


def _plain():
    last = time.monotonic()

    def show(fleet):
        nonlocal last
        if fleet.now - last >= PLAIN_EVERY_S:
            last = fleet.now
            print(_numbers(fleet), file=sys.stderr, flush=True)
    return show


def _live():
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text
    live = Live(Text("connecting"), console=Console(stderr=True), auto_refresh=False, transient=True)
    live.start()

    def show(fleet):
        text = Text(_numbers(fleet))
        if fleet.trouble:
            text.append(f"\n{fleet.trouble}", "yellow")
        live.update(text, refresh=True)
    return show, live.stop
