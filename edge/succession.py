"""A succession: a change of what runs, made in memory all at once, and unmade the same way when it cannot be committed.

    build (may be refused; nothing has changed) -> turn() -> checkpoint -> pipeline.pay()      or, when the checkpoint fails,  turn() again

It is a list of attributes and what they change to; turn() exchanges the two, so it is its own inverse. Between the two turns nothing runs.
What a rule has open when it goes is put out by a copy of it, so the rule itself is as it was if it stays after all; these rows are
committed by the checkpoint (Pipeline.owed), and only then put into the outboxes.
"""

from edge.codec.batches import encode_columns
from edge.columns.schema import Schema
from edge.errors import ConfigError, RuleError
from edge.stage import Stage, Stream


class Succession:
    """A change of `pipeline`. number: fn(schema) -> its number. outboxes: fn(stream name, names of more lanes) -> the outboxes that take it.
    `owed`: what pay() puts out once the change is committed; `notes`: what whoever asked for it should know.
    Its methods raise ConfigError and RuleError for what cannot be, and say what to do."""

    def __init__(self, pipeline, *, number, outboxes):
        self._pipeline = pipeline
        self._number = number
        self._outboxes = outboxes
        self._parts = []             # [owner, attribute, other value]
        self._stages = list(pipeline.stages)
        self._absent = dict(pipeline.absent["streams"])
        self._next = {}              # partial stream -> its next sequence
        self.owed = []
        self.notes = []
        self._fresh = []             # streams whose meaning is new
        self._closed = []            # (partial stream, batch) of what was open
        self._jumping = []           # streams that come back over a replay: see recovery._bridge

    # --- what changes

    def replace(self, stage, rule, lanes, enabled=True):
        """Another rule for a stage, with the state that it has. Rules that read its output follow, where their fields stay."""
        self._put(stage, {**stage.attire(rule), "enabled": enabled})
        self._mean(stage, rule, lanes)

    def add(self, rule, source, lanes, enabled=True):
        """A stage for a rule that reads `source`."""
        streams = [self._revived(schema, source) for schema in (rule.output_schema, rule.late_schema, partial_schema(rule))]
        stage = Stage(rule, source, *streams)
        stage.enabled = enabled
        stage.start_at(source.next_sequence)
        for stream in streams:
            stream.outboxes = self._outboxes(stream.name, () if stream is stage.late else lanes)
        self._fresh += streams
        self._stages.append(stage)
        return stage

    def move(self, stage, rule, source, lanes, enabled=True):
        """Another rule for a stage, which reads another stream: its account begins anew, its streams go on."""
        moved = Stage(rule, source, *stage.made)
        moved.enabled = enabled
        moved.start_at(source.next_sequence)
        self._stages[self._stages.index(stage)] = moved
        self._mean(moved, rule, lanes)
        return moved

    def remove(self, stage):
        """Refused while rules read what it puts out."""
        readers = sorted({reader.name for stream in stage.made for reader in stream.stages})
        if readers:
            raise ConfigError(f"rule {stage.name}: {', '.join(readers)} {'reads' if len(readers) == 1 else 'read'} it; remove {', '.join(readers)} first")
        self._stages.remove(stage)
        for stream in stage.made:
            at = self._at(stream)
            self._absent[stream.name] = stream.state() | {"next": at, "sent": at if stream.outboxes else stream.sent}

    def begin_watermarks(self, stream, watermarks=None):
        """For a stream that no rule has read: they begin now, or go on from where a warm-up has come to."""
        self._put(stream, {"watermarks": watermarks or stream.new_watermarks()})

    def order(self, names):
        """names: of all rules, each after what feeds it."""
        self._stages.sort(key=lambda stage: names.index(stage.name))

    def close(self, stage):
        """What the stage's rule has open goes out on its partial stream, under the number it has now. Comes before all else."""
        made, trouble = partials(stage, self._pipeline.received_ns)
        stream = stage.partial
        if trouble:
            self.notes.append(f"it failed on closing what was open, which is lost in part: {trouble}")
        at = self._at(stream)
        names = [outbox.name for outbox in stream.outboxes]
        for batch in made:
            batch.first_sequence = at
            if names:
                self.owed.append([names, stream.number, stream.name, at, len(batch), encode_columns(batch)])
            at += len(batch)
            self._closed.append((stream, batch))
        self._next[stream] = at

    # --- the change

    def turn(self):
        """Make the change, or unmake it."""
        if self._next:
            for stream, at in self._next.items():
                self._put(stream, {"next_sequence": at})
            self._next = {}
        for part in self._parts:
            owner, name, value = part
            part[2] = getattr(owner, name)
            setattr(owner, name, value)
        self._parts.reverse()
        pipeline = self._pipeline
        stages, self._stages = pipeline.stages, self._stages
        pipeline.lay_out(self._stages)
        self._stages = stages
        absent, pipeline.absent["streams"] = pipeline.absent["streams"], self._absent
        self._absent = absent

    def announce(self):
        """What is new must be said before it is used; after turn()."""
        for stream in self._fresh:
            self._pipeline.announce(stream)
        self._pipeline.leave_out_unsent(self._pipeline.streams)
        self._pipeline.jump(self._jumping)   # unmade, they jump by the same the next time

    def show(self):
        """Let whoever watches a partial stream see what went out on it; once the change is committed."""
        for stream, batch in self._closed:
            if stream.tap is not None:
                stream.tap(batch)

    # --- inside

    def _at(self, stream) -> int:
        """Its next sequence, once the change is made."""
        return self._next.get(stream, stream.next_sequence)

    def _put(self, owner, values):
        self._parts += [[owner, name, value] for name, value in values.items()]

    def _mean(self, stage, rule, lanes):
        """The streams of a stage get what `rule` puts out, and so do those of the rules that read them."""
        schemas = (rule.output_schema, rule.late_schema, partial_schema(rule))
        for stream, schema in zip(stage.made, schemas):
            more = () if stream is stage.late else lanes
            if more is not None:
                outboxes = self._outboxes(stream.name, more)
                self._put(stream, {"outboxes": outboxes, "sent": stream.sent if not stream.outboxes else None if outboxes else self._at(stream)})
            if schema != stream.schema:
                self._put(stream, {"schema": schema, "number": self._number(schema)})
                self._fresh.append(stream)
                for reader in stream.stages:
                    self._rebind(reader, schema)

    def _rebind(self, reader, schema):
        """A rule whose input changes its version or units goes on with its state; with other fields it would be another rule."""
        try:
            heir = reader.rule.another(schema=schema)
        except RuleError:
            heir = None
        if heir is None or heir.identity != reader.rule.identity:
            raise ConfigError(f"rule {reader.name} reads {schema.stream}, whose fields would change from {_fields(reader.input.schema)} to {_fields(schema)}: "
                              f"remove {reader.name} first, or give the new version the same fields, or another name")
        heir.load_image(reader.rule.image())
        heir.strikes, heir.quarantined = reader.rule.strikes, reader.rule.quarantined
        self._put(reader, reader.attire(heir))
        self._mean(reader, heir, None)

    def _revived(self, schema, source):
        """A stream of a new stage; one that was there before goes on counting."""
        stream = Stream(self._number(schema), schema, source.new_watermarks)
        state = self._absent.pop(schema.stream, None)
        if state is not None:
            stream.load(state)
            if state.get("jump"):
                self._jumping.append(stream)
        return stream


def partial_schema(rule) -> Schema:
    """Of the stream that takes what a rule has open when it goes: the output's, under another name."""
    s = rule.output_schema
    return Schema(f"{rule.name}.partial", s.fields, s.version, s.key, s.time)


def partials(stage, received_ns):
    """(batches of what the stage's rule puts out when all its keys are closed, why not all of it or ""). The rule itself stays as it is."""
    made = []
    try:
        copy = stage.rule.another()
        copy.load_image(stage.rule.image())
        for tick in stage.input.watermarks.closing(stage.input.schema, received_ns):
            tick.first_sequence = stage.input.next_sequence
            result = copy.process(tick)
            if result.out_count:
                made.append(result.out(tick))
    except RuleError as error:
        return made, str(error)
    return made, ""


def _fields(schema):
    return ", ".join(f"{f.name} {f.kind}" for f in schema.fields)
