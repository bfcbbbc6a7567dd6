"""The core of a gateway, wired: identity, rules, outboxes and their lanes, pipeline, checkpoints. No sockets and no clock: the daemon puts doors
around it, a test drives it on a disk in memory.
"""

import functools
from contextlib import suppress

from msgspec.structs import replace

from edge._repeats import Repeats
from edge._watermark import Watermarks
from edge.books import SCHEMA as LEDGER
from edge.books import Books
from edge.checkpoint import CheckpointStore
from edge.decoding._decode import Decoder, Router
from edge.deployment import Deployment
from edge.errors import ConfigError, DiskError, RuleError
from edge.flow import SHARE
from edge.host.compile import Cache
from edge.host.limits import Limits
from edge.identity import Identity
from edge.pipeline import Pipeline
from edge.recovery import capture, deployed, journal_position, restore
from edge.rule_store import RuleStore
from edge.stage import Stage, Stream
from edge.storage.cipher import cipher_of
from edge.storage.disk import FULL
from edge.storage.log import Log
from edge.succession import Succession, partial_schema
from gateway.deploy.lineup import Lineup
from gateway.deploy.rulebook import Rulebook, contracts_of
from gateway.deploy.shadows import Shadows
from gateway.deploy.swap import Swap, Swaps, before
from gateway.forward.lane import Lane
from gateway.forward.outboxes import Outboxes
from gateway.forward.policy import Policy
from gateway.keys import encryption_key

SEGMENT_BYTES = 8 << 20


class Core:
    """config: gateway.config.spec.Config. modules: the real directory of compiled rules. log: gateway.logs.Log. place: where rules live, see edge.host.compile.Cache.

    lanes: (Outbox, Lane) pairs. deployments: rule -> Deployment, what runs or should; those that are refused are left out and reported
    (`refused`): the rest runs. recover() comes before anything else. on_event: fn(kind, rule, text, **details), told of what happens to rules.
    """

    def __init__(self, config, disk, modules, log, place=None):
        """Raises ConfigError for what cannot be, DiskError when the disk refuses or a newer version wrote there; nothing is left open then."""
        self.config, self.log = config, log
        self._disk, self._data = disk, config.gateway.data
        self._logs = []
        self.urgent = False              # a checkpoint should not wait for its time
        self.on_event = lambda kind, rule, text, **details: None
        self.cache = functools.cache(lambda: Cache(modules, place))
        self.swaps = Swaps(self)
        self.shadows = Shadows(self)
        self.unsettled = False           # see settle()
        self._books = None
        try:
            self._make()
        except OSError as error:
            self.close()
            raise DiskError(f"{error.filename or self._data}: {error.strerror}: the data directory cannot be used") from error
        except (ConfigError, DiskError):
            self.close()
            raise

    def _make(self):
        config, disk, log = self.config, self._disk, self.log
        self._cipher = cipher_of(disk, self._data, encryption_key(config), begin=True)
        self.identity = Identity(disk, self._data, config.gateway.name)
        self.meanings = self.identity.schemas()         # the lanes' too, and grows
        if self.identity.damaged:
            log.error("disk", self.identity.damaged)
        self.checkpoints = CheckpointStore(disk, f"{self._data}/checkpoints", self._cipher)
        self._logs.append(self.checkpoints.log)
        self._loaded = self.checkpoints.load()
        self.store = RuleStore(disk, f"{self._data}/rules")
        contracts = contracts_of(config)
        book = self._line_up(contracts)
        self.lanes = []
        self.outboxes = Outboxes(config.lanes, self._log, self._evicted)
        self.pipeline = self._pipeline(contracts, book)
        self.lanes = [(outbox, self._lane(name, outbox)) for name, outbox in self.outboxes.items()]
        for outbox, lane in self.lanes:
            outbox.gathers = lambda lane=lane: not lane.reads
            lane.on_read = outbox.write
        self._cursors = None

    def _line_up(self, contracts):
        """What runs: by the checkpoint, the rule store's file if it is newer, and the configuration where that is new."""
        self.generation, committed = deployed(self._loaded)
        filed, plain = self.store.deployments()
        self._behind = filed > self.generation           # the checkpoint is of before a change that was committed
        if self._behind:
            self.generation, committed = filed, plain
        self._filed = filed
        known = [d for data in committed if (d := self._read(data)) is not None]
        self.lineup = lineup = Lineup(self.config, known)
        self.store.protected = lambda: {digest for d in (*known, *self.deployments.values()) for digest in d.digests()} | set(lineup.modules)
        self.deployments = {}
        for name, module in lineup.modules.items():      # so that it can start again when its file is gone
            try:
                self.store.put(module.content, who="configuration", when_ns=0, force=True)
            except (RuleError, DiskError) as error:
                self.log.warning("rule", f"module {name[:12]} is not kept in the rule store: {error}")
        book = Rulebook(lineup, contracts, self.cache, self.store)
        self.refused = book.refused
        for line in (*self.store.take_warnings(), *book.said):
            self.log.warning("rule", line)
        for name, reason in book.refused.items():
            self.log.error("rule", f"{name} is left out: {reason}")
        waiting = {d.rule: d for d in known if d.rule in book.refused and d.digest}
        self.deployments = waiting | book.deployments
        self._removed = {d.rule: d for d in lineup.removed}
        if self._plain() != committed:
            self.generation += 1
        return book

    def _read(self, data):
        try:
            return Deployment.from_dict(data)
        except DiskError as error:
            self.log.error("rule", f"{error}: it is left out")
        return None

    def _plain(self):
        """The deployments as data, those of removed rules of the configuration too."""
        return [d.to_dict() for _, d in sorted((self._removed | self.deployments).items())]

    # --- making

    def _log(self, directory, quota, segment_bytes_max=SEGMENT_BYTES, on_evict=None):
        log = Log(self._disk, f"{self._data}/{directory}", segment_bytes_max=min(SEGMENT_BYTES, segment_bytes_max), quota_bytes_max=quota,
                  preamble=lambda: self.pipeline.preamble(), on_evict=on_evict, cipher=self._cipher)
        self._logs.append(log)
        found = log.recovery
        if found.trimmed_bytes or found.damaged or found.quarantined:
            self.log.warning("disk", f"{directory}: {found.trimmed_bytes} bytes of a torn tail trimmed, {found.damaged} records damaged, "
                             f"{len(found.quarantined)} files in quarantine")
        for warning in found.warnings:
            self.log.warning("disk", f"{directory}: {warning}")
        return log

    def _evicted(self, outbox, rows):
        self.urgent = True               # a checkpoint has the gap, and cuts the outbox back no more before it
        if rows:
            self.log.warning("lane", f"outbox {outbox.name} has no more room: {rows} rows are evicted, a gap goes upstream")
            next(lane for box, lane in self.lanes if box is outbox).evicted(rows)

    def make_room(self, error) -> bool:
        """Let go of what may go when a DiskError says that the disk is full: see gateway/forward/outboxes.py. True: try again. Raises DiskError."""
        return error.number in FULL and (self.pipeline.journal.log.give_way() or self.outboxes.give_way())

    def _number(self, schema):
        """The schema's number; identity.save() before it is used."""
        number = self.identity.number(schema)
        self.meanings[number] = schema
        return number

    def _input(self, schema):
        spec = self.config.streams[schema.stream]
        stream = Stream(self._number(schema), schema, lambda: Watermarks(spec.lateness, spec.idle, spec.skew, capacity=spec.keys_max))
        stream.outboxes = [self.outboxes[name] for name, lane in self.config.lanes.items() if stream.name in lane.streams]
        if spec.id or spec.sequence:
            stream.repeats = Repeats(schema, spec.id or spec.sequence, spec.id is None, spec.keys_max, spec.ids_max)
        return stream

    def _pipeline(self, contracts, book):
        inputs = [self._input(c.schema) for c in contracts]
        streams = {s.name: s for s in inputs}
        stages = []
        for rule in book.rules:
            source, deployment = streams[book.feeds[rule.name]], self.deployments[rule.name]
            schemas = (rule.output_schema, rule.late_schema, partial_schema(rule))
            stage = Stage(rule, source, *(Stream(self._number(schema), schema, source.new_watermarks) for schema in schemas))
            stage.enabled = deployment.enabled
            for stream in stage.made:
                stream.outboxes = self.outboxes.of(stream.name, () if stream is stage.late else deployment.lanes)
            streams |= {stream.name: stream for stream in stage.answers}
            stages.append(stage)
        ledger = Stream(self._number(LEDGER), LEDGER, Watermarks)
        ledger.outboxes = self.outboxes.of_ledger()
        self.identity.save()
        journal = self._log("journal", self.config.journal.quota)
        dead = self._log("dead", self.config.journal.dead_letters)
        return Pipeline(epoch=self.identity.epoch, router=Router(contracts), decoders=[Decoder(c) for c in contracts], inputs=inputs, stages=stages,
                        outboxes=list(self.outboxes.values()), journal=journal, dead=dead, own=[ledger], on_trap=self._trapped)

    def account(self, now_ns):
        """Say in $ledger what became of the events since the last time; nothing when nothing has changed."""
        self._books = self._books or Books(now_ns)
        batch = self._books.batch(self.pipeline, {outbox.name: lane for outbox, lane in self.lanes}, now_ns)
        if batch is not None:
            self.pipeline.say(self.pipeline.own[0], batch)

    def _trapped(self, stage, error):
        if error.code == SHARE:
            self.log.warning("rule", f"{stage.name} finds no CPU: {error}")
            return
        self.log.error("rule", f"{stage.name} trapped: {error}", module=stage.rule.digest[:12], quarantined=stage.rule.quarantined)
        self.on_event("quarantine" if stage.rule.quarantined else "trap", stage.name, str(error), digest=stage.rule.digest)

    def _lane(self, name, outbox):
        lane = self.config.lanes[name]
        policy = Policy(encoding=lane.encoding, topic=lane.topic, size_bytes_max=lane.message_max, age_ms=lane.age // 10**6, priority=lane.priority,
                        rate_bytes_s=lane.rate_max or 0)
        return Lane(name, outbox.log, self.meanings, policy, gateway=self.config.gateway.name, epoch=self.identity.epoch, set_since=outbox.set_since,
                    cleared=lambda: outbox.cleared, arrived=outbox.arrived,
                    dead=lambda stream, first, count, reason: self.log.error("lane", f"{name}: {count} rows cannot be sent: {reason}"))

    @property
    def logs(self):
        """Name -> Log, of all that is written all the time."""
        return {log.directory.removeprefix(f"{self._data}/"): log for log in self._logs}

    # --- taking up where the last run stood

    def recover(self):
        """Play again what the last checkpoint does not cover, then make one. Returns edge.recovery.Recovered. Raises DiskError; then begin with a new Core."""
        loaded, self._loaded = self._loaded, None
        recovered, states = restore(self.pipeline, loaded, behind=self._behind, meanings=self.meanings)
        del loaded                       # as large as all rules' memories
        journal, oldest = self.pipeline.journal.log, self.checkpoints.oldest_meta
        journal.keep_from = journal.tail if oldest is None else journal_position(oldest)     # also while no checkpoint can be written
        for outbox, lane in self.lanes:
            if outbox.name in states:
                lane.load(states[outbox.name])
                lane.wake(outbox.take_fresh())
            else:
                lane.rows_waiting = sum(outbox.appended.values())
                outbox.take_fresh()
            outbox.log.needed = lane.pending
            outbox.begin()
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
        at_work = {stream.number for stream in self.pipeline.streams}
        return {outbox.name: lane.state(at_work | outbox.numbers_waiting(lane.rows_acked, lane.rows_dead)) for outbox, lane in self.lanes}

    def cursors_moved(self) -> bool:
        return self.cursors() != self._cursors

    def checkpoint(self):
        """Commit state, watermarks, positions and cursors together; then let go of what no restart needs. Raises DiskError."""
        self.settle()
        journal = self.pipeline.journal.log
        for _ in range(2 if journal.full else 1):        # the second makes the first the oldest that a restart may need
            if journal.full:
                self.checkpoints.begin_anew()
            self._save()
        for outbox, lane in self.lanes:
            outbox.log.drop_before(lane.acked_before)
        if journal.full:                 # with segments that go on with each other, to the last
            journal.drop_before(journal.keep_from)

    def _save(self):
        cursors = self.cursors()
        self.checkpoints.save(*capture(self.pipeline, cursors, {"generation": self.generation, "deployments": self._plain()}))
        self.pipeline.journal.log.keep_from = journal_position(self.checkpoints.oldest_meta)
        for outbox in self.outboxes.values():
            outbox.log.notices.drop()    # their gaps are counted, and in the log or upstream
        self._cursors, self.urgent = cursors, False
        if self._filed != self.generation:
            try:
                self.store.save_deployments(self.generation, self._plain())
                self._filed = self.generation
            except DiskError as error:
                self.log.error("disk", f"the deployments are in the checkpoint alone: {error}")

    # --- what runs

    @property
    def busy(self) -> bool:
        """advance() has something to do, now."""
        return (self.swaps.busy or self.shadows.busy) and self._rests

    @property
    def _rests(self) -> bool:
        """Nothing is halfway through, and the disk takes what comes."""
        return not (self.unsettled or self.pipeline.blocked or self.pipeline.journal.waiting or any(stream.waiting for stream in self.pipeline.inputs))

    def deploy(self, deployment, *, policy="auto", horizon_ns=None, who="") -> Swap:
        """Ask for a version of a rule, new or in the place of another; `previous` and `configured` are filled in. Raises ConfigError for limits beyond
        this gateway's, and when too many wait."""
        current, most = self.deployments.get(deployment.rule), self.config.rules_limits
        if current is None or current.limits != deployment.limits:
            deployment = replace(deployment, limits=Limits(*map(int, (most.time, most.memory, most.output))).allow(deployment.limits, deployment.rule))

        def aim(now):
            previous = None if now is None else now.previous if now.version == deployment.version else now.kept
            return replace(deployment, previous=previous, configured=self._fingerprint(deployment.rule, now))

        return self.swaps.ask(Swap(deployment.rule, aim, policy=policy, horizon_ns=horizon_ns, who=who))

    def remove(self, rule, *, who="") -> Swap:
        """Ask for a rule to go; what it has open goes out on NAME.partial."""
        self._known(rule)
        return self.swaps.ask(Swap(rule, lambda now: None, kind="remove", who=who))

    def rollback(self, rule, *, policy="auto", horizon_ns=None, who="") -> Swap:
        """Ask for the previous version of a rule; the present one is then the previous."""
        before(self._known(rule), keep=True)
        return self.swaps.ask(Swap(rule, lambda now: before(now, keep=True), kind="rollback", policy=policy, horizon_ns=horizon_ns, who=who))

    def set_enabled(self, rule, enabled, *, who="") -> Swap:
        """Ask for a rule to be passed by, or to go on with the state that it had."""
        self._known(rule)
        return self.swaps.ask(Swap(rule, lambda now: replace(now, enabled=enabled), kind="enable" if enabled else "disable", policy="keep", who=who))

    def shadow(self, rule, digest, params, *, who="") -> Swap:
        """Ask for a version to run beside the active one, its output compared and thrown away. Raises ConfigError, RuleError, DiskError when it cannot."""
        self._known(rule)
        return self.swaps.ask(self.shadows.begin(rule, digest, params, who))

    def unshadow(self, rule, *, who="") -> Swap:
        """Ask for a rule's shadow to go."""
        self._known(rule)
        return self.swaps.ask(self.shadows.end(rule, who))

    def promote(self, rule, *, who="") -> Swap:
        """Ask for a rule's shadow to take over; the present version is then the previous."""
        self._known(rule)
        return self.swaps.ask(self.shadows.promote(rule, who))

    def diff(self, rule) -> dict:
        """Where a rule and its shadow differ, plain data."""
        self._known(rule)
        return self.shadows.diff(rule)

    def advance(self, budget_s) -> bool:
        """Go on with what was asked for, between two turns. True when something was committed: what it put out may leave."""
        if not self._rests:
            return False
        committed = self.swaps.advance(budget_s)
        return self.shadows.advance(budget_s) or committed

    def stage(self, rule):
        """The rule's stage; None when it does not run."""
        return next((stage for stage in self.pipeline.stages if stage.name == rule), None)

    def module(self, digest):
        """Raises RuleError."""
        return self.lineup.module(digest, self.store)

    def tell(self, kind, rule, text, level="info", **details):
        """Log what happened to a rule, and tell whoever listens."""
        self.log("rule", f"{rule} {text}", level, **{name: value for name, value in details.items() if value})
        self.on_event(kind, rule, text, **details)

    def succession(self) -> Succession:
        return Succession(self.pipeline, number=self._number, outboxes=self.outboxes.of)

    def commit(self, change, rule, deployment):
        """Make a change: it counts when the checkpoint that holds it is durable. Raises DiskError; then all is as it was. deployment: None to remove."""
        before = self.deployments, self._removed, self.generation
        self.identity.save()
        self.deployments = {name: d for name, d in self.deployments.items() if name != rule} | ({rule: deployment} if deployment else {})
        mark = self._fingerprint(rule, before[0].get(rule))
        gone = {rule: Deployment(rule, "", "", configured=mark)} if mark and deployment is None else {}
        self._removed = {name: d for name, d in self._removed.items() if name != rule} | gone
        self.generation += 1
        change.turn()
        self.pipeline.owed = change.owed
        try:
            change.announce()
            self._save()
        except DiskError:
            change.turn()
            self.pipeline.owed = []
            self.deployments, self._removed, self.generation = before
            self.unsettled = self.urgent = True
            with suppress(DiskError):
                self.settle()
            raise
        self.pipeline.pay()
        change.show()
        self.refused.pop(rule, None)

    def settle(self):
        """Make sure that a change which could not be committed is not found by the next start; until then nothing may run. Raises DiskError."""
        if self.unsettled:
            self.checkpoints.withdraw()
            self.unsettled = False

    def _known(self, rule):
        if rule not in self.deployments:
            raise ConfigError(f"there is no rule {rule!r}; there are {', '.join(sorted(self.deployments)) or 'none'}")
        return self.deployments[rule]

    def _fingerprint(self, rule, now):
        """Of the rule's entry in the configuration, "" when it has none; the one that is known while the entry's module cannot be read."""
        mark = self.lineup.fingerprints.get(rule, "")
        return now.configured if now and mark.endswith(":") and now.configured.startswith(mark) else mark

    def close(self):
        """Let go of the files. Errors are logged: what a restart needs is durable."""
        for log in self._logs:
            try:
                log.close()
            except DiskError as error:
                self.log.error("disk", str(error))
