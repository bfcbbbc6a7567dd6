"""What was stored by a clock that was not set leaves with its time put right, where that can be known, and says which it is. docs/adr/0013"""

import pytest
from edge.codec.batches import decode_message, encode_columns
from edge.columns._batch import Batch
from edge.outbox import STEPS_MAX, Outbox
from edge.stage import Stream
from edge.storage.disk import Disk
from edge.storage.log import Log
from gateway.clock import RETIMED, TRUSTED, UNSYNCHRONISED
from gateway.forward.lane import Lane
from gateway.forward.policy import Policy

from world import SCHEMA, STREAMS, FakeUpstream, rows_of

HOUR = 3600 * 10**9


@pytest.fixture
def outbox(tmp_path):
    log = Log(Disk(), f"{tmp_path}/outbox", quota_bytes_max=1 << 20)
    yield Outbox("main", log, evict=True)
    log.close()


def put(outbox, clock, received_ns=HOUR):
    """A batch of two rows. Its position."""
    first = sum(outbox.appended.values())
    batch = Batch.from_rows(SCHEMA, rows_of(first, 2), first_sequence=first, received_ns=received_ns)
    batch.clock = clock
    outbox.append(Stream(7, SCHEMA, lambda: None), batch, encode_columns(batch))
    return outbox.log.head - 1


def left(outbox):
    """(clock, received_ns) of the batches as they leave."""
    lane = Lane("main", outbox.log, STREAMS, Policy(age_ms=0, rows_max=2), gateway="g1", epoch=3, set_since=outbox.set_since)
    return [(m.batch.clock, m.batch.received_ns) for message in FakeUpstream(lane).messages(lane) for m in [decode_message(message.payload, {})]]


def test_rows_of_before_the_step_are_shifted_and_marked_and_others_are_not(outbox):
    put(outbox, UNSYNCHRONISED)
    put(outbox, TRUSTED)
    outbox.clock_set(5 * HOUR)
    put(outbox, UNSYNCHRONISED)
    put(outbox, TRUSTED)
    assert left(outbox) == [(RETIMED, 6 * HOUR), (TRUSTED, HOUR), (UNSYNCHRONISED, HOUR), (TRUSTED, HOUR)]


def test_steps_of_one_run_add_up(outbox):
    at = put(outbox, UNSYNCHRONISED)
    outbox.clock_set(5 * HOUR)
    outbox.clock_set(-HOUR)
    assert outbox.set_since(at) == (4 * HOUR, True)


def test_the_step_after_a_restart_holds_time_that_nobody_knows_and_is_no_right_time(outbox):
    put(outbox, UNSYNCHRONISED)
    outbox.begin()
    put(outbox, UNSYNCHRONISED)
    outbox.clock_set(5 * HOUR)
    assert left(outbox) == [(UNSYNCHRONISED, 6 * HOUR), (RETIMED, 6 * HOUR)]


def test_what_was_put_right_is_not_shifted_again_by_a_later_run(outbox):
    put(outbox, UNSYNCHRONISED)
    outbox.clock_set(5 * HOUR)
    outbox.begin()
    outbox.clock_set(72 * HOUR)
    assert left(outbox) == [(RETIMED, 6 * HOUR)]


def test_rows_that_gathered_before_the_step_are_of_before_it(outbox):
    outbox.gathers = lambda: True
    put(outbox, UNSYNCHRONISED)
    outbox.clock_set(5 * HOUR)
    put(outbox, TRUSTED)
    outbox.write()
    assert left(outbox) == [(RETIMED, 6 * HOUR), (TRUSTED, HOUR)]


def test_a_checkpoint_keeps_the_steps_and_where_the_run_began(outbox):
    put(outbox, UNSYNCHRONISED)
    outbox.begin()
    put(outbox, UNSYNCHRONISED)
    outbox.clock_set(5 * HOUR)
    again = Outbox("main", outbox.log, evict=True)
    again.load(outbox.state())
    assert [again.set_since(p) for p in (0, 1, 2)] == [outbox.set_since(p) for p in (0, 1, 2)] == [(5 * HOUR, False), (5 * HOUR, True), (0, True)]
    old = {name: value for name, value in outbox.state().items() if name != "since"} | {"steps": [[2, 5 * HOUR]]}       # as it was written before
    again.load(old)
    assert again.set_since(0) == (5 * HOUR, True)


def test_many_steps_take_no_more_memory_and_lose_nothing(outbox):
    at = put(outbox, UNSYNCHRONISED)
    for _ in range(STEPS_MAX + 10):
        outbox.clock_set(HOUR)
    assert outbox.set_since(at) == ((STEPS_MAX + 10) * HOUR, True) and len(outbox.state()["steps"]) == STEPS_MAX
