"""What must be true of a simulated world. It knows what the devices said and saw acknowledged, what the receiver has, and the journal; nothing of how it came about.

A row that a lane let go and announced counts as what the undisturbed gateway said under its number, so that all is judged but its coming.
"""

from collections import defaultdict

import msgpack

from edge.columns.schema import Schema
from edge.storage.memory import Memory
from edge.storage.records import BATCH, CLOCK, DEAD, SCHEMA, TICK, between, read_letter
from gateway.core import Core

S = 10**9


def problems(world) -> list[str]:
    """One line for each promise that is broken, of a world that came to rest."""
    found = list(dict.fromkeys(world.problems))
    said, came = undisturbed(world), world.broker.rows
    gone = {name: row for name in announced(world) if (row := said[name[0]].get(name[2])) is not None}
    rows = by_stream(gone | came)
    found += acknowledged(world, rows) + order(rows["env"]) + complete(world) + windows(by_stream(world.broker.forgotten_rows | gone | came), world.universe.true_ns())
    found += [f"{name} said {first}, then {then}" for name, first, then in world.broker.changed[:3]]
    return found + same_as_undisturbed(world, by_stream(came), said, {name[::2] for name in gone.keys() | world.broker.lost_rows()})


def by_stream(rows):
    """stream -> [(sequence, row) in their order]. A data directory has one epoch."""
    found = defaultdict(list)
    for (stream, _, sequence), row in sorted(rows.items()):
        found[stream].append((sequence, row))
    return found


def announced(world):
    """(stream, epoch, sequence) of the rows that never come, as the gateway says; not of the numbers that were jumped over."""
    return {(entry["stream"], entry["epoch"], first + i) for entry in world.broker.receiver.report()
            for first, count in entry["announced"] if count < 1 << 30 for i in range(count)}


def key(row):
    return row["device"], row["seq"]


def acknowledged(world, rows):
    """Each acknowledged event is at the receiver as it was said, and once in the stream without doubles; each malformed one is a dead letter; nothing is invented."""
    said, found, dead = {e.key: e for e in world.truth}, [], world.daemon.core.pipeline.dead.log
    letters = {bytes(read_letter(r.payload)["payload"]) for r in between(dead, dead.tail) if r.kind == DEAD and "payload" in read_letter(r.payload)}
    raw = {key(row): row for _, row in rows["env"]}
    once = [key(row) for _, row in rows["once"]]
    forgotten = {key(world.broker.forgotten_rows[name]) for name in world.broker.lost_rows() if name[0] in ("env", "once")}
    for event in world.truth:
        if event.acked and event.whole and event.key not in raw and event.key not in forgotten:
            found.append(f"event {event.key} was acknowledged and is lost")
        if event.acked and not event.whole and event.payload not in letters:
            found.append(f"malformed event {event.key} was acknowledged and is no dead letter")
    for name, row in raw.items():
        event = said.get(name)
        if event is None or not event.sent or (row["ts"], row["temp"]) != (event.ts_ms * 10**6, event.temp):
            found.append(f"row {row} was never said")
    if len(once) != len(set(once)):
        found.append(f"{len(once) - len(set(once))} events are counted twice")
    if missing := raw.keys() - set(once) - forgotten:
        found.append(f"{len(missing)} events were dropped as doubles, and are none: {sorted(missing)[:3]}")
    return found[:10]


def order(rows):
    """The first row of each event comes after those of the events before it on its device."""
    last, seen = {}, set()
    for sequence, row in rows:
        if key(row) not in seen and last.get(row["device"], 0) > row["seq"]:
            return [f"env {sequence}: {key(row)} comes after {last[row['device']]}"]
        if key(row) not in seen:
            seen.add(key(row))
            last[row["device"]] = row["seq"]
    return []


def complete(world):
    """No sequence is missing, or it was announced; and what was announced is in the ledger as evicted or dead, or jumped over. What a broker forgot is missing, and no more."""
    found, forgot = [], defaultdict(set)
    for stream, _, sequence in world.broker.lost_rows():
        forgot[stream].add(sequence)
    evicted = sum(a.out.get("evicted", 0) + a.out.get("dead_lettered", 0) for a in world.ledger() if a.kind == "lane")
    for entry in world.broker.receiver.report():
        lacking = {s for first, count in entry["missing"] for s in range(first, first + count)}
        announced = sum(count for _, count in entry["announced"] if count < 1 << 30)
        if announced and {lane.full for lane in world.config.lanes.values() if entry["stream"] in lane.streams} == {"backpressure"}:
            found.append(f"{entry['stream']}: {announced} rows are announced as gone, and its lanes may let nothing go")
        if lacking - forgot[entry["stream"]]:
            found.append(f"{entry['stream']}: {len(lacking)} rows are missing without a word, from {min(lacking)}")
        if announced > evicted or (entry["stream"] not in world.may_jump and any(count >= 1 << 30 for _, count in entry["announced"])):
            found.append(f"{entry['stream']}: gaps of {entry['announced']} are announced, {evicted} rows are evicted by the ledger")
    return found


def windows(rows, now_ns):
    """No window fires twice; and each holds what of its device came for it in time: count and least. Those in the future of the world may still be open."""
    late = {key(row) for _, row in rows["tumble.late"]}
    wanted, found = defaultdict(list), []
    for _, row in rows["once"]:
        if key(row) not in late:
            wanted[row["device"], row["ts"] // (5 * S) * 5 * S].append(row["temp"])
    fired = defaultdict(list)
    for _, row in rows["tumble"]:
        fired[row["device"], row["window_start"]].append((row["count"], row["temp_min"]))
    for name in fired.keys() | wanted.keys():
        should = [(len(wanted[name]), min(wanted[name]))] if wanted.get(name) else []
        if fired.get(name, []) != should and (name in fired or name[1] < now_ns):
            found.append(f"window {name}: {fired.get(name)} and not {should}")
    return found[:3]


def same_as_undisturbed(world, rows, undisturbed, lost):
    """A fresh gateway that sees the journal's events without any fault puts out the same rows under the same numbers, bit by bit; but for those that are `lost`."""
    found = []
    for name in sorted(undisturbed.keys() - world.may_jump):
        here = {sequence: repr(row) for sequence, row in rows[name]}
        there = {sequence: repr(row) for sequence, row in undisturbed[name].items() if (name, sequence) not in lost}
        if here != there:
            at = min(s for s in here.keys() | there.keys() if here.get(s) != there.get(s))
            found.append(f"{name} {at}: {here.get(at)} and undisturbed {there.get(at)} ({len(here)} and {len(there)} rows)")
    return found


def undisturbed(world):
    """stream -> sequence -> row, of a gateway without faults that gets the journal's batches, ticks and clock steps."""
    core = Core(world.config, Memory(), f"{world.folder}/data/modules", Quiet())
    core.recover()
    said, schemas, pipeline = defaultdict(dict), {}, core.pipeline
    for stream in pipeline.streams:
        stream.outboxes, was = [], stream.outboxes
        if was:
            stream.tap = lambda batch, rows=said[stream.name]: rows.update((batch.first_sequence + i, row) for i, row in enumerate(batch.rows()))
    pipeline.learn_skips(world.journal())
    for record in world.journal():
        if record.kind == SCHEMA:
            schemas[record.stream] = Schema.from_dict(msgpack.unpackb(record.payload))
        elif record.kind in (BATCH, TICK, CLOCK):
            pipeline.replay(record, schemas)
    return said


class Quiet:
    """A log that nobody reads."""
    __call__ = warning = error = lambda *args, **details: None
