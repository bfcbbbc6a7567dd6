"""`tidegate buffer tail`: a log's newest rows as JSON lines, and those that come, read beside the gateway that writes it."""

import sys
import time
from collections import deque

from edge.errors import ConfigError, DiskError
from edge.storage.records import SCHEMA
from gateway.inspection.store import plain

POLL_S = 0.5


def tail(store, arguments, rows, out=None, wait=lambda: time.sleep(POLL_S)) -> int:
    """rows: record kind -> fn(store, record, arguments) -> lines. wait: between two looks with --follow; a test's may raise to end it."""
    if arguments.lines < 0:
        raise ConfigError("--lines must be 0 or more")
    if arguments.log == "checkpoints":
        raise ConfigError("checkpoints hold no rows; tail journal, outbox/LANE or dead")
    out = out or sys.stdout.buffer
    reader = store.log(arguments.log)
    for line in _newest(store, reader, arguments, rows):
        out.write(line + b"\n")
    out.flush()
    position = reader.head
    while arguments.follow:
        wait()
        reader = store.log(arguments.log)
        if reader.tail > position:
            print(f"tidegate: positions {position} to {reader.tail - 1} went before they were read", file=sys.stderr)
        if reader.head < position:
            print("tidegate: the log was cut back, as a start does after a crash; what follows may come again", file=sys.stderr)
        for segment in reader.segments:
            if segment.end > min(position, reader.head):
                for line in _lines(store, reader.records(segment, position), arguments, rows):
                    out.write(line + b"\n")
        out.flush()
        position = reader.head
    return 0


def _newest(store, reader, arguments, rows):
    """The last lines, the oldest of them first."""
    found = deque()
    for segment in reversed(reader.segments):
        if len(found) >= arguments.lines:
            break
        newest = deque(_lines(store, reader.records(segment), arguments, rows), maxlen=arguments.lines - len(found))
        found.extendleft(reversed(newest))
    return found


def _lines(store, records, arguments, rows):
    for record in records:
        try:
            if record.kind == SCHEMA:
                store.learn(record)
            elif record.kind in rows and arguments.stream in (None, store.stream(record.stream)):
                yield from rows[record.kind](store, record, arguments)
        except DiskError as error:
            print(f"tidegate: passed over: position {record.position}: {plain(error)}", file=sys.stderr)
