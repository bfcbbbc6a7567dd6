"""Floods: devices that send without waiting for anything, and what they are held to while other devices are connected.

A turn of the gateway cannot be interrupted: what another device sends meanwhile waits for its end, however little a flood may put into it. So not the
bytes of a turn are shared out but the time: a device that floods is read, and then rests FACTOR times as long as the gateway was busy with what came. An
event of another device meets a turn of the flood's in one case of FACTOR + 1, which its 99th percentile does not see. TCP holds the flood back meanwhile.

    flooding   more than EVENTS_PER_S events that ask for no acknowledgement (a large one counts once more for each KiB), beyond a BURST; or more than a
               whole read waiting again and again
    not        a device whose few messages under way wait for their PUBACKs, however fast: it waits for the gateway, and costs others a turn at most
    no flood   when most of the connected devices do it: that is the load

Reasons: docs/adr/0016-floods-rest.md.
"""

EVENTS_PER_S = 2000.0
BURST = 4000.0                       # events; a whole read counts as EVENTS_PER_S at least
READ_BYTES = 64 << 10                # of a device that floods, a turn
FACTOR = 255
REST_S_MAX = 2.0


class Floods:
    """Of one Listener."""

    def __init__(self, listener):
        self._listener, self._reactor = listener, listener.reactor
        self._flooding, self._resting = set(), set()
        self._served, self._stored_at = [], None     # those that were read and whose events are not stored yet; the turn that stores them
        self.begun = 0               # times that a device began to flood

    def __len__(self):
        return len(self._flooding)

    @property
    def _spared(self) -> bool:
        """Whether there are devices to spare: as many that do not flood."""
        return self._listener.connected >= 2 * len(self._flooding)

    def read_bytes(self, device) -> int:
        """How much to receive of it at once."""
        return READ_BYTES if device in self._flooding else self._listener.read_bytes_max

    def weigh(self, device, unasked, whole):
        """device was read: unasked events came, which ask for no acknowledgement; whole: more waits, perhaps. It may have to rest."""
        if not (unasked or whole or device in self._flooding):
            return
        now = self._reactor.now
        cost = max(unasked, EVENTS_PER_S) if whole else unasked
        device.tokens = max(-BURST, min(BURST, device.tokens + (now - device.tokens_at) * EVENTS_PER_S) - cost)
        device.tokens_at = now
        if device not in self._flooding:
            if device.tokens >= 0:
                return
            self._begin(device)
        elif device.tokens >= 0 and not whole:
            self._flooding.discard(device)
            return
        if self._spared and not device.paused:
            device.paused = True
            self._served.append(device)
            if not len(self._listener.intake):       # nothing came of it that is to be stored: what it cost is known
                self._send_to_rest(self._reactor.monotonic() - now)

    def _begin(self, device):
        self._flooding.add(device)
        self.begun += 1
        self._listener.note_flood(device)
        if not self._spared:
            for other in list(self._resting):
                self._wake(other)

    def stored(self):
        """What came is stored: when the turn is over, it is known what it cost."""
        if self._served and self._stored_at is None:
            self._stored_at = self._reactor.now
            self._reactor.soon(self._over)

    def _over(self):
        began, self._stored_at = self._stored_at, None
        self._send_to_rest(self._reactor.now - began)

    def _send_to_rest(self, cost_s):
        served, self._served = self._served, []
        rest_s = min(REST_S_MAX, FACTOR * cost_s)
        for device in served:
            self._resting.add(device)
            self._reactor.later(rest_s, lambda device=device: self._wake(device))

    def _wake(self, device):
        if device in self._resting:
            self._resting.discard(device)
            device.unpause()

    def forget(self, device):
        """device is closed."""
        self._flooding.discard(device)
        self._resting.discard(device)
        if device in self._served:
            self._served.remove(device)
