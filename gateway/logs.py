"""The daemon's log: a line for each event of note, on standard error, at most a few of a kind a minute."""

import json
import sys
import time

REPEAT_S = 60.0
BURST = 5
KINDS_MAX = 512


class Log:
    """log("listener", "device dev-7 refused", device="dev-7"). format: "text" or "json".

    A kind that comes more than BURST times in REPEAT_S is held back and counted; the count comes with the kind's next line.
    At most KINDS_MAX kinds are remembered; then the counts start anew.
    """

    def __init__(self, format="text", stream=None, clock=time.monotonic, wall=time.time):
        self._json = format == "json"
        self._stream = stream or sys.stderr
        self._clock = clock
        self._wall = wall
        self._seen = {}                  # kind -> [window start, lines in it, held back]

    def __call__(self, kind, message, level="info", **details):
        held = self._admit((kind, level, message.split(":")[0]))
        if held is None:
            return
        if held:
            details["held_back"] = held
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall()))
        if self._json:
            line = json.dumps({"time": stamp, "level": level, "part": kind, "message": message, **details}, default=str)
        else:
            extra = "".join(f" {k}={v}" for k, v in details.items())
            line = f"{stamp} {level:7} {kind}: {message}{extra}"
        try:
            print(line, file=self._stream, flush=True)
        except (OSError, ValueError):
            pass                         # a log that cannot be written must not stop the gateway

    def error(self, kind, message, **details):
        self(kind, message, "error", **details)

    def warning(self, kind, message, **details):
        self(kind, message, "warning", **details)

    def _admit(self, key):
        """How many lines of this key were held back since its last one; None to hold this one back too."""
        now = self._clock()
        window = self._seen.get(key)
        if window is None or now - window[0] > REPEAT_S:
            if len(self._seen) >= KINDS_MAX:
                self._seen.clear()
            self._seen[key] = [now, 1, 0]
            return window[2] if window else 0
        window[1] += 1
        if window[1] <= BURST:
            return 0
        window[2] += 1
        return None
