"""From a configuration to the parts that run it. Everything is made here and wired here; nothing is looked up later.

A rule that is refused (its module, its parameters, what it reads) is left out and reported: the rest of the gateway runs.
"""

import os
import time

from edge._decode import Decoder, Router
from edge._intake import Intake, Topics
from edge._watermark import Watermarks
from edge.checkpoint import CheckpointStore
from edge.disk import Disk
from edge.errors import ConfigError, DiskError
from edge.identity import Identity
from edge.log import Log
from edge.outbox import Outbox
from edge.pipeline import Pipeline
from edge.records import BATCH
from edge.recovery import capture, journal_position, restore
from edge.stage import Stage, Stream
from gateway import links
from gateway.clock import Clock
from gateway.lane import Lane
from gateway.policy import Policy
from gateway.reactor import Reactor
from gateway.rulebook import Rulebook, contracts_of

SEGMENT_BYTES = 8 << 20
RETRY_S = 5.0
SECOND_NS = 1_000_000_000


class Parts:
    """A gateway's parts, recovered and ready; open_sources() lets events in."""

    def __init__(self, config, log):
        """Raises ConfigError for what cannot be, DiskError for a directory of a newer version."""
        self.config, self.log = config, log
        self.reactor = Reactor()
        self.intake = Intake(Topics())
        self.sources, self.listener, self.broker, self.upstream = [], None, None, None
        self._disk = Disk()
        self._data = config.gateway.data
        self._lock = self._claim()
        self.identity = Identity(self._disk, self._data, config.gateway.name)
        if self.identity.damaged:
            log.error("disk", self.identity.damaged)
        contracts = contracts_of(config)
        book = Rulebook(config, contracts, f"{self._data}/modules")
        self.refused = book.refused
        for name, reason in book.refused.items():
            log.error("rule", f"{name} is left out: {reason}")
        self.evicted = False             # since the last checkpoint: what a crash must not forget
        self.outboxes = {name: self._outbox(name, lane) for name, lane in config.lanes.items()}
        self.pipeline = self._pipeline(contracts, book)
        self.checkpoints = CheckpointStore(self._disk, f"{self._data}/checkpoints")
        self.lanes = [(outbox, self._lane(name, outbox)) for name, outbox in self.outboxes.items()]
        self._recover()
        for outbox, lane in self.lanes:
            outbox.log.needed_from = lambda lane=lane: lane.acked_before
        self._cursors = self.cursors()

    # --- making

    def _claim(self):
        try:
            self._disk.mkdir(self._data)
            return self._disk.lock(self._data)
        except BlockingIOError:
            raise ConfigError(f"{self._data}: another gateway runs on this directory; stop it, or set gateway.data") from None
        except OSError as error:
            raise ConfigError(f"{self._data}: the data directory cannot be used: {error.strerror}; set gateway.data to one that this user may write") from None

    def _outbox(self, name, lane):
        """The lane's outbox, over its log; the log calls back for what it evicts and for its preamble."""
        holder = []
        log = Log(self._disk, f"{self._data}/outbox/{name}", segment_bytes_max=SEGMENT_BYTES, quota_bytes_max=lane.quota,
                  preamble=lambda: self.pipeline.preamble(), on_evict=lambda *gap: self._evicted(holder[0], *gap))
        outbox = Outbox(name, log, evict=lane.full == "evict-oldest")
        holder.append(outbox)
        if not outbox.evict:
            log.keep_from = log.tail
        return outbox

    def _evicted(self, outbox, stream, first, count, kind):
        outbox.on_evict(stream, first, count, kind)
        self.evicted = True
        if kind != BATCH:
            return
        self.log.warning("lane", f"outbox {outbox.name} is at its quota: {count} rows were evicted, a gap goes upstream")
        lane = next(lane for box, lane in self.lanes if box is outbox)
        lane.evicted(count)

    def _stream(self, schema, spec=None):
        watermarks = (Watermarks(spec.lateness, spec.idle, spec.skew, capacity=spec.keys_max) if spec else
                      Watermarks(0, 30 * SECOND_NS, 60 * SECOND_NS))
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
        journal = Log(self._disk, f"{self._data}/journal", segment_bytes_max=SEGMENT_BYTES, quota_bytes_max=self.config.journal.quota,
                      preamble=lambda: self.pipeline.preamble())
        dead = Log(self._disk, f"{self._data}/dead", segment_bytes_max=SEGMENT_BYTES, quota_bytes_max=self.config.journal.dead_letters,
                   preamble=lambda: self.pipeline.preamble())
        for name, log in (("journal", journal), ("dead", dead), *((f"outbox/{n}", o.log) for n, o in self.outboxes.items())):
            self._report(name, log.recovery)
        return Pipeline(epoch=self.identity.epoch, router=Router(contracts), decoders=[Decoder(c) for c in contracts], inputs=inputs, stages=stages,
                        outboxes=list(self.outboxes.values()), journal=journal, dead=dead, on_trap=self._trapped)

    def _report(self, name, recovery):
        if recovery.trimmed_bytes or recovery.damaged or recovery.quarantined:
            self.log.warning("disk", f"{name}: {recovery.trimmed_bytes} bytes of a torn tail trimmed, {recovery.damaged} records damaged, "
                             f"{len(recovery.quarantined)} files in quarantine")
        for warning in recovery.warnings:
            self.log.warning("disk", f"{name}: {warning}")

    def _trapped(self, stage, error):
        self.log.error("rule", f"{stage.name} trapped: {error}", module=stage.rule.digest[:12], quarantined=stage.rule.quarantined)

    def _lane(self, name, outbox):
        lane = self.config.lanes[name]
        policy = Policy(encoding=lane.encoding, topic=lane.topic, size_bytes_max=lane.message_max, age_ms=lane.age // 10**6, priority=lane.priority,
                        rate_bytes_s=lane.rate_max or 0)
        return Lane(name, outbox.log, self.identity.schemas(), policy, gateway=self.config.gateway.name, epoch=self.identity.epoch,
                    dead=lambda stream, first, count, reason: self.log.error("lane", f"{name}: {count} rows cannot be sent: {reason}"))

    # --- taking up where the last run stood

    def _recover(self):
        while True:
            try:
                recovered, states = restore(self.pipeline, self.checkpoints.load())
                break
            except DiskError as error:
                if "newer" in str(error):
                    raise
                self.log.error("disk", f"not yet started: {error}; trying again in {RETRY_S:.0f} s")
                time.sleep(RETRY_S)
        for outbox, lane in self.lanes:
            if outbox.name in states:
                lane.load(states[outbox.name])
                lane.wake(outbox.take_fresh())
            else:
                lane.rows_waiting = sum(outbox.appended.values())
                outbox.take_fresh()
        self.clock = Clock(recovered.received_ns)
        if recovered.replayed or recovered.damaged:
            self.log("gateway", "recovered", replayed_records=recovered.replayed, damaged_events=recovered.damaged)
        try:
            self.checkpoint()
        except DiskError as error:       # what waits may leave all the same, and that makes room
            self.log.error("disk", f"no checkpoint: {error}")

    # --- the doors

    def open_sources(self):
        """Listen, subscribe, connect. Raises ConfigError when an address cannot be had."""
        self.listener = links.listener(self.config, self.reactor, self.intake, self.log)
        self.broker = links.broker(self.config, self.reactor, self.intake, self.log)
        self.sources = [source for source in (self.listener, self.broker) if source is not None]
        self.upstream = links.upstream(self.config, self.reactor, [lane for _, lane in self.lanes], self.log)
        if self.upstream is not None:
            self.upstream.start()

    def close_sources(self):
        for source in self.sources:
            source.close()

    # --- checkpoints

    def cursors(self):
        return {outbox.name: lane.state() for outbox, lane in self.lanes}

    def cursors_moved(self) -> bool:
        return self.cursors() != self._cursors

    def checkpoint(self):
        """Commit state, watermarks, positions and cursors together; then let go of what no restart needs. Raises DiskError."""
        cursors = self.cursors()
        self.checkpoints.save(*capture(self.pipeline, cursors))
        self._cursors, self.evicted = cursors, False
        self.pipeline.journal.log.keep_from = journal_position(self.checkpoints.oldest_meta)
        for outbox, lane in self.lanes:
            outbox.log.drop_before(lane.acked_before)

    def close(self):
        """Release everything."""
        if self.upstream is not None:
            self.upstream.close()
        for log in (self.pipeline.journal.log, self.pipeline.dead.log, self.checkpoints.log, *(o.log for o in self.outboxes.values())):
            try:
                log.close()
            except DiskError as error:
                self.log.error("disk", str(error))
        os.close(self._lock)
        self.reactor.close()
