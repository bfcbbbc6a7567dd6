"""The core of a gateway, wired: identity, rules, outboxes and their lanes, pipeline, checkpoints. No sockets and no clock: the daemon puts doors
around it, a test drives it on a disk in memory.
"""

from edge._decode import Decoder, Router
from edge._watermark import Watermarks
from edge.checkpoint import CheckpointStore
from edge.errors import ConfigError, DiskError
from edge.flow import SHARE
from edge.identity import Identity
from edge.log import Log
from edge.outbox import Outbox
from edge.pipeline import Pipeline
from edge.recovery import capture, journal_position, restore
from edge.stage import Stage, Stream
from gateway.lane import Lane
from gateway.policy import Policy
from gateway.rulebook import Rulebook, contracts_of

SEGMENT_BYTES = 8 << 20


class Core:
    """config: gateway.spec.Config. modules: the real directory of compiled rules. log: gateway.logs.Log.

    lanes: (Outbox, Lane) pairs. A rule that is refused is left out and reported (`refused`): the rest runs. recover() comes before anything else.
    """

    def __init__(self, config, disk, modules, log):
        """Raises ConfigError for what cannot be, DiskError when the disk refuses or a newer version wrote there; nothing is left open then."""
        self.config, self.log = config, log
        self._disk, self._data = disk, config.gateway.data
        self._logs = []
        self.urgent = False              # a checkpoint should not wait for its time
        try:
            self._make(modules)
        except OSError as error:
            self.close()
            raise DiskError(f"{error.filename or self._data}: {error.strerror}: the data directory cannot be used") from error
        except (ConfigError, DiskError):
            self.close()
            raise

    def _make(self, modules):
        config, disk, log = self.config, self._disk, self.log
        self.identity = Identity(disk, self._data, config.gateway.name)
        if self.identity.damaged:
            log.error("disk", self.identity.damaged)
        contracts = contracts_of(config)
        book = Rulebook(config, contracts, modules)
        self.refused = book.refused
        for name, reason in book.refused.items():
            log.error("rule", f"{name} is left out: {reason}")
        self.lanes = []
        self.outboxes = {name: self._outbox(name, lane) for name, lane in config.lanes.items()}
        self.pipeline = self._pipeline(contracts, book)
        self.checkpoints = CheckpointStore(disk, f"{self._data}/checkpoints")
        self._logs.append(self.checkpoints.log)
        self.lanes = [(outbox, self._lane(name, outbox)) for name, outbox in self.outboxes.items()]
        self._cursors = None

    # --- making

    def _log(self, directory, quota, on_evict=None):
        log = Log(self._disk, f"{self._data}/{directory}", segment_bytes_max=SEGMENT_BYTES, quota_bytes_max=quota,
                  preamble=lambda: self.pipeline.preamble(), on_evict=on_evict)
        self._logs.append(log)
        found = log.recovery
        if found.trimmed_bytes or found.damaged or found.quarantined:
            self.log.warning("disk", f"{directory}: {found.trimmed_bytes} bytes of a torn tail trimmed, {found.damaged} records damaged, "
                             f"{len(found.quarantined)} files in quarantine")
        for warning in found.warnings:
            self.log.warning("disk", f"{directory}: {warning}")
        return log

    def _outbox(self, name, lane):
        """The lane's outbox, over its log; the log calls back for what it evicts and for its preamble."""
        holder = []
        log = self._log(f"outbox/{name}", lane.quota, lambda *gap: self._evicted(holder[0], *gap))
        outbox = Outbox(name, log, evict=lane.full == "evict-oldest")
        holder.append(outbox)
        if not outbox.evict:
            log.keep_from = log.tail
        return outbox

    def _evicted(self, outbox, kind, stream, first, count):
        rows = outbox.on_evict(kind, stream, first, count)
        self.urgent = True               # a checkpoint has the gap, and cuts the outbox back no more before it
        if rows:
            self.log.warning("lane", f"outbox {outbox.name} is at its quota: {rows} rows are evicted, a gap goes upstream")
            next(lane for box, lane in self.lanes if box is outbox).evicted(rows)

    def _stream(self, schema, spec):
        watermarks = Watermarks(spec.lateness, spec.idle, spec.skew, capacity=spec.keys_max)
        stream = Stream(self.identity.number(schema), schema, watermarks)
        stream.outboxes = [self.outboxes[name] for name, lane in self.config.lanes.items() if stream.name in lane.streams]
        return stream

    def _pipeline(self, contracts, book):
        inputs = [self._stream(c.schema, self.config.streams[c.name]) for c in contracts]
        streams = {s.name: s for s in inputs}
        stages = []
        for rule in book.rules:
            source = streams[book.feeds[rule.name]]
            spec = self.config.streams[book.origin[rule.name]]
            output, late = self._stream(rule.output_schema, spec), self._stream(rule.late_schema, spec)
            streams |= {output.name: output, late.name: late}
            stage = Stage(rule, source, output, late)
            source.stages.append(stage)
            stages.append(stage)
        self.identity.save()
        journal = self._log("journal", self.config.journal.quota)
        dead = self._log("dead", self.config.journal.dead_letters)
        return Pipeline(epoch=self.identity.epoch, router=Router(contracts), decoders=[Decoder(c) for c in contracts], inputs=inputs, stages=stages,
                        outboxes=list(self.outboxes.values()), journal=journal, dead=dead, on_trap=self._trapped)

    def _trapped(self, stage, error):
        what = "finds no CPU" if error.code == SHARE else "trapped"
        self.log.error("rule", f"{stage.name} {what}: {error}", module=stage.rule.digest[:12], quarantined=stage.rule.quarantined)

    def _lane(self, name, outbox):
        lane = self.config.lanes[name]
        policy = Policy(encoding=lane.encoding, topic=lane.topic, size_bytes_max=lane.message_max, age_ms=lane.age // 10**6, priority=lane.priority,
                        rate_bytes_s=lane.rate_max or 0)
        return Lane(name, outbox.log, self.identity.schemas(), policy, gateway=self.config.gateway.name, epoch=self.identity.epoch,
                    dead=lambda stream, first, count, reason: self.log.error("lane", f"{name}: {count} rows cannot be sent: {reason}"))

    # --- taking up where the last run stood

    def recover(self):
        """Play again what the last checkpoint does not cover, then make one. Returns edge.recovery.Recovered. Raises DiskError; then begin with a new Core."""
        recovered, states = restore(self.pipeline, self.checkpoints.load())
        journal, oldest = self.pipeline.journal.log, self.checkpoints.oldest_meta
        journal.keep_from = journal.tail if oldest is None else journal_position(oldest)     # also while no checkpoint can be written
        for outbox, lane in self.lanes:
            if outbox.name in states:
                lane.load(states[outbox.name])
                lane.wake(outbox.take_fresh())
            else:
                lane.rows_waiting = sum(outbox.appended.values())
                outbox.take_fresh()
            outbox.log.needed_from = lambda lane=lane: lane.acked_before
        if recovered.replayed or recovered.damaged:
            self.log("gateway", "recovered", replayed_records=recovered.replayed, damaged_events=recovered.damaged)
        for position, error in recovered.failed:
            self.log.error("gateway", f"journal record {position} could not be played again: {error}; its results are missing")
        try:
            self.checkpoint()
        except DiskError as error:           # what waits may leave all the same, and that makes room
            self.log.error("disk", f"no checkpoint: {error}")
        return recovered

    # --- checkpoints

    def cursors(self):
        return {outbox.name: lane.state() for outbox, lane in self.lanes}

    def cursors_moved(self) -> bool:
        return self.cursors() != self._cursors

    def checkpoint(self):
        """Commit state, watermarks, positions and cursors together; then let go of what no restart needs. Raises DiskError."""
        cursors, journal = self.cursors(), self.pipeline.journal.log
        for _ in range(2 if journal.full else 1):        # the second makes the first the oldest that a restart may need
            if journal.full:
                self.checkpoints.begin_anew()
            self.checkpoints.save(*capture(self.pipeline, cursors))
            journal.keep_from = journal_position(self.checkpoints.oldest_meta)
        self._cursors, self.urgent = cursors, False
        for outbox, lane in self.lanes:
            outbox.log.drop_before(lane.acked_before)

    def close(self):
        """Let go of the files. Errors are logged: what a restart needs is durable."""
        for log in self._logs:
            try:
                log.close()
            except DiskError as error:
                self.log.error("disk", str(error))
