"""Checkpoint and recovery: rule state, watermarks, sequences, accounts, journal position and outbox heads, committed together.

Save: sync the outboxes, then write one checkpoint that says how far they and the journal had come. Start: load it, cut the outboxes back to where they
stood, play the journal from its position. What replay puts out has the sequences it had before, so a receiver that has seen it drops it.

When things are damaged the gateway still starts:
- journal records that are gone: the output streams' sequences jump by JUMP, because replay may now say something else than was sent.
- no checkpoint although there is data: rules start empty; what the outboxes hold is kept, and the journal is played from after the last
  receive time that they show.

When the configuration changed, what is there no more (a stream, a lane, a rule that was removed or is refused) is kept in the checkpoint as it stood:
if it comes back, its numbers go on, for upstream drops a number that it has seen. Outputs of a changed rule that a replay would number anew jump too.
"""

import msgpack
from msgspec import Struct

from edge.backlog import CALL, Backlog, items
from edge.codec.batches import decode_columns
from edge.columns.schema import Schema
from edge.errors import DiskError, RuleError
from edge.fates import recount, settle
from edge.storage.records import BATCH, DEAD, GAP, SCHEMA, between, letter, read_letter

META_VERSION = 2                     # 2: what runs (deployments), and rows that are owed to the outboxes
FAILED_MAX = 20                      # records that are told of


class Recovered(Struct):
    """What a start found. `replayed` journal records; `damaged` events that are gone; `fresh` rules without their old state; lost: journal or
    checkpoint lack something, so that sequences jump; `failed` (position, error) of records that could not be played again, which is a mistake in
    the gateway."""

    checkpoint: bool = False
    lost: bool = False
    replayed: int = 0
    damaged: int = 0
    fresh: tuple = ()
    failed: tuple = ()
    received_ns: int = 0


def capture(pipeline, lanes, running=None):
    """(meta, images) of a pipeline that is between two batches; once they are saved, notices of what went may go. lanes: lane name -> its cursor state, plain data. running: what deployed() gives back."""
    assert not any(s.waiting for s in pipeline.inputs), "what is stored must run before its journal position is committed"
    for outbox in pipeline.outboxes:
        outbox.write()
        outbox.flush()
        outbox.log.sync()
    pipeline.sync()
    meta = {
        "version": META_VERSION,
        "position": pipeline.journal.head,
        "dead": pipeline.dead.head,
        "unrouted": pipeline.unrouted,
        "schemas": [(s.number, s.schema.to_dict()) for s in pipeline.streams],
        "streams": pipeline.absent["streams"] | {s.name: s.state() for s in pipeline.streams},
        "stages": {stage.name: stage.state() for stage in pipeline.stages},
        "outboxes": pipeline.absent["outboxes"] | {outbox.name: outbox.state() for outbox in pipeline.outboxes},
        "lanes": pipeline.absent["lanes"] | lanes,
        "received_ns": pipeline.received_ns,
        "owed": pipeline.owed,
        **(running or {}),
    }
    images = {f"watermarks/{s.name}": s.watermarks.dump() for s in pipeline.streams if s.stages}
    for stream in pipeline.inputs:
        if stream.repeats is not None:
            for kind, image in zip(("repeats", "ids", "recent"), stream.repeats.dump()):
                images[f"{kind}/{stream.name}"] = image
    for stage in pipeline.stages:
        memory, mutable = stage.rule.image()
        images[f"memory/{stage.name}"] = memory
        images[f"globals/{stage.name}"] = mutable
        if stage.backlog is not None:
            images[f"deferred/{stage.name}"] = stage.backlog.dump()
    return msgpack.packb(meta), images


def deployed(loaded) -> tuple[int, list]:
    """(generation, deployments as plain data) of what CheckpointStore.load returned; (0, []) when it says nothing. Raises DiskError for a newer version's."""
    if loaded is None:
        return 0, []
    meta = _read(loaded[0])
    return meta.get("generation", 0), meta.get("deployments", [])


def _read(meta):
    meta = msgpack.unpackb(meta, strict_map_key=False)
    if meta["version"] > META_VERSION:
        raise DiskError(f"the checkpoint is of version {meta['version']}, this program reads up to {META_VERSION}: install the newer version again")
    return meta


def restore(pipeline, loaded, behind=False, meanings=()) -> tuple[Recovered, dict]:
    """Put a new pipeline where the last one stood. loaded: what CheckpointStore.load returned. behind: what runs was changed after it, so that a
    replay may say something else than was sent. meanings: stream number -> Schema of all that there were, for logs whose own record of it is damaged.
    Returns what was found, and the lanes' states."""
    recovered = Recovered(checkpoint=loaded is not None)
    lanes, position = {}, pipeline.journal.log.tail
    schemas = {}
    retried = settle(pipeline, pipeline.dead.log.tail if loaded is None else _read(loaded[0])["dead"])
    if loaded is not None:
        meta, images = _read(loaded[0]), loaded[1]
        pipeline.received_ns = meta["received_ns"]
        recovered.fresh = _load(pipeline, meta, images, recovered)
        schemas = {number: Schema.from_dict(data) for number, data in meta["schemas"]}
        lanes, position = meta["lanes"], meta["position"]
        recovered.lost |= not pipeline.journal.log.tail <= position <= pipeline.journal.log.head
        if pipeline.journal.log.head < position:         # its tail rotted: positions that the checkpoint has seen are not given again
            pipeline.journal.log.truncate(position)
        pipeline.leave_out_unsent(pipeline.streams)
        _bridge(pipeline, meta, replays=position < pipeline.journal.head, behind=behind)
        _count_letters(pipeline, meta["dead"])
        recount(pipeline, retried)
    elif any(log.head for log in (pipeline.journal.log, *(outbox.log for outbox in pipeline.outboxes))):
        position, schemas = _without_checkpoint(pipeline, recovered, dict(meanings))
    pipeline.pay()
    _replay(pipeline, position, schemas, recovered)
    recovered.received_ns = pipeline.received_ns
    return recovered, lanes


def journal_position(meta) -> int:
    """The journal position that a checkpoint's meta covers: what stands before it is needed by no restart."""
    return msgpack.unpackb(meta, strict_map_key=False)["position"]


def _bridge(pipeline, meta, replays, behind):
    """Sequences over a change of the configuration: what is absent is kept, and no number is given to a row that differs from the one that had it."""
    streams, outboxes = {s.name for s in pipeline.streams}, {o.name for o in pipeline.outboxes}
    pipeline.absent = {kind: {name: state for name, state in meta[kind].items() if name not in present}
                       for kind, present in (("streams", streams), ("outboxes", outboxes), ("lanes", outboxes))}
    live = {schema["stream"] for _, schema in meta["schemas"]}       # when the checkpoint was made: the others have put out nothing since
    for name, state in pipeline.absent["streams"].items():
        state["jump"] = state.get("jump", False) or behind or (replays and name in live)
    changed = {name for name in streams if meta["streams"].get(name, {}).get("jump")}
    for stage in pipeline.stages:
        was = meta["stages"].get(stage.name)
        new = stage.output.name not in live
        other = was is None or not stage.fits(was) or was.get("enabled", True) != stage.enabled
        if stage.input.name in changed or (replays and not new and other):
            changed |= {stage.output.name, stage.late.name}
        if behind:
            changed |= {stream.name for stream in stage.made}
    pipeline.jump([s for s in pipeline.streams if s.name in changed])


def _load(pipeline, meta, images, recovered):
    fresh = []
    keys = {schema["stream"]: schema["key"] for _, schema in meta["schemas"]}
    for stream in pipeline.streams:
        if stream.name in meta["streams"]:
            stream.load(meta["streams"][stream.name])
        if stream.stages and f"watermarks/{stream.name}" in images and keys.get(stream.name) == stream.schema.key:
            stream.watermarks.load(bytes(images[f"watermarks/{stream.name}"]))
        if stream.repeats is not None and f"repeats/{stream.name}" in images:
            stream.repeats.load(bytes(images[f"repeats/{stream.name}"]), images[f"ids/{stream.name}"], images.get(f"recent/{stream.name}", b""))
    for stage in pipeline.stages:
        state = meta["stages"].get(stage.name)
        memory = images.get(f"memory/{stage.name}")
        if state is None or not stage.fits(state) or memory is None:
            stage.start_at(stage.input.next_sequence)
            fresh.append(stage.name)
            _bury_deferred(pipeline, stage, images)
            continue
        try:
            stage.rule.load_image((memory, images[f"globals/{stage.name}"]))
        except RuleError:                            # its state was not written by this version: it starts anew, and may say something else
            stage.rule.reset()
            stage.start_at(stage.input.next_sequence)
            fresh.append(stage.name)
            _bury_deferred(pipeline, stage, images)
            recovered.lost = True
            continue
        stage.load(state)
        stage.forget_memento()
        if f"deferred/{stage.name}" in images:
            pipeline.take_up(stage, Backlog.load(bytes(images[f"deferred/{stage.name}"]), stage.input.schema))
    for outbox in pipeline.outboxes:
        state = meta["outboxes"].get(outbox.name)
        if state is not None:
            sequences = {number: meta["streams"][name]["next"] for number, name in state["names"].items() if name in meta["streams"]}
            outbox.cut_back(state, sequences, meta["lanes"].get(outbox.name))
        if outbox.name in meta["lanes"]:             # what is acknowledged is not evicted by what a replay puts out
            ranges = meta["lanes"][outbox.name]["ranges"]
            outbox.log.drop_before(min(ranges[0][0], outbox.log.head))
            outbox.log.needed = lambda ranges=ranges: ranges
    pipeline.unrouted = meta["unrouted"]
    pipeline.owed = meta.get("owed", [])
    return tuple(fresh)


def _bury_deferred(pipeline, stage, images):
    """What waited for CPU was for a rule that is no more."""
    for kind, _, *rest in items(bytes(images.get(f"deferred/{stage.name}", msgpack.packb([])))):
        if kind == CALL and rest[0]:
            pipeline.dead.append(DEAD, stage.input.number, pipeline.journal.head, rest[0],
                                 letter("the rule was changed while these waited for CPU", pipeline.received_ns, rule=stage.name, columns=rest[1]))


def _count_letters(pipeline, since):
    """Dead letters of events written after the checkpoint; those of rules are counted when replay skips the call."""
    by_number = {s.number: s for s in pipeline.inputs}
    for record in between(pipeline.dead.log, since):
        if record.kind != DEAD or "rule" in read_letter(record.payload):
            continue
        stream = by_number.get(record.stream)
        if stream is None:
            pipeline.unrouted += 1
        else:
            stream.arrived += 1
            stream.rejected += 1


def _without_checkpoint(pipeline, recovered, meanings):
    """Sequences from what the logs hold; the journal position to play from, and what its stream numbers mean there."""
    by_name = {s.name: s for s in pipeline.streams}
    ends = {}                            # stream's name -> outbox -> sequence after the last that stands there
    shown_ns = 0
    for outbox in pipeline.outboxes:
        schemas = dict(meanings)
        for _, number, first, count, _ in outbox.log.notices.events:
            outbox.on_evict(GAP, number, first, count)       # its rows are in no account
        for record in between(outbox.log, outbox.log.tail):
            if record.kind == SCHEMA:
                schemas[record.stream] = Schema.from_dict(msgpack.unpackb(record.payload))
            elif record.kind in (BATCH, GAP) and record.stream in schemas:
                name = schemas[record.stream].stream
                here = ends.setdefault(name, {})
                here[outbox] = outbox.adopt(name, record, here.get(outbox))
                if record.kind == BATCH:
                    shown_ns = max(shown_ns, decode_columns(record.payload, schemas[record.stream]).received_ns)
    for name, here in ends.items():
        end = max(here.values())
        if name in by_name:
            by_name[name].next_sequence = end
        else:                            # of a rule that is not here, and may come back
            pipeline.absent["streams"][name] = {"next": end, "since": end, "arrived": 0, "rejected": 0, "damaged": 0, "jump": True}
    inputs = {s.name: s for s in (*pipeline.inputs, *pipeline.own)}
    schemas, position = meanings, pipeline.journal.log.head
    for record in between(pipeline.journal.log, pipeline.journal.log.tail):
        if record.kind == SCHEMA:
            schemas[record.stream] = Schema.from_dict(msgpack.unpackb(record.payload))
        elif record.kind == BATCH and record.stream in schemas and schemas[record.stream].stream in inputs:
            if decode_columns(record.payload, schemas[record.stream]).received_ns > shown_ns:
                position = record.position
                break
            stream = inputs[schemas[record.stream].stream]
            stream.next_sequence = max(stream.next_sequence, record.first + record.count)
            if stream.repeats is not None and schemas[record.stream] == stream.schema:
                stream.repeats.note(decode_columns(record.payload, stream.schema))
    for stream in pipeline.streams:
        stream.since = stream.next_sequence
        for outbox in stream.outboxes:
            outbox.lacks_from(ends.get(stream.name, {}).get(outbox), stream)
    for stage in pipeline.stages:
        stage.start_at(stage.input.next_sequence)
    pipeline.jump([stage.partial for stage in pipeline.stages])
    recovered.fresh = tuple(stage.name for stage in pipeline.stages)
    recovered.lost = True
    return position, schemas


def _replay(pipeline, position, schemas, recovered):
    journal = pipeline.journal.log
    outputs = [s for stage in pipeline.stages for s in stage.answers]
    recovered.lost |= journal.damaged_since(position) > 0
    if recovered.lost:
        pipeline.jump(outputs)
    pipeline.learn_skips(between(journal, position))
    while pipeline.deferred:
        try:
            pipeline.replay_deferred()
        except Exception as error:               # as below
            recovered.failed = (*recovered.failed[:FAILED_MAX - 1], (position, repr(error)))
    for record in between(journal, position):
        recovered.replayed += 1
        if record.kind == SCHEMA:
            schemas[record.stream] = Schema.from_dict(msgpack.unpackb(record.payload))
            continue
        try:
            recovered.damaged += pipeline.replay(record, schemas)
        except Exception as error:               # a start that fails on a record would fail on it for ever
            recovered.failed = (*recovered.failed[:FAILED_MAX - 1], (record.position, repr(error)))
    pipeline.learn_skips(())
    if recovered.lost:
        pipeline.jump([s for s in (*pipeline.inputs, *pipeline.own) if s.next_sequence])
