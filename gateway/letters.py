"""Dead letters in the running gateway: what `tidegate dead-letters retry | drop` asks for over the local socket.

request  {"do": "retry" | "drop", "numbers": [N, ...], "force": bool}      at most LETTERS_MAX of them
answer   {"done": [N, ...], "refused": [[N, why], ...], "left": [N, ...], "waits": bool}      left: beyond a call's bounds, ask again; waits: for the disk

A rule's batch is not retried by itself: its rows have a place in the rule's order, and only a replay gives it to them there.
"""

import time
from contextlib import suppress

from edge import fates
from edge.errors import DiskError, TidegateError
from edge.storage.records import DEAD, FATE, between, read_letter

LETTERS_MAX = 256                    # a request: they are all journaled in one turn
BYTES_MAX = 1 << 20


class Letters:
    """daemon: gateway.daemon.Daemon, or what has its pipeline, core, clock, take() and refuses."""

    def __init__(self, daemon):
        self._daemon = daemon
        self._pipeline = daemon.pipeline
        self._fates = None               # letter -> what became of it, once somebody has asked

    def handle(self, request) -> dict:
        """The answer, plain data. Raises TidegateError."""
        numbers = request.get("numbers")
        if request.get("do") not in ("retry", "drop") or not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers):
            raise TidegateError('letters: ask for {"do": "retry" or "drop", "numbers": [...]}')
        if len(numbers) > LETTERS_MAX:
            raise TidegateError(f"letters: {len(numbers)} in one request, at most {LETTERS_MAX} are taken")
        if self._daemon.refuses:
            raise DiskError(f"nothing is taken in at the moment: {self._daemon.refuses}; try again later")
        known = self._known()
        try:
            return (self._retry if request["do"] == "retry" else self._drop)(sorted(set(numbers)), known, bool(request.get("force")), request["who"])
        except BaseException:
            self._fates = None           # what was noted is looked up again
            raise

    def _retry(self, numbers, known, force, who):
        letters, refused, left, size = [], [], [], 0
        for number in numbers:
            letter, why = self._letter(number, known, force)
            if letter is None:
                refused.append((number, why))
            elif letters and size + len(letter[3]) > BYTES_MAX:
                left.append(number)
            else:
                letters.append(letter)
                size += len(letter[3])
        stored, done, more = fates.retry(self._pipeline, letters, self._daemon.now_ns(), self._daemon.clock.quality, who)
        known |= dict.fromkeys(done, fates.RETRIED)
        through = self._daemon.take(stored)
        return {"done": done, "refused": sorted((*refused, *more)), "left": left, "waits": not through}

    def _letter(self, number, known, force):
        """(number, stream's name, topic, payload, whether it was retried) of a letter that can be retried; (None, why)."""
        record = self._record(number)
        if record is None:
            return None, "there is no such dead letter"
        if number in known and not force:
            return None, f"it was {known[number]} before (--force does it again)"
        try:
            content = read_letter(record.payload)
            if "rule" in content:
                return None, (f"it is a batch of rule {content['rule']}: push the mended rule with --policy replay and a --horizon that begins before it; "
                              "it then gets these rows in their place")
            if "withheld" in content:
                return None, "its payload was not kept: fields of its stream have a mask"
            topic, payload = content["topic"].encode(), content["payload"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return None, "it cannot be decoded"
        if content.get("size", len(payload)) != len(payload):
            return None, f"only the first {len(payload):,} of its {content['size']:,} bytes are kept"
        schema = self._daemon.core.meanings.get(record.stream)
        return (number, schema.stream if schema else "", topic, payload, known.get(number) == fates.RETRIED), ""

    def _drop(self, numbers, known, force, who):
        refused = [(n, "there is no such dead letter" if self._record(n) is None else f"it was {known[n]} before") for n in numbers
                   if self._record(n) is None or n in known]
        done = [n for n in numbers if n not in dict(refused)]
        if done:
            fates.drop(self._pipeline, done, time.time_ns(), who)
            known |= dict.fromkeys(done, fates.DROPPED)
        return {"done": done, "refused": refused, "left": [], "waits": False}

    # --- the dead log

    def _record(self, number):
        log = self._pipeline.dead.log
        if not log.tail <= number < log.head:
            return None
        records = log.read(number, 1)
        return records[0] if records and records[0].position == number and records[0].kind == DEAD else None

    def _known(self) -> dict:
        """What became of which letters, of those that are held."""
        log = self._pipeline.dead.log
        if self._fates is None:
            self._fates = {}
            for record in between(log, log.tail):
                if record.kind == FATE:
                    with suppress(DiskError):            # `tidegate buffer verify` says it
                        fates.learn(self._fates, fates.fate(record))
        self._fates = {n: state for n, state in self._fates.items() if n >= log.tail}
        return self._fates
