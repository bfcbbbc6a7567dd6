"""A broker that records, withholds and cuts; scenarios made in a line."""

import collections
import selectors
import socket
import threading

import pytest

from firmware_sim.packets import read_packets

Publish = collections.namedtuple("Publish", "client topic payload qos dup packet_id")


class FakeBroker:
    """Accepts every CONNECT and records every PUBLISH, in its own thread.

    ack: answer PUBLISH and PUBREL. cut_after: cut each client's first connection after so many PUBLISHes, unanswered.
    refuse: the CONNACK's return code.
    """

    def __init__(self, *, ack=True, cut_after=None, refuse=0):
        self.ack, self.cut_after, self.refuse = ack, cut_after, refuse
        self.published, self.connects, self.pings = [], [], 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.listener, selectors.EVENT_READ)
        self._clients = {}           # socket -> [buffer, client id, version]
        self._counts = collections.Counter()
        self.open_connections = 0
        self._running = True
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def close(self):
        self._running = False
        self._thread.join()
        for sock in [*self._clients, self.listener]:
            sock.close()

    def by_client(self):
        clients = collections.defaultdict(list)
        for publish in self.published:
            clients[publish.client].append(publish)
        return clients

    def _loop(self):
        while self._running:
            for key, _ in self._selector.select(0.02):
                if key.fileobj is self.listener:
                    sock, _ = self.listener.accept()
                    self._selector.register(sock, selectors.EVENT_READ)
                    self._clients[sock] = [bytearray(), "", 4]
                    self.open_connections += 1
                else:
                    self._read(key.fileobj)

    def _read(self, sock):
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._cut(sock)
            return
        state = self._clients[sock]
        state[0] += data
        heads = bytes(state[0])
        at = 0
        for kind, body in read_packets(state[0]):
            flags = heads[at] & 15
            at += 1 + _varint_size(len(body)) + len(body)
            if not self._packet(sock, state, kind, flags, body):
                return

    def _packet(self, sock, state, kind, flags, body):
        if kind == 1:
            state[2] = body[6]
            at = 10 + (1 + body[10] if state[2] == 5 else 0)
            size = int.from_bytes(body[at:at + 2], "big")
            state[1] = body[at + 2:at + 2 + size].decode()
            self.connects.append(state[1])
            _answer(sock, b"\x20\x03\0\0\0" if state[2] == 5 else b"\x20\x02\0" + bytes((self.refuse,)))
        elif kind == 3:
            return self._publish(sock, state, flags, body)
        elif kind == 6 and self.ack:
            _answer(sock, b"\x70\x02" + body[:2])
        elif kind == 12:
            self.pings += 1
            _answer(sock, b"\xd0\0")
        return True

    def _publish(self, sock, state, flags, body):
        size = int.from_bytes(body[:2], "big")
        topic, at, qos = body[2:2 + size].decode(), 2 + size, flags >> 1 & 3
        packet_id = int.from_bytes(body[at:at + 2], "big") if qos else 0
        at += (2 if qos else 0) + (1 if state[2] == 5 else 0)
        self.published.append(Publish(state[1], topic, body[at:], qos, bool(flags & 8), packet_id))
        self._counts[state[1]] += 1
        if self._counts[state[1]] == self.cut_after:
            self._cut(sock)
            return False
        if qos and self.ack:
            _answer(sock, (b"\x40\x02" if qos == 1 else b"\x50\x02") + packet_id.to_bytes(2, "big"))
        return True

    def _cut(self, sock):
        self._selector.unregister(sock)
        del self._clients[sock]
        sock.close()
        self.open_connections -= 1


def _answer(sock, data):
    try:
        sock.sendall(data)
    except OSError:
        pass                         # reset by the client; what it sent before still counts


def _varint_size(n):
    return 1 if n < 128 else 2 if n < 16384 else 3 if n < 2097152 else 4


@pytest.fixture
def broker():
    made = []

    def make(**options):
        made.append(FakeBroker(**options))
        return made[-1]
    yield make
    for one in made:
        one.close()


SCENARIO = """
name = "t"
seed = 5
start = 2026-01-01T00:00:00Z
speed = "max"
[[group]]
name = "g"
count = {count}
{group}
  [[group.sensors]]
  name = "temp"
  kind = "walk"
  [[group.sensors]]
  name = "mode"
  kind = "states"
  states = ["on", "off"]
  [group.faults]
{faults}
"""


@pytest.fixture
def scenario(tmp_path):
    """scenario(count=.., group="toml lines", faults="toml lines") -> Scenario"""
    from firmware_sim.scenario import load_scenario

    def make(count=3, group="", faults=""):
        path = tmp_path / "scenario.toml"
        path.write_text(SCENARIO.format(count=count, group=group, faults=faults))
        return load_scenario(path)
    return make


@pytest.fixture
def play(scenario, tmp_path):
    """play(broker, ..) -> (summary, TruthIndex): a whole run."""
    from firmware_sim.fleet import Fleet
    from firmware_sim.index import TruthIndex
    from firmware_sim.truth import TruthWriter

    def make(broker, *, count=3, group="", faults="", seconds=30, events=None, seed=None, drain_s=5.0):
        path = tmp_path / "truth.jsonl"
        fleet = Fleet(scenario(count, group, faults), "127.0.0.1", broker.port, truth=TruthWriter(path), seed=seed)
        summary = fleet.run(seconds=None if events else seconds, events=events, drain_s=drain_s)
        return summary, TruthIndex(path)
    return make
