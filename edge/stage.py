"""Streams and stages: the graph that events flow through.

A stream is a sequence of typed events with one schema; a stage is a rule at work between two streams. A stream knows its
consumers, so an event's way is a walk from its stream: no queue, no scheduler.
"""

from edge.cost import Meter, cost
from edge.errors import RuleError

MEMENTO_ROWS_MAX = 131_072            # a trap is undone by playing at most so many rows again; they stay in memory meanwhile
MEMENTO_CALLS_MAX = 64
FATES = ("selected", "filtered", "consumed", "late_rows", "ignored", "dead", "unprocessed", "disabled")     # counters of rows, in the checkpoint's order


class Stream:
    """A stream at work: its schema, its next sequence number, its event-time progress and its consumers.

    new_watermarks: fn() -> Watermarks in the state of the beginning, with the spans that count for it.
    """

    def __init__(self, number, schema, new_watermarks):
        self.number = number         # in records of journal and outboxes
        self.name = schema.stream
        self.schema = schema
        self.new_watermarks = new_watermarks
        self.watermarks = new_watermarks()
        self.next_sequence = 0
        self.since = 0               # first sequence of the ledger's time
        self.arrived = 0             # input streams: events that came for it, good or not
        self.rejected = 0            # input streams: of these, dead letters
        self.repeats = None          # input streams: edge._repeats.Repeats, where the contract has an id or a sequence
        self.repeated = 0            # input streams: events of these that came before, and were dropped
        self.damaged = 0             # input streams: of these, gone from a damaged journal before they were played again
        self.waiting = 0             # input streams: rows that are stored, but not yet run
        self.stages = []
        self.outboxes = []
        self.tap = None              # is shown each batch, while somebody watches
        self.sent = None             # without outboxes: the next sequence when it last had some

    @property
    def frontier(self) -> int | None:
        """Rows from this sequence on have gone to no outbox; None when none ever did."""
        return self.next_sequence if self.outboxes else self.sent

    @property
    def unsent(self) -> int:
        """Rows that went to no outbox between rows that did: they are announced as a gap before the next that goes."""
        return self.next_sequence - self.sent if self.outboxes and self.sent is not None else 0

    @property
    def consumed(self) -> bool:
        return bool(self.stages or self.outboxes or self.tap is not None)

    def number_rows(self, batch):
        """Give a batch its sequences."""
        batch.first_sequence = self.next_sequence
        self.next_sequence += len(batch)

    def state(self) -> dict:
        return {"next": self.next_sequence, "since": self.since, "arrived": self.arrived, "rejected": self.rejected, "repeated": self.repeated, "damaged": self.damaged,
                "sent": self.frontier}

    def load(self, state):
        self.next_sequence, self.since = state["next"], state["since"]
        self.arrived, self.rejected, self.damaged = state["arrived"], state["rejected"], state["damaged"]
        self.repeated = state.get("repeated", 0)
        self.sent = state.get("sent", state["next"])


class Stage:
    """A rule at work: reads `input`, puts out to `output`, late rows to `late`. Undoes a trap without help from others.

    partial: takes what is open when the rule goes (edge/succession.py); no rule reads it. enabled: False passes everything by.

    memento: the rule's state some calls ago, with the batches since; playing them again gives the state before a trap.
    It is exact, because a rule is a function of what it was given.
    """

    def __init__(self, rule, input_stream, output, late, partial):
        self.name = rule.name
        self.input = input_stream
        self.output = output
        self.late = late
        self.partial = partial
        self.enabled = True
        self.since = 0               # first input sequence that this stage was given
        self._damaged_since = 0
        self.calls = 0               # counts every call, skipped ones too: names a call in the journal
        for fate in FATES:
            setattr(self, fate, 0)
        self.credit_ns = 0.0         # see edge/share.py
        self.backlog = None          # edge.backlog.Backlog while it waits for CPU
        self.shadow = None           # edge.shadow.Shadow that sees what the rule sees
        vars(self).update(self.attire(rule))

    def attire(self, rule):
        """Attributes that a stage changes with its rule."""
        same = vars(self).get("rule") is rule
        return {"rule": rule, "meter": self.meter if same else Meter(rule), "shadow": self.shadow if same else None, "_image": None, "_since_image": [], "_rows_since_image": 0}

    @property
    def answers(self):
        """The streams of what its rule says to a batch."""
        return self.output, self.late

    @property
    def made(self):
        """All streams that it makes."""
        return self.output, self.late, self.partial

    def process(self, batch):
        """The rule's Result for a batch (rows, or a tick). Raises RuleError after the rule was put back to the state before."""
        if self._image is None or self._rows_since_image > MEMENTO_ROWS_MAX or len(self._since_image) >= MEMENTO_CALLS_MAX:
            self._image, self._since_image, self._rows_since_image = self.rule.image(), [], 0
        try:
            result = self.rule.process(batch)
        except RuleError:
            self.dead += len(batch)
            self._undo()
            self.meter.note(0)
            raise
        self.meter.note(len(batch))
        self._since_image.append(batch)
        self._rows_since_image += len(batch)
        self._account(batch, result)
        return result

    def skip(self, batch, strike=True):
        """A call that is not made: it trapped when it was, as the journal says, or it found no CPU and no room to wait (strike False)."""
        self.dead += len(batch)
        if strike:
            self.rule.strike(batch.received_ns)

    def pass_by(self, batch):
        """The rule is in quarantine, or disabled."""
        if self.enabled:
            self.unprocessed += len(batch)
        else:
            self.disabled += len(batch)

    def _account(self, batch, result):
        rows, late, ignored = len(batch), result.late_count, result.ignored
        self.late_rows += late
        self.ignored += ignored
        if self.rule.is_filter:
            self.selected += result.selected_count
            self.filtered += rows - late - ignored - result.selected_count
        else:
            self.consumed += rows - late - ignored

    def _undo(self):
        """Back to the state before the call that failed. A rule that fails on what it did before (it is at its time limit) goes into quarantine."""
        try:
            self.rule.reset()
            self.rule.load_image(self._image)
            for batch in self._since_image:
                self.rule.process(batch)
        except RuleError:
            self.rule.quarantined = True
            self.rule.reset()
            self.rule.load_image(self._image)
            self._since_image, self._rows_since_image = [], 0

    def start_at(self, sequence):
        """A rule without history: its ledger begins with this input sequence."""
        self.since = sequence
        self._damaged_since = self.input.damaged

    def forget_memento(self):
        """The state was replaced from outside."""
        self._image = None

    @property
    def cost(self) -> dict:
        """See edge/cost.py."""
        return cost(self)

    def outcome(self) -> dict:
        """What became of the input rows, for the ledger."""
        return {"selected": self.selected, self.rule.drops: self.filtered, "aggregated": self.consumed, "late": self.late_rows,
                "ignored": self.ignored, "dead_lettered": self.dead, "quarantined": self.unprocessed,
                "disabled": self.disabled, "damaged": self.input.damaged - self._damaged_since,
                "pending": self.input.waiting + (self.backlog.rows if self.backlog else 0)}

    def state(self) -> dict:
        return {"input": self.input.name, "since": self.since, "damaged_since": self._damaged_since, "calls": self.calls, "identity": self.rule.identity,
                "enabled": self.enabled, "quarantined": self.rule.quarantined, "strikes": self.rule.strikes, "rows": [getattr(self, name) for name in FATES]}

    def fits(self, state) -> bool:
        """Whether a state() is of the rule that runs here, on the stream that it reads."""
        return state["identity"] == self.rule.identity and state.get("input", self.input.name) == self.input.name

    def load(self, state):
        self.since, self._damaged_since, self.calls = state["since"], state["damaged_since"], state["calls"]
        self.rule.quarantined, self.rule.strikes = state["quarantined"], list(state["strikes"])
        for name, rows in zip(FATES, state["rows"]):
            setattr(self, name, rows)
