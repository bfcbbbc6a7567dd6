"""Whoever is on the local socket cannot end the gateway nor fill its memory."""

import json
import socket

import pytest

from gateway.control import Control
from gateway.reactor import Reactor


@pytest.fixture
def control(tmp_path):
    reactor = Reactor()
    one = Control(reactor, str(tmp_path), {"big": lambda request: "x" * 100_000})
    one.reactor = reactor
    yield one
    one.close()
    reactor.close()


def client_of(control):
    client = socket.socket(socket.AF_UNIX)
    client.connect(control._path)
    client.setblocking(False)
    return client


def turns(control, count):
    for _ in range(count):
        control.reactor.turn(0.001)


def received(control, client, lines):
    data = b""
    for _ in range(20_000):
        turns(control, 1)
        try:
            data += client.recv(1 << 20)
        except BlockingIOError:
            pass
        if data.count(b"\n") == lines:
            return [json.loads(line) for line in data.splitlines()]
    raise AssertionError(f"{len(data)} bytes and no more")


@pytest.mark.parametrize("request_line", [b"[" * 60_000, b'{"a":' * 10_000, b"\xff\0", b"{}", b'{"get": []}', b"", b"1" * 50_000])
def test_garbage_is_answered_and_the_gateway_goes_on(control, request_line):
    with client_of(control) as client:
        client.sendall(request_line + b'\n{"get": "big"}\n')
        first, second = received(control, client, 2)
        assert not first["ok"] and second["ok"]


def test_a_client_that_does_not_read_holds_one_answer_of_memory(control):
    with client_of(control) as client:
        client.sendall(b'{"get": "big"}\n' * 50)
        turns(control, 100)
        assert sum(len(out) for _, _, out in control._clients.values()) <= 110_000
        assert len(received(control, client, 50)) == 50
