"""The upstream end where its files refuse: what is not on its disk is not acknowledged."""

import base64
import errno
import io
import json
import os
import sys

import msgpack
import pytest

from edge.books import SCHEMA as LEDGER
from edge.codec.batches import encode_batch, encode_gap, encode_ledger
from edge.codec.receiver import Receiver
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.errors import ConfigError, DiskError
from gateway.reactor import Reactor
from gateway.receive import Receive

SCHEMA = Schema("s", (Field("v", "i64"),))


def message(first, count, schema=SCHEMA, row=lambda s: {"v": s}, **identity):
    batch = Batch.from_rows(schema, [row(s) for s in range(first, first + count)], first_sequence=first, received_ns=42)
    return encode_batch(batch, **{"gateway": "g", "epoch": 1, **identity})


@pytest.fixture
def receiving(tmp_path):
    """make(out, ...) -> a Receive whose connections are left out: put() what came, and what it does is in .done, in its order."""
    reactor, made = Reactor(), []

    def make(out="rows.jsonl", **options):
        receive = Receive(reactor, "127.0.0.1", 0, out and tmp_path / out, **options)
        receive.done = []
        receive._listener.acknowledge = lambda: receive.done.append("acknowledged")
        receive.put = lambda *payloads, topic=b"up/s": [receive._intake.add(topic, payload) for payload in payloads]
        made.append(receive)
        return receive

    yield make
    for receive in made:
        receive._listener.close()
    reactor.close()


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def refuse(number=errno.ENOSPC, *filename):
    def act(*_):
        raise OSError(number, "No space left on device", *filename)
    return act


def test_nothing_came_nothing_is_written_or_acknowledged(receiving, tmp_path):
    receive = receiving()
    receive.turn()
    assert receive.done == [] and not (tmp_path / "rows.jsonl.state").exists()


def test_rows_are_written_before_they_are_acknowledged(receiving, tmp_path):
    receive = receiving()
    receive.put(message(0, 3), message(2, 2), encode_gap("g", "s", 1, 5, 2, "quota"))
    written = []
    receive._listener.acknowledge = lambda: written.append((lines(tmp_path / "rows.jsonl"), (tmp_path / "rows.jsonl.state").exists(), len(receive._intake)))
    receive.turn()
    assert written == [([{"gateway": "g", "stream": "s", "epoch": 1, "received_ns": 42, "sequence": n, "v": n} for n in range(4)], True, 3)]
    assert len(receive._intake) == 0
    assert receive.report() == {
        "rows": 4, "json_rows": 0, "messages": 3, "bytes": len(message(0, 3)) + len(message(2, 2)) + len(encode_gap("g", "s", 1, 5, 2, "quota")), "rejected": 0,
        "duplicates": 1, "missing": 1, "gaps": 2, "ledgers": {}, "unbalanced": [],
        "streams": [{"gateway": "g", "stream": "s", "epoch": 1, "received": 4, "duplicates": 1, "missing": [(4, 1)], "announced": [(5, 2)], "given_up": 0}]}
    assert receive.summary() == f"4 rows in 3 messages, {receive.bytes:,} bytes, 1 duplicates, 1 missing, 2 gaps, 0 rejected"


@pytest.mark.parametrize("where", ["write", "flush"])
def test_rows_that_cannot_be_written_are_not_acknowledged_and_come_again(receiving, tmp_path, where):
    receive = receiving()
    receive.put(message(0, 3))
    receive.turn()
    out = receive._out

    class Full:
        def __getattr__(self, name):
            return refuse() if name == where else getattr(out, name)

    receive._out = Full()
    receive.put(message(3, 3))
    with pytest.raises(DiskError, match=r"rows\.jsonl: No space left on device; nothing more is acknowledged, make room"):
        receive.turn()
    assert receive.done == ["acknowledged"] and len(receive._intake) == 1
    again = receiving()
    again.put(message(3, 3))
    again.turn()
    assert [line["v"] for line in lines(tmp_path / "rows.jsonl")] == list(range(6))


def test_a_state_that_cannot_be_written_is_no_acknowledgement(receiving, tmp_path, monkeypatch):
    receive = receiving()
    receive.put(message(0, 3))
    monkeypatch.setattr("gateway.receive.os.replace", refuse(errno.EIO, "rows.jsonl.state"))
    with pytest.raises(DiskError, match=r"^rows\.jsonl\.state: No space"):
        receive.turn()
    assert receive.done == []
    monkeypatch.undo()
    again = receiving()
    again.put(message(0, 3))
    again.turn()
    assert [line["v"] for line in lines(tmp_path / "rows.jsonl")] == [0, 1, 2, 0, 1, 2], "without a state nobody knows that they are there"


def test_what_stands_behind_the_state_is_cut_off_and_what_is_shorter_stays(receiving, tmp_path):
    receive = receiving()
    receive.put(message(0, 3))
    receive.turn()
    receive.close()
    whole = (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "rows.jsonl").write_bytes(whole + b'{"torn')
    again = receiving()
    again.put(message(3, 1))
    again.turn()
    assert [line["v"] for line in lines(tmp_path / "rows.jsonl")] == [0, 1, 2, 3]
    again.close()
    (tmp_path / "rows.jsonl").write_bytes(b"")           # somebody took the rows away
    again = receiving()
    again.put(message(3, 2))
    again.turn()
    assert [line["v"] for line in lines(tmp_path / "rows.jsonl")] == [4]


@pytest.mark.parametrize("durable", [True, False])
def test_durable_syncs_rows_rejects_and_state_before_it_acknowledges(receiving, tmp_path, monkeypatch, durable):
    receive = receiving(durable=durable)
    receive.put(message(0, 3), b"\xff\x00")

    def synced(fd):
        receive.done.append(os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2])

    monkeypatch.setattr("gateway.receive.os.fsync", synced)
    receive.turn()
    assert receive.done == ["rows.jsonl", "rows.jsonl.rejected", "rows.jsonl.state.new", tmp_path.name, "acknowledged"][0 if durable else 4:]
    assert not [fd for fd in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{fd}") == str(tmp_path)]


def test_what_cannot_be_read_is_kept_beside_the_output_with_the_reason(receiving, tmp_path):
    told = []
    receive = receiving(on_event=lambda *event: told.append(event))
    receive.put(b"\xff\x00", message(0, 1), b"\xc1")
    receive.turn()
    kept = lines(tmp_path / "rows.jsonl.rejected")
    assert [base64.b64decode(line["payload"]) for line in kept] == [b"\xff\x00", b"\xc1"] and [line["topic"] for line in kept] == ["up/s"] * 2
    assert told == [("rejected", f"up/s: {line['reason']}") for line in kept] and receive.rejected == 2 and receive.rows == 1
    receive.close()
    again = receiving()
    again.put(b"\xff\x01")
    again.turn()                         # without anyone to tell
    assert len(lines(tmp_path / "rows.jsonl.rejected")) == 3
    again.close()


def test_on_standard_output_there_is_no_memory_unless_it_is_given(receiving, tmp_path, monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", type("Stdout", (), {"buffer": out})())
    receive = receiving(None)
    receive.put(message(0, 2), b"\xff\x00")
    receive.turn()
    receive.close()
    assert [json.loads(line)["v"] for line in out.getvalue().splitlines()] == [0, 1] and not out.closed and list(tmp_path.iterdir()) == []
    state = tmp_path / "memory"
    for first in (0, 1):
        receive = receiving(None, state_path=state)
        receive.put(message(first, 2))
        receive.turn()
    assert [json.loads(line)["v"] for line in out.getvalue().splitlines()] == [0, 1, 0, 1, 2] and msgpack.unpackb(state.read_bytes())["size"] == 0

    class Full:
        write = staticmethod(refuse())

    receive._out = Full()
    receive.put(message(9, 1))
    with pytest.raises(DiskError, match="standard output: No space"):
        receive.turn()


def test_an_output_that_cannot_be_opened_is_told_with_its_name(receiving, tmp_path):
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"rows\.jsonl: Is a directory; name another file with --out"):
        receiving()


@pytest.mark.parametrize("state", [b"", b"junk", msgpack.packb({"version": 2, "size": 0, "receiver": b""}), msgpack.packb([1]), msgpack.packb({"size": 0})])
def test_a_state_that_is_none_or_newer_refuses_the_start(receiving, tmp_path, state):
    (tmp_path / "rows.jsonl.state").write_bytes(state)
    with pytest.raises(ConfigError, match=r"rows\.jsonl\.state: not a receiver's state .*; move it away to start without memory"):
        receiving()
    (tmp_path / "rows.jsonl.state").unlink()
    (tmp_path / "rows.jsonl.state").mkdir()
    with pytest.raises(ConfigError, match="not a receiver's state"):
        receiving()


def test_a_state_of_an_earlier_run_is_one_to_go_on_with_whoever_wrote_it(receiving, tmp_path):
    """Version 1, as it stands in files that are out there."""
    receiver = Receiver()
    receiver.feed("up/s", message(0, 3))
    (tmp_path / "rows.jsonl.state").write_bytes(msgpack.packb({"version": 1, "size": 0, "receiver": receiver.dump()}))
    receive = receiving()
    receive.put(message(0, 4))
    receive.turn()
    assert [line["v"] for line in lines(tmp_path / "rows.jsonl")] == [3] and msgpack.unpackb((tmp_path / "rows.jsonl.state").read_bytes())["version"] == 1


def test_names_are_written_in_utf_8_like_what_rows_say(receiving, tmp_path):
    receive = receiving()
    receive.put(message(0, 1, Schema("s", (Field("v", "str"),)), lambda s: {"v": "è"}, gateway="gerät"))
    receive.turn()
    assert (tmp_path / "rows.jsonl").read_bytes() == '{"gateway":"gerät","stream":"s","epoch":1,"received_ns":42,"sequence":0,"v":"è"}\n'.encode()


def test_json_is_written_as_it_came_and_ledgers_are_kept_apart(receiving, tmp_path):
    receive = receiving()
    rows = [{"start": 0, "stop": 60, "kind": "stream", "name": "s", "what": what, "count": 1} for what in ("stored", "in")]
    receive.put(b'{"a":1}\n{"a":2}\n', b'{"a":3}', message(0, 2, LEDGER, rows.__getitem__), encode_ledger("g", 1, 2, {"s": {"in": 20}}), encode_ledger("g", 2, 3, {"s": {"in": 30}}))
    receive.turn()
    assert (tmp_path / "rows.jsonl").read_bytes() == b'{"a":1}\n{"a":2}\n{"a":3}\n'
    assert (receive.json_rows, receive.rows) == (3, 0)
    assert receive.ledgers == {"g": {"start_ns": 2, "stop_ns": 3, "counts": {"s": {"in": 30}}}} and "unbalanced" in receive.report()
    assert receive.summary().startswith("3 rows in 5 messages")


@pytest.mark.parametrize("fields, row, line", [
    (("v",), {"v": "x"}, b'{"gateway":"g","stream":"s","epoch":1,"received_ns":42,"sequence":7,"v":"x"}\n'),
    (("sequence",), {"sequence": "x"}, b'{"gateway":"g","stream":"s","epoch":1,"received_ns":42,"sequence":"x"}\n'),
    (("gateway", "epoch"), {"gateway": "x", "epoch": "y"}, b'{"stream":"s","received_ns":42,"sequence":7,"gateway":"x","epoch":"y"}\n'),
    (("gateway", "stream", "epoch", "received_ns"), dict.fromkeys(("gateway", "stream", "epoch", "received_ns"), "x"), b'{"sequence":7,"gateway":"x","stream":"x","epoch":"x","received_ns":"x"}\n'),
    (("gateway", "stream", "epoch", "received_ns", "sequence"), dict.fromkeys(("gateway", "stream", "epoch", "received_ns", "sequence"), "x"),
     b'{"gateway":"x","stream":"x","epoch":"x","received_ns":"x","sequence":"x"}\n'),
    ((), {}, b'{"gateway":"g","stream":"s","epoch":1,"received_ns":42,"sequence":7}\n'),
])
def test_a_line_is_identity_and_fields_and_a_field_wins_over_an_identity_of_its_name(receiving, tmp_path, fields, row, line):
    receive = receiving()
    receive.put(message(7, 1, Schema("s", tuple(Field(name, "str") for name in fields)), lambda s: row))
    receive.turn()
    assert (tmp_path / "rows.jsonl").read_bytes() == line


def test_a_stream_with_a_time_of_its_own_has_no_receive_time(receiving, tmp_path):
    receive = receiving()
    receive.put(message(0, 1, Schema("s", (Field("at", "time"),), time="at"), lambda s: {"at": 5}))
    receive.turn()
    assert list(lines(tmp_path / "rows.jsonl")[0]) == ["gateway", "stream", "epoch", "sequence", "at"]


def test_a_table_of_topics_that_is_nearly_full_is_emptied(receiving):
    receive = receiving()
    cleared = []

    class Topics:
        nearly_full = False

        def clear(self):
            cleared.append(len(receive._intake))

    class Intake:
        """The intake, with a table of topics that says when."""

        topics = Topics()

        def __init__(self, own):
            self.clear, self._own = own.clear, own

        def __len__(self):
            return len(self._own)

        def __getitem__(self, i):
            return self._own[i]

    receive.put(message(0, 1))
    own, receive._intake = receive._intake, Intake(receive._intake)
    receive.turn()
    assert cleared == []
    Topics.nearly_full = True
    own.add(b"up/s", message(1, 1))
    receive.turn()
    assert cleared == [0] and receive.rows == 2
