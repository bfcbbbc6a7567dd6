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
        def __init__(self, schema, *, gateway, epoch):
            self.stream = schema.stream
            self.context = json.dumps(["context", gateway, epoch, schema.stream]).encode()

        def encode(self, b, row):
            return json.dumps(["row", self.stream, b.first_sequence + row, b.rows()[row]]).encode()

    for f in (encode_columns, decode_columns, encode_batch, json_rows, RowEncoder):
        setattr(fake, f.__name__, f)
    sys.modules["edge.codec"] = fake
    import edge
    edge.codec = fake
