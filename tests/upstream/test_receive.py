"""The upstream end, and the whole way: log, lane, connection, receiver, lines."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest
from edge.codec.batches import encode_ledger
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.errors import ConfigError
from edge.storage.disk import Disk
from edge.storage.log import Log
from edge.storage.records import GAP, SCHEMA
from gateway import client
from gateway.reactor import Reactor
from gateway.receive import Receive

from world import STREAMS, Source, connect, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def reactor(monkeypatch):
    monkeypatch.setattr(client, "BACKOFF_MIN_S", 0.05)
    monkeypatch.setattr(client, "BACKOFF_MAX_S", 0.2)
    r = Reactor()
    yield r
    r.close()


def real_log(folder, name="outbox"):
    preamble = [(SCHEMA, number, msgpack.packb(schema.to_dict())) for number, schema in STREAMS.items()]
    return Log(Disk(), str(folder / name), quota_bytes_max=64 << 20, preamble=lambda: preamble)


def take_turns(reactor, receive, holds):
    run(reactor, lambda: receive.turn() or holds())


def lines_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def identities(path):
    return [(line["stream"], line["sequence"]) for line in lines_of(path)]


def all_of(stream, start, stop):
    return [(stream, i) for i in range(start, stop)]


def test_rows_go_the_whole_way_and_stand_in_the_output_once(reactor, tmp_path):
    out = tmp_path / "rows.jsonl"
    receive = Receive(reactor, "127.0.0.1", 0, out, durable=True)
    s, alerts = Source(log=real_log(tmp_path), age_ms=10), Source("alerts", log=real_log(tmp_path, "alerts"), age_ms=0, priority=0)
    up = connect(reactor, receive.port, s, alerts)
    for _ in range(10):
        s.put(50, records=4)
        s.put(3, stream=8)
        alerts.put(1)
        take_turns(reactor, receive, lambda: alerts.lane.rows_waiting == 0)
    take_turns(reactor, receive, lambda: s.lane.rows_waiting == 0)
    assert sorted(identities(out)) == sorted([*all_of("temps", 0, 2000), *all_of("doors", 0, 30)])
    first = next(line for line in lines_of(out) if line["sequence"] == 5 and line["stream"] == "temps")
    assert first["gateway"] == "g1" and first["epoch"] == 3 and first["v"] == 5.0 and first["id"] == "a"
    report = receive.report()
    assert report["rows"] == 2030 and report["missing"] == 0 and report["rejected"] == 0
    assert report["duplicates"] == 10            # both lanes send temps 0 to 9: one stream, one identity
    up.close()
    receive.close()


def test_crash_before_the_acknowledgement_doubles_nothing(reactor, tmp_path, monkeypatch):
    out = tmp_path / "rows.jsonl"
    receive = Receive(reactor, "127.0.0.1", 0, out)
    port = receive.port
    s = Source(age_ms=0, rows_max=10)
    up = connect(reactor, port, s)
    s.put(10, records=5)
    take_turns(reactor, receive, lambda: s.lane.rows_waiting == 0)

    def crash():
        raise KeyboardInterrupt
    monkeypatch.setattr(receive, "_save", crash)
    s.put(10, records=5)
    with pytest.raises(KeyboardInterrupt):
        take_turns(reactor, receive, lambda: False)
    assert len(lines_of(out)) > 50               # written, not remembered, not acknowledged
    with out.open("ab") as file:
        file.write(b'{"torn')
    receive.close()
    again = Receive(reactor, "127.0.0.1", port, out)
    take_turns(reactor, again, lambda: s.lane.rows_waiting == 0)
    assert identities(out) == all_of("temps", 0, 100)
    up.close()
    again.close()


def test_rows_sent_again_after_a_restart_of_both_are_dropped(reactor, tmp_path):
    out = tmp_path / "rows.jsonl"
    receive = Receive(reactor, "127.0.0.1", 0, out)
    s = Source(age_ms=0)
    state = s.lane.state()
    up = connect(reactor, receive.port, s)
    for _ in range(5):
        s.put(1)
        take_turns(reactor, receive, lambda: s.lane.rows_waiting == 0)
    up.close()
    receive.close()
    receive = Receive(reactor, "127.0.0.1", 0, out)
    again = Source(log=s.log, age_ms=0)
    again.lane.load(state)                       # a checkpoint from before anything was acknowledged
    again.sequences = s.sequences
    up = connect(reactor, receive.port, again)
    again.put(1)
    take_turns(reactor, receive, lambda: again.lane.acked_before == 6)
    assert identities(out) == all_of("temps", 0, 6)
    assert receive.report()["duplicates"] == 5
    up.close()
    receive.close()


def test_gaps_missing_rows_and_ledgers_are_reported(reactor, tmp_path):
    out = tmp_path / "rows.jsonl"
    receive = Receive(reactor, "127.0.0.1", 0, out)
    s = Source(age_ms=0)
    up = connect(reactor, receive.port, s)
    s.put(10)
    s.log.append(GAP, 7, 10, 5, b"")
    s.sequences[7] = 18                          # 10 to 14 are announced, 15 to 17 are not
    s.put(10)
    take_turns(reactor, receive, lambda: s.lane.rows_waiting == 0)
    up._link.publish("tidegate/g1/ledger", encode_ledger("g1", 1, 2, {"temps": {"in": 20}}), 1)
    up._link.flush()
    take_turns(reactor, receive, lambda: receive.ledgers)
    report = receive.report()
    assert report["gaps"] == 5 and report["missing"] == 3 and report["rows"] == 20
    assert report["streams"][0]["missing"] == [(15, 3)] and report["streams"][0]["announced"] == [(10, 5)]
    assert report["ledgers"]["g1"]["counts"] == {"temps": {"in": 20}}
    assert "3 missing" in receive.summary()
    up.close()
    receive.close()


def test_json_lanes_are_written_as_they_are(reactor, tmp_path):
    out = tmp_path / "rows.jsonl"
    receive = Receive(reactor, "127.0.0.1", 0, out)
    a, b = Source("lines", age_ms=0, encoding="jsonl"), Source("objects", age_ms=0, encoding="json")
    up = connect(reactor, receive.port, a, b)
    a.put(30)
    b.put(20)
    take_turns(reactor, receive, lambda: a.lane.rows_waiting == b.lane.rows_waiting == 0)
    assert sorted(line["v"] for line in lines_of(out)) == sorted([*map(float, range(30)), *map(float, range(20))])
    assert receive.report()["json_rows"] == 50
    up.close()
    receive.close()


def test_nonsense_is_kept_aside_and_acknowledged(reactor, tmp_path):
    out, events = tmp_path / "rows.jsonl", []
    receive = Receive(reactor, "127.0.0.1", 0, out, on_event=lambda *e: events.append(e))
    s = Source(age_ms=0)
    up = connect(reactor, receive.port, s)
    run(reactor, lambda: up.connected)
    up._link.publish("tidegate/g1/x/y", b"\xff\x00nonsense", 1)
    up._link.flush()
    s.put(5)
    take_turns(reactor, receive, lambda: s.lane.rows_waiting == 0 and receive.rejected)
    kept = lines_of(tmp_path / "rows.jsonl.rejected")
    assert len(kept) == 1 and kept[0]["topic"] == "tidegate/g1/x/y" and events[-1][0] == "rejected"
    assert identities(out) == all_of("temps", 0, 5)
    up.close()
    receive.close()


def test_own_fields_win_over_identity_names_and_receive_time_stands_where_there_is_no_other(reactor, tmp_path):
    odd = Schema("odd", (Field("stream", "str"), Field("sequence", "i64")))
    out = tmp_path / "rows.jsonl"
    receive = Receive(reactor, "127.0.0.1", 0, out)
    s = Source(age_ms=0, streams={7: odd})
    up = connect(reactor, receive.port, s)
    from edge.codec.batches import encode_columns
    from edge.storage.records import BATCH
    batch = Batch.from_rows(odd, [{"stream": "mine", "sequence": -1}] * 2, first_sequence=0, received_ns=42)
    s.log.append(BATCH, 7, 0, 2, encode_columns(batch))
    s.lane.wake(2)
    take_turns(reactor, receive, lambda: s.lane.rows_waiting == 0)
    assert lines_of(out) == [{"gateway": "g1", "epoch": 3, "received_ns": 42, "stream": "mine", "sequence": -1}] * 2
    up.close()
    receive.close()


def test_state_that_is_none_stops_the_start(reactor, tmp_path):
    (tmp_path / "rows.jsonl.state").write_bytes(b"junk")
    with pytest.raises(ConfigError, match="move it away"):
        Receive(reactor, "127.0.0.1", 0, tmp_path / "rows.jsonl")


def test_command_receives_reports_and_ends(reactor, tmp_path):
    process = subprocess.Popen([sys.executable, "-m", "gateway.cli", "receive", "--port", "0", "--out", "rows.jsonl", "--port-file", "port", "--json"],
                               cwd=tmp_path, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        run(reactor, lambda: (tmp_path / "port").exists(), 60)
        s = Source(age_ms=0)
        up = connect(reactor, int((tmp_path / "port").read_text()), s)
        s.put(100, records=20)
        run(reactor, lambda: s.lane.rows_waiting == 0)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        up.close()
    finally:
        process.kill()
    assert process.returncode == 0
    assert json.loads(out.splitlines()[-1])["rows"] == 2000
    assert identities(tmp_path / "rows.jsonl") == all_of("temps", 0, 2000)


def test_receiver_killed_and_restarted_while_the_gateway_sends(reactor, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "gateway.cli", "receive", "--port", str(port), "--out", "rows.jsonl", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    s = Source(log=real_log(tmp_path), age_ms=0, rows_max=20)
    up = connect(reactor, port, s)
    process = None
    for kill in range(3):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, env=environment)
        s.put(20, records=100)
        s.put(1, stream=8)
        target = s.lane.rows_waiting - 500 if kill < 2 else 0
        run(reactor, lambda: s.lane.rows_waiting <= target, 60)
        process.kill()
        process.wait()
    up.close()
    assert sorted(identities(tmp_path / "rows.jsonl")) == [*all_of("doors", 0, 3), *all_of("temps", 0, 6000)]

