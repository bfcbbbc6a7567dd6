"""What the tests share: a schema, records, a loop that runs until something holds."""

import time

from edge.codec.batches import BATCH as BATCH_MESSAGE
from edge.codec.batches import CONTEXT, ROW, decode_message, encode_columns
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.storage.records import BATCH
from gateway.forward.lane import Lane
from gateway.forward.policy import Policy
from gateway.forward.upstream import Upstream

from fake_log import FakeLog

SCHEMA = Schema("temps", (Field("id", "str"), Field("v", "f64"), Field("at", "time")), key="id", time="at")
OTHER = Schema("doors", (Field("id", "str"), Field("v", "f64"), Field("at", "time")), key="id", time="at")
STREAMS = {7: SCHEMA, 8: OTHER}


def rows_of(first, n, text="a"):
    return [{"id": text, "v": float(i), "at": 1_000_000_000 * i} for i in range(first, first + n)]


class Source:
    """A lane over a log of its own, and the events that go in."""

    def __init__(self, name="telemetry", log=None, dead=None, streams=STREAMS, arrived=lambda stream, rows: None, **policy):
        self.log = FakeLog() if log is None else log
        self.lane = Lane(name, self.log, streams, Policy(**policy), gateway="g1", epoch=3, dead=dead, arrived=arrived)
        self.sequences = {}

    def put(self, n=1, stream=7, records=1, wake=True, text="a"):
        for _ in range(records):
            first = self.sequences.get(stream, 0)
            batch = Batch.from_rows(STREAMS[stream], rows_of(first, n, text), first_sequence=first, received_ns=time.time_ns())
            self.log.append(BATCH, stream, first, n, encode_columns(batch))
            self.sequences[stream] = first + n
        if wake:
            self.lane.wake(n * records)
        else:
            self.lane.rows_waiting += n * records


def connect(reactor, port, *sources, **options):
    upstream = Upstream(reactor, [s.lane for s in sources], host="127.0.0.1", port=port, client_id="gateway-g1", **options)
    upstream.start()
    return upstream


def run(reactor, holds, seconds=60.0):
    """Turn the loop until holds() is true; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to hold"
        reactor.turn(0.02)


def settle(reactor, seconds=0.05):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reactor.turn(0.005)


class FakeUpstream:
    """Drives lanes without a connection, on a clock that the test sets."""

    def __init__(self, *lanes):
        self.lanes = lanes
        self.now = 1000.0
        for lane in lanes:
            lane.upstream = self
            lane.pace.worked = lambda seconds, now: None     # on this clock packing takes no time
            lane.connected()

    def pump(self):
        pass

    def messages(self, lane, most=1000):
        """All that the lane would send now."""
        out = []
        while len(out) < most and (message := lane.next(self.now, float("inf"))) is not None:
            out.append(message)
        return out

    def drain(self, lane):
        """All that the lane sends now if everything is acknowledged at once."""
        out = []
        while messages := self.messages(lane):
            out += messages
            for message in messages:
                lane.acknowledged(message)
        return out


def sequences(messages, contexts=None):
    """(stream, sequence) of each row in (topic, payload, ...) messages, in order, repeats included."""
    out, contexts = [], {} if contexts is None else contexts
    for _, payload, *_ in messages:
        message = decode_message(payload, contexts)
        if message.kind == CONTEXT:
            contexts[message.context.number] = message.context
        elif message.kind in (BATCH_MESSAGE, ROW):
            assert message.gateway == "g1" and message.epoch == 3
            out += [(message.stream, message.first + i) for i in range(message.count)]
    return out
