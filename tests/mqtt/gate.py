"""A listener in a thread of its own, for clients that are processes or bring their own threads."""

import sys
import threading
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from edge.mqtt._intake import Intake, Topics
from gateway.ingest.listener import Listener
from gateway.reactor import Reactor


class Gate:
    """events: (topic, payload, packet id, flags) of what was taken, in order; each is told to on_event, too, before it is acknowledged."""

    def __init__(self, on_event=lambda event: None, **settings):
        self.reactor, self.intake = Reactor(), Intake(Topics())
        self.listener = Listener(self.reactor, self.intake, host="127.0.0.1", port=0, **settings)
        self.events, self._on_event, self._ending = [], on_event, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._ending:
            self.reactor.turn(0.05)
            for i in range(len(self.intake)):
                self.events.append(self.intake[i])
                self._on_event(self.intake[i])
            self.listener.acknowledge()
            self.intake.clear()

    def close(self):
        self._ending = True
        self._thread.join()
        self.listener.close()
        self.reactor.close()
