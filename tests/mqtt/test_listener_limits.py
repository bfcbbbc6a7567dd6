"""What a silent, slow, fast, large or hostile client meets at the listener: it hurts nobody else."""

import random
import socket
import time

import pytest
from raw_client import CONNECT_4, Raw, connect_packet, payloads, publish, states

from edge.errors import ConfigError
from gateway.ingest import device as device_module
from gateway.ingest.listener import Listener


@states(v3="3.1.2-24", v5="3.1.2-22")
def test_a_silent_client_is_closed_after_its_keep_alive(world, make):
    listener = make(keep_alive_grace=1.5)
    silent, alive = Raw(world, connect_packet("s", 5, keep_alive=1)), Raw(world, connect_packet("a", keep_alive=1))
    start = time.monotonic()
    while not silent.ended:
        assert time.monotonic() - start < 60
        alive.send(b"\xc0\x00")
        world.for_s(0.2)
        silent.read()
    assert time.monotonic() - start >= 1.5 and silent.received == b"\xe0\x01\x8d"
    assert listener.time_outs == 1 and listener.connected == 1 and not alive.ended


def test_a_client_that_sends_no_connect_is_closed(world, make, monkeypatch):
    monkeypatch.setattr(device_module, "GREETING_S", 1.0)
    make()
    mute, drip = Raw(world, connect=None), Raw(world, connect=None)
    for byte in CONNECT_4[:-2]:
        drip.send(bytes([byte]))
        world.for_s(0.12)
        if drip.read() is None or drip.ended:
            break
    mute.expect_end()
    drip.expect_end()                                                    # bytes do not buy time, only a CONNECT does


@states(v3="3.1.0-1 3.1.2-1", v5="3.1.0-1 3.1.2-1")
@pytest.mark.parametrize("first, answer", [
    (publish(b"x"), b""), (b"\xc0\x00", b""), (b"\x10\xff\x7f", b""), (b"GET / HTTP/1.1\r\n\r\n", b""), (b"\x10\x00", b""),
    (b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01c", b"\x20\x02\x00\x01"),
    (CONNECT_4.replace(b"MQTT\x04", b"MQTT\x09"), b"\x20\x03\x00\x84\x00"),
    (CONNECT_4.replace(b"\x04\x02", b"\x04\x03"), b""),
    (b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x00\x00\x00", b"\x20\x02\x00\x02"),
])
def test_a_bad_greeting_ends_only_its_connection(world, make, first, answer):
    listener = make()
    good, bad = Raw(world, connect_packet("good")), Raw(world, connect=None)
    bad.send(first)
    bad.expect_end()
    assert bad.received == answer and not world.events
    good.send(publish(b"1", 1, 1))
    good.expect(b"\x40\x02\x00\x01")
    assert listener.malformed + listener.refused == 1
    assert world.named("malformed" if listener.malformed else "refused")


def test_a_protocol_error_names_client_and_section_and_answers_its_reason(world, make):
    listener = make(packet_bytes_max=1000)
    bad = Raw(world, connect_packet("sensor-7", 5))
    bad.send(publish(b"x", topic="a/#", v5=True))
    bad.expect_end()
    assert bad.received == b"\xe0\x01\x90"
    large = Raw(world, connect_packet("sensor-8", 5))
    large.send(publish(b"x" * 2000, v5=True))
    large.expect_end()
    assert large.received == b"\xe0\x01\x95"
    messages = world.named("malformed")
    assert "'sensor-7'" in messages[0] and "3.3.2.1" in messages[0] and "'sensor-8'" in messages[1] and listener.malformed == 2


def test_errors_are_counted_each_and_reported_once_a_client(world, make):
    listener = make()
    for _ in range(30):
        bad = Raw(world, connect_packet("same"))
        bad.send(b"\xff\x00")
        bad.expect_end()
    assert listener.malformed == 30 and len(world.named("malformed")) == 1


def test_garbage_harms_nobody(world, make):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    random_ = random.Random(seed)
    listener = make()
    good = Raw(world, connect_packet("good"))
    for i in range(150):
        bad = Raw(world, connect=None)
        if i % 2:
            bad.send(connect_packet(f"bad-{i % 7}", random_.choice((4, 5))))
        try:
            bad.send(random_.randbytes(random_.randint(1, 5000)))
            if i % 3 == 0:
                bad.send(random_.randbytes(100_000))
        except ConnectionError:
            pass
        world.turn(0)
        bad.socket.close()
    good.send(publish(b"good", 1, 77))
    good.expect(b"\x40\x02\x00\x4d")
    world.until(lambda: listener.connected == 1)
    assert b"good" in payloads(world) and listener.pool.held == 0


def test_a_client_that_does_not_read_its_acknowledgements_is_held_back_and_dropped(world, make, monkeypatch):
    monkeypatch.setattr(device_module, "STALLED_S", 1.0)
    listener = make()
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    slow.connect(("127.0.0.1", listener.port))
    slow.setblocking(False)
    slow.send(connect_packet("slow"))
    good = Raw(world, connect_packet("good"))
    block = b"".join(publish(b"", 1, i % 65535 + 1, topic="t") for i in range(20000))
    end, most, rest = time.monotonic() + 60, 0, block
    while listener.connected == 2:
        assert time.monotonic() < end
        try:
            rest = rest[slow.send(rest):] or block
        except BlockingIOError:
            pass
        except ConnectionError:
            break
        world.turn(0.001)
        world.events.clear()
        most = max([most, *(d.connection.waiting for d in listener._devices)])
    assert most < 512 << 10 and "does not read" in str(world.named("closed"))
    good.send(b"\xc0\x00")
    good.expect(b"\xd0\x00")
    slow.close()


def test_a_full_intake_holds_devices_back_and_loses_nothing(world, make):
    make()
    clients = [Raw(world, connect_packet(f"c{i}")) for i in range(3)]
    sent = [[publish(b"%d-%d" % (k, i), 1, i % 65535 + 1) for i in range(6000)] for k in range(3)]
    for client, packets in zip(clients, sent):
        client.send(b"".join(packets))
    world.until(lambda: len(world.events) == 18000)
    for k in range(3):
        assert [p for p in payloads(world) if p.startswith(b"%d-" % k)] == [b"%d-%d" % (k, i) for i in range(6000)]
        clients[k].expect(b"".join(b"\x40\x02" + (i + 1).to_bytes(2, "big") for i in range(6000)))
    assert world.listener.pool.held == 0


def test_a_fast_client_is_read_more_slowly_and_loses_nothing(world, make):
    make(rate_per_client=500)
    fast, other = Raw(world, connect_packet("fast")), Raw(world, connect_packet("other"))
    start = time.monotonic()
    fast.send(b"".join(publish(b"%d" % i) for i in range(1500)))
    other.send(publish(b"mine", 1, 1))
    other.expect(b"\x40\x02\x00\x01")
    fast.send(publish(b"last", 1, 9))
    fast.expect(b"\x40\x02\x00\x09")
    assert time.monotonic() - start >= 1.5                               # a burst of 500, then 500/s
    assert len(world.events) == 1502


def test_a_thousand_devices_and_not_one_more(world, make):
    listener = make(connections_max=1000)
    sockets = []
    for i in range(1001):
        s = socket.create_connection(("127.0.0.1", listener.port))
        s.sendall(connect_packet(f"d{i}", clean=False) + publish(b"%d" % i, 1, 1))
        sockets.append(s)
        if i % 50 == 0:
            world.turn(0)
    world.until(lambda: listener.connected == 1000 and len(world.events) == 1000 and listener.refused == 1)
    world.turn()
    for s in sockets[:1000]:
        s.settimeout(5)
        assert s.recv(8, socket.MSG_WAITALL) == b"\x20\x02\x00\x00\x40\x02\x00\x01"
    assert sockets[1000].recv(8) == b"\x20\x02\x00\x03"                  # server unavailable
    assert listener.pool.held == 0                                       # idle devices hold no buffer
    for s in sockets:
        s.close()
    world.until(lambda: listener.connected == 0)


def test_unfinished_packets_of_all_devices_together_are_bounded(world, make):
    listener = make(packet_bytes_max=1 << 20)
    clients = [Raw(world, connect_packet(f"c{i}")) for i in range(12)]
    for client in clients:
        try:
            client.send(b"\x30\xff\xff\x3e" + b"\x00\x01t" + b"x" * 1_000_000)
        except ConnectionError:
            pass
        world.turn()
    world.for_s(0.1)
    assert listener.pool.held <= listener.pool.held_max and listener.malformed >= 3 and listener.connected >= 6
    assert "memory" in str(world.named("malformed"))


def test_a_packet_limit_beyond_the_intake_is_a_configuration_error(world, make):
    with pytest.raises(ConfigError, match="do not fit the intake"):
        make(packet_bytes_max=2 << 20)


def test_a_port_in_use_is_a_configuration_error(world, make):
    port = make().port
    with pytest.raises(ConfigError, match="another port"):
        Listener(world.reactor, world.intake, host="127.0.0.1", port=port)
