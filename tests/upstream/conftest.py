import sys
import types

try:
    import edge.codec
except ImportError:
    import json

    from edge._batch import Batch
    from edge.errors import DiskError
    fake = types.ModuleType("edge.codec")

    def encode_columns(b):
        return json.dumps([b.first_sequence, b.received_ns, b.clock, b.rows()]).encode()

    def decode_columns(payload, schema):
        try:
            first, received, clock, rows = json.loads(payload)
        except ValueError as e:
            raise DiskError(str(e))
        b = Batch.from_rows(schema, rows, first_sequence=first, received_ns=received)
        b.clock = clock
        return b

    def encode_batch(b, *, gateway, epoch):
        return json.dumps(["batch", gateway, epoch, b.schema.stream, b.first_sequence, b.rows()]).encode()

    def json_rows(b):
        return [json.dumps(r).encode() for r in b.rows()]

    class RowEncoder:
        def __init__(self, gateway, epoch, schema, encode_batch):
            self.stream = schema.stream
            self.retained = None
            self.text = json.dumps(["context", gateway, epoch, schema.stream]).encode()

        def context(self, b):
            if self.retained is None:
                self.retained = self.text
                return self.text

        def encode(self, b):
            return [json.dumps(["row", self.stream, b.first_sequence + i, r]).encode() for i, r in enumerate(b.rows())]

    def encode_gap(schema, first, count, *, gateway, epoch):
        return json.dumps(["gap", gateway, epoch, schema.stream, first, count]).encode()

    for f in (encode_columns, decode_columns, encode_batch, encode_gap, json_rows, RowEncoder):
        setattr(fake, f.__name__, f)
    sys.modules["edge.codec"] = fake
    import edge
    edge.codec = fake
