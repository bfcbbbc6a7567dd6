"""`tidegate buffer ls | verify | repair | export | tail`: the logs on disk. All but repair only read, and need no running gateway nor mind one."""

import json
import sys

from edge.codec.jsonlines import identified
from edge.errors import ConfigError, DiskError
from edge.storage.records import BATCH, DEAD, GAP, SCHEMA
from edge.times import nanoseconds, timestamp
from gateway.config import reader as config
from gateway.inspection.follow import tail
from gateway.inspection.repair import repair
from gateway.inspection.store import Store, add_place, plain


def add_arguments(parser):
    commands = parser.add_subparsers(dest="action", required=True, metavar="ls | verify | repair | export | tail")
    ls = commands.add_parser("ls", help="what each log holds", description="What each log holds.")
    verify = commands.add_parser("verify", help="read every record and say what is damaged", description="Read and decode every record. Exit status 1 if any is damaged.")
    verify.add_argument("logs", nargs="*", metavar="LOG", help="only these: journal, outbox/LANE, dead, checkpoints (all)")
    export = commands.add_parser("export", help="a log's rows as JSON", description="A log's rows as JSON, each with stream, sequence and receive time; dead letters "
                                 "for `dead`. Exit status 1 if damage was passed over.")
    export.add_argument("log", metavar="LOG", nargs="?", help="journal, outbox/LANE or dead")
    export.add_argument("--stream", metavar="NAME", help="only this stream")
    export.add_argument("--from", dest="start", metavar="TIME|POSITION", type=_bound, help="from this receive time (ISO 8601, UTC if it names no zone) or position on")
    export.add_argument("--to", dest="stop", metavar="TIME|POSITION", type=_bound, help="up to this receive time or position, which is left out")
    export.add_argument("--format", choices=["jsonl", "json"], default="jsonl", help="an object a line, or one array (jsonl)")
    export.add_argument("--out", metavar="FILE", help="write here (standard output)")
    export.add_argument("--slice", metavar="DIR|FILE.tar.gz", help="write a part of the journal with the rules and what else `tidegate rule replay` needs")
    export.add_argument("--mask", nargs="+", default=[], metavar="FIELD=HOW", help="in the slice: drop, hash or truncate:N a field; STREAM.FIELD for one stream's")
    export.add_argument("--mask-key", metavar="FILE", help="whose content keys the hashes, so that two slices have the same (a random key, not kept)")
    repair = commands.add_parser("repair", help="put aside what is damaged, keep what is readable", description="Put aside what verify finds damaged, and write what is readable "
                                 "around it to clean files. Deletes nothing: quarantine/ beside the log has each damaged file whole, with the reason. No gateway may be running.")
    repair.add_argument("logs", nargs="*", metavar="LOG", help="only these: journal, outbox/LANE, dead, checkpoints (all)")
    repair.add_argument("--dry-run", action="store_true", help="only say what would be done; exit status 1 if there is something to do")
    tail = commands.add_parser("tail", help="a log's newest rows, and those that come", description="The newest rows of a log as JSON lines, the newest last.")
    tail.add_argument("log", metavar="LOG", help="journal, outbox/LANE or dead")
    tail.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until interrupted")
    tail.add_argument("-n", "--lines", type=int, default=10, metavar="N", help="begin with so many (10)")
    tail.add_argument("--stream", metavar="NAME", help="only this stream")
    tail.add_argument("--json", action="store_true", help="JSON lines, as always")
    tail.set_defaults(start=None, stop=None)
    for command in (ls, verify, repair, export, tail):
        add_place(command)
    for command in (ls, verify, repair):
        command.add_argument("--json", action="store_true", help="as one JSON object")
    export.add_argument("--json", dest="format", action="store_const", const="json", help="--format json")


def run(arguments):
    return {"ls": _ls, "verify": _verify, "repair": repair, "export": _export, "tail": _tail}[arguments.action](Store(arguments), arguments)


# --- ls


def _ls(store, arguments):
    logs = {name: _summary(store, name) for name in store.names()}
    if arguments.json:
        print(json.dumps({"data": store.directory, "logs": logs}))
        return 0
    print(f"{'log':24} {'segments':>8} {'records':>10} {'events':>12} {'bytes':>14}  positions, receive times")
    for name, log in logs.items():
        held = f"{log['first_position']} to {log['next_position'] - 1}" if log["records"] else "empty"
        times = f", {log['oldest']} to {log['newest']}" if log["oldest"] else ""
        print(f"{name:24} {log['segments']:8} {log['records']:10,} {sum(log['events'].values()):12,} {log['bytes']:14,}  {held}{times}")
        for stream, events in sorted(log["events"].items()):
            print(f"  {plain(stream):22} {'':8} {'':10} {events:12,}")
        if log["gaps"]:
            print(f"  announced as gaps      {log['gaps']:,} sequences, evicted or lost to damage")
        if log["quarantined"]:
            print(f"  {_count(log['quarantined'], 'file')} in quarantine")
        if log["holes"]:
            print(f"  holes are known here: `tidegate buffer verify {name}`")
    return 0


def _summary(store, name):
    reader = store.log(name)
    kind = {"dead": DEAD, "checkpoints": None}.get(name, BATCH)
    events, gaps = {}, 0
    for segment in reader.segments:
        for found, stream, first, end in reader.ranges(segment):
            if found == kind:
                events[stream] = events.get(stream, 0) + end - first
            elif found == GAP and kind == BATCH:
                gaps += end - first
    oldest, newest = (None, None) if kind is None else _times(store, reader)
    return {"segments": len(reader.segments), "records": _records(reader), "events": _by_name(store, events), "gaps": gaps,
            "first_position": reader.tail, "next_position": reader.head, "bytes": reader.size_bytes, "oldest": oldest, "newest": newest,
            "quarantined": len(reader.quarantined), "holes": bool(reader.damage) or any(s.holes for s in reader.segments)}


def _records(reader):
    return sum(s.end - s.first - sum(max(0, min(b, s.end) - a) for a, b in s.holes) for s in reader.segments)


def _by_name(store, events):
    named = {}
    for number, count in events.items():
        name = store.stream(number) if number else "(no stream)"
        named[name] = named.get(name, 0) + count
    return named


def _times(store, reader):
    """Receive times of the first and the last record that has one."""
    first = next(_received(store, reader.all()), None)
    last = None
    for segment in reversed(reader.segments):
        for place in (segment.places[-1] if segment.places else segment.first, segment.first):
            for last in _received(store, reader.records(segment, place)):
                pass
            if last is not None:
                return timestamp(first), timestamp(last)
    return None, None


def _received(store, records):
    for record in records:
        try:
            if record.kind == SCHEMA:
                store.learn(record)
            elif (ns := store.received_ns(record)) is not None:
                yield ns
        except DiskError:
            continue                     # verify says it


# --- verify


def _verify(store, arguments):
    logs = {name: _examine(store, name) for name in arguments.logs or store.names()}
    damaged = any(log["damage"] for log in logs.values())
    if arguments.json:
        print(json.dumps({"data": store.directory, "ok": not damaged, "logs": logs}))
        return int(damaged)
    for name, log in logs.items():
        verdict = f"DAMAGED in {_count(len(log['damage']), 'place')}" if log["damage"] else "good"
        notes = f"; {log['tail_bytes']} bytes of a record torn or just being written behind the last" if log["tail_bytes"] else ""
        notes += f"; {_count(log['torn'], 'record')} torn before a sync had returned" if log["torn"] else ""
        notes += f"; {_count(len(log['quarantined']), 'file')} in quarantine" if log["quarantined"] else ""
        notes += f"; {_count(len(log['removed']), 'segment')} removed meanwhile" if log["removed"] else ""
        notes += f"; {_count(log['mended'], 'position')} lost and put aside by a repair" if log["mended"] else ""
        print(f"{name}: {_count(log['records'], 'record')} in {_count(log['segments'], 'segment')}, {log['bytes']:,} bytes: {verdict}{notes}")
        for d in log["damage"]:
            print(f"  {d['file']} offset {d['offset']} to {d['end']}: {_positions(d['first'], d['after'])}{plain(d['what'])}")
    return int(damaged)


def _examine(store, name):
    """Reads everything, a window at a time."""
    reader = store.log(name)
    records, damage = 0, []
    for segment in reader.segments:
        for record in reader.records(segment):
            records += 1
            try:
                if name != "checkpoints":
                    store.check(record)
            except DiskError as error:
                damage.append(_place(store, reader.path(segment), record.offset, record.end, record.position, record.position + 1, str(error)))
    damage += [_place(store, d.file, d.offset, d.end, d.first, d.after, d.what) for d in reader.damage]
    damage.sort(key=lambda d: (d["file"], d["offset"]))
    return {"segments": len(reader.segments), "records": records, "bytes": reader.size_bytes, "damage": damage, "tail_bytes": reader.tail_bytes,
            "torn": sum(d.after - d.first for d in reader.torn), "mended": sum(b - a for a, b in reader.mended),
            "quarantined": reader.quarantined, "removed": reader.removed}


def _place(store, file, offset, end, first, after, what):
    return {"file": file.removeprefix(f"{store.directory}/"), "offset": offset, "end": end, "first": first, "after": after, "what": what}


def _count(number, what):
    return f"{number:,} {what}{'s' * (number != 1)}"


def _positions(first, after):
    if first >= after:
        return ""
    return f"position {first} lost: " if after == first + 1 else f"positions {first} to {after - 1} lost: "


# --- export


class _Time:
    """A bound of --from and --to that is a time; a position is a plain int."""

    def __init__(self, ns):
        self.ns = ns


def _bound(text):
    if text.isdecimal():
        return int(text)
    try:
        return _Time(nanoseconds(text))
    except ValueError:
        raise ConfigError(f"{text!r} is neither a position nor a time such as 2026-03-01T06:30Z") from None


def _slice(store, arguments):
    from gateway.inspection.slice import Mask, Slice

    if arguments.data:
        raise ConfigError("--slice: a slice takes lateness and idle along: name the configuration with -c, not --data")
    if arguments.log not in (None, "journal") or arguments.stream or arguments.out:
        raise ConfigError("--slice takes the whole journal, between --from and --to; LOG, --stream and --out do not go with it")
    try:
        key = open(arguments.mask_key, "rb").read() if arguments.mask_key else None
    except OSError as error:
        raise ConfigError(f"{arguments.mask_key}: {error.strerror}") from None
    made = Slice(store, config.load(arguments.config), [Mask(text, key) for text in arguments.mask])
    warnings = made.write(arguments.slice, *(bound and (_said(bound), lambda position, ns, bound=bound: _reached(bound, position, ns))
                                             for bound in (arguments.start, arguments.stop)))
    for warning in warnings:
        print(f"tidegate: {plain(warning)}", file=sys.stderr)
    print(f"{arguments.slice}: {_count(made.events, 'event')} in {_count(made.records, 'record')}, from the gateway's {'first event on' if made.whole else 'midst'}")
    return 0


def _said(bound):
    return timestamp(bound.ns) if isinstance(bound, _Time) else str(bound)


def _reached(bound, position, ns):
    return ns is not None and ns >= bound.ns if isinstance(bound, _Time) else position >= bound


def _export(store, arguments):
    if arguments.slice:
        return _slice(store, arguments)
    if arguments.log is None or arguments.mask or arguments.mask_key:
        raise ConfigError("name a log: journal, outbox/LANE or dead; or a part of the journal to take along with --slice, which --mask and --mask-key belong to")
    if arguments.log == "checkpoints":
        raise ConfigError("checkpoints hold no rows; export journal, outbox/LANE or dead")
    reader = store.log(arguments.log)
    damage = []
    lines = _lines(store, reader, arguments, damage)
    try:
        out = open(arguments.out, "wb") if arguments.out else sys.stdout.buffer
        try:
            _write(out, lines, arguments.format)
            out.flush()
        finally:
            if arguments.out:
                out.close()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(f"{arguments.out or 'standard output'}: cannot be written: {error.strerror}") from None
    damage += [f"{d.file} offset {d.offset}: {_positions(d.first, d.after)}{d.what}" for d in reader.damage]
    for place in damage:
        print(f"tidegate: passed over: {plain(place)}", file=sys.stderr)
    return int(bool(damage))


def _write(out, lines, form):
    if form == "jsonl":
        for line in lines:
            out.write(line + b"\n")
        return
    before = b"[\n"
    for line in lines:
        out.write(before + line)
        before = b",\n"
    out.write(b"\n]\n" if before == b",\n" else b"[]\n")


def _lines(store, reader, arguments, damage):
    """JSON objects, one record's rows in memory at a time."""
    first, stop = (bound if isinstance(bound, int) else None for bound in (arguments.start, arguments.stop))
    for segment in reader.segments:
        if segment.end <= (first or 0):
            continue
        if stop is not None and segment.first >= stop:
            return
        for record in reader.records(segment, first or 0):
            if stop is not None and record.position >= stop:
                return
            try:
                if record.kind == SCHEMA:
                    store.learn(record)
                elif record.kind in _ROWS and arguments.stream in (None, store.stream(record.stream)):
                    yield from _ROWS[record.kind](store, record, arguments)
            except DiskError as error:
                damage.append(f"{reader.path(segment)} offset {record.offset}: position {record.position}: {error}")


def _letter(store, record, arguments):
    if _in_time(arguments, store.received_ns(record)):
        yield json.dumps(store.letter(record), ensure_ascii=False).encode()


def _batch(store, record, arguments):
    batch = store.batch(record.stream, record.payload)
    if not _in_time(arguments, batch.received_ns):
        return
    yield from identified(batch)


_ROWS = {BATCH: _batch, DEAD: _letter}


def _tail(store, arguments):
    return tail(store, arguments, _ROWS)


def _in_time(arguments, ns):
    start, stop = arguments.start, arguments.stop
    return (not isinstance(start, _Time) or ns >= start.ns) and (not isinstance(stop, _Time) or ns < stop.ns)
