"""Batches as bytes: for journal and outbox, for upstream, and as JSON. The page to decode them from is docs/format/batch.md.

Equal batches give equal bytes. Decoding never takes more memory than its bound says, whatever the bytes claim, and raises
DiskError (journal, outbox) or UpstreamError (messages) on anything that is not well-formed.

Encode in one thread at a time; decoding has no shared state.
"""

import msgpack
import zstandard

from edge.codec._json_rows import json_rows
from edge.codec._payload import Malformed, batch_of, batch_of_columns, columns_of, memory_of, payload_of, text_size
from edge.codec.context import CONTEXT, FIELDS_MAX, Context, read_schema, read_version
from edge.codec.wire import Reader, unwrap, wrap
from edge.errors import DiskError, UpstreamError

__all__ = [
    "BATCH", "CONTEXT", "GAP", "LEDGER", "ROW", "Context", "Message",
    "decode_columns", "decode_message", "encode_batch", "encode_columns", "encode_gap", "encode_ledger", "json_rows", "jsonl",
]  # fmt: skip

BATCH, ROW, GAP, LEDGER = 1, 3, 4, 5       # and CONTEXT, 2
VERSION = 1                                # of a batch message
PLAIN, COMPRESSED = 1, 2                   # first byte of a journal payload
COMPRESS_BYTES_MIN = 1024
PAYLOAD_BYTES_MAX = 256 << 20              # of memory for a batch from disk: larger than any the daemon can hold
MESSAGE_BYTES_MAX = 16 << 20               # of memory for a message and what it holds
NAMES_MAX = 4096                           # entries of a ledger, and counts of an entry
U64_MAX = (1 << 64) - 1
I64_MIN, I64_MAX = -(1 << 63), (1 << 63) - 1
_COMPRESSOR = zstandard.ZstdCompressor(level=1, write_content_size=True)


# --- journal and outbox


def encode_columns(batch) -> bytes:
    """A batch without its schema. Bit-packed columns do not compress: zstd is tried on text only, and kept from 10 % on."""
    payload = payload_of(batch, PLAIN)
    if len(payload) > COMPRESS_BYTES_MIN and 2 * text_size(batch) > len(payload):
        frame = _COMPRESSOR.compress(memoryview(payload)[1:])
        if 10 * len(frame) < 9 * len(payload):
            return bytes((COMPRESSED,)) + frame
    return payload


def decode_columns(payload, schema, *, bytes_max=PAYLOAD_BYTES_MAX):
    """The batch, with its first_sequence, received_ns and clock. Raises DiskError."""
    try:
        if len(payload) == 0 or payload[0] not in (PLAIN, COMPRESSED):
            raise Malformed("unknown format byte")
        if payload[0] == PLAIN:
            return batch_of(payload, 1, schema, bytes_max)
        frame = memoryview(payload)[1:]
        size = zstandard.get_frame_parameters(frame).content_size
        if size > bytes_max // 2:
            raise Malformed("it unpacks to more bytes than allowed")
        columns = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompress(frame, max_output_size=size, allow_extra_data=False)
        return batch_of(columns, 0, schema, bytes_max - size)
    except (Malformed, zstandard.ZstdError) as error:
        raise DiskError(f"stream {schema.stream}: a stored batch of {len(payload)} bytes is damaged: {error}") from None


# --- upstream


class Message:
    """A decoded message. kind: BATCH, ROW, GAP (gateway, stream, epoch, first, count, and batch or reason), CONTEXT (context), or
    LEDGER (gateway, start_ns, stop_ns, counts)."""

    __slots__ = ("batch", "context", "count", "counts", "epoch", "first", "gateway", "kind", "reason", "start_ns", "stop_ns", "stream")

    def __init__(self, kind, gateway, *, stream=None, epoch=None, first=None, count=None, **rest):
        self.kind = kind
        self.gateway = gateway
        self.stream = stream
        self.epoch = epoch
        self.first = first
        self.count = count
        for name in ("batch", "context", "counts", "reason", "start_ns", "stop_ns"):
            setattr(self, name, rest.get(name))


def encode_batch(batch, *, gateway: str, epoch: int) -> bytes:
    """A self-contained message: [1, 1, gateway, epoch, schema, first sequence, count, received ns, clock, columns].

    In a zstd frame if that is smaller. Raises ValueError if a receiver would refuse it as too large: then send it in parts."""
    head = (gateway, epoch, batch.schema.to_dict(), batch.first_sequence, len(batch), batch.received_ns, batch.clock, columns_of(batch))
    message = b"\x9a" + bytes((BATCH, VERSION)) + b"".join(map(msgpack.packb, head))
    if len(batch.schema.fields) > FIELDS_MAX or memory_of(batch) + len(message) > MESSAGE_BYTES_MAX:
        raise ValueError(f"stream {batch.schema.stream}: {len(batch)} rows are too large for one message; send fewer at once")
    return wrap(message)


def encode_gap(gateway: str, stream: str, epoch: int, first: int, count: int, reason: str) -> bytes:
    """Announces that these sequences will never come: [4, gateway, stream, epoch, first, count, reason]."""
    return msgpack.packb([GAP, gateway, stream, epoch, first, count, reason])


def encode_ledger(gateway: str, start_ns: int, stop_ns: int, counts: dict[str, dict[str, int]]) -> bytes:
    """What became of events from start_ns to stop_ns: [5, gateway, start, stop, {stream or rule: {what: count}}]."""
    return wrap(msgpack.packb([LEDGER, gateway, start_ns, stop_ns, {name: dict(sorted(c.items())) for name, c in sorted(counts.items())}]))


def decode_message(payload, contexts=None, *, bytes_max: int = MESSAGE_BYTES_MAX, rows_max: int = 1 << 20) -> Message:
    """Any upstream message. contexts: number -> Context, for rows. Raises UpstreamError."""
    data = unwrap(payload, bytes_max)
    reader = Reader(data)
    count = reader.array(FIELDS_MAX + 3)
    kind = reader.integer(1, 0xFFFFFFFF)
    if kind >= 16:
        return _row(reader, count, kind, contexts)
    if kind not in _KINDS or count != _KINDS[kind][0]:
        raise UpstreamError(f"a message is of unknown kind {kind} with {count} elements")
    message = _KINDS[kind][1](reader, bytes_max - len(data), rows_max)
    reader.end()
    return _bounded(message)


def _bounded(message):
    if message.batch is not None and message.first + message.count > U64_MAX:
        raise UpstreamError(f"rows of {message.stream} from {message.gateway} have sequences past 64 bits")
    return message


def _row(reader, count, number, contexts):
    context = (contexts or {}).get(number)
    if context is None:
        raise UpstreamError(f"a row refers to context {number}, which has not arrived; keep the row and feed it again after the context")
    if count != len(context.columns) + 2 + (context.schema.time is None):
        raise UpstreamError(f"a row of {context.schema.stream} has {count} elements: it is not of context {number}")
    batch = context.read_row(reader)
    return _bounded(Message(ROW, context.gateway, stream=context.schema.stream, epoch=context.epoch, first=batch.first_sequence, count=1, batch=batch))


def _batch(reader, budget, rows_max):
    read_version(reader, (VERSION,))
    gateway, epoch, schema = reader.text(), reader.integer(), read_schema(reader)
    first, count, received, clock = reader.integer(), reader.integer(0, rows_max), reader.integer(I64_MIN, I64_MAX), reader.integer(0, 2)
    try:
        batch = batch_of_columns(reader.binary(), schema, count, max(budget, 0))
    except Malformed as error:
        raise UpstreamError(f"a batch of {schema.stream} from {gateway} is malformed: {error}") from None
    batch.first_sequence, batch.received_ns, batch.clock = first, received, clock
    return Message(BATCH, gateway, stream=schema.stream, epoch=epoch, first=first, count=count, batch=batch)


def _context(reader, budget, rows_max):
    context = Context.read(reader)
    return Message(CONTEXT, context.gateway, stream=context.schema.stream, epoch=context.epoch, context=context)


def _gap(reader, budget, rows_max):
    gateway, stream, epoch, first = reader.text(), reader.text(), reader.integer(), reader.integer()
    return Message(GAP, gateway, stream=stream, epoch=epoch, first=first, count=reader.integer(1, U64_MAX - first), reason=reader.text())


def _ledger(reader, budget, rows_max):
    gateway, start_ns, stop_ns = reader.text(), reader.integer(I64_MIN, I64_MAX), reader.integer(I64_MIN, I64_MAX)
    counts = {}
    for _ in range(reader.map(NAMES_MAX)):
        name = reader.text()
        counts[name] = {reader.text(): reader.integer(I64_MIN) for _ in range(reader.map(NAMES_MAX))}
    return Message(LEDGER, gateway, start_ns=start_ns, stop_ns=stop_ns, counts=counts)


_KINDS = {BATCH: (10, _batch), CONTEXT: (10, _context), GAP: (7, _gap), LEDGER: (5, _ledger)}


# --- JSON


def jsonl(batch) -> bytes:
    """json_rows, each ended by a line feed."""
    return b"".join(row + b"\n" for row in json_rows(batch))
