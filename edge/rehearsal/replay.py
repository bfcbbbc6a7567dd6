"""Playing a recording again: its events through its rules, or through other versions of them.

The rules get what they got on the gateway, batch by batch and tick by tick, so they put out the same bytes under the same sequences, on any
machine, from a journal that is whole. From one whose beginning is gone rules start without state, and differ until that has grown again.
"""

from edge._watermark import Watermarks
from edge.codec.batches import encode_columns
from edge.errors import ConfigError, DiskError
from edge.flow import Flow
from edge.graph import order
from edge.host.rule import Rule
from edge.rehearsal.recording import Spans, limits_of
from edge.stage import Stage, Stream
from edge.storage.records import BATCH, SCHEMA
from edge.succession import partial_schema


class Player(Flow):
    """recording: edge.rehearsal.recording.Recording. rules: (Ruled, Module) pairs; they may be other ones than the recording's.

    said(stream, batch, payload): what a rule puts out, payload being the bytes of the outbox; called for the streams that `tap` names.
    traps: (position, rule, reason) of calls that trapped now, the first TRAPS_MAX; trapped: how many. missing: events gone from a damaged journal.
    Raises ConfigError, RuleError, as edge.host.rule.Rule does.
    """

    TRAPS_MAX = 20

    def __init__(self, recording, rules, cache, said, tap=None):
        self.recording = recording
        self.traps, self.trapped, self.missing = [], 0, 0
        self.position = 0
        wanted = [recording.schema(name) for name in recording.events]
        inputs = {schema.stream: Stream(i, schema, self._watermarks(schema.stream)) for i, schema in enumerate(wanted, 1)}
        streams, stages = dict(inputs), []
        given = {ruled.rule: (ruled, module) for ruled, module in rules}
        for name in order([(name, ruled.input) for name, (ruled, _) in given.items()], inputs):
            ruled, module = given[name]
            source = streams[ruled.input]
            rule = Rule(name, module, ruled.params, source.schema, cache=cache, limits=limits_of(ruled))
            made = [Stream(len(streams) + i, schema, source.new_watermarks)
                    for i, schema in enumerate((rule.output_schema, rule.late_schema, partial_schema(rule)), 1)]
            streams |= {stream.name: stream for stream in made}
            stages.append(Stage(rule, source, *made))
        super().__init__(list(inputs.values()), stages)
        for stage in stages:
            for stream in stage.answers:
                stream.outboxes = [_Tap(said)] if tap is None or stream.name in tap else []
        self.learn_skips(recording.skips)
        self._begun = set() if not recording.whole else set(inputs)          # streams of which an event has come: before it none is missing

    def _watermarks(self, name):
        spans = self.recording.settings.streams.get(name, Spans())
        return lambda: Watermarks(spans.lateness_ns, spans.idle_ns, spans.skew_ns, capacity=spans.keys_max)

    def play(self, record):
        """One record of the journal. A batch that cannot be decoded counts as missing."""
        self.position = record.position
        if record.kind == SCHEMA:
            return
        if record.kind == BATCH and record.stream in self.recording.schemas:
            name = self.recording.schemas[record.stream].stream
            if name not in self._begun:
                self._begun.add(name)
                self._inputs_by_name[name].next_sequence = record.first
        try:
            self.missing += self.replay(record, self.recording.schemas)
        except DiskError:
            self.missing += record.count

    def _trapped(self, stage, number, batch, error):
        self.trapped += 1
        if len(self.traps) < self.TRAPS_MAX:
            self.traps.append((self.position, stage.name, str(error)))


class _Tap:
    """Stands in for an outbox: passes on what would be appended."""

    def __init__(self, said):
        self._said = said
        self.writer = self._Nowhere()

    def append(self, stream, batch, payload=None):
        """As Outbox.append."""
        self._said(stream, batch, payload or encode_columns(batch))

    class _Nowhere:
        def append(self, *record):
            pass


def chain(rules, name) -> list:
    """Of Ruled: the one of this name, and those that feed it. Raises ConfigError."""
    known = {ruled.rule: ruled for ruled in rules}
    if name not in known:
        raise ConfigError(f"the recording has no rule {name!r}; it has {', '.join(known) or 'none'}")
    found = []
    while name in known and known[name] not in found:
        found.insert(0, known[name])
        name = known[name].input.removesuffix(".late")
    return found
