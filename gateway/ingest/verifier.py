"""Verifier: passwords are checked beside the loop, one at a time, and remembered for a while, so that a fleet that comes back does not pay twice.

Bounds and what happens at them: WAITING_MAX questions wait, further ones are answered BUSY (the device tries again, and finds its answer
remembered when it had got in line before); KNOWN_MAX answers are remembered, the oldest forgotten first, by a keyed hash whose key lives as
long as the process; an address that guessed wrong FAILURES_MAX times in FAILURES_S is answered BUSY for whatever is not remembered.
"""

import os
import threading
from collections import OrderedDict
from hashlib import blake2b
from queue import SimpleQueue

from gateway.ingest import passwords
from gateway.ingest._connection import give_memory_back

WAITING_MAX = 256
KNOWN_MAX = 4096
GOOD_S = 600.0
BAD_S = 60.0
FAILURES_MAX = 10
FAILURES_S = 60.0
ADDRESSES_MAX = 1024
NICE = 10                            # the events come first
BUSY = "busy"


class Verifier:
    """ask() in the loop's thread; what it cannot answer at once comes by reactor.soon()."""

    def __init__(self, reactor, verify=passwords.verify):
        self._reactor, self._verify = reactor, verify
        self._key = os.urandom(32)
        self._known = OrderedDict()      # keyed hash -> (good, until)
        self._failures = OrderedDict()   # address -> [count, since]
        self._waiting = {}               # keyed hash -> who wants to know
        self._asked = SimpleQueue()
        self._thread = None
        self.computed = 0

    def ask(self, user, password, secret, address, then):
        """Whether `password` has the hash `secret`: True, False, BUSY, or None, and then(good) will be called."""
        key = self._hash(user, password, secret)
        good, until = self._known.get(key, (None, 0.0))
        if good is not None and until > self._reactor.now:
            return good
        if key in self._waiting:
            if len(self._waiting[key]) < WAITING_MAX:
                self._waiting[key].append((address, then))
                return None
            return BUSY
        count, since = self._failures.get(address, (0, 0.0))
        if len(self._waiting) >= WAITING_MAX or count >= FAILURES_MAX and self._reactor.now - since < FAILURES_S:
            return BUSY
        self._waiting[key] = [(address, then)]
        self._asked.put((key, password, secret))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="passwords", daemon=True)
            self._thread.start()
        return None

    def close(self):
        """Let the thread go."""
        self._asked.put(None)

    def _hash(self, user, password, secret):
        digest = blake2b(key=self._key, digest_size=16)
        for part in (user.encode(), password, secret.encode()):
            digest.update(len(part).to_bytes(4, "little") + part)
        return digest.digest()

    def _work(self):
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        except OSError:
            pass
        while (question := self._asked.get()) is not None:
            key, password, secret = question
            try:
                good = self._verify(password, secret)
            except (ValueError, MemoryError):        # OpenSSL finds no memory for it: nobody is let in by that
                good = None
            self._reactor.soon(lambda key=key, good=good: self._answer(key, good))

    def _answer(self, key, good):
        self.computed += 1
        now = self._reactor.now
        if good is not None:
            self._known[key] = good, now + (GOOD_S if good else BAD_S)
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        for address, then in self._waiting.pop(key, ()):
            if good is False:
                self._failed(address, now)
            then(BUSY if good is None else good)
        if not self._waiting:
            give_memory_back()           # scrypt's 16 MiB

    def _failed(self, address, now):
        count, since = self._failures.pop(address, (0, now))
        if now - since >= FAILURES_S:
            count, since = 0, now
        self._failures[address] = count + 1, since
        while len(self._failures) > ADDRESSES_MAX:
            self._failures.popitem(last=False)
