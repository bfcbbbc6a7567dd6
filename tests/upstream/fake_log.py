"""An outbox log in memory, with the interface of edge.storage.log.Log that a lane reads."""

from types import SimpleNamespace


class Record:
    def __init__(self, position, kind, stream, first, count, payload):
        self.position, self.kind, self.stream, self.first, self.count, self.payload = position, kind, stream, first, count, payload


class FakeLog:
    def __init__(self):
        self.records = []
        self.tail = 0
        self.recovery = SimpleNamespace(lost=[])

    @property
    def head(self):
        return self.tail + len(self.records)

    def append(self, kind, stream, first, count, payload):
        position = self.head
        self.records.append(Record(position, kind, stream, first, count, payload))
        return position

    def read(self, position, bytes_max=1 << 20):
        out, size = [], 0
        for record in self.records[max(0, position - self.tail):]:
            if out and size + len(record.payload) > bytes_max:
                break
            size += len(record.payload)
            out.append(record)
        return out

    def drop_before(self, position):
        del self.records[:position - self.tail]
        self.tail = max(self.tail, position)
