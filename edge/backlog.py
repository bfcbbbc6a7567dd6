"""A backlog: a stage's calls that wait for CPU, in their order, and what its output streams have to learn between them (that time went on, that the
clock was set). So a stage that is deferred does later what it would have done at once, and nothing else.

Bounds: ROWS_MAX rows, BYTES_MAX of their memory, ITEMS_MAX items. Beyond them a call with rows is not taken (add_call says so); calls without rows
(ticks) and marks always are, and the owner makes room by running the oldest item.
"""

from collections import deque

import msgpack

from edge.codec._payload import memory_of
from edge.codec.batches import decode_columns, encode_columns
from edge.errors import DiskError

ROWS_MAX = 65_536
BYTES_MAX = 8 << 20
ITEMS_MAX = 1024
CALL, TICK, CLOCK = 0, 1, 2


class Backlog:
    """Items, oldest first: (CALL, its number, the batch), (TICK, received_ns, None), (CLOCK, delta_ns, None). `rows`, `bytes`: of the batches."""

    def __init__(self):
        self._items = deque()
        self.rows = self.bytes = 0
        self._newest_ns = 0

    def __len__(self):
        return len(self._items)

    @property
    def lag_ns(self) -> int:
        """How much older the oldest batch is than the newest thing that came, by the receive clock."""
        oldest = next((batch.received_ns for _, _, batch in self._items if batch is not None), self._newest_ns)
        return max(0, self._newest_ns - oldest)

    def add_call(self, number, batch) -> bool:
        """False: there is no room for it."""
        size = memory_of(batch)
        if len(batch) and self.rows and (self.rows + len(batch) > ROWS_MAX or self.bytes + size > BYTES_MAX or len(self._items) >= ITEMS_MAX):
            return False
        self._items.append((CALL, number, batch))
        self.rows += len(batch)
        self.bytes += size
        self._newest_ns = batch.received_ns
        return True

    def add_mark(self, kind, ns):
        """TICK: the receive clock stands at ns. CLOCK: it was set by ns."""
        self._items.append((kind, ns, None))
        self._newest_ns = ns if kind == TICK else self._newest_ns

    def pop(self):
        """The oldest item."""
        item = self._items.popleft()
        if item[0] == CALL:
            self.rows -= len(item[2])
            self.bytes -= memory_of(item[2])
        return item

    # --- in a checkpoint

    def dump(self) -> bytes:
        """All of it. A batch with the watermarks that its keys had when it came: they are not in its columns."""
        return msgpack.packb([(kind, ns) if batch is None else (kind, ns, len(batch), encode_columns(batch), batch.watermark_ns, batch.watermarks())
                              for kind, ns, batch in self._items])

    @classmethod
    def load(cls, data, schema) -> "Backlog":
        """From dump(), for batches of this schema. Raises DiskError."""
        backlog = cls()
        for kind, number, *rest in items(data):
            if kind != CALL:
                backlog.add_mark(kind, number)
                continue
            _, payload, watermark_ns, watermarks = rest
            batch = decode_columns(payload, schema)
            batch.watermark_ns = watermark_ns
            batch.set_watermarks(watermarks)
            backlog._items.append((CALL, number, batch))
            backlog.rows += len(batch)
            backlog.bytes += memory_of(batch)
            backlog._newest_ns = batch.received_ns
        return backlog


def items(data) -> list:
    """What dump() wrote: [kind, ns] or [CALL, number, rows, columns, watermark_ns, [[key, watermark_ns], ...]]. Raises DiskError."""
    try:
        found = msgpack.unpackb(data, strict_map_key=False)
        if not isinstance(found, list):
            raise ValueError("no list")
        for kind, number, *rest in found:
            if not isinstance(number, int) or not -(1 << 63) <= number < 1 << 63 or kind not in (CALL, TICK, CLOCK):
                raise ValueError(f"an item of kind {kind!r}")
            if kind == CALL:
                _check(*rest)
        return found
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DiskError(f"a checkpoint's deferred calls are damaged: {error}") from None


def _check(rows, payload, watermark_ns, watermarks):
    if not isinstance(rows, int) or not isinstance(payload, bytes) or not isinstance(watermark_ns, int) or not -(1 << 63) <= watermark_ns < 1 << 63:
        raise ValueError("a call without its columns")
    for key, at_ns in watermarks:
        if not isinstance(key, bytes) or not isinstance(at_ns, int) or not -(1 << 63) <= at_ns < 1 << 63:
            raise ValueError("a key's watermark is none")
