"""`tidegate rule replay --journal DIR`: run events that a gateway recorded through its rules, or through other versions of them.

Prints the rows that the rules put out, a JSON object a line, as `tidegate buffer export outbox/LANE` prints what the gateway put out. Exit status 1:
the journal has holes, or --diff found differences. Reads only; a gateway may be writing to the directory.
"""

import json
import sys
import tempfile

from edge.codec.jsonlines import identified
from edge.errors import ConfigError
from edge.host.compile import Cache
from edge.rehearsal.recording import deployed, open_recording
from edge.rehearsal.replay import Player
from edge.times import nanoseconds
from rulec import gateway_file
from rulec.casting import cast, company
from rulec.comparison import Comparison, fields_changed

SHOWN = 10


def add_arguments(parser):
    parser.add_argument("--journal", required=True, metavar="DIR|FILE", help="a gateway's data directory, or a slice of `tidegate buffer export --slice`")
    parser.add_argument("--config", metavar="FILE", help="the gateway's configuration, for a data directory: it says lateness and idle")
    parser.add_argument("--from", dest="start", metavar="TIME|POSITION", help="show what comes of events from this receive time or position on")
    parser.add_argument("--to", dest="stop", metavar="TIME|POSITION", help="up to this receive time or position, which is left out")
    parser.add_argument("--rule", metavar="NAME|FILE.wasm", help="this rule, or another version of it: a file, NAME@VERSION or a digest (all rules as they ran)")
    parser.add_argument("--as", dest="place", metavar="RULE", help="the recorded rule in whose place the version goes")
    parser.add_argument("--input", metavar="STREAM", help="the stream that it reads instead")
    parser.add_argument("--params", nargs="+", default=[], metavar="NAME=VALUE", help="parameters in place of the recorded ones; values as JSON")
    parser.add_argument("--diff", nargs=2, metavar=("OLD", "NEW"), help="show only where two versions differ")
    parser.add_argument("--json", action="store_true", help="with --diff: as one JSON object")


def run(arguments):
    recording = _open(arguments)
    bounds = _Bounds(recording, arguments.start, arguments.stop)
    params = [_param(text) for text in arguments.params]
    if not recording.whole:
        _note("the recording does not begin with the gateway's first event: rules begin without state, and may differ until it has grown again")
    for field, how in recording.settings.masked.items():
        _note(f"{field} is masked: {how}")
    with tempfile.TemporaryDirectory(prefix="tidegate-replay-") as directory:
        cache = Cache(directory)
        if arguments.diff:
            return _diff(recording, bounds, arguments, params, cache)
        if arguments.rule:
            ruled, module = cast(recording, arguments.rule, arguments.place, arguments.input, params)
            rules, tap = company(recording, ruled, module), {ruled.rule, f"{ruled.rule}.late"}
        else:
            rules, tap = [(ruled, recording.module(ruled)) for ruled in recording.settings.rules], None
            if not rules:
                raise ConfigError(f"{recording.name}: no rule is recorded: name a .wasm file by --rule, and its stream by --input")
        return _print(recording, bounds, rules, tap, cache)


def _open(arguments):
    path = arguments.journal
    if not arguments.config:
        return open_recording(path)
    settings = gateway_file.read(arguments.config)
    running = deployed(path)
    if running is not None:              # by push or swap it may be others than the configuration says
        settings.rules = running
    return open_recording(path, settings)


def _param(text):
    name, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError
        return name, json.loads(value)
    except ValueError:
        raise ConfigError(f"--params {text}: write NAME=VALUE, the value as JSON: length='\"10s\"', limit=30, fields='[\"temp\"]'") from None


def _note(text):
    print(f"tidegate: {text}", file=sys.stderr)


class _Bounds:
    """--from and --to: which records count, and when to stop."""

    def __init__(self, recording, start, stop):
        self._recording = recording
        self._start, self._stop = _bound("--from", start), _bound("--to", stop)

    def records(self):
        """(record, whether what comes of it is shown)."""
        shown = self._start is None
        for record in self._recording.reader.all():
            at = {"position": record.position, "ns": self._ns(record)}
            if self._stop and _reached(at, self._stop):
                return
            shown = shown or _reached(at, self._start)
            yield record, shown

    def _ns(self, record):
        wanted = [bound for bound in (self._start, self._stop) if bound and bound[0] == "ns"]
        return self._recording.received_ns(record) if wanted else None


def _reached(at, bound):
    kind, value = bound
    return at[kind] is not None and at[kind] >= value


def _bound(option, text):
    if text is None or text.isdecimal():
        return text and ("position", int(text))
    try:
        return "ns", nanoseconds(text)
    except ValueError:
        raise ConfigError(f"{option} {text}: is neither a position nor a time such as 2026-03-01T06:30Z") from None


# --- one version


def _print(recording, bounds, rules, tap, cache):
    out, shown, counts = sys.stdout.buffer, False, {}

    def say(stream, batch, payload):
        if shown:
            counts[stream.name] = counts.get(stream.name, 0) + len(batch)
            for line in identified(batch):
                out.write(line + b"\n")

    player = Player(recording, rules, cache, say, tap)
    for record, shown in bounds.records():
        player.play(record)
    out.flush()
    for name, count in counts.items():
        _note(f"{name}: {count:,} rows")
    return _tell(recording, player)


def _tell(recording, player):
    """Traps and holes, on standard error. Exit status."""
    for position, rule, reason in player.traps:
        _note(f"position {position}: {reason}")
    if player.trapped > len(player.traps):
        _note(f"and {player.trapped - len(player.traps):,} traps more")
    for damage in recording.reader.damage:
        _note(f"{damage.file} offset {damage.offset}: positions {damage.first} to {damage.after - 1} lost: {damage.what}")
    if player.missing:
        _note(f"{player.missing:,} events are missing")
    return int(bool(recording.reader.damage or player.missing))


# --- two versions


def _diff(recording, bounds, arguments, params, cache):
    old = cast(recording, arguments.diff[0], arguments.place, arguments.input)
    recorded = {ruled.rule for ruled in recording.settings.rules}
    new = cast(recording, arguments.diff[1], arguments.place or (old[0].rule if old[0].rule in recorded else None), arguments.input, params)
    comparison, shown, players = Comparison(), False, []

    def listener(side, rule):
        def say(stream, batch, payload):
            if shown:
                comparison.put(side, "out" if stream.name == rule else "late", batch, players[0].position)

        return say

    for side, (ruled, module) in (("old", old), ("new", new)):
        players.append(Player(recording, company(recording, ruled, module), cache, listener(side, ruled.rule), {ruled.rule, f"{ruled.rule}.late"}))
    for record, shown in bounds.records():
        for player in players:
            player.play(record)
    changed, only = comparison.differences()
    found = {"same": comparison.same, "changed": len(changed), "rows": comparison.rows, "given_up": comparison.given_up,
             "only": {side: sum(row.side == side for row in only) for side in ("old", "new")},
             "traps": {side: player.trapped for side, player in zip(("old", "new"), players)}}
    first = sorted([*changed, *((row,) for row in only)], key=lambda rows: rows[0].position)[:SHOWN]
    if arguments.json:
        print(json.dumps(found | {"first": [{"position": rows[0].position, **{row.side: row.text for row in rows}} for rows in first]}, ensure_ascii=False))
    else:
        print("\n".join(_words(found, first)))
    status = _tell(recording, players[1])
    return int(bool(changed or only or any(comparison.given_up.values()) or status))


def _words(found, first):
    lines = [f"{found['rows']['old']:,} rows of the old, {found['rows']['new']:,} of the new: {found['same']:,} the same, {found['changed']:,} changed, "
             f"{found['only']['old']:,} only of the old, {found['only']['new']:,} only of the new"]
    lines += [f"{traps:,} traps of the {side}" for side, traps in found["traps"].items() if traps]
    lines += [f"{count:,} rows of the {side} were too many to be matched" for side, count in found["given_up"].items() if count]
    for rows in first:
        lines.append(f"position {rows[0].position}" + (f": {fields_changed(*rows)}" if len(rows) == 2 else ""))
        lines += [f"{'-' if row.side == 'old' else '+'} {'LATE ' if row.stream == 'late' else ''}{row.text}" for row in rows]
    return lines
