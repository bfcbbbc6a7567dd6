"""Rows with their identity, as JSON objects a line: what `tidegate buffer export` and `tidegate rule replay` print, so that the two can be compared."""

import json

from edge.codec.batches import json_rows
from edge.times import timestamp


def identified(batch):
    """Lines: stream, received, sequence and the row's fields; a field of one of these names takes its place."""
    own = {f.name for f in batch.schema.fields}
    identity = {"stream": batch.schema.stream, "received": timestamp(batch.received_ns)}
    head = json.dumps({k: v for k, v in identity.items() if k not in own}, ensure_ascii=False, separators=(",", ":")).encode()[1:-1]
    for sequence, row in enumerate(json_rows(batch), batch.first_sequence):
        number = b"" if "sequence" in own else b'"sequence":%d' % sequence
        yield b"{" + b",".join(filter(None, (head, number, row[1:-1]))) + b"}"
