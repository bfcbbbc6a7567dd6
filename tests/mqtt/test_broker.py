"""BrokerSource against a real Mosquitto: nothing acknowledged is lost, and nothing is acknowledged that is not committed."""

import ssl
import subprocess

import pytest

from gateway.ingest.broker import PACE_OWED_S, PACE_S, BrokerSource


def source_of(world, broker, **settings):
    settings = {"host": "127.0.0.1", "port": broker.port, "topics": [("d/#", 2)], "client_id": "gateway", "on_event": world.on_event,
                "intake": world.intake, **settings}
    source = BrokerSource(world.reactor, **settings)
    world.sources.append(source)
    return source


def payloads(world):
    return [payload for _, payload, _, _ in world.events]


def publish_lines(broker, qos, lines, topic="d/x"):
    subprocess.run(["mosquitto_pub", "-p", str(broker.port), "-q", str(qos), "-t", topic, "-l"], input="\n".join(lines).encode() + b"\n",
                   check=True, timeout=60)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_message_arrives_once_in_order(world, mosquitto, version, qos):
    broker = mosquitto()
    source = source_of(world, broker, version=version)
    world.until(lambda: source.connected)
    world.for_s(0.1)
    lines = [f"message {i}" for i in range(3000)]
    publish_lines(broker, qos, lines)
    world.until(lambda: len(world.events) >= len(lines))
    world.for_s(0.1)
    assert payloads(world) == [line.encode() for line in lines]
    assert {topic for topic, *_ in world.events} == {b"d/x"} and {flags & 3 for *_, flags in world.events} == {qos}


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_not_acknowledged_comes_again(world, mosquitto, qos):
    broker = mosquitto()
    source = source_of(world, broker)
    world.until(lambda: source.connected)
    world.for_s(0.1)
    world.committing = False
    lines = [f"{i}" for i in range(500)]
    publish_lines(broker, qos, lines)
    world.until(lambda: len(world.intake) == 500)
    source.close()                                   # the process dies before the commit
    world.sources.clear()
    world.intake.clear()
    world.committing = True
    source_of(world, broker)
    world.until(lambda: len(world.events) >= 500)
    assert payloads(world) == [line.encode() for line in lines]
    world.for_s(0.2)
    assert len(world.events) == 500


def test_nothing_is_acknowledged_before_acknowledge(world, mosquitto):
    broker = mosquitto()
    source = source_of(world, broker, receive_maximum=10)
    world.until(lambda: source.connected)
    world.for_s(0.1)
    world.committing = False
    publish_lines(broker, 1, [str(i) for i in range(100)])
    world.until(lambda: len(world.intake) >= 10)
    world.for_s(0.3)
    assert len(world.intake) == 10                   # the window is full, for no PUBACK has left
    world.committing = True
    world.until(lambda: len(world.events) == 100)


def test_a_broker_restart_loses_nothing(world, mosquitto):
    broker = mosquitto()
    source = source_of(world, broker)
    world.until(lambda: source.connected)
    world.for_s(0.1)
    publish_lines(broker, 1, [f"a{i}" for i in range(200)])
    world.until(lambda: len(world.events) == 200)
    world.committing = False
    publish_lines(broker, 1, [f"b{i}" for i in range(200)])
    world.until(lambda: len(world.intake) == 200)
    broker.stop()                                    # 200 are with us, not acknowledged, and the disk is slow
    world.until(lambda: not source.connected)
    world.committing = True
    world.turn()
    broker.start()
    world.until(lambda: source.connected)
    publish_lines(broker, 1, [f"c{i}" for i in range(200)])
    world.until(lambda: payloads(world).count(b"c199") == 1)
    seen = payloads(world)
    assert {line for line in seen} == {f"{x}{i}".encode() for x in "abc" for i in range(200)}
    assert not [p for p in seen if p[:1] == b"a" and seen.count(p) > 1]      # acknowledged: not sent again
    assert source.connects == 2 and world.named("disconnected")


def test_a_full_intake_stops_the_reading_and_loses_nothing(world, mosquitto):
    broker = mosquitto()
    source = source_of(world, broker)
    world.until(lambda: source.connected)
    world.for_s(0.1)
    lines = [f"{i:06}" for i in range(12000)]        # three times what the intake takes
    publish_lines(broker, 0, lines)
    world.until(lambda: len(world.events) == len(lines))
    assert payloads(world) == [line.encode() for line in lines]


@pytest.mark.parametrize("qos, pace_s", [(0, PACE_S), (1, PACE_OWED_S)])
def test_a_paced_source_looks_more_often_while_acknowledgements_are_owed(world, mosquitto, monkeypatch, qos, pace_s):
    broker = mosquitto()
    source = source_of(world, broker)
    world.until(lambda: source.connected)
    world.for_s(0.1)
    world.committing = False
    publish_lines(broker, qos, ["a"])
    world.until(lambda: len(world.intake) == 1)
    waits = []
    monkeypatch.setattr(world.reactor, "later", lambda delay_s, fn: waits.append(delay_s))
    source._paced = True
    source._paced_read()
    monkeypatch.undo()
    assert waits == [pace_s]
    world.committing = True
    world.until(lambda: len(world.events) == 1)


def test_a_disk_that_does_not_answer_holds_the_broker_back(world, mosquitto):
    broker = mosquitto()
    source = source_of(world, broker)
    world.until(lambda: source.connected)
    world.for_s(0.1)
    world.committing, world.intake.closed = False, True
    publish_lines(broker, 1, ["a", "b"])
    world.for_s(0.3)
    assert len(world.intake) == 0 and len(world.reactor._soon) <= 2      # it waits without piling up work
    world.committing, world.intake.closed = True, False
    world.until(lambda: payloads(world) == [b"a", b"b"])


def test_tls(world, mosquitto, certificates):
    ca, cert, key = certificates
    broker = mosquitto(listener=f"certfile {cert}\nkeyfile {key}\ncafile {ca}")
    source = source_of(world, broker, tls=ssl.create_default_context(cafile=ca))
    world.until(lambda: source.connected)
    world.for_s(0.1)
    lines = [f"{i}" * 50 for i in range(2000)]
    subprocess.run(["mosquitto_pub", "-p", str(broker.port), "--cafile", ca, "-q", "1", "-t", "d/x", "-l"],
                   input="\n".join(lines).encode() + b"\n", check=True, timeout=60)
    world.until(lambda: len(world.events) == len(lines))
    assert payloads(world) == [line.encode() for line in lines]


def test_an_unknown_certificate_is_refused_in_words(world, mosquitto, certificates):
    ca, cert, key = certificates
    broker = mosquitto(listener=f"certfile {cert}\nkeyfile {key}")
    source = source_of(world, broker, tls=ssl.create_default_context())
    world.until(lambda: source.failures)
    assert f"127.0.0.1:{broker.port}" in world.named("unreachable")[0] and "certificate" in source.last_error


@pytest.mark.parametrize("version", [4, 5])
def test_user_and_password(world, mosquitto, tmp_path, version):
    (tmp_path / "users").write_text("")
    subprocess.run(["mosquitto_passwd", "-b", tmp_path / "users", "gw", "secret"], check=True)
    broker = mosquitto(anonymous=False, settings=f"password_file {tmp_path}/users")
    wrong = source_of(world, broker, version=version, client_id="wrong", username="gw", password="guess")
    right = source_of(world, broker, version=version, username="gw", password="secret")
    world.until(lambda: right.connected and wrong.failures)
    assert "authori" in wrong.last_error.lower() and "refused" in wrong.last_error
    assert "secret" not in str(world.log) and "guess" not in str(world.log)


def test_a_message_above_the_limit_is_counted_and_does_not_stop_the_rest(world, mosquitto, tmp_path):
    broker = mosquitto()
    source = source_of(world, broker, packet_bytes_max=20_000)
    world.until(lambda: source.connected)
    world.for_s(0.1)
    for qos in "012":
        (tmp_path / "big").write_bytes(b"x" * 700_000)
        broker.publish("-q", qos, "-t", "d/big", "-f", str(tmp_path / "big"))
        broker.publish("-q", qos, "-t", "d/small", "-m", qos)
    world.until(lambda: len(world.events) == 3)
    assert payloads(world) == [b"0", b"1", b"2"] and source.skipped == 3 and source.connects == 1
    assert "packet_bytes_max" in world.named("skipped")[0]


def test_an_idle_connection_stays(world, mosquitto):
    broker = mosquitto()
    source = source_of(world, broker, keepalive_s=1)
    world.until(lambda: source.connected)
    world.for_s(4)
    assert source.connected and source.connects == 1


def test_nobody_listening_is_named_and_tried_again(world, mosquitto):
    broker = mosquitto()
    broker.stop()
    source = source_of(world, broker)
    world.until(lambda: source.failures >= 2)
    assert f"127.0.0.1:{broker.port}" in world.named("unreachable")[0] and "connection refused" in source.last_error
    broker.start()
    world.until(lambda: source.connected)
