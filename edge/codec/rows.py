"""Writing rows one by one: when a new context is worth its bytes, and what a row does that no context can express.

A new context is made when the bytes it would have saved since the last one exceed that one's size, and at most one a second
of the batches' receive time. Its table is the old one, what was sent inline at least twice since, and the strings of the batch
at hand; when that is too much, the old one is dropped: what is still in use comes back.
"""

from edge.codec._rows import RowWriter
from edge.codec.batches import encode_batch
from edge.codec.context import FIELDS_MAX, STRING_BYTES_MAX, STRINGS_MAX, UNITS, Context
from edge.columns._batch import Batch
from edge.columns.schema import Schema

TABLE_BYTES_MAX = 64 << 10
INTERVAL_NS = 1_000_000_000


class RowEncoder:
    """Rows of one stream as messages. Call `context`, publish what it returns, then `encode` the same batch.

        if (message := rows.context(batch)) is not None:
            publish_retained(message)
        for message in rows.encode(batch):
            publish(message)

    `retained` is the last context's message: publish it again after each reconnect. Raises ValueError for a batch of
    another schema.
    """

    def __init__(self, gateway: str, epoch: int, schema: Schema):
        if len(schema.fields) > FIELDS_MAX:
            raise ValueError(f"stream {schema.stream} has more than {FIELDS_MAX} fields; split it to send it upstream")
        self.gateway = gateway
        self.epoch = epoch
        self.schema = schema
        self.retained = None
        self._made_ns = 0
        self._strings = []
        self._writer = None

    def context(self, batch: Batch) -> bytes | None:
        """The message of a new context if the rows of this batch need or deserve one, else None."""
        if len(batch) == 0 or (self._writer is not None and not self._deserved(batch.received_ns)):
            return None
        self._strings = self._table(batch)
        columns = list(zip(self._bases(batch), self._exponents(batch)))
        context = Context(self.gateway, self.epoch, self.schema, batch.first_sequence, batch.received_ns, batch.clock, columns, self._strings)
        index = {text.encode(): i for i, text in enumerate(self._strings)}
        self._writer = RowWriter(self.schema, context.number, batch.first_sequence, batch.received_ns, batch.clock, columns, index, STRINGS_MAX)
        self._made_ns = batch.received_ns
        self.retained = context.encode()
        return self.retained

    def _deserved(self, now_ns):
        return self._writer.wasted >= len(self.retained) and abs(now_ns - self._made_ns) >= INTERVAL_NS

    def encode(self, batch: Batch) -> list[bytes]:
        """One message a row, in order."""
        if self._writer is None:
            raise ValueError("rows need a context: call context(batch) first, and publish what it returns")
        if batch.schema != self.schema:
            raise ValueError(f"a batch of stream {batch.schema.stream} was given to the rows of {self.schema.stream}")
        messages = self._writer.write(batch)
        for i, message in enumerate(messages):
            if message is None:
                messages[i] = self._whole(batch, i)
        return messages

    def _whole(self, batch, row):
        alone = batch.select([row])
        alone.first_sequence = (batch.first_sequence + row) % (1 << 64)
        return encode_batch(alone, gateway=self.gateway, epoch=self.epoch)

    def _table(self, batch):
        """The old table and what repeated since, and this batch's strings; without the old one if that is too much."""
        new = {text.decode(): True for text, repeated in self._writer.fresh.items() if repeated} if self._writer else {}
        for field in self.schema.fields:
            if field.kind == "str":
                new.update((text, True) for text in batch.column(field.name) if text is not None)
        for known in (dict.fromkeys(self._strings, True), {}):
            table = [text for text in known | new if len(text.encode()) <= STRING_BYTES_MAX]
            if len(table) <= STRINGS_MAX and sum(len(t.encode()) for t in table) <= TABLE_BYTES_MAX:
                return table
        return []

    def _bases(self, batch):
        for field in self.schema.fields:
            valid = (v for v in batch.column(field.name) if v is not None)
            yield next(valid, 0) if field.kind in ("i64", "time") else 0

    def _exponents(self, batch):
        """What the last context's rows wanted, and what this batch wants."""
        wanted = self._writer.wanted() if self._writer else [len(UNITS) - 1 if f.kind == "time" else 0 for f in self.schema.fields]
        return RowWriter.exponents(batch, wanted)
