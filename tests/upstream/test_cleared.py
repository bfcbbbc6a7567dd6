"""What stands in an outbox leaves once its cause is durable in the journal, and not before: else a power cut would make something else of its numbers."""

import pytest
from edge.codec.batches import encode_columns
from edge.columns._batch import Batch
from edge.outbox import Outbox
from edge.stage import Stream
from edge.storage.disk import Disk
from edge.storage.log import Log
from gateway.forward.lane import Lane
from gateway.forward.policy import Policy

from world import SCHEMA, STREAMS, FakeUpstream, rows_of


class Fed:
    """A lane over an outbox on a disk, as the core wires them."""

    def __init__(self, folder, records=0):
        self.log = Log(Disk(), f"{folder}/outbox", quota_bytes_max=1 << 20, segment_bytes_max=1 << 12, on_evict=lambda *gap: self.outbox.on_evict(*gap))
        self.outbox = Outbox("main", self.log, evict=True)
        self.lane = Lane("main", self.log, STREAMS, Policy(age_ms=0, rows_max=10), gateway="g1", epoch=3, cleared=lambda: self.outbox.cleared)
        self.outbox.gathers, self.lane.on_read = lambda: not self.lane.reads, self.outbox.write
        self.stream = Stream(7, SCHEMA, lambda: None)
        self.put(records)
        self.lane.wake(self.outbox.take_fresh())
        self.upstream = FakeUpstream(self.lane)

    def put(self, records):
        for _ in range(records):
            first = sum(self.outbox.appended.values())
            batch = Batch.from_rows(SCHEMA, rows_of(first, 10), first_sequence=first)
            self.outbox.append(self.stream, batch, encode_columns(batch))

    def sent(self):
        return sum(message.rows for message in self.upstream.drain(self.lane))


@pytest.fixture
def fed(tmp_path):
    made = []

    def make(records):
        made.append(Fed(tmp_path, records))
        return made[0]

    yield make
    made[0].log.close()


def test_rows_wait_until_they_are_cleared(fed):
    box = fed(3)
    assert box.sent() == 30
    box.put(2)
    assert box.sent() == 0 and box.lane.acked_before == box.log.head - 2
    box.lane.wake(box.outbox.take_fresh())
    assert box.sent() == 20 and box.lane.rows_waiting == 0


def test_so_do_those_of_a_backlog(fed):
    box = fed(0)
    box.lane.disconnected()
    box.put(600)
    box.lane.wake(box.outbox.take_fresh())
    box.put(1)                               # on connecting it is written into one record with those that gathered
    box.lane.connected()
    early = box.sent()
    assert 0 < early <= 6000
    box.lane.wake(box.outbox.take_fresh())
    assert early + box.sent() == 6010 and box.lane.acked_before == box.log.head


def test_what_gathered_in_memory_and_was_cleared_leaves_on_connecting(fed):
    box = fed(0)
    box.lane.disconnected()
    box.put(5)
    box.lane.wake(box.outbox.take_fresh())
    box.lane.connected()
    assert box.sent() == 50


def test_a_backlog_whose_rows_are_evicted_before_they_are_cleared_loses_no_other(fed):
    box = fed(0)
    box.lane.disconnected()
    for _ in range(1000):
        box.put(1)
        box.outbox.write()
    while box.log.give_way():                # all but the last segment
        pass
    box.lane.connected()
    assert box.outbox.cleared < box.log.tail and box.sent() == 0
    box.lane.wake(box.outbox.take_fresh())
    assert box.sent() == 10_000 - box.outbox.evicted[7] and box.outbox.evicted[7] > 0
