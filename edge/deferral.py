"""Deferral: a stage that has used up its share of CPU does later what it would have done at once.

Its calls wait in its backlog, and with them all that happens below it: time that goes on and clock steps reach its output streams only after what came before
them has. Each stage has one input and each stream one maker, so everything still gets what it gets in the same order; only the order between
branches is another. So outputs, their sequences and all state are those of a run in which nobody waits, and a replay, which defers nothing, agrees.

What finds no room is skipped like a call that trapped: journaled, and in the dead letters. A rule is not put into quarantine for it.
"""

from edge.backlog import CALL, CLOCK, ITEMS_MAX, TICK, Backlog
from edge.errors import RuleError


class Deferral:
    """The part of a Flow that lets stages wait. share: edge.share.Share; None: nobody waits. deferred: the stages that do."""

    def __init__(self):
        self.share = None
        self.deferred = []

    def _apply(self, stage, batch):
        """A batch, or a tick, comes to a stage."""
        stage.calls += 1
        if stage.backlog is None and (self.share is None or not self.share.holds(stage)):
            self._call(stage, stage.calls, batch)
            return
        backlog = self._backlog(stage)
        if not backlog.add_call(stage.calls, batch):
            stage.skip(batch, strike=False)
            self._skipped(stage, stage.calls, batch, RuleError(f"rule {stage.name}: over its CPU share: {backlog.rows} rows wait before these; "
                                                               "make it cheaper, or raise gateway.rules_cpu", code="share", rule=stage.name))
        self._make_room(stage)

    def _backlog(self, stage):
        if stage.backlog is None:
            stage.backlog = Backlog()
            self.deferred.append(stage)
        return stage.backlog

    def _make_room(self, stage):
        while stage.backlog is not None and len(stage.backlog) > ITEMS_MAX:
            self._run_oldest(stage)

    # --- time

    def _tick(self, received_ns) -> bool:
        """Whether any watermark moved, or will."""
        moved = [self._tick_stream(stream, received_ns) for stream in self.inputs]
        return any(moved) or bool(self.deferred)

    def _tick_stream(self, stream, received_ns) -> bool:
        if not stream.stages:
            return False
        merged = stream.watermarks.merged_ns
        batch = stream.watermarks.tick(stream.schema, received_ns)
        moved = batch is not None or merged != stream.watermarks.merged_ns
        if batch is not None:
            batch.first_sequence = stream.next_sequence
            for stage in stream.stages:
                self._apply(stage, batch)
        below = [self._later(stage, TICK, received_ns) or self._tick_below(stage, received_ns) for stage in stream.stages]
        return moved or any(below)

    def _tick_below(self, stage, received_ns) -> bool:
        moved = [self._tick_stream(stream, received_ns) for stream in stage.answers]
        return any(moved)

    def _shift(self, delta_ns):
        for stream in self.inputs:
            self._shift_stream(stream, delta_ns)

    def _shift_stream(self, stream, delta_ns):
        stream.watermarks.shift(delta_ns)
        for stage in stream.stages:
            if not self._later(stage, CLOCK, delta_ns):
                self._shift_below(stage, delta_ns)

    def _shift_below(self, stage, delta_ns):
        for stream in stage.answers:
            self._shift_stream(stream, delta_ns)

    def _later(self, stage, kind, ns) -> bool:
        """Whether what is below a stage must wait for its backlog; then it is noted there."""
        if stage.backlog is None:
            return False
        stage.backlog.add_mark(kind, ns)
        self._make_room(stage)
        return True

    # --- what waited

    def serve(self, most_ns):
        """Let those that wait go on as far as their credit reaches, for about most_ns of the rules' time."""
        end_ns = self.share.left_ns - most_ns
        while self.share.left_ns > end_ns and (stage := self.share.next(self.deferred)) is not None:
            self._run_oldest(stage)

    def catch_up(self):
        """Run all that waits, now and whatever it takes: at most a backlog's rows for each rule."""
        share, self.share = self.share, None
        try:
            while self.deferred:
                self._run_oldest(self.deferred[0])
        finally:
            self.share = share

    def _run_oldest(self, stage):
        kind, number, batch = stage.backlog.pop()
        if not stage.backlog:
            stage.backlog = None
            self.deferred.remove(stage)
        self.changes += 1
        if kind == CALL:
            self._call(stage, number, batch)
        elif kind == TICK:
            self._tick_below(stage, number)
        else:
            self._shift_below(stage, number)

    def take_up(self, stage, backlog):
        """What waited when the checkpoint was written waits again."""
        if len(backlog):
            stage.backlog = backlog
            self.deferred.append(stage)
