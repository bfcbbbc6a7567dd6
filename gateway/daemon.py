"""The daemon: `turn` is the way of an event through the gateway, from the sockets to the sockets.

    sources read into the intake -> decode and journal -> fsync -> PUBACKs -> rules -> outboxes -> lanes publish

One thread does all of it. While the disk refuses, nothing is acknowledged and nothing read: devices are held back, lanes go on.
"""

import gc
import signal

from edge.errors import DiskError
from edge.share import Share
from gateway.assembly import Parts
from gateway.control import Control
from gateway.gathering import Gathering
from gateway.machine import Machine
from gateway.notify import Notifier
from gateway.status import ledger, measures, metrics_text, status

TICK_S = 1.0
RETRY_S = 0.25                           # between two tries of a disk that refuses, or of a quota that is used up
BREATH_S = 0.002                         # of a turn meanwhile, while lanes send: sockets that a full intake leaves unread would keep the processor busy
IDLE_S = 1.0
SWAP_S = 0.005                           # of a turn, for a rule that warms up
WAITING_S = 0.005                        # the longest turn while rules wait for CPU
SERVE_NS = 10_000_000                    # of a turn, for them
AWAY_NS = 5 * 10**9                      # so long nothing was taken in and no time went on: the gateway was off, asleep, or held back by its disk


class Daemon:
    """A gateway on a configuration. run() returns the process's exit status; `turn` is one round, for tests. machine: what it runs on."""

    def __init__(self, config, machine=None):
        self.config = config
        self._machine = machine = machine or Machine()
        self.log = machine.log(config.gateway.log_format)
        self.parts = Parts(config, self.log, machine)
        self.core = self.parts.core
        self.pipeline = self.core.pipeline
        self.pipeline.share = Share(config.gateway.rules_cpu)
        self.reactor = self.parts.reactor
        self._granted_s = self.started = self.reactor.monotonic()
        self.intake = self.parts.intake
        self.clock = self.parts.clock
        self.control = self.metrics = self.manager = self.letters = self.traces = None
        self.blocked = ""                # why nothing is taken in
        self._gathering = Gathering(config.journal.durability.seconds)
        self._wait_s = IDLE_S            # until what has gathered is due
        self.blocks, self.last_block = 0, ""         # how often that was so, and why last
        self._retry_at = 0.0             # nothing is tried before; reactor seconds
        self._stored = []                # journaled, not yet synced
        self._stopping = False
        self._notifier = Notifier()
        self._checkpointed = None        # (pipeline.changes, blocked) at the last checkpoint
        self._checkpoint_due = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; then flush, checkpoint and return 0."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.set_wakeup_fd(self.reactor.wake_fd, warn_on_full_buffer=False)
        try:
            self.start()
            while not self._stopping:
                self.turn(IDLE_S)
        finally:
            self.close()
        return 0

    def start(self):
        """Take up where the last run stood, then open the doors."""
        parts = self.parts
        self.control = Control(self.reactor, self.config.gateway.data, {
            "status": lambda request: status(self), "ledger": lambda request: ledger(self), "metrics": lambda request: metrics_text(self),
            "measures": lambda request: {"gateway": self.config.gateway.name, "epoch": self.pipeline.epoch, "up_s": self.reactor.monotonic() - self.started, "measures": list(measures(self))},
            "manage": lambda request: self.manage(request.get("request"), request["who"]), "letters": self._letters, "traces": self._read_traces})
        if self.config.metrics is not None:
            from gateway.metrics import Metrics

            self.metrics = Metrics(self.reactor, self.config.metrics.port, lambda: metrics_text(self))
        self.core.on_event = self._told
        parts.open_sources(self.manage)
        self._checkpointed = self.pipeline.changes, ""
        self._every(TICK_S, self._tick)
        self._every(self.config.gateway.checkpoint.seconds or TICK_S, self._want_checkpoint)
        if self.config.gateway.ledger:
            self.core.account(self.now_ns())
            self._every(self.config.gateway.ledger.seconds, self._account)
        if self._notifier.watchdog_s:
            self._every(self._notifier.watchdog_s, self._notifier.alive)
        gc.collect()
        gc.freeze()                      # what stands now stays: no collection looks at it again
        self._notifier.ready("running")
        self.log("gateway", f"{self.config.gateway.name} runs", streams=len(self.pipeline.inputs), rules=len(self.pipeline.stages),
                 lanes=len(self.core.lanes), **({"listening": parts.listener.port} if parts.listener else {}))

    def manage(self, request, who):
        """The answer to a management request (gateway/requests.py). Raises TidegateError."""
        return self._managing().handle(request, who)

    def _managing(self):
        """The Manager, made when there is something to manage: most gateways run as they are for months. Raises DiskError."""
        if self.manager is None:
            from gateway.manage.manager import Manager

            self.manager = Manager(self, disk=self._machine.disk, wall=self._machine.wall_s, monotonic=self.reactor.monotonic)
        return self.manager

    def _letters(self, request):
        """Retry or drop dead letters, see gateway/letters.py. Raises TidegateError."""
        if self.letters is None:
            from gateway.letters import Letters

            self.letters = Letters(self)
        return self.letters.handle(request)

    def note(self, step, about=None):
        """Told of each step of a turn; until somebody asks for traces there is nothing to be done about it."""

    def _read_traces(self, request):
        """See gateway/traces.py. Raises TidegateError."""
        if self.traces is None:
            from gateway.traces import Traces

            self.traces = Traces(lambda: self.core.lanes, self.reactor, self._machine.wall_ns)
            self.note = self.traces.note
        return self.traces.read(request)

    def take(self, stored):
        """What the journal was given beside the intake: it goes on as events do. False: the disk refuses; it goes on when that takes it."""
        self._stored += stored
        self._commit()
        return not self._stored

    @property
    def refuses(self) -> str:
        """Why nothing can be journaled at the moment, or ""."""
        return self.blocked or self.pipeline.blocked or ("the disk refuses" if self._stored or self.core.unsettled else "")

    def _told(self, kind, rule, text, **details):
        """The first thing that befell a rule; the Manager hears of the next by itself."""
        try:
            self._managing().event(kind, rule, text, **details)
        except DiskError as error:
            self.log.error("disk", f"not in the audit log: {rule} {text}: {error}")

    def turn(self, timeout_s):
        """One round of the way of an event."""
        busy = self.core.busy and not self.blocked
        self.reactor.turn(0 if busy else min(timeout_s, self._wait_s, WAITING_S if self.pipeline.deferred else IDLE_S))
        self._grant()
        self._wait_s = max(0.0, self._retry_at - self.reactor.now)
        tries = not self._wait_s
        if tries and self._due() and self._may_take():
            self._store()
        if tries and (self.intake.closed or self._stored):
            self._commit()
        if not self.blocked and self.core.advance(SWAP_S):
            self._forward()
        if self.pipeline.deferred:
            self._serve()
        if tries and (self._checkpoint_due or self.core.unsettled):
            self._checkpoint()
        if self.blocked:
            self._machine.sleep(BREATH_S if any(lane.reads for _, lane in self.core.lanes) else RETRY_S)

    def _due(self) -> bool:
        """Whether events wait that have gathered long enough."""
        self._wait_s = IDLE_S
        if self.intake and not self.intake.closed:
            self._wait_s = self._gathering.wait_s(self.intake, self.reactor.now)
            return not self._wait_s
        return False

    def _may_take(self) -> bool:
        """Whether there is room for what will come of more events. If not they stay in the intake, which fills and holds the devices back."""
        return self._tried(self.core.settle) and self._tried(self.pipeline.flush) and self._block(self.pipeline.blocked)

    def _tried(self, action) -> bool:
        """Do what the disk may refuse, again and again while what is on it gives way. False: it cannot be done now."""
        try:
            while True:
                try:
                    action()
                    return True
                except DiskError as error:
                    if not self.core.make_room(error):
                        return self._block(str(error))
        except DiskError as error:
            return self._block(str(error))

    def _store(self):
        self.note("arrived", self._gathering.since)
        self._stored += self.pipeline.store(self.intake, self.now_ns(), self.clock.quality)
        self.intake.closed = True
        self._gathering.stored()
        self.note("journaled")

    def _commit(self):
        """Make durable what was stored, and only then acknowledge it, run the rules on it and send."""
        if not self._tried(self.pipeline.sync):
            return
        self._block("")
        self.note("synced")
        if self.intake.closed:               # else it holds events that came after what is made durable here
            for source in self.parts.sources:
                source.acknowledge()
            self.intake.clear()
            if self.intake.topics.nearly_full:
                self.intake.topics.clear()
        self.note("acknowledged")
        stored, self._stored = self._stored, []
        self.pipeline.run(stored)
        self.note("ruled", stored)
        self.intake.closed = False
        self._forward()

    def _grant(self):
        """The rules may use a part of the time that went by."""
        now_s = self.reactor.monotonic()
        self.pipeline.share.grant(int((now_s - self._granted_s) * 1e9), self.pipeline.stages)
        self._granted_s = now_s

    def _serve(self):
        """Let rules go on that wait for CPU, if what they put out finds room."""
        if not (self.blocked or self.core.unsettled or self.pipeline.blocked):
            self.pipeline.serve(SERVE_NS)
            self._forward()

    def _block(self, reason) -> bool:
        """Note why nothing is taken in; the next try is a little later, and the lanes go on meanwhile. "" for nothing. True when events may come in."""
        if not reason:
            if self.blocked:
                self.log("disk", "takes events again")
            self.blocked = ""
            return True
        self.blocks += not self.blocked
        self.blocked = self.last_block = reason
        self._checkpoint_due = True      # it lets go of what no restart needs
        self.log.error("disk", reason)
        self._retry_at, self._wait_s = self.reactor.monotonic() + RETRY_S, RETRY_S
        return False

    def _forward(self):
        """What came leaves, once all that it rests on is durable."""
        if self.pipeline.unsure:
            try:
                self.pipeline.sync()
            except DiskError as error:
                self.log.error("disk", str(error))
                return                   # it goes with a later turn's
        for outbox, lane in self.core.lanes:
            before, rows = outbox.cleared, outbox.take_fresh()
            if rows or outbox.cleared != before:
                lane.wake(rows)
        self._checkpoint_due |= self.core.urgent

    # --- once in a while

    def _every(self, seconds, fn):
        def again():
            fn()
            self.reactor.later(seconds, again)

        self.reactor.later(seconds, again)

    def _tick(self):
        if self.blocked or self.core.unsettled:
            return
        delta = self.clock.step()
        if delta:
            self.log("clock", f"was set by {delta / 1e9:+.1f} s")
            self.pipeline.clock_set(delta)
        self.pipeline.tick(self.now_ns())
        self._forward()

    def now_ns(self):
        """The receive clock. While the gateway was away no device could be heard: that time counts as a step of the clock, and as nobody's silence."""
        now_ns = self.clock.now_ns()
        away_ns = now_ns - self.pipeline.received_ns
        if away_ns > AWAY_NS and self.pipeline.received_ns:
            self.log("clock", f"nothing was looked at for {away_ns / 1e9:.1f} s: no device is silent for that")
            self.pipeline.clock_set(away_ns, away=True)
        return now_ns

    def _account(self):
        """Say what became of the events since the last time."""
        if not (self.blocked or self.core.unsettled or self.pipeline.blocked):
            self.core.account(self.now_ns())
            self._forward()

    def _want_checkpoint(self):
        self._checkpoint_due = True

    def _checkpoint(self):
        """Commit state, watermarks, positions and cursors together; then let go of what no restart needs."""
        if self._stored:
            return                       # it is in the journal, and in no rule's state yet
        self._checkpoint_due = False
        if not self.core.unsettled and self._checkpointed == (self.pipeline.changes, self.blocked) and not self.core.cursors_moved():
            return                       # one more of the same makes no room, and wears the card
        full = self.pipeline.blocked
        try:
            self.core.checkpoint()
        except DiskError as error:
            self.log.error("disk", f"no checkpoint: {error}")
            self._checkpoint_due = self._made_room(error)
            return
        self._checkpointed = self.pipeline.changes, self.blocked
        if full and not self.pipeline.blocked:
            self._retry_at = self._wait_s = 0.0      # that made room

    def _made_room(self, error):
        try:
            return self.core.make_room(error)
        except DiskError:
            return False

    # --- the end

    def _stop(self, number, frame):
        self._stopping = True

    def close(self):
        """Stop reading, flush, checkpoint, release."""
        self._notifier.stopping()
        if self.intake and not self.intake.closed and self._may_take():
            self._store()
        if self.intake.closed or self._stored:
            self._commit()
        self.parts.close_sources()
        self._want_checkpoint()
        self._checkpoint()
        for server in (self.manager, self.metrics, self.control):
            if server is not None:
                server.close()
        self.parts.close()
        self.log("gateway", f"{self.config.gateway.name} stopped")
