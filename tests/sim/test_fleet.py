"""The fleet sends what the scenario says, each fault does what it says, and the truth knows."""

import datetime
import json
import time

import msgspec
import pytest

from firmware_sim.index import ACKED, MALFORMED
from firmware_sim.scenario import MALFORMED_KINDS


def _seqs(publishes):
    return [json.loads(p.payload)["seq"] for p in publishes]


def _by_client(broker):
    return {c: [(p.topic, p.payload, p.qos, p.packet_id) for p in ps] for c, ps in broker.by_client().items()}


ALL_FAULTS = "duplicates = 0.1\ndisorder = 0.1\ndrops = 0.1\nmalformed = 0.1\nskew_s = 5.0\ndrift_ppm = 100.0\nsteps = [{ at_s = 10, by_s = -60 }]"


@pytest.mark.parametrize("form", ["json", "json-nested", "msgpack"])
def test_same_seed_sends_the_same_bytes(broker, play, form):
    brokers = [broker(), broker(), broker()]
    for one, seed in zip(brokers, (1, 1, 2)):
        play(one, group=f'format = "{form}"\njitter = 0.3', faults=ALL_FAULTS, seed=seed)
    assert _by_client(brokers[0]) == _by_client(brokers[1])
    assert _by_client(brokers[0]) != _by_client(brokers[2])


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("mqtt", ["3.1.1", "5"])
def test_truth_holds_every_event_that_was_sent(broker, play, qos, mqtt):
    one = broker()
    summary, truth = play(one, count=4, group=f'qos = {qos}\nmqtt = "{mqtt}"')
    for _ in range(100):
        if len(one.published) == 120:
            break
        time.sleep(0.02)
    assert summary["sent"] == len(truth) == len(one.published) == 120
    assert summary["acknowledged"] == (120 if qos else 0) == sum(bool(f & ACKED) for f in truth.flags)
    for publish in one.published:
        body = json.loads(publish.payload)
        line = truth.line(truth.find(body["device"], body["seq"]))
        assert line.values == {"temp": body["temp"], "mode": body["mode"]} and line.time == body["ts"] * 10**6
        assert (publish.qos, publish.dup, publish.topic) == (qos, False, f"sensors/g/{body['device']}")
    assert truth.summary == summary


def test_time_runs_at_the_rate_from_the_start(broker, play):
    one = broker()
    play(one, count=1, group="rate = 4.0", seconds=10)
    times = [json.loads(p.payload)["ts"] for p in one.published]
    assert len(times) == 40 and all(abs(b - a - 250) <= 1 for a, b in zip(times, times[1:]))
    assert 1767225600000 <= times[0] < 1767225600250


def test_raw_and_iso_say_what_the_truth_says(broker, play):
    one = broker()
    _, truth = play(one, count=1, group='format = "raw"\ntime_unit = "iso"')
    for publish in one.published:
        device, seq, at, temp, mode = publish.payload.decode().split(",")
        line = truth.line(truth.find(device, int(seq)))
        assert line.values == {"temp": float(temp), "mode": mode}
        assert int(datetime.datetime.fromisoformat(at).timestamp() * 1000 + 0.5) * 10**6 == line.time


def test_refused_devices_are_an_error(broker, scenario, monkeypatch):
    from firmware_sim import fleet
    with pytest.raises(fleet.BrokerError, match="refuses g-000.: not authorized"):
        fleet.Fleet(scenario(), "127.0.0.1", broker(refuse=5).port).run(seconds=1)


def test_duplicates_are_new_packets_of_the_same_payload(broker, play):
    one = broker()
    summary, truth = play(one, faults="duplicates = 0.2")
    extra = len(one.published) - summary["sent"]
    assert 0 < extra == summary["duplicates"] == sum(truth.copies.values())
    assert not any(p.dup for p in one.published) and len({p.payload for p in one.published}) == summary["sent"]


def test_disorder_changes_the_order_and_nothing_else(broker, play):
    one = broker()
    play(one, count=1, faults="disorder = 0.2\ndisorder_depth = 2")
    seqs = _seqs(one.published)
    assert seqs != sorted(seqs) and sorted(seqs) == list(range(30))


def test_drops_use_up_numbers_and_are_not_in_the_truth(broker, play):
    one = broker()
    summary, truth = play(one, count=1, faults="drops = 0.3")
    seqs = _seqs(one.published)
    assert 0 < summary["dropped"] == 30 - len(seqs) and len(truth) == len(seqs)
    assert [truth.find("g-0000", s) >= 0 for s in range(30)] == [s in seqs for s in range(30)]


@pytest.mark.parametrize("form", ["json", "msgpack"])
@pytest.mark.parametrize("kind", MALFORMED_KINDS)
def test_malformed_payloads_are_refused_by_other_decoders(broker, play, form, kind):
    class Row(msgspec.Struct):
        device: str
        seq: int
        temp: float

    one = broker()
    summary, truth = play(one, count=1, group=f'format = "{form}"', faults=f'malformed = 1.0\nmalformed_kinds = ["{kind}"]')
    decode = {"json": msgspec.json.decode, "msgpack": msgspec.msgpack.decode}[form]
    for publish in one.published:
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
            decode(publish.payload, type=Row)
    assert summary["malformed"] == 30 == sum(bool(f & MALFORMED) for f in truth.flags)


def test_clock_faults_move_the_payloads_time(broker, play):
    one = broker()
    play(one, count=2, faults="steps = [{ at_s = 15, by_s = -3600, devices = 1 }]")
    stepped = 0
    for publishes in one.by_client().values():
        times = [json.loads(p.payload)["ts"] for p in publishes]
        stepped += any(b - a < -3_500_000 for a, b in zip(times, times[1:]))
    assert stepped == 1
    other = broker()
    play(other, count=5, faults="skew_s = 100.0")
    first = [json.loads(p[0].payload)["ts"] - 1767225600000 for p in other.by_client().values()]
    assert max(first) > 1500 or min(first) < -500


def test_storm_cuts_devices_which_send_their_backlog_later(broker, play):
    one = broker()
    summary, _ = play(one, count=6, faults="storms = [{ at_s = 10, devices = 4, for_s = 12 }]")
    assert summary["cuts"] == 4 and len(one.connects) == 10
    assert summary["acknowledged"] == summary["sent"] == 180
    assert {frozenset(_seqs(p)) for p in one.by_client().values()} == {frozenset(range(30))}


def test_buffer_gives_up_the_oldest_at_its_bound(broker, play):
    one = broker()
    summary, truth = play(one, count=1, group="buffer_max = 5", faults="storms = [{ at_s = 5, devices = 1, for_s = 20 }]")
    assert summary["evicted"] == 15 and summary["sent"] == len(truth) == 15
    assert {0, 20, 24, 29} <= set(_seqs(one.published)) and 12 not in _seqs(one.published)


@pytest.mark.parametrize("mqtt", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", [1, 2])
def test_lost_acknowledgement_is_followed_by_dup(broker, play, qos, mqtt):
    one = broker()
    summary, truth = play(one, group=f'qos = {qos}\nmqtt = "{mqtt}"', faults="lost_acks = 0.1")
    again = [p for p in one.published if p.dup]
    assert summary["lost_acks"] > 0 and again and summary["acknowledged"] == summary["sent"] == 90
    assert summary["resent"] == sum(truth.copies.values()) >= len(again)
    first = {(p.client, p.payload) for p in one.published if not p.dup}
    assert all((p.client, p.payload) in first for p in again)


def test_cut_by_the_broker_is_followed_by_dup(broker, play):
    one = broker(cut_after=5)
    summary, _ = play(one)
    assert summary["losses"] == 3 and summary["acknowledged"] == 90
    assert {json.loads(p.payload)["seq"] for p in one.published if p.dup} >= {4}


def test_withheld_acknowledgements_leave_events_unacknowledged(broker, play):
    one = broker(ack=False)
    summary, truth = play(one, group="window = 7", drain_s=0.2)
    assert summary["acknowledged"] == 0 and summary["unacknowledged"] == len(one.published) == len(truth) == 21
    assert summary["unsent"] == 90 - 21


def test_half_open_connection_stays_while_the_device_comes_back(broker, scenario):
    from firmware_sim.fleet import Fleet
    one, most = broker(), []
    fleet = Fleet(scenario(count=2, faults="half_open = [{ at_s = 0.2, devices = 1, for_s = 60 }]"), "127.0.0.1", one.port, speed=1.0)
    fleet.later(0.7, lambda: most.append(one.open_connections))
    summary = fleet.run(seconds=1.0)
    assert most == [3] and len(one.connects) == 3 and summary["acknowledged"] == summary["sent"] == 2


def test_slow_link_carries_its_bytes_per_second(broker, play):
    one = broker()
    began = time.monotonic()
    play(one, count=1, seconds=20, faults="slow_link = { devices = 1, bytes_per_s = 4000 }")
    size = sum(len(p.payload) + len(p.topic) for p in one.published)
    assert len(one.published) == 20 and time.monotonic() - began >= 0.8 * size / 4000


def test_keepalive_pings_an_idle_connection(broker, scenario):
    from firmware_sim.fleet import Fleet
    one = broker()
    Fleet(scenario(count=1, group="keepalive_s = 1\nrate = 0.01"), "127.0.0.1", one.port, speed=1.0).run(seconds=2.5)
    assert one.pings >= 1 and one.connects == ["g-0000"]


def test_nobody_listens_is_an_error_that_says_where(scenario, monkeypatch):
    from firmware_sim import fleet
    monkeypatch.setattr(fleet, "NO_PROGRESS_S", 0.3)
    with pytest.raises(fleet.BrokerError, match="127.0.0.1:1: "):
        fleet.Fleet(scenario(), "127.0.0.1", 1).run(seconds=1)
