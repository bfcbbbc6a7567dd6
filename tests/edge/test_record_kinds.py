"""Logs that somebody else has written, record by record, as edge/storage/records.py draws them: the kinds' numbers are the format of all logs that there are."""

import msgpack
import pytest
from memory_disk import MemoryDisk
from pipeline_world import START, S, World, env, modules, plain, records
from test_recovery import REPEATS

from edge.codec.batches import encode_columns
from edge.columns._batch import Batch
from edge.storage.log import Log
from edge.storage.records import between, events_of, letter, read_letter

__all__ = ["modules"]

SCHEMA, BATCH, TICK, CLOCK, SKIP, DEAD, GAP, FATE, REPEAT = range(1, 10)


@pytest.fixture
def stopped(modules):
    """A world that has stopped behind a checkpoint; then more is written to its logs."""
    world = World(modules, REPEATS).start()
    world.put(env("d1", 1, START // 10**6, 20.0), env("d2", 2, START // 10**6, 20.0), plain(1))
    world.drain()
    world.checkpoint()
    world.close()
    return world


def written(world, log, *of):
    """Records are appended to a log of a gateway that does not run: (kind, stream, first, count, payload)."""
    log = Log(world.disk, log.directory, quota_bytes_max=1 << 30)
    for record in of:
        log.append(*record)
    log.close()


def test_a_journal_is_played_by_the_numbers_of_its_kinds(stopped):
    stream, stage = stopped.stream("env"), stopped.stage("once")
    at_ns = START + 10 * S
    rows = [{"device": "d1", "seq": n, "ts": at_ns, "temp": 1.0} for n in (7, 8, 9)]
    batches = [encode_columns(Batch.from_rows(stream.schema, of, first_sequence=first, received_ns=at_ns)) for first, of in ((2, rows[:2]), (4, rows[2:]))]
    written(stopped, stopped.pipeline.journal.log,
            (SCHEMA, 500, 0, 0, msgpack.packb(stream.schema.to_dict())),
            (BATCH, 500, 2, 2, batches[0]),
            (REPEAT, 500, 4, 0, b""),
            (SKIP, 0, stage.calls + 2, 0, msgpack.packb(["once", stage.rule.identity])),
            (BATCH, 500, 4, 1, batches[1]),
            (TICK, 0, at_ns + S, 0, b""),
            (CLOCK, 0, 0, 0, msgpack.packb([5 * S])),
            (CLOCK, 0, 0, 0, msgpack.packb([100 * S, True])))
    world = stopped.start()
    assert world.recovered.replayed == 8 and not world.recovered.failed and not world.recovered.lost
    assert world.account("env").into == 9 and world.account("env").out == {"stored": 5, "dead_lettered": 0, "duplicates": 4}
    assert world.account("once").out["dead_lettered"] == 1, "the second call is not made"
    assert world.recovered.received_ns == at_ns + 106 * S
    assert [delta_ns for _, delta_ns, _ in world.core.outboxes["all"].state()["steps"]] == [5 * S], "nobody has set the clock while nobody looked"
    world.drain()
    assert len(world.of("env")) == 5
    world.assert_balanced()


def test_dead_letters_and_what_became_of_them_are_read_by_the_numbers_of_their_kinds(stopped):
    retrying = {"do": "retrying", "letters": [3], "from": [["env", 1]], "stream": 1, "first": 99, "count": 1, "crc": 0, "journal": 0, "at": 1, "who": "test"}
    rejected = letter("broken", START, topic="env/d1", payload=b"{")
    written(stopped, stopped.pipeline.dead.log,
            (DEAD, stopped.stream("env").number, 0, 5, letter("it trapped", START, rule="once", columns=b"")),
            (FATE, 0, 0, 0, msgpack.packb(retrying)),
            (DEAD, stopped.stream("env").number, 0, 1, rejected),
            (DEAD, 0, 0, 1, letter("no stream takes this topic", START, topic="x", payload=b"")))
    world = stopped.start()
    assert [letter["reason"] for letter in world.letters()] == ["it trapped", "broken", "no stream takes this topic"]
    assert world.account("env").into == 3 and world.account("env").out["dead_lettered"] == 1, "what a rule did not take is in the rule's account"
    assert world.account("(no stream)").into == 1
    last = records(world.pipeline.dead.log)[-1]
    assert (last.kind, msgpack.unpackb(last.payload)) == (FATE, {"do": "undone", "letters": [3]}), "the journal does not have it"
    world.assert_balanced()


def test_numbers_that_an_outbox_says_never_come_are_announced(modules):
    world = World(modules, REPEATS).start()
    world.put(plain(1))
    stream = world.stream("plain")
    world.core.outboxes["all"].log.append(GAP, stream.number, stream.next_sequence, 5, b"")
    stream.next_sequence += 5
    world.put(plain(2))
    world.drain()
    assert world.gaps == [("plain", 1, 5)] and sorted(world.of("plain")) == [0, 6]
    world.pipeline.jump([stream])        # as many numbers as in all logs that there are: a start tells them from rows that are gone
    world.put(plain(3))
    world.drain()
    assert world.gaps[1:] == [("plain", 7, 1 << 30)]


# --- reading

@pytest.mark.parametrize("at_a_time", [1, 1 << 20])
def test_records_come_each_once_and_in_order_however_many_are_read_at_a_time(at_a_time):
    log = Log(MemoryDisk(), "log", quota_bytes_max=1 << 20)
    for n in range(7):
        log.append(BATCH, 1, n, 1, b"x")
    read = log.read
    log.read = lambda position: read(position, at_a_time)
    for start, stop, there in ((0, None, range(7)), (2, 5, range(2, 5)), (6, 7, [6]), (7, None, []), (3, 3, [])):
        assert [r.position for r in between(log, start, stop)] == list(there)


def test_events_that_were_dropped_do_not_count_unless_they_are_asked_for():
    log = Log(MemoryDisk(), "log", quota_bytes_max=1 << 20)
    for n in range(3):
        log.append(BATCH, 1, n, 1, b"x")
    log.sync()
    log.drop_before(2)
    log.append(GAP, 2, 0, 9, b"")
    log.append(SCHEMA, 2, 0, 0, b"")
    assert events_of(log, [[0, None]]) == [(BATCH, 1, 2, 1), (GAP, 2, 0, 9)]
    assert events_of(log, [[0, None]], dropped=True) == [(BATCH, 1, 0, 3), (GAP, 2, 0, 9)]


def test_a_dead_letter_keeps_64_kib_of_a_payload_and_says_how_much_there_was():
    whole = bytes(64 << 10)
    assert read_letter(letter("long", 1, payload=whole)) == {"reason": "long", "received_ns": 1, "payload": whole}
    assert read_letter(letter("longer", 1, payload=whole + b"x")) == {"reason": "longer", "received_ns": 1, "payload": whole, "size": (64 << 10) + 1}
