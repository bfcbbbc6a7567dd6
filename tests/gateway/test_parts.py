"""The daemon's small parts: reactor, clock, local socket, log, systemd."""

import io
import json
import os
import socket
import threading

import pytest

from edge.errors import ConfigError, RuleError, TidegateError
from gateway.clock import EARLIEST_NS, TRUSTED, UNSYNCHRONISED, Clock
from gateway.control import REQUEST_BYTES_MAX, Control, ask
from gateway.logs import BURST, REPEAT_S, Log
from gateway.notify import Notifier
from gateway.reactor import Reactor

HOUR = 3600 * 10**9


def test_the_reactor_runs_timers_in_order_and_not_after_cancel():
    reactor, ran = Reactor(), []
    reactor.later(0.002, lambda: ran.append("second"))
    reactor.later(0.001, lambda: ran.append("first"))
    reactor.later(0.001, lambda: ran.append("never")).cancel()
    while len(ran) < 2:
        reactor.turn(1)
    assert ran == ["first", "second"]
    reactor.close()


def test_the_reactor_takes_calls_from_other_threads():
    reactor, ran = Reactor(), []
    threading.Thread(target=lambda: reactor.soon(lambda: ran.append(threading.current_thread()))).start()
    while not ran:
        reactor.turn(5)
    assert ran == [threading.current_thread()]
    reactor.close()
    with open("/dev/null", "wb"):        # it may have the number that the pipe had
        reactor.soon(ran.clear)
    assert ran


def test_a_forgotten_descriptor_is_not_called_in_the_same_turn():
    reactor, ran = Reactor(), []
    pairs = [socket.socketpair() for _ in range(2)]
    for ours, theirs in pairs:
        theirs.send(b"x")
        others = [p[0].fileno() for p in pairs if p[0] is not ours]
        reactor.watch(ours.fileno(), lambda fd=ours.fileno(), o=others: (ran.append(fd), [reactor.forget(x) for x in o]))
    reactor.turn(1)
    assert len(ran) == 1
    reactor.close()


class Hands:
    """A wall clock and a boot clock that are set by hand."""

    def __init__(self, wall):
        self.wall, self.boot = wall, 5

    def clock(self, floor=0):
        return Clock(floor, wall_ns=lambda: self.wall, boot_ns=lambda: self.boot)

    def go(self, ns):
        self.wall += ns
        self.boot += ns


def test_the_receive_clock_follows_a_step_once_and_only_when_told():
    hands = Hands(EARLIEST_NS + HOUR)
    clock = hands.clock()
    hands.go(100)
    hands.wall += 14 * 24 * HOUR
    assert clock.now_ns() == EARLIEST_NS + HOUR + 100
    assert clock.step() == 14 * 24 * HOUR and clock.step() == 0
    assert clock.now_ns() == hands.wall


def test_a_boot_in_1970_goes_on_from_the_floor_marked_unsynchronised_until_the_clock_is_set():
    floor = EARLIEST_NS + 100 * HOUR
    hands = Hands(1000)
    clock = hands.clock(floor)
    assert clock.quality == UNSYNCHRONISED and clock.now_ns() == floor
    hands.go(HOUR)
    assert clock.step() == 0 and clock.now_ns() == floor + HOUR
    hands.wall = floor + 50 * HOUR
    assert clock.step() == 49 * HOUR and clock.quality == TRUSTED


def test_drift_is_not_a_step():
    hands = Hands(EARLIEST_NS + HOUR)
    clock = hands.clock()
    hands.wall += 400_000_000
    assert clock.step() == 0


@pytest.fixture
def control(tmp_path):
    reactor = Reactor()

    def fails(request):
        raise RuleError("no such rule")

    c = Control(reactor, str(tmp_path), {"status": lambda r: {"name": "g", "echo": r.get("x")}, "fail": fails})
    running = True

    def loop():
        while running:
            reactor.turn(0.05)

    thread = threading.Thread(target=loop)
    thread.start()
    yield tmp_path
    running = False
    thread.join()
    c.close()
    reactor.close()


def test_the_daemon_answers_on_its_socket(control):
    assert ask(str(control), "status", x="y" * 50000) == {"name": "g", "echo": "y" * 50000}
    with pytest.raises(TidegateError, match="no such rule"):
        ask(str(control), "fail")
    with pytest.raises(TidegateError, match="unknown request; known are status"):
        ask(str(control), "nonsense")
    assert os.stat(control / "tidegate.sock").st_mode & 0o777 == 0o600


def test_garbage_on_the_socket_harms_nobody(control):
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(control / "tidegate.sock"))
    client.sendall(b"\xff[[[\n")
    assert json.loads(client.recv(4096))["ok"] is False
    try:
        client.sendall(b"x" * (4 * REQUEST_BYTES_MAX))
        assert client.recv(10) == b""
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert ask(str(control), "status")["name"] == "g"


def test_no_daemon_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="is it running"):
        ask(str(tmp_path), "status")


def test_a_log_holds_repeats_back_and_counts_them():
    now, out = [0.0], io.StringIO()
    log = Log(stream=out, clock=lambda: now[0])
    for i in range(BURST + 10):
        log("listener", f"refused: device {i}")
    log("disk", "full")
    assert len(out.getvalue().splitlines()) == BURST + 1
    now[0] += REPEAT_S + 1
    log("listener", "refused: again")
    assert "held_back=10" in out.getvalue().splitlines()[-1]


def test_a_json_log_line_is_json():
    out = io.StringIO()
    Log("json", out).error("rule", "trapped", rule="hot")
    line = json.loads(out.getvalue())
    assert (line["level"], line["part"], line["rule"]) == ("error", "rule", "hot")


def test_systemd_hears_ready_and_watchdog(tmp_path):
    path = str(tmp_path / "notify")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(path)
    notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "4000000"})
    assert notifier.watchdog_s == 2.0
    notifier.ready("up")
    assert manager.recv(100) == b"READY=1\nSTATUS=up"
    manager.close()
    notifier.alive()
    assert Notifier({}).watchdog_s is None
